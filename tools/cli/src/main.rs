//! The `tepui` command: a cluster on this machine, tasks, modules and configuration.

mod config_cmd;
mod module;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Run and look at a Tepui cluster.
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
    /// Write, check and list modules
    Module(module::Args),
    /// Check a configuration file
    Config(config_cmd::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Module(args) => module::run(args),
        Command::Config(args) => config_cmd::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tepui: {error:#}");
            ExitCode::FAILURE
        }
    }
}
