//! A cluster of a user who is not root.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;
use tepui_e2e::{Daemon, Scratch, bin, wait_for};

/// `nobody` of most systems.
const NOBODY: u32 = 65534;

#[test]
fn a_local_cluster_of_anybody_runs_tasks_and_says_what_is_off() {
    let scratch = Scratch::new();
    let dir = scratch.path().join("own");
    fs::create_dir(&dir).expect("a folder");
    let is_root = nix::unistd::geteuid().is_root();
    let uid = if is_root {
        std::os::unix::fs::chown(&dir, Some(NOBODY), Some(NOBODY)).expect("own folder");
        NOBODY
    } else {
        nix::unistd::geteuid().as_raw()
    };
    let local = Daemon::local_by(&dir, |command| {
        command.env("HOME", &dir).current_dir(&dir);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
    });
    let found = dir.join("uid");
    let text = format!("id -u > {}; exit 3", found.display());
    let mut command = Command::new(bin("tepui"));
    command
        .args(["run", "--command", &text])
        .env("TEPUI_MASTER", local.address.to_string());
    if is_root {
        // Who runs it is whom the framework's tasks are to run as.
        command.uid(NOBODY).gid(NOBODY);
    }
    let ran = command.output().expect("tepui");
    let said = fs::read_to_string(&found).expect("what the task found");
    assert_eq!(said.trim(), uid.to_string());
    assert_eq!(ran.status.code(), Some(3), "{ran:?}");
    let log = fs::read_to_string(dir.join("agent-1.log")).expect("a log");
    for words in [
        "not root: tasks run as this user",
        "isolation: posix/cpu,posix/mem",
    ] {
        assert!(log.contains(words), "{words} in {log}");
    }
    local.stop(Signal::SIGINT);
    wait_for("an end without processes of that user's tasks", || {
        let left = tepui_containerizer::leaks::find(&dir, None, &[]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
