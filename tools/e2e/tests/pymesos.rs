//! The unmodified Python client from PyPI.

use std::process::Command;

use serde_json::Value;
use tepui_e2e::{Cluster, python};

#[test]
fn fifty_tasks_finish() {
    let cluster = Cluster::start(&[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/run_tasks.py");
    let output = Command::new(python())
        .args([
            script,
            &cluster.local.address.to_string(),
            "50",
            "echo $MESOS_EXECUTOR_ID",
        ])
        .output()
        .expect("the interpreter runs");
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    let result: Value =
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
    assert_eq!(result["error"], Value::Null, "{stderr}");
    let states = result["states"].as_object().expect("an object");
    assert_eq!(states.len(), 50, "{stdout}\n{stderr}");
    for (task, seen) in states {
        assert_eq!(
            *seen,
            serde_json::json!(["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"]),
            "{task}\n{stderr}"
        );
    }
}
