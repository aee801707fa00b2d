//! A command for several agents or roles: each is tried, and what failed is told.

use std::process::ExitCode;

use anyhow::Result;

/// What became of the parts of a command.
#[derive(Default)]
pub(crate) struct Several {
    done: usize,
    failed: usize,
}

impl Several {
    /// Tells what was done for one of them, or why it was not.
    pub(crate) fn tell(&mut self, of: &str, outcome: Result<String>) {
        match outcome {
            Ok(text) => {
                self.done += 1;
                say!("{text}");
            }
            Err(error) => {
                self.failed += 1;
                eprintln!("tepui: {of}: {error:#}");
            }
        }
    }

    /// The exit status: success only if nothing failed.
    pub(crate) fn end(self) -> ExitCode {
        if self.failed == 0 {
            return ExitCode::SUCCESS;
        }
        if self.done + self.failed > 1 {
            eprintln!(
                "tepui: {} of {} failed",
                self.failed,
                self.done + self.failed
            );
        }
        ExitCode::FAILURE
    }
}
