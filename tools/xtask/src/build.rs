//! Builds the set that runs: static init first, then everything else in one go.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{cargo, run, target_dir};

/// A built set of executables and module libraries.
pub(crate) struct Built {
    /// Where executables and libraries lie.
    pub(crate) dir: PathBuf,
}

/// Builds executables, libraries and tests in the one profile that all tests use.
pub(crate) fn dev() -> Result<Built> {
    run(cargo(&["build", "--workspace", "--all-targets", "--locked"]).env_remove("RUSTFLAGS"))?;
    static_init("dev", "debug")?;
    misbehaving()?;
    Ok(Built {
        dir: target_dir().join("debug"),
    })
}

/// Builds what `cargo xtask demo` starts.
pub(crate) fn release() -> Result<Built> {
    let packages = [
        "tepui-cli",
        "tepui-daemon",
        "tepui-host",
        "tepui-allocators",
        "tepui-authorizers",
        "tepui-leaders",
        "tepui-exporters",
        "tepui-fetchers",
        "tepui-images",
        "tepui-loggers",
        "tepui-logger-rotating",
        "tepui-isolators",
    ];
    let mut args = vec!["build", "--release", "--locked"];
    args.extend(packages.iter().flat_map(|package| ["--package", package]));
    run(&mut cargo(&args))?;
    static_init("release", "release")?;
    Ok(Built {
        dir: target_dir().join("release"),
    })
}

/// `tepui-init` runs inside containers, whose root may have no C library: it is linked statically,
/// which cargo can only do for a whole build, so it has one of its own.
fn static_init(profile: &str, folder: &str) -> Result<()> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut build = cargo(&[
        "build",
        "--package",
        "tepui-init",
        "--locked",
        "--profile",
        profile,
        "--target",
        &triple,
    ]);
    run(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let from = target_dir().join(&triple).join(folder).join("tepui-init");
    let to = target_dir().join(folder).join("tepui-init");
    // A new file, since the old one may be running.
    let fresh = to.with_extension("new");
    std::fs::copy(&from, &fresh)
        .with_context(|| format!("cannot copy {} to {}", from.display(), fresh.display()))?;
    std::fs::rename(&fresh, &to).with_context(|| format!("cannot replace {}", to.display()))
}

/// The module that is built with `panic = "abort"`, which no other crate of the workspace may be.
fn misbehaving() -> Result<()> {
    if !crate::root().join("module-abi/bad/abort").exists() {
        return Ok(());
    }
    run(cargo(&[
        "build",
        "--package",
        "tepui-bad-abort",
        "--locked",
        "--profile",
        "abort",
    ])
    .env_remove("RUSTFLAGS"))
}
