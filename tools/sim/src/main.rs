//! Runs seeds of the simulated cluster, and plays recordings again.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use tepui_sim::{AllocatorKind, Options, Recording, run};

/// Simulate a cluster.
#[derive(Parser)]
struct Arguments {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Virtual seconds with faults.
    #[arg(long, default_value_t = 120)]
    faulty: u64,
    /// Allocator, instead of the one that the seed chooses.
    #[arg(long)]
    allocator: Option<AllocatorKind>,
    /// Write all events of the seed to this file.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Play this file again and compare the effects.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "record"])]
    replay: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(path) = arguments.replay {
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let recording = Recording::from_bytes(&bytes)?;
        let hash = recording.replay()?;
        println!("seed {}: effects {hash:016x}", recording.seed);
        return Ok(ExitCode::SUCCESS);
    }
    let started = Instant::now();
    let mut failed = 0;
    for seed in arguments.seed..arguments.seed + arguments.seeds {
        let mut options = Options::new(seed);
        options.faulty = Duration::from_secs(arguments.faulty);
        options.allocator = arguments.allocator.unwrap_or(options.allocator);
        options.record = arguments.record.is_some();
        let recording = match run(&options) {
            Ok(outcome) => {
                println!(
                    "seed {seed}: effects {:016x}, {} events, {} commands",
                    outcome.hash, outcome.events, outcome.starts
                );
                outcome.recording
            }
            Err(failure) => {
                failed += 1;
                eprintln!("{failure}");
                failure.recording
            }
        };
        if let (Some(path), Some(recording)) = (&arguments.record, recording) {
            std::fs::write(path, recording.to_bytes())
                .with_context(|| format!("write {}", path.display()))?;
        }
    }
    eprintln!("{} seeds in {:.1?}", arguments.seeds, started.elapsed());
    if failed > 0 {
        eprintln!("{failed} seeds failed");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
