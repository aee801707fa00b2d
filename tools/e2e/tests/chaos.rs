//! Real processes killed and stopped while they work; afterwards the history has to be as promised (docs/RELIABILITY.md).
//!
//! A few rounds here; `cargo xtask chaos` runs as many as asked.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tepui_e2e::cluster::wait_clean;
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::TaskState;

const RESOURCES: &str = "--resources=cpus:8;mem:4096;disk:4096;ports:[31000-32000]";

/// Rounds of a test: as asked, or a few.
fn rounds(few: u64) -> u64 {
    let asked = std::env::var("TEPUI_CHAOS_ROUNDS").ok();
    asked.map_or(few, |text| {
        text.parse().expect("TEPUI_CHAOS_ROUNDS is a number")
    })
}

/// Says what was tried to whoever asked for it, once it has been kept.
fn kept(promise: &str, tried: &str) {
    if let Some(folder) = std::env::var_os("TEPUI_CHAOS_SUMMARY") {
        fs::write(Path::new(&folder).join(promise), tried).expect("a folder for summaries");
    }
}

/// A master that leads.
fn master(dir: &Path) -> Daemon {
    let master = Daemon::master(dir, &["--agent_reregister_timeout=10mins"]);
    wait_for("a leader", || {
        let weights = master.get_text("/weights");
        serde_json::from_str::<Value>(&weights).map_err(|_| weights)
    });
    master
}

/// What an operator asks for in a round, and what has to be so from then on.
fn decide(round: u64, agent: &Value) -> (Value, &'static str, Value) {
    let amount = 1.0 + (round % 7) as f64;
    match round % 5 {
        0 => {
            let weights = json!([{"role": "r", "weight": amount}]);
            let call =
                json!({"type": "UPDATE_WEIGHTS", "update_weights": {"weight_infos": weights}});
            (call, "/weights", weights)
        }
        1 => {
            let config = json!({"role": "r", "limits": {"cpus": {"value": amount}}});
            let call = json!({"type": "UPDATE_QUOTA", "update_quota": {"force": true, "quota_configs": [config]}});
            (call, "limits", json!({"cpus": {"value": amount}}))
        }
        2 => {
            let machine = json!({"hostname": format!("host{round}")});
            let window = json!({"machine_ids": [machine], "unavailability": {"start": {"nanoseconds": round}}});
            let schedule = json!({"windows": [window]});
            let call = json!({"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": {"schedule": schedule}});
            (call, "/maintenance/schedule", schedule)
        }
        3 => {
            let call = json!({"type": "DRAIN_AGENT", "drain_agent": {"agent_id": agent}});
            (call, "deactivated", json!(true))
        }
        _ => {
            let call = json!({"type": "DEACTIVATE_AGENT", "deactivate_agent": {"agent_id": agent}});
            (call, "deactivated", json!(true))
        }
    }
}

/// What a master says is so.
fn found(master: &Daemon, what: &str, agent: &Value) -> Value {
    match what {
        "limits" => {
            let quota = master.call(&json!({"type": "GET_QUOTA"}));
            quota["get_quota"]["status"]["configs"][0]["limits"].clone()
        }
        // Only an agent that is out of service can be brought back; one that drains, later.
        "deactivated" => {
            let call = json!({"type": "REACTIVATE_AGENT", "reactivate_agent": {"agent_id": agent}});
            let text = master.reply_to(&call);
            json!(text != "Agent is not deactivated")
        }
        path => master.get(path),
    }
}

