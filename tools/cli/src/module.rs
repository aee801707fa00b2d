//! `tepui module`: write, check and list modules.

use std::process::ExitCode;

/// Arguments of `tepui module`.
#[derive(clap::Args)]
pub(crate) struct Args {}

/// Runs the command.
pub(crate) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}
