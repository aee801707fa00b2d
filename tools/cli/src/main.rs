//! The `tepui` command: a cluster on this machine, tasks, modules and configuration.

/// `println!` that lets the reader go: `tepui tasks | head` is no error, and a cluster whose output
/// nobody reads runs on.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod agent;
mod client;
mod config_cmd;
mod doctor;
mod exec;
mod images;
mod local;
mod logs;
mod maintenance;
mod module;
mod reserve;
mod resources;
mod roles;
mod run;
mod several;
mod show;
mod split;
mod stack;
mod stop;
mod table;
mod terminal;
mod volumes;
mod when;

use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};

/// Run and look at a Tepui cluster
#[derive(Parser)]
#[command(
    name = "tepui",
    version,
    propagate_version = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Local(local::Args),
    Run(Box<run::Args>),
    /// List tasks
    Tasks(show::TasksArgs),
    /// Print all that is known of a task, as JSON
    Inspect(show::InspectArgs),
    Agent(agent::Args),
    /// List agents
    Agents(show::ListArgs),
    /// List frameworks
    Frameworks(show::ListArgs),
    /// Print the output of a task
    Logs(logs::Args),
    Exec(exec::ExecArgs),
    Attach(exec::AttachArgs),
    /// End a framework and its tasks
    Teardown(show::TeardownArgs),
    Maintenance(maintenance::Args),
    Reserve(reserve::ReserveArgs),
    Unreserve(reserve::UnreserveArgs),
    Volumes(volumes::Args),
    /// List roles with what they have, are guaranteed and may have
    Roles(show::ListArgs),
    Quota(roles::QuotaArgs),
    Weights(roles::WeightsArgs),
    /// Write, check and list modules
    Module(module::Args),
    /// Check a configuration file
    Config(config_cmd::Args),
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Local(args) => local::run(args),
        Command::Run(args) => run::run(*args),
        Command::Tasks(args) => show::tasks(args),
        Command::Inspect(args) => show::inspect(args),
        Command::Agent(args) => agent::run(args),
        Command::Agents(args) => show::agents(args),
        Command::Frameworks(args) => show::frameworks(args),
        Command::Logs(args) => logs::run(args),
        Command::Exec(args) => exec::exec(args),
        Command::Attach(args) => exec::attach(args),
        Command::Teardown(args) => show::teardown(args),
        Command::Maintenance(args) => maintenance::run(args),
        Command::Reserve(args) => reserve::reserve(args),
        Command::Unreserve(args) => reserve::unreserve(args),
        Command::Volumes(args) => volumes::run(args),
        Command::Roles(args) => roles::roles(args),
        Command::Quota(args) => roles::quota(args),
        Command::Weights(args) => roles::weights(args),
        Command::Module(args) => module::run(args),
        Command::Config(args) => config_cmd::run(args),
        Command::Completion { shell } => completion(shell),
        Command::Man { dir } => man(&dir),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tepui: {error:#}");
        ExitCode::FAILURE
    })
}

fn completion(shell: clap_complete::Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tepui", &mut script);
    // A reader that has gone is no error.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), &script);
    Ok(ExitCode::SUCCESS)
}

fn man(dir: &std::path::Path) -> Result<ExitCode> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    clap_mangen::generate_to(Cli::command(), dir)
        .with_context(|| format!("cannot write to {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command's work on a runtime of its own.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

/// A program of the same set: it lies beside this one.
fn beside(program: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find the own executable")?;
    let path = own.with_file_name(program);
    if !path.exists() {
        bail!(
            "{} is missing: it belongs beside {}",
            path.display(),
            own.display()
        );
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
