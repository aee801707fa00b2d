//! `tepui config`: check a configuration file.

use std::process::ExitCode;

/// Arguments of `tepui config`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
