//! `docs/RELIABILITY.md`, written from `docs/reliability.tsv`.
//!
//! The table is written by the commands that try the promises (`cargo xtask sim --note`, `chaos --note`): the last run
//! of each stands in it, with what it tried and what came of it. The page is generated.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::root;

const COLUMNS: &str = "promise\tcommand\twhat was tried\tresult\tcommit\tdate";

/// The promises, by their names.
const PROMISES: &[(&str, &str)] = &[
    (
        "R1",
        "No resource is offered or used twice: on every agent free, offered and used resources add up to its total.",
    ),
    (
        "R2",
        "The end of every task is told and acknowledged, or the task is reported lost or gone, once.",
    ),
    (
        "R3",
        "A task is started at most once for each launch, whatever fails.",
    ),
    (
        "R4",
        "What somebody was told is done is so from then on: quota, weights, maintenance, drains and agents gone for every \
         later leader, reservations and volumes with their data on the agent.",
    ),
    (
        "R5",
        "An agent that is killed and comes back takes over all that runs; nothing it started is left over at the end.",
    ),
    (
        "R7",
        "Input that is wrong ends no process and changes nothing; a record on disk that was altered is refused by its name, \
         or read as it was written.",
    ),
];

const HEAD: &str = "# Reliability\n\n\
    What Tepui promises whatever fails, how often each promise was tried, and what came of it. The table holds the last run\n\
    of each command that was noted; a run that breaks a promise is noted, too. `cargo xtask sim` simulates clusters\n\
    (`tools/sim`: real state machines, one seed a run; messages lost, repeated and held up, partitions, processes killed\n\
    between any two effects, reboots, full and slow disks, jumps of the wall clock), `cargo xtask chaos` kills and stops real\n\
    processes (`tools/e2e/tests/chaos`), `cargo xtask fuzz` feeds decoders. Each run of `cargo xtask test` does a small\n\
    part of each. A seed that broke a promise is kept, with as few faults as needed, in `tools/sim/kept`.\n\n\
    Generated from `reliability.tsv` by `cargo xtask compat --write`.\n\n";

/// One run that tried a promise.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) promise: String,
    pub(crate) command: String,
    pub(crate) tried: String,
    pub(crate) result: String,
    pub(crate) commit: String,
    pub(crate) date: String,
}

impl Row {
    /// A row of this moment.
    pub(crate) fn new(promise: &str, command: &str, tried: String, result: String) -> Result<Self> {
        let changed =
            !output("git", &["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let commit = output("git", &["rev-parse", "--short", "HEAD"])?;
        Ok(Self {
            promise: promise.to_owned(),
            command: command.to_owned(),
            tried,
            result,
            commit: if changed {
                format!("after {commit}")
            } else {
                commit
            },
            date: output("date", &["+%F"])?,
        })
    }

    fn columns(&self) -> [&str; 6] {
        let Self {
            promise,
            command,
            tried,
            result,
            commit,
            date,
        } = self;
        [promise, command, tried, result, commit, date]
    }
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(root())
        .output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn table() -> PathBuf {
    root().join("docs/reliability.tsv")
}

fn read() -> Result<Vec<Row>> {
    let path = table();
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let row = |(index, line): (usize, &str)| {
        let columns: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let [promise, command, tried, result, commit, date] =
            columns.try_into().map_err(|found: Vec<_>| {
                anyhow::anyhow!(
                    "docs/reliability.tsv line {}: {} columns, expected 6",
                    index + 1,
                    found.len()
                )
            })?;
        Ok(Row {
            promise,
            command,
            tried,
            result,
            commit,
            date,
        })
    };
    text.lines().enumerate().skip(1).map(row).collect()
}

/// Puts rows into the table in the place of the last run of the same command, and writes the page.
pub(crate) fn note(rows: Vec<Row>) -> Result<()> {
    let mut all = read()?;
    for row in rows {
        all.retain(|old| (&old.promise, &old.command) != (&row.promise, &row.command));
        all.push(row);
    }
    all.sort_by(|a, b| (&a.promise, &a.command).cmp(&(&b.promise, &b.command)));
    let mut text = format!("{COLUMNS}\n");
    for row in &all {
        text += &row.columns().join("\t");
        text.push('\n');
    }
    fs::write(table(), text)?;
    run(true)
}

/// Checks the page, or writes it.
pub(crate) fn run(write: bool) -> Result<()> {
    let rows = read()?;
    if let Some(row) = rows
        .iter()
        .find(|row| PROMISES.iter().all(|(name, _)| row.promise != *name))
    {
        bail!(
            "docs/reliability.tsv: there is no promise {:?}",
            row.promise
        );
    }
    let wanted = render(&rows);
    let page = root().join("docs/RELIABILITY.md");
    if write {
        fs::write(&page, wanted)?;
    } else if fs::read_to_string(&page).unwrap_or_default() != wanted {
        bail!(
            "docs/RELIABILITY.md is not what docs/reliability.tsv says: run `cargo xtask compat --write`"
        );
    }
    Ok(())
}

fn render(rows: &[Row]) -> String {
    let mut page = String::from(HEAD);
    for (name, promise) in PROMISES {
        let _ = writeln!(page, "## {name}\n\n{promise}\n");
        let of_it: Vec<&Row> = rows.iter().filter(|row| row.promise == *name).collect();
        if of_it.is_empty() {
            page.push_str("No run is noted yet.\n\n");
            continue;
        }
        page.push_str(
            "| command | what was tried | result | commit | date |\n|---|---|---|---|---|\n",
        );
        for row in of_it {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} | {} |",
                row.command, row.tried, row.result, row.commit, row.date
            );
        }
        page.push('\n');
    }
    page
}
