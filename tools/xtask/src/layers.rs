//! Who may depend on whom, held against cargo's own metadata.
//!
//! The table is ARCHITECTURE.md's; both change in the same commit.

use anyhow::{Result, bail};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

use crate::root;

/// Crates of ours that each crate may use. Names are without `tepui-`; `*` ends a prefix.
const MAY_USE: &[(&str, &[&str])] = &[
    ("module-abi", &[]),
    ("module-proto", &["model", "proto"]),
    ("module-sdk-macros", &[]),
    (
        "module-sdk",
        &[
            "module-abi",
            "module-proto",
            "module-sdk-macros",
            "model",
            "proto",
        ],
    ),
    (
        "module-conformance",
        &["module-abi", "module-proto", "model", "proto", "host"],
    ),
    ("bad-*", &["module-sdk", "module-abi"]),
    ("model", &[]),
    ("proto", &["model"]),
    ("view", &["model", "proto"]),
    ("state-*", &["model", "proto", "view"]),
    ("executor", &["model", "proto", "view"]),
    ("host", &["module-abi", "module-proto", "model"]),
    ("link", &["model", "proto"]),
    ("http", &["model", "proto", "host"]),
    ("registry", &["model", "proto", "host"]),
    (
        "containerizer",
        &[
            "state-container",
            "host",
            "init",
            "module-proto",
            "model",
            "proto",
        ],
    ),
    ("init", &[]),
    (
        "core-master",
        &[
            "model",
            "proto",
            "view",
            "host",
            "module-proto",
            "http",
            "link",
            "registry",
            "state-master",
        ],
    ),
    (
        "core-agent",
        &[
            "model",
            "proto",
            "view",
            "host",
            "module-proto",
            "http",
            "link",
            "state-agent",
            "state-container",
            "executor",
            "containerizer",
        ],
    ),
    (
        "daemon",
        &[
            "model",
            "proto",
            "view",
            "host",
            "module-proto",
            "http",
            "link",
            "registry",
            "containerizer",
            "core-master",
            "core-agent",
            "init",
            "state-master",
            "state-agent",
            "state-container",
            "executor",
            "isolators-linux",
        ],
    ),
    ("isolators-linux", &[]),
    ("isolator-*", &["module-sdk", "isolators-linux"]),
    ("allocator-*", &["module-sdk"]),
    ("authorizer-*", &["module-sdk"]),
    ("exporter-*", &["module-sdk"]),
    ("fetcher-base", &["module-sdk"]),
    ("fetcher-*", &["module-sdk", "fetcher-base"]),
    ("image-content", &["module-sdk", "fetcher-base"]),
    ("image-*", &["module-sdk", "image-content"]),
    ("leader-*", &["module-sdk"]),
    ("logger-*", &["module-sdk"]),
    ("allocators", &["module-sdk", "allocator-*"]),
    ("authorizers", &["module-sdk", "authorizer-*"]),
    ("exporters", &["module-sdk", "exporter-*"]),
    ("fetchers", &["module-sdk", "fetcher-*"]),
    ("images", &["module-sdk", "image-*"]),
    ("leaders", &["module-sdk", "leader-*"]),
    ("loggers", &["module-sdk", "logger-*"]),
    ("isolators", &["module-sdk", "isolator-*"]),
    // Tools may use everything; nothing may use a tool.
    ("cli", &["*"]),
    ("sim", &["*"]),
    ("e2e", &["*"]),
    ("loadgen", &["*"]),
    ("fake-agent", &["*"]),
    ("fuzz", &["*"]),
    ("xtask", &["*"]),
];

const TOOLS: &[&str] = &[
    "cli",
    "sim",
    "e2e",
    "loadgen",
    "fake-agent",
    "fuzz",
    "xtask",
];

/// Crates without I/O, clocks and threads, and what they must not reach for.
const PURE: &[&str] = &["model", "view", "state-*", "executor"];
const IMPURE: &[&str] = &[
    "tokio",
    "tokio-util",
    "futures",
    "async-trait",
    "hyper",
    "nix",
    "libc",
    "rand",
    "uuid",
    "tempfile",
    "crossbeam-channel",
    "libloading",
    "redb",
    "tracing",
];

/// Checks every crate of the workspace; one line for each arrow that should not be.
pub(crate) fn check() -> Result<()> {
    let metadata = MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()?;
    let ours: Vec<&str> = metadata
        .packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        check_package(package, &ours, &mut wrong);
    }
    if wrong.is_empty() {
        println!(
            "layers: {} crates, every dependency as ARCHITECTURE.md has it",
            ours.len()
        );
        return Ok(());
    }
    bail!(
        "layers:\n  {}\nremove the dependency, or change ARCHITECTURE.md and tools/xtask/src/layers.rs",
        wrong.join("\n  ")
    )
}

fn check_package(package: &Package, ours: &[&str], wrong: &mut Vec<String>) {
    let name = short(&package.name);
    let Some((_, allowed)) = MAY_USE.iter().find(|(pattern, _)| matches(pattern, name)) else {
        wrong.push(format!("{name}: not in the table of layers"));
        return;
    };
    let pure = PURE.iter().any(|pattern| matches(pattern, name));
    // Tests may use more than the code they test.
    for dependency in package
        .dependencies
        .iter()
        .filter(|d| d.kind == DependencyKind::Normal)
    {
        let used = dependency.name.as_str();
        if ours.contains(&used) {
            let used = short(used);
            if TOOLS.contains(&used) || !allowed.iter().any(|pattern| matches(pattern, used)) {
                wrong.push(format!("{name} uses {used}"));
            }
        } else if pure && IMPURE.contains(&used) {
            wrong.push(format!("{name} is pure and uses {used}"));
        }
    }
}

fn short(name: &str) -> &str {
    name.strip_prefix("tepui-").unwrap_or(name)
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_pattern_ends_in_a_star() {
        assert!(matches("state-*", "state-master"));
        assert!(matches("*", "anything"));
        assert!(!matches("state", "state-master"));
    }
}
