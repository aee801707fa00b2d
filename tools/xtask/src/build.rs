//! Builds the set that runs: static init first, then everything else in one go.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{cargo, run, target_dir};

/// A built set of executables and module libraries.
pub(crate) struct Built {
    /// Where executables and libraries lie.
    pub(crate) dir: PathBuf,
}

/// Builds executables, libraries and tests in the one profile that all tests use. Benches are left to clippy, which
/// checks them.
pub(crate) fn dev() -> Result<Built> {
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    let mut build = cargo(&["build", "--workspace", "--locked"]);
    run(build.args(targets).env_remove("RUSTFLAGS"))?;
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
    replace(
        &target_dir().join(&triple).join(folder).join("tepui-init"),
        &target_dir().join(folder).join("tepui-init"),
    )
}

/// The module that is built with `panic = "abort"`, which no other crate of the workspace may be. Only its own crate is
/// built so, since a profile would build all that it depends on once more; under another name, since the ordinary
/// library is there already.
fn misbehaving() -> Result<()> {
    let mut build = cargo(&["rustc", "--package=tepui-bad-abort", "--lib", "--locked"]);
    build.args(["--", "-Cpanic=abort", "-Cextra-filename=-abort"]);
    run(build.env_remove("RUSTFLAGS"))?;
    let folder = target_dir().join("abort");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    replace(
        &target_dir().join("debug/deps/libtepui_bad_abort-abort.so"),
        &folder.join("libtepui_bad_abort.so"),
    )
}

/// Copies a file to where an old one may be in use: the old one stays what it is for who has opened it.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let fresh = to.with_extension("new");
    std::fs::copy(from, &fresh)
        .with_context(|| format!("cannot copy {} to {}", from.display(), fresh.display()))?;
    std::fs::rename(&fresh, to).with_context(|| format!("cannot replace {}", to.display()))
}
