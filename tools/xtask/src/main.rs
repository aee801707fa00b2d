//! Development tasks. `cargo xtask help` lists them; CI runs `cargo xtask test` and nothing else.

mod build;
mod chaos;
mod compat;
mod conformance;
mod demo;
mod fuzz;
mod layers;
mod licenses;
mod reliability;
mod sim;
mod test;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Development tasks of Tepui",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build, start `tepui local`, run one task, print its output and last state, stop
    Demo,
    /// Install what the tests need (as root on Debian) and run all of them
    Test(test::Args),
    /// Build what the tests load: static init, daemons, module libraries, misbehaving modules
    Build {
        /// Build what a cluster runs, optimized, into target/release
        #[arg(long)]
        release: bool,
    },
    /// Fuzz what decodes bytes from a socket, ten minutes each or as asked
    Fuzz(fuzz::Args),
    /// Kill and stop real daemons while they work, as often as asked
    Chaos(chaos::Args),
    /// Simulate clusters that fail, as many seeds as asked
    Sim(sim::Args),
    /// Run the tests of cgroups v2 in a virtual machine that has no other version
    CgroupsV2 {
        /// A Linux image, such as /boot/vmlinuz-*-cloud-amd64 of Debian's linux-image-cloud-amd64
        kernel: PathBuf,
        /// Try the units of docs/systemd instead, with the systemd of Debian 13
        #[arg(long)]
        systemd: bool,
    },
    /// Check who depends on whom
    Layers,
    /// Check the licences and duplicate versions of all dependencies
    Licenses,
    /// Check docs/COMPATIBILITY.md, CONFORMANCE.md and RELIABILITY.md, or write them anew from their lists
    Compat {
        /// Write the page instead of comparing it
        #[arg(long)]
        write: bool,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Demo => demo::demo(),
        Task::Test(args) => test::test(&args),
        Task::Build { release: true } => build::release().map(drop),
        Task::Build { release: false } => build::dev().map(drop),
        Task::Fuzz(args) => fuzz::fuzz(&args),
        Task::Chaos(args) => chaos::chaos(&args),
        Task::Sim(args) => sim::sim(&args),
        Task::CgroupsV2 { kernel, systemd } => std::path::absolute(kernel)
            .context("the kernel's path")
            .and_then(|kernel| {
                let name = if systemd {
                    "systemd-vm.sh"
                } else {
                    "cgroup2-vm.sh"
                };
                let script = root().join("tools/e2e").join(name);
                run(Command::new("sh").arg(script).arg(kernel))
            }),
        Task::Layers => layers::check(),
        Task::Licenses => licenses::check(),
        Task::Compat { write } => compat::run(write)
            .and_then(|()| conformance::run(write))
            .and_then(|()| reliability::run(write)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace's root, wherever the command was started.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .ancestors()
        .nth(2)
        .expect("xtask lies two folders below the root")
        .to_path_buf()
}

/// The folder that cargo writes to.
fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// `cargo` in the workspace's root.
fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a command to its end; an exit status other than 0 is an error that names it.
fn run(command: &mut Command) -> Result<()> {
    let shown = format!("{command:?}").replace('"', "");
    let status = command
        .status()
        .with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}
