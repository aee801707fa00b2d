//! What is offered to whom, and what becomes of frameworks that are away, on real daemons.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Daemon, Scheduler, Scratch, tepui, wait_for};
use tepui_proto::v1::framework_info::{Capability, capability};
use tepui_proto::v1::offer_filters::{MinAllocatableResources, ResourceQuantities};
use tepui_proto::v1::scheduler::{self, call};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState};

/// Agents by name with their resources; all of them are registered.
fn agents(dir: &Path, master: &Daemon, agents: &[(&str, &str)]) -> Vec<Daemon> {
    let start = |(name, resources): &(&str, &str)| {
        let flags = [
            format!("--resources={resources}"),
            format!("--attributes=name:{name}"),
        ];
        Daemon::agent(dir, name, master.address, &[&flags[0], &flags[1]])
    };
    let started: Vec<Daemon> = agents.iter().map(start).collect();
    wait_for("all agents", || {
        let known = master.get_text("/slaves");
        let active = known.matches("\"active\":true").count();
        if active == started.len() {
            Ok(())
        } else {
            Err(known)
        }
    });
    started
}

/// Names of the agents that are offered before and after everything was declined once.
fn offered(scheduler: &mut Scheduler, count: usize) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        scheduler.wait("offers", |scheduler| {
            (scheduler.offers.len() >= count).then_some(())
        });
        let names = scheduler.offers.iter().map(|offer| &offer.attributes[0]);
        seen.extend(names.map(|name| name.text.as_ref().expect("a name").value.clone()));
        scheduler.decline_all(0.0);
    }
    seen
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn what_is_too_little_is_not_offered() {
    let scratch = Scratch::new();
    let flags = ["--min_allocatable_resources=cpus:2|disk:500"];
    let master = Daemon::master(scratch.path(), &flags);
    let sizes = [
        ("little", "cpus:1;mem:4096;disk:100"),
        ("cpus", "cpus:2;mem:64;disk:10"),
        ("disk", "cpus:0.1;mem:64;disk:500"),
    ];
    let _agents = agents(scratch.path(), &master, &sizes);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", false));
    assert_eq!(offered(&mut scheduler, 2), names(["cpus", "disk"]));
    drop(scheduler);
    // A framework's own minimum takes the place of the master's.
    let quantities = [("mem".to_owned(), v1::value::Scalar { value: 1000.0 })].into();
    let minimum = MinAllocatableResources {
        quantities: vec![ResourceQuantities { quantities }],
    };
    let filters = v1::OfferFilters {
        min_allocatable_resources: Some(minimum),
    };
    let wants_memory = v1::FrameworkInfo {
        offer_filters: [("*".to_owned(), filters)].into(),
        ..framework("memory", false)
    };
    let mut scheduler = Scheduler::subscribe(master.address, wants_memory);
    assert_eq!(offered(&mut scheduler, 1), names(["little"]));
}

#[test]
fn agents_with_gpus_are_for_those_who_know_gpus() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let sizes = [
        ("gpus", "cpus:2;mem:512;gpus:1"),
        ("plain", "cpus:2;mem:512"),
    ];
    let _agents = agents(scratch.path(), &master, &sizes);
    let mut without = Scheduler::subscribe(master.address, framework("without", false));
    assert_eq!(offered(&mut without, 1), names(["plain"]));
    drop(without);
    let knows = v1::FrameworkInfo {
        capabilities: vec![Capability {
            r#type: Some(capability::Type::GpuResources.into()),
        }],
        ..framework("with", false)
    };
    let mut with = Scheduler::subscribe(master.address, knows);
    assert_eq!(offered(&mut with, 2), names(["gpus", "plain"]));
    let listed = master.get("/frameworks");
    let frameworks = listed["frameworks"].as_array().expect("frameworks").iter();
    let shown = frameworks.filter(|framework| framework["name"] == "with");
    let shown: Vec<&Value> = shown.map(|framework| &framework["capabilities"]).collect();
    assert_eq!(shown, [&json!(["GPU_RESOURCES"])]);
}

#[test]
fn frameworks_that_only_agents_know_are_torn_down() {
    let scratch = Scratch::new();
    let leader = Daemon::master(scratch.path(), &[]);
    let resources = [("agent", "cpus:2;mem:512;disk:100")];
    let mut running = agents(scratch.path(), &leader, &resources);
    let mut scheduler = Scheduler::subscribe(leader.address, framework("away", true));
    scheduler.launch(vec![task("stays", "sleep 1000", 0.1, 32.0)]);
    scheduler.wait_state("stays", TaskState::TaskRunning);
    let id = scheduler.id.value.clone();
    // Neither the framework nor what the master knew of it is there any more.
    drop(scheduler);
    running.pop().expect("an agent").kill();
    leader.kill();
    let master = Daemon::master(scratch.path(), &[]);
    let agent = agents(scratch.path(), &master, &resources);
    let shown = wait_for("the framework", || {
        let state = master.get("/state");
        match &state["frameworks"][0] {
            Value::Null => Err(state),
            framework => Ok(framework.clone()),
        }
    });
    assert_eq!((&shown["id"], &shown["name"]), (&json!(id), &json!("away")));
    assert_eq!(
        (&shown["recovered"], &shown["connected"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(shown["tasks"][0]["state"], "TASK_RUNNING");
    let output = tepui(master.address, &["teardown", &id]);
    assert!(output.status.success(), "{output:?}");
    wait_for("the end of its task", || {
        let state = agent[0].get("/state");
        let ended = &state["completed_frameworks"][0]["completed_executors"][0];
        match ended["completed_tasks"][0]["state"].as_str() {
            Some("TASK_KILLED") => Ok(()),
            _ => Err(state),
        }
    });
    let state = master.get("/state");
    assert_eq!(state["frameworks"], json!([]));
    assert_eq!(state["completed_frameworks"][0]["id"], json!(id));
}

#[test]
fn a_framework_that_comes_back_finds_its_tasks() {
    let scratch = Scratch::new();
    let master = Daemon::master(scratch.path(), &[]);
    let resources = [("agent", "cpus:2;mem:512;disk:100")];
    let _agents = agents(scratch.path(), &master, &resources);
    let mut before = Scheduler::subscribe(master.address, framework("comes-back", false));
    before.launch(vec![task("stays", "sleep 1000", 0.1, 32.0)]);
    before.wait_state("stays", TaskState::TaskRunning);
    let id = before.id.clone();
    drop(before);
    wait_for("the end of the connection", || {
        let state = master.get("/state");
        match state["frameworks"][0]["connected"].as_bool() {
            Some(false) => Ok(()),
            _ => Err(state),
        }
    });
    let same = v1::FrameworkInfo {
        id: Some(id.clone()),
        ..framework("comes-back", false)
    };
    let mut after = Scheduler::subscribe(master.address, same);
    assert_eq!(after.id, id);
    after.call(
        call::Type::Reconcile,
        scheduler::Call {
            reconcile: Some(call::Reconcile::default()),
            ..Default::default()
        },
    );
    let told = after.wait_state("stays", TaskState::TaskRunning);
    assert_eq!(told.reason(), Reason::Reconciliation);
    after.kill("stays");
    after.wait_state("stays", TaskState::TaskKilled);
    let state = master.get("/state");
    assert_eq!(state["frameworks"].as_array().map(Vec::len), Some(1));
}
