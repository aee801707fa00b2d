//! Containers on a real agent: limits, environment, its own death and return.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_e2e::bench::RESOURCES;
use tepui_e2e::scheduler::task;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Bench, Daemon, wait_for};
use tepui_proto::v1::{self, TaskState, task_status};

/// A file that tasks wait for.
fn flag(bench: &Bench) -> PathBuf {
    bench.scratch.path().join("go-on")
}

fn waiting(bench: &Bench, id: &str) -> v1::TaskInfo {
    let command = format!(
        "while [ ! -e {} ]; do sleep 0.05; done",
        flag(bench).display()
    );
    task(id, &command, 0.1, 32.0)
}

fn executor_pid(status: &v1::TaskStatus) -> u32 {
    status
        .container_status
        .as_ref()
        .and_then(|container| container.executor_pid)
        .expect("every update has it")
}

fn alive(pid: u32) -> bool {
    kill(Pid::from_raw(pid.cast_signed()), None).is_ok()
}

/// The directory of a process in a v1 hierarchy.
fn cgroup(pid: u32, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a running process");
    let line = text.lines().find(|line| {
        line.split(':')
            .nth(1)
            .is_some_and(|list| list.split(',').any(|c| c == controller))
    });
    let path = line
        .and_then(|line| line.split(':').nth(2))
        .expect("the controller is mounted");
    Path::new("/sys/fs/cgroup")
        .join(controller)
        .join(path.trim_start_matches('/'))
}

