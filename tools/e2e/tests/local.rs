//! `tepui local` when its daemons end by themselves.

use std::fs;
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
    for name in ["agent-1.run", "agent-2.run"] {
        let kept = fs::canonicalize(scratch.path().join(name)).expect("of one that was killed");
        fs::remove_dir_all(kept).expect("it is ours");
    }
}

/// What runs is found by the next cluster in the folder only if what the agent keeps of it outlives the agent that is killed.
#[test]
fn what_an_agent_keeps_in_memory_goes_when_it_has_ended_its_tasks() {
    let scratch = Scratch::new();
    let link = scratch.path().join("agent-1.run");
    let local = Daemon::local(scratch.path(), &[]);
    let target = fs::read_link(&link).expect("it leads into memory");
    assert!(target.starts_with("/dev/shm"), "{target:?}");
    crash(scratch.path(), "agent-1");
    assert_eq!(local.ended(), Some(1));
    assert!(target.join("containers").is_dir(), "of one that was killed");

    let local = Daemon::local(scratch.path(), &[]);
    assert_eq!(fs::read_link(&link).ok().as_ref(), Some(&target));
    let done = tepui(local.address, &["run", "--command", "true"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(local.stop(Signal::SIGINT), Some(0));
    assert!(!target.exists() && fs::symlink_metadata(&link).is_err());
}
