//! The unmodified command line of Mesos 1.11, from PyPI.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Cluster, Scheduler, client};
use tepui_proto::v1::TaskState;

/// Runs it with a configuration that names the cluster's master.
fn mesos(cluster: &Cluster, args: &[&str]) -> Output {
    let config = cluster.dir().join("mesos-cli.toml");
    let text = format!("[master]\naddress = \"{}\"\n", cluster.address());
    fs::write(&config, text).expect("the cluster's folder");
    let mut command = Command::new(client("mesos-cli").join("bin/python"));
    command.args(["-m", "avmesos.cli.mesos-cli"]).args(args);
    command.env("MESOS_CLI_CONFIG", config);
    command.output().expect("it starts")
}

/// What it prints where all is well.
#[track_caller]
fn prints(cluster: &Cluster, args: &[&str]) -> String {
    let output = mesos(cluster, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn it_lists_inspects_and_runs_commands_in_tasks() {
    let cluster = Cluster::start(&[]);
    let mut scheduler = Scheduler::subscribe(cluster.address(), framework("listed", false));
    let ends = task("ends", "true", 0.1, 32.0);
    scheduler.launch(vec![task("sleeper", "sleep 1000", 0.1, 32.0), ends]);
    scheduler.wait_state("sleeper", TaskState::TaskRunning);
    scheduler.wait_state("ends", TaskState::TaskFinished);

    let agents = prints(&cluster, &["agent", "list"]);
    let agent = agents.lines().nth(1).expect("an agent");
    assert!(agent.contains("-S0") && agent.contains("True"), "{agents}");
    let frameworks = prints(&cluster, &["framework", "list"]);
    let row = frameworks.lines().nth(1).expect("a framework");
    assert!(
        row.starts_with(&scheduler.id.value) && row.contains("listed"),
        "{frameworks}"
    );
    let tasks = prints(&cluster, &["task", "list"]);
    assert!(
        tasks.contains("sleeper  TASK_RUNNING") && !tasks.contains("ends"),
        "{tasks}"
    );
    let tasks = prints(&cluster, &["task", "list", "--all"]);
    assert!(tasks.contains("ends     TASK_FINISHED"), "{tasks}");
    let inspected: Value =
        serde_json::from_str(&prints(&cluster, &["task", "inspect", "sleeper"])).expect("JSON");
    assert_eq!(inspected["name"], "sleeper", "{inspected}");

    let said = prints(
        &cluster,
        &["task", "exec", "sleeper", "sh", "-c", "echo $MESOS_SANDBOX"],
    );
    assert!(said.contains("executors/sleeper/runs/"), "{said}");
    assert_eq!(
        mesos(&cluster, &["task", "exec", "sleeper", "false"])
            .status
            .code(),
        Some(1)
    );
    let unknown = mesos(&cluster, &["task", "exec", "nothing", "true"]);
    assert!(!unknown.status.success(), "{unknown:?}");
}
