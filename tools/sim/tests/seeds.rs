//! Seeds keep the promises R1 to R5; a seed means the same each time; recordings replay; what once broke a promise
//! is tried for ever.

use std::path::Path;
use std::time::Duration;

use tepui_sim::{Case, Options, Recording, Tried, run};

/// Seeds of each test, of ten simulated minutes each: two minutes of work for two processors.
const SEEDS: u64 = 40;

/// Runs seeds and counts what they did, so that a run in which nothing happens is noticed.
fn seeds(part: u64) {
    let mut tried = Tried::default();
    let mut failures = Vec::new();
    for seed in part * SEEDS..(part + 1) * SEEDS {
        let options = Options {
            faulty: Duration::from_secs(600),
            ..Options::new(seed)
        };
        match run(&options) {
            Ok(outcome) => tried.add(&outcome.tried),
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let enough = tried.starts > 15 * SEEDS
        && tried.in_processes > 5 * SEEDS
        && tried.ends > 10 * SEEDS
        && tried.decisions > 7 * SEEDS
        && tried.operations > 20 * SEEDS
        && tried.recoveries > 4 * SEEDS
        && tried.reconfigured > SEEDS
        && tried.faults.len() == 15;
    assert!(enough, "too little was tried: {tried:?}");
}

#[test]
fn promises_are_kept_0() {
    seeds(0);
}

#[test]
fn promises_are_kept_1() {
    seeds(1);
}

#[test]
fn promises_are_kept_2() {
    seeds(2);
}

#[test]
fn promises_are_kept_3() {
    seeds(3);
}

#[test]
fn what_failed_once_is_kept_and_does_not_fail_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    let mut failures = Vec::new();
    for entry in std::fs::read_dir(folder).expect("kept cases") {
        let path = entry.expect("a file").path();
        if path.extension().is_none_or(|name| name != "json") {
            continue;
        }
        let bytes = std::fs::read(&path).expect("a file");
        let case = Case::from_json(&bytes).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert!(!case.cause.is_empty(), "{path:?} does not say its cause");
        if let Err(failure) = run(&case.options()) {
            failures.push(format!("{}: {failure}", path.display()));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_broken_promise_is_found_and_its_faults_are_few() {
    let broken = |seed| {
        let options = Options {
            careless: true,
            ..Options::new(seed)
        };
        let failure = run(&options).err()?;
        (failure.promise() == "R4").then_some((options, failure))
    };
    let (options, failure) = (0..20)
        .find_map(broken)
        .expect("registries that forget are found out");
    let case = Case::minimized(&options, &failure);
    assert!(case.faults.len() < failure.faults.len(), "{case:?}");
    // A decision, and the end of the master that had made it; hardly anything more.
    assert!(case.faults.len() <= 8, "{case:?}");
    let again = Case::from_json(case.to_json().as_bytes()).expect("just written");
    let options = Options {
        careless: true,
        ..again.options()
    };
    assert_eq!(
        run(&options).expect_err("it fails each time").promise(),
        "R4"
    );
}

#[test]
fn a_seed_always_has_the_same_effects() {
    for seed in [1, 2, 3, 4] {
        let hash = |seed| run(&Options::new(seed)).expect("promises are kept").hash;
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    let hash = |seed| run(&Options::new(seed)).expect("promises are kept").hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn a_recording_plays_again() {
    let mut options = Options::new(8);
    options.record = true;
    let outcome = run(&options).expect("promises are kept");
    let recording = outcome.recording.expect("asked for");
    let bytes = recording.to_bytes();
    let read = Recording::from_bytes(&bytes).expect("just written");
    assert_eq!(read.replay().expect("equal effects"), outcome.hash);

    // An event that is missing is noticed.
    let mut cut = read;
    cut.entries.remove(cut.entries.len() / 2);
    let error = cut.replay().expect_err("an event is missing");
    assert!(
        error.to_string().contains("effects differ after entry"),
        "{error}"
    );
}
