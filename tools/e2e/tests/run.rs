//! `tepui local` and `tepui run` as a person uses them.

use std::process::Output;

use tepui_e2e::Cluster;

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
