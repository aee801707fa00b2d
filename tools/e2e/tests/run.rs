//! `tepui local` and `tepui run` as a person uses them.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tepui_e2e::images::{available, layout};
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Cluster, Daemon, Scheduler, Scratch, bin, tepui, wait_for};
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
fn who_asks_for_more_than_any_agent_has_is_told_so() {
    let cluster = Cluster::start(&[]);
    let mut run = Command::new(bin("tepui"))
        .args(["run", "--command", "true", "--cpus", "100000"])
        .env("TEPUI_MASTER", cluster.address().to_string())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let said = BufReader::new(run.stderr.take().expect("it is piped"));
    let mut said = said.lines().map_while(Result::ok);
    assert!(said.any(|line| line.starts_with("no agent has that much in all")));
    let pid = Pid::from_raw(run.id().cast_signed());
    kill(pid, Signal::SIGINT).expect("it waits");
    assert!(said.any(|line| line == "no task runs: giving up"));
    assert_eq!(run.wait().expect("a child").code(), Some(130));
    let late = [
        "run",
        "--command",
        "true",
        "--cpus",
        "100000",
        "--kill-after",
        "1s",
    ];
    let late = cluster.tepui(&late);
    assert_eq!(late.status.code(), Some(1), "it did not run: {late:?}");
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

/// What a command printed, and its code.
fn said(output: &Output) -> (String, i32) {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, code(output))
}

#[test]
fn a_command_gets_what_it_asks_for() {
    let cluster = Cluster::start(&[]);
    let file = cluster.dir().join("given");
    fs::write(&file, "fetched\n").expect("own folder");
    let uri = format!("file://{}", file.display());
    let args = [
        &["run", "--command", "cat given; echo $WORD; sleep 1000"][..],
        &["--uri", &uri, "--env", "WORD=hello", "--label", "team=web"],
        &[
            "--resources",
            "disk:10;cpus:0.2;ports:[31005-31006]",
            "--limit",
            "cpus=1",
        ],
        &["--limit", "mem=infinity", "--kill-after", "2s", "--follow"],
        &[
            "--checkpoint",
            "--capability",
            "PARTITION_AWARE",
            "--principal",
            "someone",
        ],
    ];
    let output = cluster.tepui(&args.concat());
    // Ended by SIGTERM, as a shell tells it.
    assert_eq!(
        said(&output),
        ("fetched\nhello\n".to_owned(), 143),
        "{output:?}"
    );
    let task: Value = cluster.local.get("/master/state")["completed_frameworks"][0].clone();
    assert_eq!(task["checkpoint"], true);
    assert_eq!(task["principal"], "someone");
    let capabilities = task["capabilities"].as_array().expect("capabilities");
    assert!(capabilities.contains(&json!("PARTITION_AWARE")), "{task}");
    let task = &task["completed_tasks"][0];
    assert_eq!(task["state"], "TASK_KILLED");
    assert_eq!(task["labels"], json!([{"key": "team", "value": "web"}]));
    assert_eq!(task["resources"]["cpus"], 0.2);
    assert_eq!(task["resources"]["mem"], 32.0);
    assert_eq!(task["resources"]["ports"], "[31005-31006]");
    assert_eq!(task["limits"]["cpus"], 1.0);
    let wrong = cluster.tepui(&["run", "--command", "true", "--capability", "FLYING"]);
    assert_eq!(code(&wrong), 2, "{wrong:?}");
}

#[test]
fn groups_and_tasks_of_files_run() {
    let cluster = Cluster::start(&[]);
    let file = |name: &str, content: Value| {
        let path = cluster.dir().join(name);
        fs::write(&path, content.to_string()).expect("own folder");
        path.to_str().expect("text").to_owned()
    };
    let scalar = |name: &str, value: f64| json!({"name": name, "type": "SCALAR", "scalar": {"value": value}});
    let task = |id: &str, command: &str| {
        let resources = [scalar("cpus", 0.1), scalar("mem", 32.0)];
        json!({"task_id": {"value": id}, "resources": resources, "command": {"value": command}})
    };
    // The bad end of the second one would end the first one, if it came before.
    let told = cluster.dir().join("told").display().to_string();
    let one = format!("echo from one; echo one > /dev/stderr; touch {told}");
    let two = format!("echo from two; while [ ! -e {told} ]; do sleep 0.05; done; exit 3");
    let both = [task("one", &one), task("two", &two)];
    let group = file("group.json", json!({"tasks": both}));
    let output = cluster.tepui(&["run", "--task-group", &group, "--name", "pod", "--follow"]);
    let (stdout, code) = said(&output);
    assert_eq!(code, 3, "one of the tasks failed: {output:?}");
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["from one", "from two"], "{output:?}");
    assert_eq!(
        said(&cluster.tepui(&["logs", "two"])),
        ("from two\n".to_owned(), 0)
    );
    assert_eq!(
        said(&cluster.tepui(&["logs", "one", "--stderr"])),
        ("one\n".to_owned(), 0)
    );

    let single = file("task.json", task("single", "echo $MESOS_EXECUTOR_ID"));
    let output = cluster.tepui(&["run", "--task", &single, "--instances", "2", "--follow"]);
    let (stdout, code) = said(&output);
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        (lines, code),
        (vec!["single-00000", "single-00001"], 0),
        "{output:?}"
    );

    let broken = file("broken.json", json!({"tasks": [{"resources": 1}]}));
    let output = cluster.tepui(&["run", "--task-group", &broken]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("--task-group") && told.contains("resources"),
        "{told}"
    );
}

#[test]
fn a_command_runs_in_an_image_with_volumes() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let images = scratch.path().join("images");
    fs::create_dir(&images).expect("a folder");
    layout(&images, "box");
    let data = scratch.path().join("data");
    fs::create_dir(&data).expect("a folder");
    fs::write(data.join("file"), "of the host\n").expect("a file");
    let config = scratch.path().join("agent.toml");
    let layouts = images.display().to_string();
    fs::write(
        &config,
        format!("[modules.oci]\nlayouts_dir = {layouts:?}\n"),
    )
    .expect("a file");
    let flags = [
        "--isolation=filesystem/linux,docker/runtime,volume/host_path",
        "--image_providers=DOCKER,OCI",
        &format!("--config={}", config.display()),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let _agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    wait_for("an agent", || {
        let state = master.get_text("/slaves");
        if state.contains("\"active\":true") {
            Ok(())
        } else {
            Err(state)
        }
    });
    let volume = format!("{}:/mnt/data:ro", data.display());
    let command = "cat /etc/layer /mnt/data/file; touch /mnt/data/new 2>&- || echo 'only read'";
    let args = [
        "run",
        "--image",
        "oci:box",
        "--volume",
        &volume,
        "--command",
        command,
        "--follow",
    ];
    let (stdout, code) = said(&tepui(master.address, &args));
    assert_eq!(code, 0, "{stdout}");
    assert!(stdout.ends_with("of the host\nonly read\n"), "{stdout}");
    assert!(
        stdout.lines().count() > 2,
        "the image's /etc/layer comes first: {stdout}"
    );
}
