//! Where the output of tasks goes.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tepui_e2e::scheduler::task;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Bench, Daemon, bin, wait_for};
use tepui_proto::v1::environment::Variable;
use tepui_proto::v1::{Environment, TaskInfo, TaskState, task_status};

/// An agent with this logger.
fn agent_with(bench: &Bench, port: u16, logger: &str) -> Daemon {
    bench.agent_at(port, &[&format!("--container_logger={logger}")])
}

/// The sandbox of a task.
fn sandbox(bench: &Bench, task: &str) -> PathBuf {
    let tail = format!("executors/{task}/runs/latest");
    let mut found = Vec::new();
    walk(bench.scratch.path(), &tail, &mut found);
    found
        .pop()
        .unwrap_or_else(|| panic!("no sandbox of {task}"))
}

fn walk(directory: &Path, tail: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.ends_with(tail) {
            found.push(path);
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, tail, found);
        }
    }
}

fn lines(id: &str, count: usize, then: &str) -> TaskInfo {
    let command = format!("for n in $(seq {count}); do echo line $n of a log; done; {then}");
    task(id, &command, 0.1, 32.0)
}

fn with(mut task: TaskInfo, variables: &[(&str, &str)]) -> TaskInfo {
    let variables = variables.iter().map(|(name, value)| Variable {
        name: (*name).to_owned(),
        value: Some((*value).to_owned()),
        ..Variable::default()
    });
    task.command.as_mut().expect("set").environment = Some(Environment {
        variables: variables.collect(),
    });
    task
}

#[test]
fn logs_rotate_while_the_agent_comes_and_goes() {
    let bench = Bench::new();
    let agent = agent_with(&bench, 0, "rotating");
    let port = agent.address.port();
    let mut scheduler = bench.scheduler(true);
    let small = [
        ("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "4KB"),
        ("CONTAINER_LOGGER_LOGROTATE_STDOUT_OPTIONS", "rotate 2"),
    ];
    let go_on = bench.scratch.path().join("go-on");
    let waits = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; echo the end; echo bad >&2",
        go_on.display()
    );
    let wrong = [("CONTAINER_LOGGER_MAX_STDOUT_SIZE", "much")];
    scheduler.launch(vec![
        with(lines("long", 2000, &waits), &small),
        with(lines("wrong", 1, "true"), &wrong),
    ]);
    let failed = scheduler.wait_state("wrong", TaskState::TaskFailed);
    assert_eq!(failed.reason(), task_status::Reason::ContainerLaunchFailed);
    let said = "CONTAINER_LOGGER_MAX_STDOUT_SIZE: expected a size";
    assert!(failed.message().contains(said), "{}", failed.message());

    scheduler.wait_state("long", TaskState::TaskRunning);
    let sandbox = sandbox(&bench, "long");
    wait_for("old files", || match sandbox.join("stdout.2").exists() {
        true => Ok(()),
        false => Err("stdout.2 is missing"),
    });
    // The program goes on without the agent.
    agent.kill();
    fs::write(&go_on, "").expect("the scratch folder");
    let agent = agent_with(&bench, port, "rotating");
    scheduler.wait_state("long", TaskState::TaskFinished);
    let read = |name: &str| fs::read_to_string(sandbox.join(name)).unwrap_or_default();
    wait_for("the last line", || {
        match read("stdout").ends_with("the end\n") {
            true => Ok(()),
            false => Err(read("stdout")),
        }
    });
    assert_eq!(read("stderr"), "bad\n");
    for name in ["stdout", "stdout.1", "stdout.2"] {
        let size = read(name).len();
        assert!((1..=4096).contains(&size), "{name} has {size} bytes");
    }
    assert!(!sandbox.join("stdout.3").exists());
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
    wait_for("the end of the programs of logs", || {
        let program = bin("tepui-logger");
        let running = processes(&program, &sandbox);
        if running.is_empty() {
            Ok(())
        } else {
            Err(running)
        }
    });
}

/// Processes of a program that have this path among their arguments.
fn processes(program: &Path, argument: &Path) -> Vec<String> {
    let name = program.file_name().expect("a program").to_string_lossy();
    let argument = argument.to_string_lossy();
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| line.contains(&*name) && line.contains(&*argument))
        .collect()
}

#[test]
fn output_may_go_nowhere() {
    let bench = Bench::new();
    let agent = agent_with(&bench, 0, "off");
    let mut scheduler = bench.scheduler(true);
    scheduler.launch(vec![lines(
        "quiet",
        10,
        "echo bad >&2; test -c /dev/stdout",
    )]);
    scheduler.wait_state("quiet", TaskState::TaskFinished);
    let sandbox = sandbox(&bench, "quiet");
    assert_eq!(fs::read_dir(sandbox).expect("it is there").count(), 0);
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}
