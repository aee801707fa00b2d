//! Reservations and persistent volumes on real daemons: used by tasks, kept by agents, removed with their data.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tepui_e2e::cluster::wait_clean;
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_model::Resources;
use tepui_proto::convert;
use tepui_proto::v1::offer::{self, operation, operation::Type};
use tepui_proto::v1::scheduler::call::{self, Type as Call};
use tepui_proto::v1::{self, OperationState, TaskState, framework_info, scheduler};

const RESOURCES: &str = "--resources=cpus:4;mem:2048;disk:1000";
const RESERVED: &str = "disk(reservations: [(DYNAMIC,peer)]):100";
const VOLUME: &str = "disk(reservations: [(DYNAMIC,peer)])[v:data]:100";

fn all(text: &str) -> Vec<v1::Resource> {
    convert::to_proto(&Resources::parse(text, "*").expect("resources of a test"))
}

fn subscribe(master: &Daemon) -> Scheduler {
    use framework_info::{Capability, capability};
    let kinds = [
        capability::Type::MultiRole,
        capability::Type::ReservationRefinement,
    ];
    let info = v1::FrameworkInfo {
        roles: vec!["peer".to_owned()],
        capabilities: kinds
            .map(|kind| Capability {
                r#type: Some(kind.into()),
            })
            .to_vec(),
        ..framework("volumes", true)
    };
    Scheduler::subscribe(master.address, info)
}

fn operation(kind: Type, id: &str) -> offer::Operation {
    let volumes = all(VOLUME);
    let mut operation = offer::Operation {
        r#type: Some(kind.into()),
        id: Some(v1::OperationId { value: id.into() }),
        ..Default::default()
    };
    match kind {
        Type::Reserve => {
            operation.reserve = Some(operation::Reserve {
                resources: all(RESERVED),
                ..Default::default()
            });
        }
        Type::Create => operation.create = Some(operation::Create { volumes }),
        _ => operation.destroy = Some(operation::Destroy { volumes }),
    }
    operation
}

/// A task that has the volume.
fn with_volume(id: &str, command: &str, offer: &v1::Offer) -> offer::Operation {
    let mut task = task(id, command, 0.1, 32.0);
    task.agent_id = offer.agent_id.clone();
    task.resources.extend(all(VOLUME));
    offer::Operation {
        r#type: Some(Type::Launch.into()),
        launch: Some(operation::Launch {
            task_infos: vec![task],
        }),
        ..Default::default()
    }
}

fn accept(scheduler: &mut Scheduler, offer: &v1::Offer, operations: Vec<offer::Operation>) {
    let accept = call::Accept {
        offer_ids: vec![offer.id.clone()],
        operations,
        filters: Some(v1::Filters {
            refuse_seconds: Some(0.0),
        }),
    };
    let body = scheduler::Call {
        accept: Some(accept),
        ..Default::default()
    };
    scheduler.call(Call::Accept, body);
}

/// Waits for the end of an operation, and acknowledges it.
fn finished(scheduler: &mut Scheduler, id: &str) {
    let status = scheduler.wait(&format!("the end of {id}"), |scheduler| {
        let updates = scheduler.other.iter();
        let mut statuses =
            updates.filter_map(|e| Some(&e.update_operation_status.as_ref()?.status));
        let own = |status: &&v1::OperationStatus| {
            status
                .operation_id
                .as_ref()
                .is_some_and(|own| own.value == id)
        };
        statuses.find(own).cloned()
    });
    assert_eq!(
        status.state(),
        OperationState::OperationFinished,
        "{status:?}"
    );
    let acknowledge = call::AcknowledgeOperationStatus {
        agent_id: status.agent_id,
        uuid: status.uuid.expect("it wants to be").value,
        operation_id: v1::OperationId { value: id.into() },
        ..Default::default()
    };
    let body = scheduler::Call {
        acknowledge_operation_status: Some(acknowledge),
        ..Default::default()
    };
    scheduler.call(Call::AcknowledgeOperationStatus, body);
}

