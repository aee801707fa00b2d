//! The recorded run of frameworks that launch tasks, and what master and agents answered meanwhile.

use std::path::Path;

use tepui_e2e::Scratch;
use tepui_e2e::replay::recorded::{AGENTS, Recorded};
use tepui_e2e::replay::{listed_differences, load, recordings, run, session, verdict};

/// The groups of the run; the others are replayed on clusters of their own.
const GROUPS: [&str; 12] = [
    "http-busy/",
    "operator-master-busy/",
    "operator-agent-busy/",
    "operator-agent/",
    "operator-master/",
    "http-legacy/",
    "http-done/",
    "commands/",
    "events/",
    "scheduler/session-commands",
    "scheduler/session-life",
    "scheduler/session-operations",
];

#[test]
fn tasks_are_shown_as_by_mesos() {
    let scratch = Scratch::new();
    let mut cluster = Recorded::start(scratch.path(), &AGENTS);
    cluster.executor(Path::new(env!("CARGO_BIN_EXE_recorded-executor")));
    let exchanges = load(&recordings()).expect("recordings");
    let sessions = session::load(&recordings(), "scheduler").expect("recordings");
    let script = std::fs::read_to_string(recordings().join("run.txt")).expect("the script");
    let listed = listed_differences(&GROUPS);
    let target = &mut cluster.target;
    let outcome = run::run(&script, &exchanges, &sessions, &listed, target).expect("a script");
    let equal = outcome.values().filter(|difference| difference.is_none());
    println!("{} of {} are equal", equal.count(), outcome.len());
    verdict(&outcome, &listed).unwrap_or_else(|report| panic!("\n{report}"));
}
