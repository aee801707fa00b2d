//! `cargo xtask fuzz`: the targets of tools/fuzz under libFuzzer.
//!
//! libFuzzer needs coverage counters in our code, which stable rustc adds by flags of LLVM, so no
//! nightly compiler is needed; the C++ compiler is, for libFuzzer itself. The build has a folder of
//! its own, `target/fuzz`, where new inputs and logs are kept too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::reliability::{self, Row};
use crate::{cargo, root, run, target_dir};

/// Counters at every edge, and the comparisons that a branch depends on.
const INSTRUMENTATION: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
     -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Memory of a target in MiB: what decodes 64 KiB needs a fraction of it.
const MEMORY: u32 = 512;

/// Longest input, in bytes.
const INPUT: u32 = 64 << 10;

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Targets to run: the folders of tools/fuzz/corpus; all without
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, default_value_t = 10, conflicts_with = "seconds")]
    minutes: u64,
    /// How long each target runs, in seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Put the result into docs/RELIABILITY.md
    #[arg(long)]
    note: bool,
}

/// Fuzzes for as long as asked.
pub(crate) fn fuzz(args: &Args) -> Result<()> {
    let known = targets()?;
    let chosen = if args.targets.is_empty() {
        known
    } else {
        for name in &args.targets {
            ensure!(
                known.contains(name),
                "no target {name:?}; there are {}",
                known.join(", ")
            );
        }
        args.targets.clone()
    };
    let bound = Bound::Seconds(args.seconds.unwrap_or(args.minutes * 60));
    let outcomes = all(&chosen, bound)?;
    if args.note {
        reliability::note(rows(&outcomes)?)?;
    }
    verdict(outcomes)
}

/// How long a target runs.
#[derive(Clone, Copy)]
enum Bound {
    /// Other inputs each time, and those kept from earlier runs too.
    Seconds(u64),
    /// So many inputs, the same for the same build: a change is judged by what it does.
    Inputs(u64),
}

impl Bound {
    fn arguments(self) -> Vec<String> {
        match self {
            Self::Seconds(seconds) => vec![format!("-max_total_time={seconds}")],
            Self::Inputs(count) => vec![format!("-runs={count}"), "-seed=1".to_owned()],
        }
    }
}

/// What a target did, or how it failed.
type Outcome = (String, Result<String>);

fn rows(outcomes: &[Outcome]) -> Result<Vec<Row>> {
    let row = |(name, outcome): &Outcome| {
        let command = format!("cargo xtask fuzz {name}");
        let (tried, result) = match outcome {
            Ok(line) => (line.clone(), "kept"),
            Err(_) => (format!("the input lies in target/fuzz/{name}"), "broken"),
        };
        Row::new("R7", &command, tried, result.to_owned())
    };
    outcomes.iter().map(row).collect()
}

/// An error that names all targets that failed.
fn verdict(outcomes: Vec<Outcome>) -> Result<()> {
    let failed = |(name, outcome): Outcome| Some(format!("{name}: {:#}", outcome.err()?));
    let failures: Vec<String> = outcomes.into_iter().filter_map(failed).collect();
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("{}", failures.join("\n"))
    }
}

/// Every target with as many inputs, as a step of the tests.
pub(crate) fn short(inputs: u64) -> Result<()> {
    verdict(all(&targets()?, Bound::Inputs(inputs))?)
}

fn corpus() -> PathBuf {
    root().join("tools/fuzz/corpus")
}

/// Each target has a folder of inputs.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(corpus()).context("tools/fuzz/corpus")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Runs the targets, as many at a time as there are processors; what came of each, by name.
fn all(targets: &[String], bound: Bound) -> Result<Vec<Outcome>> {
    let program = build()?;
    let waiting = Mutex::new(targets.iter());
    let outcomes = Mutex::new(Vec::new());
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(targets.len()) {
            scope.spawn(|| {
                while let Some(name) = { waiting.lock().expect("no panic").next() } {
                    let outcome = one(&program, name, bound);
                    if let Ok(line) = &outcome {
                        println!("{name}: {line}");
                    }
                    outcomes
                        .lock()
                        .expect("no panic")
                        .push((name.clone(), outcome));
                }
            });
        }
    });
    let mut outcomes = outcomes.into_inner().expect("no panic");
    outcomes.sort_by(|a: &Outcome, b: &Outcome| a.0.cmp(&b.0));
    Ok(outcomes)
}

fn build() -> Result<PathBuf> {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let folder = target_dir().join("fuzz");
    let mut command = cargo(&[
        "build",
        "--locked",
        "--package=tepui-fuzz",
        "--bin=tepui-fuzz",
        "--features=libfuzzer",
        "--profile=fuzz",
        // With a target named, build scripts and macros stay as they are.
        "--target",
        &triple,
        "--target-dir",
    ]);
    run(command.arg(&folder).env("RUSTFLAGS", INSTRUMENTATION))?;
    Ok(folder.join(triple).join("fuzz/tepui-fuzz"))
}

/// Runs one target; the line says how much was tried.
fn one(program: &Path, name: &str, bound: Bound) -> Result<String> {
    let folder = target_dir().join("fuzz").join(name);
    // libFuzzer begins with what is in its first folder, and writes what it finds there.
    let found = match bound {
        Bound::Seconds(_) => folder.join("corpus"),
        Bound::Inputs(_) => folder.join("fresh"),
    };
    if matches!(bound, Bound::Inputs(_)) && found.exists() {
        fs::remove_dir_all(&found)?;
    }
    fs::create_dir_all(&found)?;
    let log = folder.join("log");
    let started = Instant::now();
    let status = Command::new(program)
        .env("TEPUI_FUZZ_TARGET", name)
        .args(bound.arguments())
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-max_len={INPUT}"))
        .args(["-timeout=10", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", folder.display()))
        .arg(&found)
        .arg(corpus().join(name))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log)?)
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(40)..].join("\n");
        bail!(
            "{status}; the input is in {}, which belongs in tools/fuzz/corpus/{name} when it is \
             fixed\n{tail}",
            folder.display()
        );
    }
    let stat = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_whitespace().last())
            .unwrap_or("?")
            .to_owned()
    };
    Ok(format!(
        "{} inputs in {} s, {} of them new, {} MiB",
        stat("stat::number_of_executed_units"),
        started.elapsed().as_secs(),
        stat("stat::new_units_added"),
        stat("stat::peak_rss_mb"),
    ))
}
