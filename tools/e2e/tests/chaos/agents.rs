//! Agents that are killed and stopped under running tasks: R3 and R5.

use std::time::Duration;

use nix::sys::signal::Signal;
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch};

use crate::history::History;
use crate::{RESOURCES, kept, master, rounds};

#[test]
fn tasks_run_once_whatever_becomes_of_their_agent() {
    const TASKS: u64 = 6;
    let scratch = Scratch::new();
    let master = master(0, scratch.path(), &[]);
    let mut history = History::new(scratch.path());
    let mut agent = Daemon::agent(scratch.path(), "agent", master.address, &[RESOURCES]);
    let port = agent.address.port();
    let mut scheduler = Scheduler::subscribe(master.address, framework("chaos", true));
    let rounds = rounds(2);
    for round in 0..rounds {
        // Some end before the agent dies, some while it is away, some after.
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| (format!("t{round}-{task}"), task))
            .collect();
        history.launch(&mut scheduler, &tasks);
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
        history.wait_ended(&mut scheduler);
    }
    let starts = history.judge(&scheduler);
    assert!(starts as u64 >= rounds, "hardly anything ran: {starts}");
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
    let what = format!(
        "{rounds} times kill -9 or SIGSTOP of an agent with {TASKS} tasks, {starts} of {} started",
        history.launched()
    );
    kept("R3", "agents", &format!("{what}, none twice"));
    let left = "no process, mount, cgroup or socket left";
    kept("R5", "agents", &format!("{what}; {left}"));
}
