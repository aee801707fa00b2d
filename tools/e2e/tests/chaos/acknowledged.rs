//! Processes that are killed as soon as they have acknowledged something: it is so from then on. R4.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tepui_e2e::{Daemon, Scratch, wait_for};

use crate::{EAGER, RESOURCES, agents, kept, master, rounds};

/// Of so many rounds one marks an agent gone: each takes an agent of its own.
const GONE_EACH: u64 = 10;

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

fn mark_gone(agent: &Value) -> Value {
    json!({"type": "MARK_AGENT_GONE", "mark_agent_gone": {"agent_id": agent}})
}

#[test]
fn what_a_killed_master_acknowledged_is_so() {
    let scratch = Scratch::new();
    let mut leader = master(0, scratch.path(), &[]);
    let rounds = rounds(5);
    let registered = 1 + rounds.div_ceil(GONE_EACH) as usize;
    for number in 1..=registered {
        let name = format!("agent{number}");
        let agent = Daemon::agent(scratch.path(), &name, leader.address, &[RESOURCES, EAGER]);
        agents(&leader, number);
        agent.kill();
    }
    let mut ids = agents(&leader, registered);
    let stays = ids.remove(0);
    let mut gone = Vec::new();
    let mut decided: BTreeMap<&str, Value> = BTreeMap::new();
    for round in 0..rounds {
        if round % GONE_EACH == 0 {
            let id = ids.pop().expect("one for each");
            leader.call(&mark_gone(&id));
            gone.push(id);
        } else {
            let (call, what, value) = decide(round, &stays);
            leader.call(&call);
            decided.insert(what, value);
        }
        leader.kill();
        leader = master(0, scratch.path(), &[]);
        for (what, value) in &decided {
            assert_eq!(
                found(&leader, what, &stays),
                *value,
                "{what} after round {round}"
            );
        }
        // The agent may be in service again now.
        decided.remove("deactivated");
        // Gone is for good: an agent that never was is not known.
        for id in &gone {
            assert_eq!(
                leader.status_of(&mark_gone(id)),
                200,
                "{id} in round {round}"
            );
        }
    }
    let unknown = mark_gone(&json!({"value": "never"}));
    assert_eq!(leader.status_of(&unknown), 404);
    let tried = format!(
        "kill -9 of the master after each of {rounds} acknowledged calls (weights, quota, maintenance, drain, deactivation, {} agents gone)",
        gone.len()
    );
    kept("R4", "masters", &tried);
}

/// A reserved disk of a role, or the volume on it.
fn disk(amount: f64, volume: bool) -> Value {
    let mut disk = json!({
        "name": "disk", "type": "SCALAR", "scalar": {"value": amount},
        "reservations": [{"type": "DYNAMIC", "role": "ops", "principal": "op"}],
    });
    if volume {
        disk["disk"] = json!({
            "persistence": {"id": "v", "principal": "op"},
            "volume": {"container_path": "data", "mode": "RW"},
        });
    }
    disk
}

/// The operation of a round, and how much reserved disk and which volume there is after it: a reservation and a
/// volume through their lives, again and again.
fn operation(round: u64, agent: &Value) -> (Value, f64, f64) {
    let of = |kind: &str, mut body: Value, free: f64, volume: f64| {
        body["agent_id"] = agent.clone();
        let field = kind.to_lowercase();
        (json!({"type": kind, field: body}), free, volume)
    };
    match round % 6 {
        0 => of(
            "RESERVE_RESOURCES",
            json!({"resources": [disk(100.0, false)]}),
            100.0,
            0.0,
        ),
        1 => of(
            "CREATE_VOLUMES",
            json!({"volumes": [disk(40.0, true)]}),
            60.0,
            40.0,
        ),
        2 => {
            let body = json!({"volume": disk(40.0, true), "addition": disk(20.0, false)});
            of("GROW_VOLUME", body, 40.0, 60.0)
        }
        3 => {
            let body = json!({"volume": disk(60.0, true), "subtract": {"value": 30.0}});
            of("SHRINK_VOLUME", body, 70.0, 30.0)
        }
        4 => of(
            "DESTROY_VOLUMES",
            json!({"volumes": [disk(30.0, true)]}),
            100.0,
            0.0,
        ),
        _ => of(
            "UNRESERVE_RESOURCES",
            json!({"resources": [disk(100.0, false)]}),
            0.0,
            0.0,
        ),
    }
}

/// How much disk is reserved on the only agent, and how large its volume is, as the master says when it has the agent.
fn owned(master: &Daemon) -> Option<(f64, f64)> {
    let state = master.get("/slaves");
    if state["slaves"][0]["active"] != true {
        return None;
    }
    let reserved = &state["slaves"][0]["reserved_resources_full"]["ops"];
    let all = reserved.as_array().into_iter().flatten();
    Some(all.fold((0.0, 0.0), |(free, volume), one| {
        let amount = one["scalar"]["value"].as_f64().unwrap_or_default();
        match one["disk"]["persistence"]["id"].is_string() {
            true => (free, volume + amount),
            false => (free + amount, volume),
        }
    }))
}

/// The volume's data is as it was written, or not there, as its volume.
fn data(dir: &Path, volume: f64, round: u64) {
    let file = dir.join("agent/volumes/roles/ops/v/file");
    let text = fs::read_to_string(&file).ok();
    if volume == 0.0 {
        assert_eq!(text, None, "round {round}");
    } else if round % 6 == 1 {
        fs::write(&file, "kept").expect("the volume is there");
    } else {
        assert_eq!(text.as_deref(), Some("kept"), "round {round}");
    }
}

#[test]
fn reservations_and_volumes_outlive_agents_and_masters() {
    let scratch = Scratch::new();
    let mut leader = master(0, scratch.path(), &[]);
    let address = leader.address;
    let start = || Daemon::agent(scratch.path(), "agent", address, &[RESOURCES, EAGER]);
    let mut agent = Some(start());
    let id = agents(&leader, 1).remove(0);
    let rounds = rounds(6);
    for round in 0..rounds {
        let (call, free, volume) = operation(round, &id);
        wait_for("an agent that serves", || match leader.status_of(&call) {
            202 => Ok(()),
            503 => Err("503"),
            status => panic!("{status} in round {round}: {}", leader.reply_to(&call)),
        });
        // The agent, the master, both: in each step of these lives sooner or later.
        let who = round / 6 + round % 6;
        if who % 3 != 1 {
            agent.take().expect("it runs").kill();
        }
        if who % 3 != 0 {
            leader.kill();
            leader = master(address.port(), scratch.path(), &[]);
        }
        agent.get_or_insert_with(start);
        wait_for(&format!("what was acknowledged in round {round}"), || {
            let found = owned(&leader);
            if found == Some((free, volume)) {
                Ok(())
            } else {
                Err(found)
            }
        });
        data(scratch.path(), volume, round);
    }
    let tried = format!(
        "kill -9 of the agent, the master or both after each of {rounds} acknowledged operations (reservations and a volume made, resized, removed; its data kept)"
    );
    kept("R4", "agents", &tried);
}
