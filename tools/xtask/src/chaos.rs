//! `cargo xtask chaos`: real daemons killed and stopped, as often as asked.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::reliability::{self, Row};
use crate::{build, cargo, run, target_dir};

/// What `cargo xtask chaos` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds of each test
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Put the result into docs/RELIABILITY.md
    #[arg(long)]
    note: bool,
}

/// Runs the tests of `tools/e2e/tests/chaos`.
pub(crate) fn chaos(args: &Args) -> Result<()> {
    build::dev()?;
    let summary = target_dir().join("chaos");
    // What an earlier run left is not of this one.
    let _ = fs::remove_dir_all(&summary);
    fs::create_dir_all(&summary)?;
    let built = target_dir().join("debug");
    // Of the workspace, as it was built: a package alone has other features, and would be built again.
    let test = ["test", "--locked", "--workspace", "--test=chaos"];
    let tested = run(cargo(&test)
        .env("TEPUI_CHAOS_ROUNDS", args.rounds.to_string())
        .env("TEPUI_CHAOS_SUMMARY", &summary)
        .env("TEPUI_MODULE_DIRS", &built)
        .env("TEPUI_TEST_BIN_DIR", &built));
    if args.note {
        let command = format!("cargo xtask chaos --rounds {}", args.rounds);
        let mut rows = Vec::new();
        for promise in ["R2", "R3", "R4", "R5"] {
            let kept = tested.is_ok();
            let result = if kept {
                "kept"
            } else {
                "broken, or not run to the end"
            };
            let tried = tried(&summary, promise)?;
            rows.push(Row::new(promise, &command, tried, result.to_owned())?);
        }
        reliability::note(rows)?;
    }
    tested.context("a promise was broken")
}

/// What the tests that passed say they tried of a promise: each writes a file that begins with its name.
fn tried(summary: &Path, promise: &str) -> Result<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(summary).context("no summary of chaos")? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == promise) {
            files.push(path);
        }
    }
    files.sort();
    let texts: Result<Vec<String>, _> = files.iter().map(fs::read_to_string).collect();
    Ok(texts?.join("; "))
}
