//! `docs/CONFORMANCE.md`, written from the list of recorded exchanges that Tepui answers differently.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::root;

const RECORDINGS: &str = "tools/e2e/recordings";

/// Begins the reason of a difference that goes away with what it names.
const WAITS: &str = "waits for ";

const HEAD: &str = "# Conformance with recorded answers\n\n\
    Requests and sessions of frameworks were recorded from Mesos 1.11.0: a master, two agents, a custom executor. They are\n\
    replayed against Tepui's daemons by every run of `cargo xtask test` (`tools/e2e/tests/replay*.rs`), and the answers are\n\
    compared: status line, header names and values, and bodies byte for byte, so the order of keys and the form of numbers\n\
    count. What is masked on both sides before, by rule and never for one body (`tools/e2e/src/replay/mask.rs`): ids (in\n\
    sessions each has to stand for the same one throughout), times, the release, addresses, figures of the machine; the order\n\
    of lists that Mesos shows as its hash maps have them; statistics that depend on the isolators.\n\n\
    A session is replayed call by call with the recorded pauses. Events are compared in the order of their subject (the\n\
    updates of a task, the offers of an agent); later heartbeats are left out. Tepui offers at once what an ended task sets\n\
    free, Mesos with its next batch: pieces of a recorded offer are declined until it comes as a whole.\n\n\
    Below is all that differs. The list can only shrink: the replay fails when a listed exchange is equal. It is generated\n\
    from `tools/e2e/recordings/differences.txt` by `cargo xtask compat --write`.\n\n";

/// Checks the page, or writes it.
pub(crate) fn run(write: bool) -> Result<()> {
    let recordings = root().join(RECORDINGS);
    let list = recordings.join("differences.txt");
    let text =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let wanted = render(&text, count(&recordings)?);
    let page = root().join("docs/CONFORMANCE.md");
    if write {
        fs::write(&page, wanted)?;
    } else if fs::read_to_string(&page).unwrap_or_default() != wanted {
        bail!(
            "docs/CONFORMANCE.md is not what {RECORDINGS}/differences.txt says: run `cargo xtask compat --write`"
        );
    }
    Ok(())
}

/// How many recordings there are: each is a JSON file in the folder of its group.
fn count(recordings: &Path) -> Result<usize> {
    let mut recorded = 0;
    for group in fs::read_dir(recordings)? {
        let group = group?;
        if group.file_type()?.is_dir() && group.file_name() != "events" {
            for file in fs::read_dir(group.path())? {
                let path = file?.path();
                recorded += usize::from(path.extension().is_some_and(|e| e == "json"));
            }
        }
    }
    Ok(recorded)
}

fn render(list: &str, recorded: usize) -> String {
    let mut waiting: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut staying: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        if let Some((name, reason)) = line.split_once(char::is_whitespace) {
            let reason = reason.trim();
            match reason.strip_prefix(WAITS) {
                Some(what) => waiting.entry(what).or_default().push(name),
                None => staying.entry(reason).or_default().push(name),
            }
        }
    }
    let mut page = HEAD.to_owned();
    let _ = writeln!(
        page,
        "{recorded} exchanges and sessions are replayed. {} of them, or parts of sessions, wait for something; {} stay \
         different.",
        waiting.values().map(Vec::len).sum::<usize>(),
        staying.values().map(Vec::len).sum::<usize>(),
    );
    section(&mut page, "What stays different", "why", &staying);
    section(&mut page, "What waits", "for what", &waiting);
    page
}

fn section(page: &mut String, title: &str, column: &str, reasons: &BTreeMap<&str, Vec<&str>>) {
    let _ = writeln!(page, "\n## {title}\n\n| {column} | recordings |\n|---|---|");
    for (reason, names) in reasons {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(page, "| {reason} | {} |", names.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_told_from_what_stays() {
        let list = "# group\na/one.json  waits for quota\nb/two.json#end  why not\na/three.json  waits for quota\n";
        let page = render(list, 7);
        assert!(page.contains("7 exchanges and sessions are replayed. 2 of them"));
        assert!(page.contains("| quota | `a/one.json`, `a/three.json` |"));
        assert!(page.contains("| why not | `b/two.json#end` |"));
    }
}
