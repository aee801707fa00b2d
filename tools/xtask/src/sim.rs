//! `cargo xtask sim`: many seeds of the simulated cluster, optimized but with all checks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::reliability::{self, Row};
use crate::{cargo, run, target_dir};

/// What `cargo xtask sim` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of seeds
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// First seed
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Simulated minutes with faults, of each seed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// Put the result into docs/RELIABILITY.md
    #[arg(long)]
    note: bool,
}

/// Runs the seeds; one that fails is kept in tools/sim/kept with as few faults as needed.
pub(crate) fn sim(args: &Args) -> Result<()> {
    run(&mut cargo(&[
        "build",
        "--locked",
        "--package=tepui-sim",
        "--profile=fuzz",
    ]))?;
    let folder = target_dir().join("fuzz");
    let summary = folder.join("sim.json");
    // What an earlier run left is not of this one.
    let _ = fs::remove_file(&summary);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut command = std::process::Command::new(folder.join("tepui-sim"));
    let status = command
        .current_dir(crate::root())
        .args(["--seed", &args.first.to_string()])
        .args(["--seeds", &args.seeds.to_string()])
        .args(["--faulty", &(args.minutes * 60).to_string()])
        .args(["--jobs", &jobs.to_string()])
        .args(["--keep", "tools/sim/kept", "--summary"])
        .arg(&summary)
        .status()
        .context("cannot start tepui-sim")?;
    if args.note {
        reliability::note(rows(args, &summary)?)?;
    }
    if !status.success() {
        bail!("promises were broken: see tools/sim/kept");
    }
    Ok(())
}

/// What the summary says of each promise.
fn rows(args: &Args, summary: &Path) -> Result<Vec<Row>> {
    let bytes = fs::read(summary).context("tepui-sim left no summary")?;
    let summary: Value = serde_json::from_slice(&bytes)?;
    let tried = &summary["tried"];
    let number = |value: &Value| value.as_u64().unwrap_or_default();
    let fault = |kind: &str| number(&tried["faults"][kind]);
    let starts = number(&tried["starts"]);
    let killed = format!(
        "{} masters and {} agents killed",
        fault("masters killed"),
        fault("agents killed")
    );
    let all: u64 = tried["faults"]
        .as_object()
        .map_or(0, |kinds| kinds.values().map(number).sum());
    let range = format!(
        "seeds {} to {}, {} simulated minutes each, {all} faults",
        args.first,
        args.first.saturating_add(args.seeds - 1),
        args.minutes
    );
    let texts = [
        (
            "R1",
            format!("checked after each of {} events", number(&tried["events"])),
        ),
        (
            "R2",
            format!(
                "{} ends acknowledged, {starts} starts",
                number(&tried["ends"])
            ),
        ),
        ("R3", format!("{starts} starts; {killed}")),
        (
            "R4",
            format!(
                "{} decisions and {} operations on resources acknowledged; {killed}",
                number(&tried["decisions"]),
                number(&tried["operations"])
            ),
        ),
        (
            "R5",
            format!(
                "{} returns of an agent to containers, {} reboots",
                number(&tried["recoveries"]),
                fault("reboots")
            ),
        ),
    ];
    let failed = summary["failed"].as_array().cloned().unwrap_or_default();
    let mut command = format!(
        "cargo xtask sim --seeds {} --minutes {}",
        args.seeds, args.minutes
    );
    // Other seeds are another run: it does not take the place of the first ones in the table.
    if args.first > 0 {
        command += &format!(" --first {}", args.first);
    }
    let row = |(promise, what): (&str, String)| {
        let broken: Vec<String> = failed
            .iter()
            .filter(|one| one[1] == promise)
            .map(|one| one[0].to_string())
            .collect();
        let result = if broken.is_empty() {
            "kept".to_owned()
        } else {
            format!("broken by seeds {}", broken.join(", "))
        };
        Row::new(promise, &command, format!("{range}: {what}"), result)
    };
    texts.into_iter().map(row).collect()
}
