//! Masters that are killed under running tasks: those go on, their updates arrive, and nothing starts twice.

use std::time::Duration;

use nix::sys::signal::Signal;
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch};
use tepui_proto::v1::TaskState;

use crate::history::History;
use crate::{EAGER, RESOURCES, kept, rounds};

#[test]
fn tasks_go_on_whatever_becomes_of_the_master() {
    const TASKS: u64 = 4;
    let scratch = Scratch::new();
    let mut master = crate::master(0, scratch.path(), &[]);
    let address = master.address;
    let flags = [RESOURCES, EAGER];
    let agent = Daemon::agent(scratch.path(), "agent", address, &flags);
    let mut history = History::new(scratch.path());
    let mut scheduler = Scheduler::subscribe(address, framework("chaos", true));
    // It sees masters come and go.
    history.launch(&mut scheduler, &[("lasts".to_owned(), 6_000)]);
    scheduler.wait_state("lasts", TaskState::TaskRunning);
    let rounds = rounds(3);
    for round in 0..rounds {
        // Some end before the master dies, some while there is none, some after.
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| (format!("t{round}-{task}"), 2 * task))
            .collect();
        history.launch(&mut scheduler, &tasks);
        // At another moment each time.
        scheduler.listen(Duration::from_millis(30 * (round % 8)));
        master.kill();
        master = crate::master(address.port(), scratch.path(), &[]);
        scheduler.resubscribe(address);
        history.wait_ended_but(&mut scheduler, "lasts");
    }
    scheduler.kill("lasts");
    history.wait_ended(&mut scheduler);
    let states = &scheduler.states()["lasts"];
    assert_eq!(states.last(), Some(&TaskState::TaskKilled), "{states:?}");
    let starts = history.judge(&scheduler);
    assert!(starts as u64 > rounds, "hardly anything ran: {starts}");
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
    let tried = format!(
        "{rounds} times kill -9 of a master with {TASKS} tasks and one that outlasts all, {starts} of {} started, none twice, every end told",
        history.launched()
    );
    kept("R3", "masters", &tried);
    kept("R2", "masters", &tried);
}
