//! `cargo xtask test`: everything CI checks, in one order everywhere.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{
    build, cargo, compat, conformance, fuzz, layers, licenses, reliability, root, run, target_dir,
};

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tests whose name contains one of these
    filter: Vec<String>,
}

/// What some of them are for.
const IMAGES: &str = "images of a real registry";

/// Debian packages that tests use, with what goes untested without them.
const PACKAGES: &[(&str, &str, &str)] = &[
    (
        "python3-venv",
        "/usr/share/doc/python3-venv",
        "the unmodified Python client",
    ),
    (
        "python3-dev",
        "/usr/share/doc/python3-dev",
        "the unmodified Python client",
    ),
    ("gcc", "/usr/bin/gcc", "the unmodified Python client"),
    ("npm", "/usr/bin/npm", "the unmodified Node.js client"),
    ("g++", "/usr/bin/g++", "the fuzz targets under libFuzzer"),
    ("docker-registry", "/usr/bin/docker-registry", IMAGES),
    ("skopeo", "/usr/bin/skopeo", IMAGES),
    ("umoci", "/usr/bin/umoci", IMAGES),
    ("busybox-static", "/bin/busybox", IMAGES),
    ("apache2-utils", "/usr/bin/htpasswd", IMAGES),
    ("openssl", "/usr/bin/openssl", IMAGES),
    (
        "linux-perf",
        "/usr/bin/perf",
        "events of containers by perf",
    ),
];

/// Clients that others wrote, by their folder in tools/e2e, which has a `setup.sh`.
const CLIENTS: &[(&str, &str)] = &[
    ("python", "Python"),
    ("node", "Node.js"),
    ("mesos-cli", "Mesos command line"),
];

/// How many inputs each fuzz target is given here; `cargo xtask fuzz` takes minutes.
const FUZZED: u64 = 300_000;

/// A crate's own page may point at its private modules: it is a map for those who work in it.
const DOC_FLAGS: &str = "-D warnings -A rustdoc::private_intra_doc_links";

/// Runs all steps; the first that fails ends the run.
pub(crate) fn test(args: &Args) -> Result<()> {
    let started = Instant::now();
    let absent = install()?;
    if args.filter.is_empty() {
        step("format", || {
            run(cargo(&["fmt", "--all", "--check"]).stdin(Stdio::null()))
        })?;
        step("layers", layers::check)?;
        step("licenses", licenses::check)?;
        step("compatibility table", || compat::run(false))?;
        step("list of differences", || conformance::run(false))?;
        step("reliability page", || reliability::run(false))?;
    }
    step("build", || build::dev().map(drop))?;
    step("tests", || tests(&args.filter))?;
    if args.filter.is_empty() {
        step("documentation tests", || {
            run(&mut cargo(&[
                "test",
                "--doc",
                "--workspace",
                "--locked",
                "--quiet",
            ]))
        })?;
        step("clippy", || {
            run(&mut cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--locked",
                "--quiet",
                "--",
                "-D",
                "warnings",
            ]))
        })?;
        if Path::new("/usr/bin/g++").exists() {
            step("fuzz targets", || fuzz::short(FUZZED))?;
        }
        step("documentation", || {
            run(
                cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
                    .env("RUSTDOCFLAGS", DOC_FLAGS),
            )
        })?;
    }
    for what in absent {
        println!("NOT RUN: {what}");
    }
    println!("all steps passed in {} s", started.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    work().with_context(|| format!("step {name:?} failed"))?;
    println!("== {name}: {} s", started.elapsed().as_secs());
    Ok(())
}

/// The module libraries are built before: tests that load files find them by `TEPUI_MODULE_DIRS`.
fn tests(filter: &[String]) -> Result<()> {
    let nextest = quiet(Command::new("cargo").args(["nextest", "--version"]));
    let mut command = if nextest {
        cargo(&["nextest", "run", "--workspace", "--locked"])
    } else {
        println!(
            "cargo-nextest is not installed (`cargo install cargo-nextest --locked`): using cargo test"
        );
        cargo(&[
            "test",
            "--workspace",
            "--all-targets",
            "--locked",
            "--no-fail-fast",
        ])
    };
    let built = target_dir().join("debug");
    run(command
        .args(filter)
        .env("TEPUI_MODULE_DIRS", &built)
        .env("TEPUI_TEST_BIN_DIR", &built))
}

/// Installs the packages that tests need where it may; else names what cannot run.
fn install() -> Result<Vec<String>> {
    let lacking: Vec<_> = PACKAGES
        .iter()
        .filter(|(_, path, _)| !Path::new(path).exists())
        .collect();
    let root_on_debian = nix_is_root() && Path::new("/usr/bin/apt-get").exists();
    if !lacking.is_empty() && root_on_debian {
        let names: Vec<&str> = lacking.iter().map(|(name, ..)| *name).collect();
        println!("installing {}", names.join(" "));
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        run(Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&names))?;
    }
    let mut absent: Vec<String> = PACKAGES
        .iter()
        .filter(|(_, path, _)| !Path::new(path).exists())
        .map(|(name, _, what)| format!("{what}: install the Debian package {name}"))
        .collect();
    for (name, language) in CLIENTS {
        if let Err(error) = client(name) {
            absent.push(format!("the unmodified {language} client: {error:#}"));
        }
    }
    if !nix_is_root() {
        absent.push("tests of cgroups, namespaces and users: run as root".to_owned());
    }
    Ok(absent)
}

/// Puts an unmodified client under the target folder, where the tests look for it.
fn client(name: &str) -> Result<()> {
    let script = root().join("tools/e2e").join(name).join("setup.sh");
    run(Command::new(script).arg(target_dir().join(format!("{name}-client"))))
}

fn nix_is_root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|output| output.stdout == b"0\n")
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
