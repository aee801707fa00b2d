//! Runs seeds of the simulated cluster, and plays recordings again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use tepui_sim::{AllocatorKind, Case, Options, Recording, Tried, run};

/// Simulate a cluster.
#[derive(Parser)]
struct Arguments {
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of seeds.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Virtual seconds with faults.
    #[arg(long, default_value_t = 120)]
    faulty: u64,
    /// Allocator, instead of the one that the seed chooses.
    #[arg(long)]
    allocator: Option<AllocatorKind>,
    /// Seeds that run at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Try a failing seed with fewer faults and write what is left to this directory.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Write what was tried to this file, as JSON.
    #[arg(long)]
    summary: Option<PathBuf>,
    /// Write all events of the seed to this file.
    #[arg(long, conflicts_with = "seeds")]
    record: Option<PathBuf>,
    /// Run this kept case again, instead of seeds.
    #[arg(long, conflicts_with_all = ["seed", "seeds"])]
    case: Option<PathBuf>,
    /// Play this file again and compare the effects.
    #[arg(long, conflicts_with_all = ["seed", "seeds", "record", "case"])]
    replay: Option<PathBuf>,
    /// Print those of its events that mention this, instead.
    #[arg(long, requires = "replay")]
    find: Option<String>,
}

/// What all seeds of a call did.
#[derive(Default, Serialize)]
struct Summary {
    first: u64,
    seeds: u64,
    faulty_s: u64,
    /// The promise that each failing seed broke.
    failed: Vec<(u64, String)>,
    tried: Tried,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.replay {
        let recording = Recording::from_bytes(&read(path)?)?;
        if let Some(text) = &arguments.find {
            recording.mentions(text).for_each(|line| println!("{line}"));
            return Ok(ExitCode::SUCCESS);
        }
        let hash = recording.replay()?;
        println!("seed {}: effects {hash:016x}", recording.seed);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &arguments.case {
        let case = Case::from_json(&read(path)?).with_context(|| path.display().to_string())?;
        return one(&case.options(), arguments.record.as_deref());
    }
    if arguments.seeds == 1 && arguments.keep.is_none() {
        return one(
            &arguments.options(arguments.seed),
            arguments.record.as_deref(),
        );
    }
    let started = Instant::now();
    let summary = arguments.all()?;
    eprintln!("{} seeds in {:.1?}", arguments.seeds, started.elapsed());
    if let Some(path) = &arguments.summary {
        let text = serde_json::to_vec_pretty(&summary).expect("plain data");
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    }
    if summary.failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("{} seeds failed", summary.failed.len());
    Ok(ExitCode::FAILURE)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Runs one seed and tells what it did.
fn one(options: &Options, record: Option<&Path>) -> anyhow::Result<ExitCode> {
    let options = Options {
        record: record.is_some(),
        ..options.clone()
    };
    let (code, recording) = match run(&options) {
        Ok(outcome) => {
            println!(
                "seed {}: effects {:016x}, {:?}",
                options.seed, outcome.hash, outcome.tried
            );
            (ExitCode::SUCCESS, outcome.recording)
        }
        Err(failure) => {
            eprintln!("{failure}");
            (ExitCode::FAILURE, failure.recording)
        }
    };
    if let (Some(path), Some(recording)) = (record, recording) {
        fs::write(path, recording.to_bytes())
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(code)
}

impl Arguments {
    fn options(&self, seed: u64) -> Options {
        let options = Options::new(seed);
        Options {
            faulty: Duration::from_secs(self.faulty),
            allocator: self.allocator.unwrap_or(options.allocator),
            ..options
        }
    }

    /// Runs all seeds, as many at a time as asked.
    fn all(&self) -> anyhow::Result<Summary> {
        let next = AtomicU64::new(self.seed);
        let end = self.seed.saturating_add(self.seeds);
        let summary = Mutex::new(Summary {
            first: self.seed,
            seeds: self.seeds,
            faulty_s: self.faulty,
            ..Summary::default()
        });
        std::thread::scope(|scope| {
            let work = || -> anyhow::Result<()> {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return Ok(());
                    }
                    self.seed_of_many(seed, &summary)?;
                }
            };
            let workers: Vec<_> = (0..self.jobs.max(1)).map(|_| scope.spawn(work)).collect();
            let mut ended = workers.into_iter().map(|worker| worker.join());
            ended.try_for_each(|worker| worker.expect("a failing run is caught"))
        })?;
        Ok(summary.into_inner().expect("no panic"))
    }

    fn seed_of_many(&self, seed: u64, summary: &Mutex<Summary>) -> anyhow::Result<()> {
        let options = self.options(seed);
        let failure = match run(&options) {
            Ok(outcome) => {
                let mut summary = summary.lock().expect("no panic");
                summary.tried.add(&outcome.tried);
                return Ok(());
            }
            Err(failure) => failure,
        };
        eprintln!("{failure}");
        let promise = failure.promise().to_owned();
        let mut guard = summary.lock().expect("no panic");
        guard.failed.push((seed, promise));
        drop(guard);
        if let Some(folder) = &self.keep {
            let path = folder.join(format!("seed-{seed}.json"));
            fs::write(&path, Case::minimized(&options, &failure).to_json())
                .with_context(|| format!("write {}", path.display()))?;
            eprintln!("kept with fewer faults: {}", path.display());
        }
        Ok(())
    }
}
