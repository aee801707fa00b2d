//! `tepui module`: write, check and list modules.

use std::process::ExitCode;

/// Arguments of `tepui module`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_args: Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
