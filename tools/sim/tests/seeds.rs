//! A thousand seeds keep the promises R1, R2 and R3; a seed means the same each time; recordings replay.

use tepui_sim::{Options, Recording, run};

/// Runs seeds and counts what they did, so that a run in which nothing happens is noticed.
fn seeds(range: std::ops::Range<u64>) {
    let mut commands = 0;
    let mut in_processes = 0;
    let mut failures = Vec::new();
    let count = range.end - range.start;
    for seed in range {
        match run(&Options::new(seed)) {
            Ok(outcome) => {
                commands += u64::from(outcome.starts);
                in_processes += u64::from(outcome.in_processes);
            }
            Err(failure) => failures.push(failure.to_string()),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        commands > 5 * count,
        "only {commands} commands in {count} seeds"
    );
    assert!(
        in_processes > count,
        "only {in_processes} tasks of custom executors in {count} seeds"
    );
}

#[test]
fn promises_are_kept_0() {
    seeds(0..250);
}

#[test]
fn promises_are_kept_1() {
    seeds(250..500);
}

#[test]
fn promises_are_kept_2() {
    seeds(500..750);
}

#[test]
fn promises_are_kept_3() {
    seeds(750..1000);
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
