//! A test that is killed leaves nothing that works.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use tepui_containerizer::leaks;
use tepui_e2e::scheduler::task;
use tepui_e2e::scratch::cgroups_root;
use tepui_e2e::{Bench, wait_for};
use tepui_proto::v1::TaskState;

/// Where the killed test works, in its output.
const AT: &str = "works below ";

#[test]
#[ignore = "it is played by the test below, and waits to be killed"]
fn a_test_that_does_not_end() {
    let bench = Bench::new();
    let _agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    scheduler.launch(vec![task("t", "sleep 1004", 0.1, 32.0)]);
    scheduler.wait_state("t", TaskState::TaskRunning);
    println!("\n{AT}{}", bench.scratch.path().display());
    loop {
        std::thread::park();
    }
}

#[test]
fn nothing_goes_on_working_for_a_test_that_was_killed() {
    let mut killed = Command::new(std::env::current_exe().expect("an executable"))
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "a_test_that_does_not_end",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test starts");
    let output = BufReader::new(killed.stdout.take().expect("it is piped"));
    let mut lines = output.lines().map_while(Result::ok);
    let dir = lines.find_map(|line| Some(line.strip_prefix(AT)?.to_owned()));
    let dir = dir.expect("it starts an agent");
    let dir = Path::new(&dir);
    let left = || leaks::find(dir, Some(&cgroups_root(dir)), &[]);
    // A task is running from the moment that its command is let go.
    wait_for("the command", || {
        let left = left();
        let found = left.iter().any(|line| line.contains("sleep 1004"));
        found.then_some(()).ok_or(left)
    });

    killed.kill().expect("it runs");
    killed.wait().expect("a child");
    wait_for("the end of what it had started", || {
        let mut left = left();
        left.retain(|line| !line.starts_with("socket "));
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    std::fs::remove_dir_all(dir).expect("it is kept");
}
