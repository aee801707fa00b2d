//! `tepui local` and `tepui run` as a person uses them.

use std::process::Output;

use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Cluster, Scheduler};
use tepui_proto::v1::TaskState;

#[track_caller]
fn code(output: &Output) -> i32 {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
        .status
        .code()
        .unwrap_or_else(|| panic!("{}: {text}", output.status))
}

#[test]
fn a_task_runs_and_its_output_arrives() {
    let cluster = Cluster::start(&[]);
    let output = cluster.tepui(&["run", "--command", "echo out; echo err >&2", "--follow"]);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(code(&output), 0, "{stderr}");
    assert_eq!(stdout, "out\n", "{stderr}");
    assert!(stderr.contains("\nerr\n"), "{stderr}");
    let states: Vec<_> = stderr
        .lines()
        .filter_map(|line| line.split(' ').find(|word| word.starts_with("TASK_")))
        .collect();
    let states: Vec<_> = states
        .iter()
        .map(|state| state.trim_end_matches(':'))
        .collect();
    assert_eq!(
        states,
        ["TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED"],
        "{stderr}"
    );
    let logs = cluster.tepui(&["logs", "tepui-run"]);
    assert_eq!(String::from_utf8_lossy(&logs.stdout), "out\n");
}

#[test]
fn what_runs_is_listed() {
    let cluster = Cluster::start(&[]);
    let lists = |args: &[&str]| {
        let output = cluster.tepui(args);
        assert_eq!(code(&output), 0);
        String::from_utf8(output.stdout).expect("text")
    };
    let json =
        |args: &[&str]| -> serde_json::Value { serde_json::from_str(&lists(args)).expect("JSON") };
    let mut scheduler = Scheduler::subscribe(cluster.address(), framework("someone's", false));
    scheduler.launch(vec![task("sleeper", "sleep 1000", 0.5, 64.0)]);
    scheduler.wait_state("sleeper", TaskState::TaskRunning);

    let row = |list: &str, of: &str| -> Vec<String> {
        let row = list.lines().find(|line| line.contains(of));
        let row = row.unwrap_or_else(|| panic!("{of} is not in {list}"));
        row.split_whitespace().map(str::to_owned).collect()
    };
    let tasks = lists(&["tasks"]);
    assert_eq!(row(&tasks, "sleeper")[2..5], ["TASK_RUNNING", "0.5", "64"]);
    let agents = lists(&["agents"]);
    assert_eq!(row(&agents, "-S0")[3], "active");
    assert!(row(&agents, "-S0")[4].starts_with("0.5/"), "{agents}");
    assert_eq!(
        row(&lists(&["frameworks"]), "someone's").last().unwrap(),
        "active"
    );

    let tasks = json(&["tasks", "--json"]);
    let listed = &tasks["get_tasks"]["tasks"][0];
    assert_eq!(&json(&["inspect", "sleeper"]), listed);
    assert_eq!(listed["statuses"][0]["state"], "TASK_STARTING");
    let agents = json(&["agents", "--json"]);
    assert_eq!(agents["get_agents"]["agents"][0]["active"], true);

    let unknown = cluster.tepui(&["inspect", "nothing"]);
    assert_eq!(code(&unknown), 1);
    let told = String::from_utf8_lossy(&unknown.stderr);
    assert!(told.contains("`tepui tasks --all` lists them"), "{told}");
}

#[test]
fn the_tasks_code_is_the_commands_code() {
    let cluster = Cluster::start(&[]);
    for (command, expected) in [
        ("true", 0),
        ("exit 7", 7),
        ("kill -SEGV $$", 139),
        ("kill -9 $$", 137),
    ] {
        let output = cluster.tepui(&["run", "--command", command]);
        assert_eq!(
            code(&output),
            expected,
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn many_instances_run_on_many_agents() {
    let cluster = Cluster::start(&["--agents", "2"]);
    let output = cluster.tepui(&[
        "run",
        "--command",
        "echo $MESOS_EXECUTOR_ID",
        "--instances",
        "20",
        "--follow",
    ]);
    assert_eq!(
        code(&output),
        0,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert_eq!(
        lines,
        (0..20)
            .map(|n| format!("tepui-run-{n:05}"))
            .collect::<Vec<_>>()
    );
}
