//! `tepui local` when its daemons end by themselves.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tepui_containerizer::leaks;
use tepui_e2e::{Daemon, Scratch, tepui, wait_for};

/// Ends a daemon of the cluster in a folder as a crash would.
fn crash(dir: &Path, name: &str) {
    let own = format!("--work_dir={} ", dir.join(name).display());
    let processes = leaks::processes(dir, &[]);
    let of = processes.iter().find(|(_, command)| command.contains(&own));
    let (pid, _) = of.unwrap_or_else(|| panic!("no {name} in {processes:#?}"));
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, Signal::SIGKILL).expect("it runs");
}

#[test]
fn a_cluster_goes_on_while_one_of_its_agents_does() {
    let scratch = Scratch::new();
    let local = Daemon::local(scratch.path(), &["--agents", "2"]);
    crash(scratch.path(), "agent-1");
    wait_for("the end to be told", || {
        let log = local.log();
        let told = log.contains("agent-1 ended") && log.contains("agents that go on: 1");
        told.then_some(()).ok_or(log)
    });
    let connected = || {
        let agents = local.call(&json!({ "type": "GET_AGENTS" }));
        let agents = agents["get_agents"]["agents"].as_array().cloned();
        agents
            .into_iter()
            .flatten()
            .filter(|agent| agent["active"] == true)
            .count()
    };
    wait_for("the master to see it", || match connected() {
        1 => Ok(()),
        count => Err(count),
    });
    let done = tepui(local.address, &["run", "--command", "true"]);
    assert!(done.status.success(), "{done:?}");

    crash(scratch.path(), "agent-2");
    assert_eq!(local.ended(), Some(1));
}
