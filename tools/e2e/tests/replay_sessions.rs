//! Recorded sessions of frameworks, replayed against a master and its agents.

use tepui_e2e::Scratch;
use tepui_e2e::replay::mask::Figures;
use tepui_e2e::replay::recorded::{AGENTS, Recorded};
use tepui_e2e::replay::{Outcome, Play, listed_differences, recordings, session, verdict};

/// The recorded agent 1 was away when these sessions ran.
#[test]
fn frameworks_that_launch_nothing() {
    let scratch = Scratch::new();
    let mut cluster = Recorded::start(scratch.path(), &AGENTS[1..]);
    // A step that was not recorded: its effect is in the offer to the role *.
    let quota = serde_json::json!({
        "role": "*",
        "guarantees": { "cpus": { "value": 1 } },
        "limits": { "cpus": { "value": 1 } },
    });
    cluster.master.call(&serde_json::json!({
        "type": "UPDATE_QUOTA",
        "update_quota": { "quota_configs": [quota] },
    }));
    let mut sessions = session::load(&recordings(), "scheduler-subscribe").expect("recordings");
    let scheduler = session::load(&recordings(), "scheduler").expect("recordings");
    sessions.extend(scheduler.into_iter().filter(|session| {
        [
            "scheduler/session-no-failover.json",
            "scheduler/session-decline.json",
        ]
        .contains(&session.name.as_str())
    }));
    let listed = listed_differences(&["scheduler-subscribe/"]);
    let mut outcome = Outcome::new();
    for session in &sessions {
        let play = Play::new(session, Figures::Named, &listed);
        outcome.extend(play.finish(&mut cluster.target));
    }
    let equal = outcome.values().filter(|difference| difference.is_none());
    println!("{} of {} are equal", equal.count(), outcome.len());
    verdict(&outcome, &listed).unwrap_or_else(|report| panic!("\n{report}"));
}
