//! The unmodified Node.js client from npm.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tepui_e2e::{Cluster, client, tepui};

#[test]
fn tasks_finish_and_are_killed() {
    let cluster = Cluster::start(&[]);
    let logs = cluster.dir().join("logs");
    fs::create_dir(logs).expect("the cluster's folder");
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/node/run_tasks.js"))
        .args([&cluster.address().to_string(), "20"])
        .arg(client("node"))
        .current_dir(cluster.dir())
        .output()
        .expect("node starts");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    // The client logs beside what the script prints.
    let states = stdout.lines().find(|line| line.starts_with('{'));
    let states: Value = states
        .and_then(|line| serde_json::from_str(line).ok())
        .unwrap_or_else(|| panic!("{stdout}\n{stderr}"));
    let states = states.as_object().expect("an object");
    assert_eq!(states.len(), 21, "{stdout}\n{stderr}");
    for (task, seen) in states {
        let end = match task.contains("long") {
            true => "TASK_KILLED",
            false => "TASK_FINISHED",
        };
        let expected = json!(["TASK_STARTING", "TASK_RUNNING", end]);
        assert_eq!(*seen, expected, "{task}\n{stderr}");
    }
    let left = tepui(cluster.address(), &["frameworks"]);
    let left = String::from_utf8_lossy(&left.stdout);
    assert_eq!(left.lines().count(), 1, "torn down: {left}");
}
