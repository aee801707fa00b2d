//! `docs/COMPATIBILITY.md`, written from `docs/compatibility.tsv`.
//!
//! The table is kept by hand: one row for each feature of Mesos, with what works here and the test
//! that shows it. The page is generated, so that the two cannot drift apart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, bail};

use crate::root;

const ROWS: usize = 354;
const STATES: [&str; 4] = ["works", "partial", "not yet", "won't"];

struct Row<'a> {
    number: usize,
    area: &'a str,
    feature: &'a str,
    version: &'a str,
    state: &'a str,
    tests: &'a str,
    note: &'a str,
}

/// Checks the table and the page, or writes the page.
pub(crate) fn run(write: bool) -> Result<()> {
    let table = root().join("docs/compatibility.tsv");
    let page = root().join("docs/COMPATIBILITY.md");
    let text =
        fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?;
    let rows = parse(&text)?;
    check(&rows)?;
    let wanted = render(&rows);
    if write {
        fs::write(&page, wanted)?;
    } else if fs::read_to_string(&page).unwrap_or_default() != wanted {
        bail!(
            "docs/COMPATIBILITY.md is not what docs/compatibility.tsv says: run `cargo xtask compat --write`"
        );
    }
    println!("compat: {}", summary(&rows));
    Ok(())
}

fn parse(text: &str) -> Result<Vec<Row<'_>>> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [number, area, feature, version, state, tests, note] = columns[..] else {
            bail!(
                "docs/compatibility.tsv line {}: {} columns, expected 7",
                index + 1,
                columns.len()
            );
        };
        let number = number
            .parse()
            .with_context(|| format!("docs/compatibility.tsv line {}: #", index + 1))?;
        rows.push(Row {
            number,
            area,
            feature,
            version,
            state,
            tests,
            note,
        });
    }
    Ok(rows)
}

fn check(rows: &[Row<'_>]) -> Result<()> {
    let mut wrong = Vec::new();
    if rows.len() != ROWS
        || rows
            .iter()
            .enumerate()
            .any(|(index, row)| row.number != index + 1)
    {
        bail!(
            "docs/compatibility.tsv: expected rows 1 to {ROWS} in order, found {}",
            rows.len()
        );
    }
    for row in rows {
        if !STATES.contains(&row.state) {
            wrong.push(format!(
                "{}: state {:?}, expected one of {STATES:?}",
                row.number, row.state
            ));
        }
        if row.state == "works" && row.tests.is_empty() {
            wrong.push(format!("{}: works, but no test is named", row.number));
        }
        if matches!(row.state, "partial" | "won't") && row.note.is_empty() {
            wrong.push(format!(
                "{}: {} without a note that says why",
                row.number, row.state
            ));
        }
        wrong.extend(
            tests(row)
                .filter_map(missing)
                .map(|fault| format!("{}: {fault}", row.number)),
        );
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("docs/compatibility.tsv:\n  {}", wrong.join("\n  "))
    }
}

fn tests<'a>(row: &Row<'a>) -> impl Iterator<Item = &'a str> {
    row.tests.split_whitespace()
}

/// Why a test named as `path/to/file.rs::name` does not exist.
fn missing(test: &str) -> Option<String> {
    let Some((path, name)) = test.split_once("::") else {
        return Some(format!("test {test:?}, expected path/to/file.rs::name"));
    };
    let Ok(source) = fs::read_to_string(root().join(path)) else {
        return Some(format!("test {test}: no file {path}"));
    };
    let found = [format!("fn {name}("), format!("def {name}(")]
        .iter()
        .any(|text| source.contains(text));
    (!found).then(|| format!("test {test}: no function {name} in {path}"))
}

fn summary(rows: &[Row<'_>]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        *counts.entry(row.state).or_default() += 1;
    }
    STATES
        .map(|state| format!("{} {state}", counts.get(state).copied().unwrap_or(0)))
        .join(", ")
}

fn render(rows: &[Row<'_>]) -> String {
    let mut page = String::from(
        "# Compatibility with Apache Mesos\n\n\
         Every feature of Mesos up to 1.11 (HEAD: after it), and where Tepui stands. *works*: behaves as Mesos does, shown\n\
         by the named test. *partial*: the note says what is missing. *not yet*: the note says what becomes of who asks\n\
         for it. *won't*: the note says why. Version is the first Mesos release with the feature.\n\n\
         Generated from `compatibility.tsv` by `cargo xtask compat --write`; CI checks that every named test exists.\n\n",
    );
    let _ = writeln!(page, "{} of {ROWS} rows: {}.\n", rows.len(), summary(rows));
    page.push_str(
        "| # | area | feature | version | state | test | note |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let tests: Vec<String> = tests(row).map(|test| format!("`{test}`")).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} | {} |",
            row.number,
            row.area,
            row.feature,
            row.version,
            row.state,
            tests.join(" "),
            row.note
        );
    }
    page
}