/// A file of a process's cgroup.
fn limit_file(pid: u32, controller: &str, file: &str) -> String {
    let path = cgroup(pid, controller).join(file);
    let text = fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

#[test]
fn tasks_of_a_checkpointing_framework_survive_the_agent() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let port = agent.address.port();
    let mut scheduler = bench.scheduler(true);
    let ids: Vec<_> = (0..20).map(|n| format!("t{n:02}")).collect();
    scheduler.launch(ids.iter().map(|id| waiting(&bench, id)).collect());
    for id in &ids {
        scheduler.wait_state(id, TaskState::TaskRunning);
    }
    agent.kill();
    let agent = bench.agent_at(port, &[]);
    fs::write(flag(&bench), "").expect("the scratch folder");
    for id in &ids {
        scheduler.wait_state(id, TaskState::TaskFinished);
    }
    for (id, states) in scheduler.states() {
        let finished = states
            .iter()
            .filter(|state| **state == TaskState::TaskFinished)
            .count();
        assert_eq!(finished, 1, "{id}: {states:?}");
        assert!(
            states
                .iter()
                .all(|state| !matches!(state, TaskState::TaskLost | TaskState::TaskFailed)),
            "{id}: {states:?}"
        );
    }
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn tasks_of_other_frameworks_end_with_the_agent() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let port = agent.address.port();
    let mut scheduler = bench.scheduler(false);
    scheduler.launch(vec![waiting(&bench, "a"), waiting(&bench, "b")]);
    let pids = ["a", "b"].map(|id| executor_pid(&scheduler.wait_state(id, TaskState::TaskRunning)));
    agent.kill();
    wait_for("the end of both containers", || {
        if pids.iter().any(|pid| alive(*pid)) {
            Err(pids)
        } else {
            Ok(())
        }
    });
    for id in ["a", "b"] {
        scheduler.wait_state(id, TaskState::TaskLost);
    }
    let agent = bench.agent_at(port, &[]);
    scheduler.launch(vec![task("c", "true", 0.1, 32.0)]);
    scheduler.wait_state("c", TaskState::TaskFinished);
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn limits_stand_in_the_cgroup_while_the_task_runs() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let mut info = waiting(&bench, "limited");
    info.resources = task("", "", 0.5, 64.0).resources;
    scheduler.launch(vec![info]);
    let pid = executor_pid(&scheduler.wait_state("limited", TaskState::TaskRunning));
    let read = |controller: &str, file: &str| {
        let path = cgroup(pid, controller).join(file);
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            .trim()
            .to_owned()
    };
    // The generated executor's own 0.1 cpus and 32 MB are part of the container.
    assert_eq!(
        read("memory", "memory.limit_in_bytes"),
        (96 << 20).to_string()
    );
    assert_eq!(
        read("memory", "memory.soft_limit_in_bytes"),
        (96 << 20).to_string()
    );
    assert_eq!(read("cpu", "cpu.shares"), "614");
    // A task may have more than what is set aside; its executor's own part comes on top.
    let mut info = waiting(&bench, "bursts");
    info.resources = task("", "", 0.5, 64.0).resources;
    let limit = |value| v1::value::Scalar { value };
    info.limits = [
        ("cpus".to_owned(), limit(1.0)),
        ("mem".to_owned(), limit(128.0)),
    ]
    .into();
    scheduler.launch(vec![info]);
    let pid = executor_pid(&scheduler.wait_state("bursts", TaskState::TaskRunning));
    let read = |controller: &str, file: &str| limit_file(pid, controller, file);
    assert_eq!(
        read("memory", "memory.limit_in_bytes"),
        (160 << 20).to_string()
    );
    assert_eq!(
        read("memory", "memory.soft_limit_in_bytes"),
        (96 << 20).to_string()
    );
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "110000");
    assert_eq!(read("cpu", "cpu.shares"), "614");
    fs::write(flag(&bench), "").expect("the scratch folder");
    scheduler.wait_state("limited", TaskState::TaskFinished);
    scheduler.wait_state("bursts", TaskState::TaskFinished);
    let group = cgroup(std::process::id(), "memory");
    assert!(group.exists(), "own group is untouched");
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn a_task_over_its_memory_is_killed_and_its_sibling_is_not() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let hog = task(
        "hog",
        "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}",
        0.1,
        32.0,
    );
    scheduler.launch(vec![waiting(&bench, "sibling"), hog]);
    let failed = scheduler.wait_state("hog", TaskState::TaskFailed);
    assert_eq!(
        failed.reason(),
        task_status::Reason::ContainerLimitationMemory,
        "{failed:?}"
    );
    assert!(
        failed.message().contains("Memory limit exceeded"),
        "{}",
        failed.message()
    );
    let limited: Vec<_> = failed
        .limitation
        .iter()
        .flat_map(|limitation| &limitation.resources)
        .collect();
    assert!(
        limited.iter().any(|resource| resource.name == "mem"),
        "{failed:?}"
    );
    fs::write(flag(&bench), "").expect("the scratch folder");
    scheduler.wait_state("sibling", TaskState::TaskFinished);
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn arguments_and_environment_arrive_unchanged() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let out = bench.scratch.path().join("out");
    fs::create_dir(&out).expect("the scratch folder");
    let mut echo = task("echo", "", 0.1, 32.0);
    let script = format!(
        "import os,sys,json; json.dump([sys.argv[1:], dict(os.environ), os.getcwd()], open('{}/echo', 'w'))",
        out.display()
    );
    let arguments = [
        "python3",
        "-c",
        &script,
        "two words",
        "$HOME",
        "'quoted'",
        "",
    ];
    echo.command = Some(v1::CommandInfo {
        shell: Some(false),
        value: Some("/usr/bin/env".to_owned()),
        arguments: std::iter::once("env")
            .chain(arguments)
            .map(str::to_owned)
            .collect(),
        environment: Some(v1::Environment {
            variables: vec![v1::environment::Variable {
                name: "GREETING".to_owned(),
                value: Some("a=b c\n\"d\"".to_owned()),
                ..Default::default()
            }],
        }),
        ..Default::default()
    });
    let offer = scheduler.launch(vec![echo]);
    scheduler.wait_state("echo", TaskState::TaskFinished);
    let seen: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("echo")).expect("the task wrote it"))
            .expect("JSON");
    assert_eq!(
        seen[0],
        serde_json::json!(["two words", "$HOME", "'quoted'", ""])
    );
    let environment = &seen[1];
    assert_eq!(environment["GREETING"], "a=b c\n\"d\"");
    assert_eq!(environment["MESOS_EXECUTOR_ID"], "echo");
    assert_eq!(
        environment["MESOS_FRAMEWORK_ID"],
        scheduler.id.value.as_str()
    );
    assert_eq!(environment["MESOS_SLAVE_ID"], offer.agent_id.value.as_str());
    assert_eq!(environment["MESOS_CHECKPOINT"], "1");
    assert_eq!(
        environment["MESOS_AGENT_ENDPOINT"],
        agent.address.to_string()
    );
    assert_eq!(
        environment["MESOS_SLAVE_PID"],
        format!("slave(1)@{}", agent.address)
    );
    assert_eq!(environment["MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD"], "5secs");
    assert_eq!(environment["MESOS_RECOVERY_TIMEOUT"], "15mins");
    let sandbox = environment["MESOS_SANDBOX"].as_str().expect("set");
    assert_eq!(seen[2], sandbox, "the task starts in its sandbox");
    let expected = format!("/frameworks/{}/executors/echo/runs/", scheduler.id.value);
    assert!(sandbox.contains(&expected), "{sandbox}");
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn what_daemons_set_for_themselves_does_not_reach_tasks() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit that exists");
    for daemon in [&bench.master, &agent] {
        let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
        let limits = limits.expect("a running process");
        let files = limits
            .lines()
            .find(|line| line.starts_with("Max open files"));
        let files: Vec<&str> = files
            .expect("of every process")
            .split_whitespace()
            .collect();
        assert_eq!(files[3..5], [hard.to_string(), hard.to_string()]);
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid()));
        let status = status.expect("a running process");
        assert!(status.contains("THP_enabled:\t0"), "{status}");
    }
    let out = bench.scratch.path().join("limits");
    let command = format!(
        "(ulimit -Sn; ulimit -Hn; grep THP_enabled /proc/self/status) > {}",
        out.display()
    );
    let mut scheduler = bench.scheduler(true);
    scheduler.launch(vec![task("limits", &command, 0.1, 32.0)]);
    scheduler.wait_state("limits", TaskState::TaskFinished);
    let seen = fs::read_to_string(out).expect("the task wrote it");
    assert_eq!(seen, format!("{soft}\n{hard}\nTHP_enabled:\t1\n"));
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn the_site_sets_variables_that_tasks_may_set_otherwise() {
    let bench = Bench::new();
    let variables = r#"{"SITE":"here","COLOR":"agent"}"#;
    let agent = bench.agent(&[&format!("--executor_environment_variables={variables}")]);
    let mut scheduler = bench.scheduler(true);
    let mut task = task("t", r#"test "$SITE $COLOR" = "here task""#, 0.1, 32.0);
    let command = task.command.as_mut().expect("a command task");
    command.environment = Some(v1::Environment {
        variables: vec![v1::environment::Variable {
            name: "COLOR".to_owned(),
            value: Some("task".to_owned()),
            ..Default::default()
        }],
    });
    scheduler.launch(vec![task]);
    scheduler.wait_state("t", TaskState::TaskFinished);
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn an_agent_that_cleans_up_ends_what_was_left_and_exits() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    scheduler.launch(vec![waiting(&bench, "t")]);
    let pid = executor_pid(&scheduler.wait_state("t", TaskState::TaskRunning));
    agent.kill();
    assert!(alive(pid), "a checkpointed task survives its agent");
    let (dir, master) = (bench.scratch.path(), bench.master.address);
    let flags = [RESOURCES, "--recover=cleanup"];
    let status = Daemon::agent_command(0, dir, "agent", master, &flags).status();
    assert!(status.expect("it starts").success());
    assert!(!alive(pid));
    wait_clean(dir);
    // The next one is another: it may have other resources, too.
    let agent = Daemon::agent(dir, "agent", master, &["--resources=cpus:1;mem:64"]);
    let ids = wait_for("the new agent", || {
        let state = bench.master.get("/state");
        let agents = state["slaves"].as_array().cloned().unwrap_or_default();
        let ids: Vec<_> = agents.iter().map(|agent| agent["id"].to_string()).collect();
        if ids.iter().any(|id| id.ends_with("-S1\"")) {
            Ok(ids)
        } else {
            Err(state)
        }
    });
    assert!(!ids.is_empty());
    agent.stop(Signal::SIGUSR1);
}

#[test]
fn a_kill_ends_the_task_within_its_grace() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let ready = bench.scratch.path().join("ready");
    let command = format!(
        "trap '' TERM; echo > {}; while :; do sleep 0.05; done",
        ready.display()
    );
    let stubborn = task("stubborn", &command, 0.1, 32.0);
    scheduler.launch(vec![waiting(&bench, "polite"), stubborn]);
    // It runs before it is stubborn.
    wait_for("the stubborn task", || {
        ready.exists().then_some(()).ok_or("not ready")
    });
    for id in ["polite", "stubborn"] {
        scheduler.wait_state(id, TaskState::TaskRunning);
        scheduler.kill(id);
    }
    let polite = scheduler.wait_state("polite", TaskState::TaskKilled);
    assert_eq!(
        polite.message(),
        "Command terminated with signal Terminated"
    );
    let stubborn = scheduler.wait_state("stubborn", TaskState::TaskKilled);
    assert_eq!(stubborn.message(), "Command terminated with signal Killed");
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn what_a_task_cannot_have_is_refused_by_name() {
    let bench = Bench::new();
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let mut docker = task("docker", "true", 0.1, 32.0);
    docker.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Docker.into(),
        docker: Some(v1::container_info::DockerInfo {
            image: "busybox".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    });
    scheduler.launch(vec![docker]);
    let error = scheduler.wait_state("docker", TaskState::TaskError);
    assert!(error.message().contains("docker"), "{}", error.message());
    drop(agent);
}
