//! The unmodified Python client from PyPI.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use tepui_e2e::server::{Page, PageServer};
use tepui_e2e::{Cluster, python};

/// Runs a script against a cluster of its own; what it prints at the end.
fn run(script: &str, arguments: &[&str]) -> (Value, String) {
    let cluster = Cluster::start(&[]);
    let script = format!("{}/python/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(python())
        .arg(script)
        .arg(cluster.local.address.to_string())
        .args(arguments)
        .output()
        .expect("the interpreter runs");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let result: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
    assert_eq!(result["error"], Value::Null, "{stderr}");
    (result, stderr.into_owned())
}

#[test]
fn fifty_tasks_finish() {
    let (result, stderr) = run("run_tasks.py", &["50", "echo $MESOS_EXECUTOR_ID"]);
    let states = result["states"].as_object().expect("an object");
    assert_eq!(states.len(), 50, "{result}\n{stderr}");
    for (task, seen) in states {
        assert_eq!(
            *seen,
            serde_json::json!(["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]),
            "{task}\n{stderr}"
        );
    }
}

#[test]
fn tasks_share_what_is_fetched_for_them() {
    let page = Page::Whole("200 OK", b"fetched".into());
    let server = PageServer::start([("/file", page)]);
    let command = "test \"$(cat file)\" = fetched";
    let (result, stderr) = run("run_tasks.py", &["10", command, &server.url("/file")]);
    let states = result["states"].as_object().expect("an object");
    assert_eq!(states.len(), 10, "{result}\n{stderr}");
    for (task, seen) in states {
        let last = seen.as_array().and_then(|seen| seen.last());
        assert_eq!(last, Some(&"TASK_FINISHED".into()), "{task}\n{stderr}");
    }
    assert_eq!(server.asked("/file"), 1);
}

#[test]
fn its_own_executor_runs_tasks_as_threads() {
    let (result, stderr) = run("run_executor.py", &["10"]);
    assert_eq!(result["finished"], true, "{result}\n{stderr}");
    let states = result["states"].as_object().expect("an object");
    assert_eq!(states.len(), 10, "{result}\n{stderr}");
    for (task, seen) in states {
        let odd = task.ends_with(['1', '3', '5', '7', '9']);
        let end = if odd { "TASK_KILLED" } else { "TASK_FINISHED" };
        let expected = serde_json::json!(["TASK_RUNNING", end]);
        assert_eq!(*seen, expected, "{task}\n{stderr}");
    }
    let asked: BTreeSet<&String> = states.keys().collect();
    assert_eq!(result["asked"], serde_json::json!(asked), "{stderr}");
    assert_eq!(result["processes"], 1, "{result}");
    assert_eq!(result["ends"], serde_json::json!(["threads"]), "{stderr}");
}
