//! Licences of all dependencies, and how many stand in more than one version, from cargo's metadata.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use cargo_metadata::MetadataCommand;

use crate::root;

/// Licences that may be linked into an Apache-2.0 program.
const ACCEPTED: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "MIT",
    "MIT-0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "0BSD",
    "CC0-1.0",
    "BSL-1.0",
    "bzip2-1.0.6",
    "MPL-2.0",
    "NCSA",
];

/// Each dependency must offer an accepted licence; versions are counted, to be kept in sight.
pub(crate) fn check() -> Result<()> {
    let metadata = MetadataCommand::new().current_dir(root()).exec()?;
    let mut refused = Vec::new();
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in &metadata.packages {
        versions
            .entry(&package.name)
            .or_default()
            .insert(package.version.to_string());
        match &package.license {
            Some(expression) if acceptable(expression) => {}
            Some(expression) => refused.push(format!(
                "{} {}: {expression}",
                package.name, package.version
            )),
            None => refused.push(format!(
                "{} {}: no licence given",
                package.name, package.version
            )),
        }
    }
    if !refused.is_empty() {
        bail!(
            "licences that are not on the list:\n  {}",
            refused.join("\n  ")
        );
    }
    let twice: Vec<_> = versions
        .iter()
        .filter(|(_, versions)| versions.len() > 1)
        .collect();
    println!(
        "licenses: {} crates, {} of them in more than one version",
        versions.len(),
        twice.len()
    );
    Ok(())
}

/// Reads an SPDX expression of OR, AND and parentheses. `/` is an old form of OR.
fn acceptable(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    // AND binds tighter than OR in SPDX; `(A OR B) AND C` read without its parentheses asks for
    // more than the licence does in one branch and is accepted when any branch is.
    plain.split(" OR ").any(|branch| {
        branch
            .split(" AND ")
            .all(|licence| ACCEPTED.contains(&licence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_accepted_branch_is_enough() {
        assert!(acceptable("MIT OR GPL-3.0"));
        assert!(acceptable("MIT/Apache-2.0"));
        assert!(acceptable("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!acceptable("GPL-3.0"));
        assert!(!acceptable("MIT AND GPL-3.0"));
    }
}
