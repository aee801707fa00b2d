//! Recorded sessions of frameworks, replayed against a master and its agents.

use tepui_e2e::replay::mask::Figures;
use tepui_e2e::replay::{
    Ids, Outcome, Play, Target, listed_differences, recordings, session, verdict,
};
use tepui_e2e::{Daemon, Scratch, wait_for};

/// What the recorded agents were started with.
const AGENT: &[&str] = &["--resources=cpus:4;mem:4096;disk:10240;ports:[31000-32000]"];

/// The recorded agent that was left when these sessions ran.
const RECORDED_AGENT: &str = "2bb699ce-5753-4d4d-ad59-74064e38038a-S0";

#[test]
fn frameworks_that_launch_nothing() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &["--registry=in_memory"]);
    let agent = Daemon::agent(scratch.path(), "a1", master.address, AGENT);
    let mut ids = Ids::default();
    ids.note(RECORDED_AGENT, &wait_for("the agent", || agent_id(&master)));
    let target = Target {
        master: master.address,
        agents: vec![agent.address],
        substitutions: Vec::new(),
        start: Vec::new(),
    };
    let mut sessions = session::load(&recordings(), "scheduler-subscribe").expect("recordings");
    let scheduler = session::load(&recordings(), "scheduler").expect("recordings");
    sessions.extend(scheduler.into_iter().filter(|session| {
        [
            "scheduler/session-no-failover.json",
            "scheduler/session-decline.json",
        ]
        .contains(&session.name.as_str())
    }));
    let mut outcome = Outcome::new();
    for session in &sessions {
        let play = Play::new(session, &target, Figures::Named);
        outcome.extend(play.finish(&mut ids));
    }
    let listed = listed_differences(&["scheduler-subscribe/"]);
    let equal = outcome.values().filter(|difference| difference.is_none());
    println!("{} of {} are equal", equal.count(), outcome.len());
    verdict(&outcome, &listed).unwrap_or_else(|report| panic!("\n{report}"));
}

fn agent_id(master: &Daemon) -> Result<String, String> {
    let agents = master.get("/slaves");
    let id = agents["slaves"][0]["id"].as_str();
    id.map(str::to_owned).ok_or_else(|| "none".to_owned())
}