#[test]
fn what_a_killed_master_acknowledged_is_so() {
    let scratch = Scratch::new();
    let mut leader = master(scratch.path());
    let ids: Vec<Value> = ["first", "second"]
        .iter()
        .map(|name| {
            let before = leader.get("/state")["slaves"]
                .as_array()
                .map_or(0, Vec::len);
            let agent = Daemon::agent(scratch.path(), name, leader.address, &[RESOURCES]);
            let slaves = wait_for("an agent", || {
                let slaves = leader.get("/state")["slaves"].clone();
                let more = slaves.as_array().is_some_and(|all| all.len() > before);
                if more { Ok(slaves) } else { Err(slaves) }
            });
            agent.kill();
            json!({"value": slaves[before]["id"]})
        })
        .collect();
    let rounds = rounds(5);
    let mut decided: BTreeMap<&str, Value> = BTreeMap::new();
    for round in 0..rounds {
        let (call, what, value) = decide(round, &ids[0]);
        leader.call(&call);
        leader.kill();
        decided.insert(what, value);
        leader = master(scratch.path());
        for (what, value) in &decided {
            assert_eq!(
                found(&leader, what, &ids[0]),
                *value,
                "{what} after round {round}"
            );
        }
        // The agent may be in service again now.
        decided.remove("deactivated");
    }
    // Gone is for good: every later leader says so, and of an agent that never was that it does not know it.
    let gone = json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": ids[1]}});
    leader.call(&gone);
    leader.kill();
    let leader = master(scratch.path());
    assert_eq!(leader.status_of(&gone), 200);
    let unknown =
        json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": {"value": "never"}}});
    assert_eq!(leader.status_of(&unknown), 404);
    kept(
        "R4",
        &format!("kill -9 after each of {} acknowledged calls", rounds + 1),
    );
}

#[test]
fn tasks_run_once_whatever_becomes_of_their_agent() {
    const TASKS: u64 = 6;
    let scratch = Scratch::new();
    let master = master(scratch.path());
    let ran = scratch.path().join("ran");
    fs::create_dir(&ran).expect("a folder");
    let mut agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let port = agent.address.port();
    let mut scheduler = Scheduler::subscribe(master.address, framework("chaos", true));
    let rounds = rounds(2);
    let mut launched = Vec::new();
    for round in 0..rounds {
        let names: Vec<String> = (0..TASKS).map(|task| format!("t{round}-{task}")).collect();
        let tasks = names.iter().enumerate().map(|(at, name)| {
            // Some end before the agent dies, some while it is away, some after.
            let command = format!("echo ran >> {}/{name}; sleep 0.{at}", ran.display());
            task(name, &command, 0.1, 32.0)
        });
        scheduler.launch(tasks.collect());
        launched.extend(names);
        // At another moment each time.
        scheduler.listen(Duration::from_millis(40 * (round % 9)));
        if round % 3 == 1 {
            agent.signal(Signal::SIGSTOP);
            scheduler.listen(Duration::from_millis(300));
            agent.signal(Signal::SIGCONT);
        } else {
            agent.kill();
            agent = Daemon::agent_at(port, scratch.path(), "agent", master.address, &[RESOURCES]);
        }
        scheduler.wait("the end of all tasks", |scheduler| {
            let states = scheduler.states();
            let over = |name: &String| {
                let last = states.get(name.as_str()).and_then(|states| states.last());
                last.is_some_and(|state| {
                    *state as i32 != TaskState::TaskRunning as i32
                        && *state as i32 != TaskState::TaskStarting as i32
                })
            };
            launched.iter().all(over).then_some(())
        });
    }
    let mut starts = 0;
    for name in &launched {
        let times = fs::read_to_string(ran.join(name)).map_or(0, |text| text.lines().count());
        let states = &scheduler.states()[name.as_str()];
        assert!(times <= 1, "{name} ran {times} times: {states:?}");
        let finished = states.contains(&TaskState::TaskFinished);
        assert!(times == 1 || !finished, "{name} finished and did not run");
        let dropped = states.contains(&TaskState::TaskLost);
        assert!(
            times == 0 || !dropped,
            "{name} ran and was reported lost: {states:?}"
        );
        starts += times;
    }
    assert!(starts as u64 >= rounds, "hardly anything ran: {starts}");
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
    let what = format!(
        "{rounds} times kill -9 or SIGSTOP of an agent with {TASKS} tasks, {starts} of them started"
    );
    kept("R3", &what);
    kept(
        "R5",
        &format!("{what}; no process, mount, cgroup or socket left"),
    );
}
