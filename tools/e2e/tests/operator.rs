//! What operators decide, on real daemons: kept over the master's death, done by agents.

use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::{TaskState, task_status};

const RESOURCES: &str = "--resources=cpus:8;mem:4096;disk:4096;ports:[31000-32000]";

/// A master that leads.
fn master(dir: &Path) -> Daemon {
    let master = Daemon::master(dir, &[]);
    wait_for("a leader", || {
        let weights = master.get_text("/weights");
        serde_json::from_str::<Value>(&weights).map_err(|_| weights)
    });
    master
}

fn weights() -> Value {
    json!([{"role": "a/b", "weight": 1.5}, {"role": "peer", "weight": 2.0}])
}

#[test]
fn decisions_outlive_the_master() {
    let scratch = Scratch::new();
    let leader = master(scratch.path());
    leader.call(&json!({"type": "UPDATE_WEIGHTS", "update_weights": {"weight_infos": weights()}}));
    let quota = json!({"role": "peer", "limits": {"cpus": {"value": 2}}});
    leader.call(&json!({"type": "UPDATE_QUOTA", "update_quota": {"quota_configs": [quota]}}));
    let window = json!({"machine_ids": [{"hostname": "h"}], "unavailability": {"start": {"nanoseconds": 5}}});
    let schedule = json!({"schedule": {"windows": [window]}});
    leader.call(
        &json!({"type": "UPDATE_MAINTENANCE_SCHEDULE", "update_maintenance_schedule": schedule}),
    );
    let machines = json!({"machines": [{"hostname": "h"}]});
    leader.call(&json!({"type": "START_MAINTENANCE", "start_maintenance": machines}));
    let paths = [
        "/weights",
        "/quota",
        "/maintenance/schedule",
        "/maintenance/status",
    ];
    let before = paths.map(|path| leader.get(path));
    assert_eq!(before[0], weights());
    assert_eq!(before[3]["down_machines"][0]["hostname"], "h");
    // Answered is written.
    leader.kill();
    let next = master(scratch.path());
    assert_eq!(paths.map(|path| next.get(path)), before);
}

#[test]
fn a_draining_agent_loses_its_tasks_and_comes_back() {
    let scratch = Scratch::new();
    let master = master(scratch.path());
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    scheduler.launch(vec![task("stays", "sleep 1000", 0.1, 32.0)]);
    let running = scheduler.wait_state("stays", TaskState::TaskRunning);
    let id = json!({"value": running.agent_id.expect("an agent").value});
    let drain = json!({"agent_id": id, "max_grace_period": {"seconds": 2}});
    master.call(&json!({"type": "DRAIN_AGENT", "drain_agent": drain}));
    let killed = scheduler.wait_state("stays", TaskState::TaskKilled);
    assert_eq!(killed.reason(), task_status::Reason::AgentDraining);
    let shown = || {
        let answer = master.call(&json!({"type": "GET_AGENTS"}));
        answer["get_agents"]["agents"][0].clone()
    };
    wait_for("a drained agent", || {
        let agent = shown();
        match agent["drain_info"]["state"].as_str() {
            Some("DRAINED") => Ok(()),
            _ => Err(agent),
        }
    });
    assert_eq!(shown()["deactivated"], true);
    master.call(&json!({"type": "REACTIVATE_AGENT", "reactivate_agent": {"agent_id": id}}));
    assert_eq!(shown()["drain_info"], Value::Null);
    scheduler.launch(vec![task("again", "true", 0.1, 32.0)]);
    scheduler.wait_state("again", TaskState::TaskFinished);
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}

/// Calls of the operator API that have no arguments are answered; the others say which they lack.
#[track_caller]
fn every_call_answers<'a>(daemon: &Daemon, calls: impl Iterator<Item = &'a str>, bare: &[&str]) {
    for name in calls {
        let call = json!({"type": name});
        let (status, text) = (daemon.status_of(&call), daemon.reply_to(&call));
        if name.starts_with("GET_") && name != "GET_METRICS" || bare.contains(&name) {
            assert_eq!(status, 200, "{name}: {text}");
            continue;
        }
        let lacks = format!("Expecting '{}' to be present", name.to_lowercase());
        assert_eq!(
            (status, text.contains(&lacks)),
            (400, true),
            "{name}: {text}"
        );
    }
}

#[test]
fn no_call_goes_without_an_answer() {
    use tepui_proto::v1::{agent, master as of_master};
    let scratch = Scratch::new();
    let master = master(scratch.path());
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    // Streams begin or are continued by these, which have tests of their own.
    let streams = ["UNKNOWN", "SUBSCRIBE", "ATTACH_CONTAINER_INPUT"];
    let kinds = (0..100).filter_map(|number| of_master::call::Type::try_from(number).ok());
    let calls = kinds
        .map(|kind| kind.as_str_name())
        .filter(|name| !streams.contains(name));
    every_call_answers(&master, calls, &[]);
    let kinds = (0..100).filter_map(|number| agent::call::Type::try_from(number).ok());
    let calls = kinds
        .map(|kind| kind.as_str_name())
        .filter(|name| !streams.contains(name));
    every_call_answers(&agent, calls, &["PRUNE_IMAGES"]);
}
