//! Processes that are stopped for longer than others wait for them, and go on: what they missed they learn.

use nix::sys::signal::Signal;
use serde_json::Value;
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::{self, TaskState, framework_info};

use crate::history::History;
use crate::{EAGER, RESOURCES, kept, rounds};

/// Lost after three seconds of silence.
const PINGS: [&str; 2] = ["--agent_ping_timeout=1secs", "--max_agent_ping_timeouts=2"];

/// A framework that is told of agents that are away.
fn aware() -> v1::FrameworkInfo {
    use framework_info::{Capability, capability::Type};
    v1::FrameworkInfo {
        capabilities: vec![Capability {
            r#type: Some(Type::PartitionAware.into()),
        }],
        ..framework("aware", true)
    }
}

/// How often a task was told to be in a state.
fn times(scheduler: &Scheduler, task: &str, state: TaskState) -> usize {
    let states = scheduler.states();
    let all = states.get(task).into_iter().flatten();
    all.filter(|one| **one == state).count()
}

/// Whether an agent counts itself as registered, 1, or not, 0.
fn registered(agent: &Daemon, wanted: u64) -> Result<(), Value> {
    let metrics = agent.get("/metrics/snapshot");
    let registered = metrics["slave/registered"].clone();
    match registered.as_f64() == Some(wanted as f64) {
        true => Ok(()),
        false => Err(registered),
    }
}

#[test]
fn an_agent_and_a_master_that_were_stopped_go_on_where_they_were() {
    let scratch = Scratch::new();
    let master = crate::master(0, scratch.path(), &PINGS);
    let flags = [RESOURCES, EAGER];
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut history = History::new(scratch.path());
    let mut scheduler = Scheduler::subscribe(master.address, aware());
    history.launch(&mut scheduler, &[("lasts".to_owned(), 6_000)]);
    scheduler.wait_state("lasts", TaskState::TaskRunning);
    // Each takes some seconds.
    let rounds = rounds(1).div_ceil(10);
    for round in 0..rounds {
        let away = times(&scheduler, "lasts", TaskState::TaskUnreachable);
        let back = times(&scheduler, "lasts", TaskState::TaskRunning);
        agent.signal(Signal::SIGSTOP);
        scheduler.wait("the loss of the agent", |scheduler| {
            (times(scheduler, "lasts", TaskState::TaskUnreachable) > away).then_some(())
        });
        agent.signal(Signal::SIGCONT);
        scheduler.wait("the return of the agent", |scheduler| {
            (times(scheduler, "lasts", TaskState::TaskRunning) > back).then_some(())
        });
        // Ends while the master is stopped.
        let short = format!("short-{round}");
        history.launch(&mut scheduler, &[(short.clone(), 1)]);
        scheduler.wait_state(&short, TaskState::TaskRunning);
        master.signal(Signal::SIGSTOP);
        wait_for("the agent's loss of its master", || registered(&agent, 0));
        master.signal(Signal::SIGCONT);
        wait_for("the agent's return to its master", || registered(&agent, 1));
        scheduler.wait_state(&short, TaskState::TaskFinished);
    }
    scheduler.kill("lasts");
    history.wait_ended(&mut scheduler);
    assert_eq!(history.judge(&scheduler) as u64, rounds + 1);
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
    let tried = format!(
        "{rounds} times SIGSTOP of an agent and of a master for longer than their pings, {} tasks started once, none lost",
        history.launched()
    );
    kept("R3", "stopped", &tried);
}