/// The next offer with the volume.
fn offer_with_volume(scheduler: &mut Scheduler) -> v1::Offer {
    scheduler.wait("an offer of the volume", |scheduler| {
        let offer = scheduler.offers.pop()?;
        let volume = |r: &v1::Resource| r.disk.as_ref().is_some_and(|d| d.persistence.is_some());
        if offer.resources.iter().any(volume) {
            return Some(offer);
        }
        accept(scheduler, &offer, Vec::new());
        None
    })
}

#[test]
fn a_volume_outlives_its_tasks_and_its_agent() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let mut scheduler = subscribe(&master);
    let offer = scheduler.offer();
    let writes = with_volume("writes", "echo kept > data/file", &offer);
    let operations = vec![
        operation(Type::Reserve, "reserve"),
        operation(Type::Create, "create"),
        writes,
    ];
    accept(&mut scheduler, &offer, operations);
    finished(&mut scheduler, "reserve");
    finished(&mut scheduler, "create");
    scheduler.wait_state("writes", TaskState::TaskFinished);
    let held = offer_with_volume(&mut scheduler);
    agent.kill();
    scheduler.wait("the end of offers of the agent", |scheduler| {
        let mut rescinded = scheduler.other.iter().filter_map(|e| e.rescind.as_ref());
        rescinded
            .find(|rescind| rescind.offer_id == held.id)
            .map(|_| ())
    });
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let offer = offer_with_volume(&mut scheduler);
    let reads = with_volume("reads", "grep kept data/file", &offer);
    accept(&mut scheduler, &offer, vec![reads]);
    scheduler.wait_state("reads", TaskState::TaskFinished);
    let dir = scratch.path().join("agent/volumes/roles/peer/v");
    assert_eq!(
        fs::read_to_string(dir.join("file")).expect("it was written"),
        "kept\n"
    );
    let offer = offer_with_volume(&mut scheduler);
    accept(
        &mut scheduler,
        &offer,
        vec![operation(Type::Destroy, "destroy")],
    );
    finished(&mut scheduler, "destroy");
    assert!(!dir.exists());
    let answer = master.call(&json!({"type": "GET_OPERATIONS"}));
    assert_eq!(answer["get_operations"], json!({}));
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}

#[test]
fn reservations_of_operators_outlive_the_agent_and_the_master() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let id = wait_for("an agent", || {
        let state = master.get("/state");
        let id = state["slaves"][0]["id"].as_str().map(str::to_owned);
        id.ok_or(state)
    });
    let reservation = json!({"type": "DYNAMIC", "role": "ops", "principal": "op"});
    let resource = json!({"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "reservations": [reservation]});
    let reserve = json!({"agent_id": {"value": id}, "resources": [resource]});
    let body = json!({"type": "RESERVE_RESOURCES", "reserve_resources": reserve});
    wait_for("an agent that serves", || match master.status_of(&body) {
        202 => Ok(()),
        status => Err(status),
    });
    // Answered is written: both die at once.
    agent.kill();
    master.kill();
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let reserved = wait_for("the agent with its reservation", || {
        let state = master.get("/state");
        let reserved = state["slaves"][0]["reserved_resources"].clone();
        if reserved["ops"]["cpus"] == 1.0 {
            Ok(reserved)
        } else {
            Err(state)
        }
    });
    assert_eq!(reserved.as_object().map(serde_json::Map::len), Some(1));
    let own: Value = agent.get("/state");
    assert_eq!(own["reserved_resources"], reserved);
    let body = json!({"type": "UNRESERVE_RESOURCES", "unreserve_resources": {"agent_id": {"value": id}, "resources": [resource]}});
    assert_eq!(master.status_of(&body), 202);
    assert_eq!(
        master.get("/slaves")["slaves"][0]["reserved_resources"],
        json!({})
    );
}
