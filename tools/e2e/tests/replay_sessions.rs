//! Recorded sessions of frameworks, replayed against a master and its agents.

use serde_json::json;
use tepui_e2e::replay::mask::Figures;
use tepui_e2e::replay::recorded::{AGENTS, Recorded};
use tepui_e2e::replay::{Outcome, Play, Watch, listed_differences, recordings, session, verdict};
use tepui_e2e::{Daemon, Scratch};

/// Frameworks of these sessions that were accepted.
const FRAMEWORKS: [&str; 15] = [
    "nested-role",
    "no-roles",
    "old-style-role",
    "star-role",
    "suppressed",
    "negative-failover",
    "unknown-id",
    "",
    "no-user",
    "unknown-capability",
    "all-capabilities",
    "no-reservation-refinement",
    "constraints-nothing",
    "peer-zero",
    "peer-decline",
];

/// The recorded agent 1 was draining when these sessions ran.
#[test]
fn frameworks_that_launch_nothing() {
    let scratch = Scratch::new();
    let mut cluster = Recorded::start(scratch.path(), &AGENTS[1..]);
    // A step that was not recorded: its effect is in the offer to the role *. The guarantee that went with it held
    // nothing back from others: what was free on agent 1, which drained, was room enough.
    let quota = json!({ "role": "*", "limits": { "cpus": { "value": 1 } } });
    cluster.master.call(&json!({
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
    let watch = Watch::open(&FRAMEWORKS, &cluster.target).expect("a stream");
    let mut outcome = Outcome::new();
    for session in &sessions {
        let play = Play::new(session, Figures::Named, &listed);
        outcome.extend(play.finish(&mut cluster.target));
        teardown(&cluster.master);
    }
    outcome.extend(watch.finish(&mut cluster.target));
    let equal = outcome.values().filter(|difference| difference.is_none());
    println!("{} of {} are equal", equal.count(), outcome.len());
    verdict(&outcome, &listed).unwrap_or_else(|report| panic!("\n{report}"));
}

/// The recorded frameworks were torn down one after the other; who did it was not recorded.
fn teardown(master: &Daemon) {
    let frameworks = master.call(&json!({ "type": "GET_FRAMEWORKS" }));
    for framework in frameworks["get_frameworks"]["frameworks"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let id = &framework["framework_info"]["id"];
        let status =
            master.status_of(&json!({ "type": "TEARDOWN", "teardown": { "framework_id": id } }));
        assert_eq!(status, 200);
    }
}
