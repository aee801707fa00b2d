//! Reservations and persistent volumes on real daemons: used by tasks, kept by agents, removed with their data.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_http::scheduler_client::scalar;
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
        capability::Type::SharedResources,
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
    operation_on(kind, id, all(RESERVED), all(VOLUME))
}

/// The same with other resources and volumes.
fn operation_on(
    kind: Type,
    id: &str,
    resources: Vec<v1::Resource>,
    volumes: Vec<v1::Resource>,
) -> offer::Operation {
    let mut operation = offer::Operation {
        r#type: Some(kind.into()),
        id: Some(v1::OperationId { value: id.into() }),
        ..Default::default()
    };
    match kind {
        Type::Reserve => {
            operation.reserve = Some(operation::Reserve {
                resources,
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
    launch(vec![task_with(id, command, offer, all(VOLUME))])
}

fn task_with(
    id: &str,
    command: &str,
    offer: &v1::Offer,
    volumes: Vec<v1::Resource>,
) -> v1::TaskInfo {
    let mut task = task(id, command, 0.1, 32.0);
    task.agent_id = offer.agent_id.clone();
    task.resources.extend(volumes);
    task
}

fn launch(task_infos: Vec<v1::TaskInfo>) -> offer::Operation {
    offer::Operation {
        r#type: Some(Type::Launch.into()),
        launch: Some(operation::Launch { task_infos }),
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

/// Kills an agent, and waits until all that it has is not offered any more.
fn kill_holding_offer(agent: Daemon, scheduler: &mut Scheduler) {
    let held = offer_with_volume(scheduler);
    agent.kill();
    scheduler.wait("the end of offers of the agent", |scheduler| {
        let mut rescinded = scheduler.other.iter().filter_map(|e| e.rescind.as_ref());
        rescinded
            .find(|rescind| rescind.offer_id == held.id)
            .map(|_| ())
    });
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
    kill_holding_offer(agent, &mut scheduler);
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

/// A task of an executor with a process of its own, which does what `data` says.
fn of_executor(id: &str, data: &str, offer: &v1::Offer, volumes: &str) -> offer::Operation {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/executor.py");
    let mut command = task("", &format!("exec python3 {script}"), 0.0, 0.0).command;
    let variable = v1::environment::Variable {
        name: "PATH".to_owned(),
        value: Some("/usr/local/bin:/usr/bin:/bin".to_owned()),
        ..Default::default()
    };
    command.as_mut().expect("it has one").environment = Some(v1::Environment {
        variables: vec![variable],
    });
    let executor = v1::ExecutorInfo {
        r#type: Some(v1::executor_info::Type::Custom.into()),
        executor_id: v1::ExecutorId {
            value: "executor".to_owned(),
        },
        command,
        resources: vec![scalar("cpus", 0.1), scalar("mem", 32.0)],
        ..Default::default()
    };
    launch(vec![v1::TaskInfo {
        command: None,
        executor: Some(executor),
        data: Some(data.to_owned().into()),
        ..task_with(id, "", offer, all(volumes))
    }])
}

#[test]
fn volumes_come_to_a_running_executor_with_its_tasks() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let flags = [RESOURCES, "--isolation=filesystem/linux,namespaces/pid"];
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let port = agent.address.port();
    let mut scheduler = subscribe(&master);
    let offer = scheduler.offer();
    let made = [
        operation(Type::Reserve, "reserve"),
        operation(Type::Create, "create"),
    ];
    let stays = of_executor("stays", "run", &offer, "");
    accept(
        &mut scheduler,
        &offer,
        [made.to_vec(), vec![stays]].concat(),
    );
    scheduler.wait_state("stays", TaskState::TaskRunning);
    for id in ["reserve", "create"] {
        finished(&mut scheduler, id);
    }
    let run = |scheduler: &mut Scheduler, id: &str, command: &str, volumes: &str| {
        let offer = offer_with_volume(scheduler);
        let task = of_executor(id, &format!("sh {command}"), &offer, volumes);
        accept(scheduler, &offer, vec![task]);
        scheduler.wait_state(id, TaskState::TaskFinished);
    };
    run(&mut scheduler, "writes", "echo kept > data/file", VOLUME);
    run(&mut scheduler, "without", "test ! -e data/file", "");
    kill_holding_offer(agent, &mut scheduler);
    let agent = Daemon::agent_at(port, scratch.path(), "agent", master.address, &flags);
    run(&mut scheduler, "reads", "grep kept data/file", VOLUME);
    let volume = scratch.path().join("agent/volumes/roles/peer/v/file");
    assert_eq!(fs::read_to_string(volume).expect("it is kept"), "kept\n");
    scheduler.kill("stays");
    scheduler.wait_state("stays", TaskState::TaskKilled);
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

/// Two tasks with one volume, each of which waits for what the other writes; a third may only read.
#[test]
fn tasks_share_a_volume_and_some_only_read_it() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let flags = [RESOURCES, "--isolation=filesystem/linux,namespaces/pid"];
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = subscribe(&master);
    let offer = scheduler.offer();
    let shared = || all("disk(reservations: [(DYNAMIC,peer)])[v:data]<SHARED>:100");
    let mut read_only = shared();
    for volume in &mut read_only {
        let disk = volume.disk.as_mut().expect("a volume");
        let volume = disk.volume.as_mut().expect("its use");
        volume.mode = v1::volume::Mode::Ro.into();
    }
    let waits = |own: &str, other: &str| {
        format!("echo {own} > data/{own}; while [ ! -s data/{other} ]; do sleep 0.05; done")
    };
    let tasks = vec![
        task_with("a", &waits("a", "b"), &offer, shared()),
        task_with("b", &waits("b", "a"), &offer, shared()),
        task_with(
            "reads",
            "while [ ! -s data/a ]; do sleep 0.05; done; ! touch data/mine",
            &offer,
            read_only,
        ),
    ];
    let operations = vec![
        operation_on(Type::Reserve, "reserve", all(RESERVED), Vec::new()),
        operation_on(Type::Create, "create", Vec::new(), shared()),
        launch(tasks),
    ];
    accept(&mut scheduler, &offer, operations);
    for id in ["a", "b", "reads"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
    }
    let dir = scratch.path().join("agent/volumes/roles/peer/v");
    let mut names: Vec<_> = fs::read_dir(&dir)
        .expect("the volume")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}

/// Volumes on a directory of a disk, given relative to the work directory, and on a whole disk.
#[test]
fn volumes_lie_on_the_disks_they_are_made_of() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let whole = scratch.path().join("whole");
    fs::create_dir_all(&whole).expect("space");
    fs::create_dir_all(scratch.path().join("agent/disks/one")).expect("space");
    let scalar = |name: &str, value: u32| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}});
    let disk = |value: u32, source: Value| {
        let mut disk = scalar("disk", value);
        disk["disk"] = json!({ "source": source });
        disk
    };
    let resources = json!([
        scalar("cpus", 4),
        scalar("mem", 2048),
        disk(200, json!({"type": "PATH", "path": {"root": "disks/one"}})),
        disk(300, json!({"type": "MOUNT", "mount": {"root": whole}})),
    ]);
    let flag = format!("--resources={resources}");
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[&flag]);
    let mut scheduler = subscribe(&master);
    let offer = scheduler.offer();

    let root = whole.display();
    let on = |disk: &str, megabytes: u32| {
        all(&format!(
            "disk(reservations: [(DYNAMIC,peer)])[{disk}]:{megabytes}"
        ))
    };
    let (path, mount) = ("PATH:disks/one", format!("MOUNT:{root}"));
    let one = |megabytes| on(&format!("{path},p:one"), megabytes);
    let two = on(&format!("{mount},m:two"), 300);
    let mut reserved = on(path, 200);
    reserved.extend(on(&mount, 300));
    let mut volumes = one(100);
    volumes.extend(two.clone());
    let grow = offer::Operation {
        r#type: Some(Type::GrowVolume.into()),
        id: Some(v1::OperationId {
            value: "grow".into(),
        }),
        grow_volume: Some(Box::new(operation::GrowVolume {
            volume: one(100).remove(0),
            addition: on(path, 50).remove(0),
        })),
        ..Default::default()
    };
    let mut used = one(150);
    used.extend(two.clone());
    let writes = task_with(
        "writes",
        "echo 1 > one/file; echo 2 > two/file",
        &offer,
        used,
    );
    let operations = vec![
        operation_on(Type::Reserve, "reserve", reserved, Vec::new()),
        operation_on(Type::Create, "create", Vec::new(), volumes),
        grow,
        launch(vec![writes]),
    ];
    accept(&mut scheduler, &offer, operations);
    for id in ["reserve", "create", "grow"] {
        finished(&mut scheduler, id);
    }
    scheduler.wait_state("writes", TaskState::TaskFinished);
    let below = scratch.path().join("agent/disks/one/volumes/roles/peer/p");
    assert_eq!(
        fs::read_to_string(below.join("file")).expect("it was written"),
        "1\n"
    );
    assert_eq!(
        fs::read_to_string(whole.join("file")).expect("it was written"),
        "2\n"
    );

    let offer = offer_with_volume(&mut scheduler);
    let shrink = offer::Operation {
        r#type: Some(Type::ShrinkVolume.into()),
        id: Some(v1::OperationId {
            value: "shrink".into(),
        }),
        shrink_volume: Some(Box::new(operation::ShrinkVolume {
            volume: one(150).remove(0),
            subtract: v1::value::Scalar { value: 120.0 },
        })),
        ..Default::default()
    };
    let destroy = operation_on(Type::Destroy, "destroy", Vec::new(), two);
    accept(&mut scheduler, &offer, vec![shrink, destroy]);
    finished(&mut scheduler, "shrink");
    finished(&mut scheduler, "destroy");
    assert_eq!(fs::read_dir(&whole).expect("the disk").count(), 0);
    assert!(below.join("file").exists());
    let state = agent.get("/state");
    let kept = state["reserved_resources_full"]["peer"]
        .as_array()
        .expect("a list");
    let kept = kept
        .iter()
        .find(|one| one["disk"]["persistence"]["id"] == "p");
    assert_eq!(
        kept.expect("the volume")["scalar"]["value"],
        30.0,
        "{state}"
    );
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}

/// RESERVE_RESOURCES with a source: what is reserved for one role becomes another's, without a moment in between.
#[test]
fn operators_hand_reservations_from_role_to_role() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let id = wait_for("an agent", || {
        let state = master.get("/state");
        let id = state["slaves"][0]["id"].as_str().map(str::to_owned);
        id.ok_or(state)
    });
    let reserved = |role: &str| {
        let reservation = json!({"type": "DYNAMIC", "role": role, "principal": "op"});
        json!([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "reservations": [reservation]}])
    };
    let reserve = |source: Value, resources: Value| {
        json!({"type": "RESERVE_RESOURCES", "reserve_resources": {
            "agent_id": {"value": id}, "source": source, "resources": resources,
        }})
    };
    let first = reserve(json!([]), reserved("ops"));
    wait_for("an agent that serves", || match master.status_of(&first) {
        202 => Ok(()),
        status => Err(status),
    });
    assert_eq!(
        master.status_of(&reserve(reserved("ops"), reserved("dev"))),
        202
    );
    let of_dev = json!({"dev": {"cpus": 1.0, "disk": 0.0, "gpus": 0.0, "mem": 0.0}});
    let state = master.get("/state");
    assert_eq!(state["slaves"][0]["reserved_resources"], of_dev);
    assert_eq!(agent.get("/state")["reserved_resources"], of_dev);
    // What is not reserved so any more cannot be handed on.
    let again = reserve(reserved("ops"), reserved("dev"));
    assert_eq!(master.status_of(&again), 409);
}
