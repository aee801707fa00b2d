//! A whole agent with a master that a test plays and containers that pretend.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::{TIMEOUT, framework, start, surroundings, task, wait_until, welcomed};
use tepui_containerizer::Exit;
use tepui_core_agent::Ended;
use tepui_link::MasterEvent;
use tepui_proto::link::ShutdownFramework;
use tepui_proto::link::link_frame::Body;
use tepui_proto::v1::{self, TaskState};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_from_launch_to_history() {
    let (dir, mut master, containers) = surroundings().await;
    let running = start(dir.path(), &master, &containers).await;
    assert_eq!(master.welcome().await, (None, Vec::new()));
    master.run(task("t"), true);
    let status = master
        .states(&[TaskState::TaskStarting, TaskState::TaskRunning])
        .await;
    let container = containers.only();
    let shown = status.container_status.expect("a container's status");
    assert_eq!(
        shown.container_id.map(|id| id.value),
        Some(container.to_string())
    );
    assert_eq!(shown.executor_pid, Some(7));
    assert_eq!(
        shown.network_infos[0].ip_addresses[0].ip_address(),
        "127.0.0.1"
    );

    let config = containers.configs.lock().expect("no panic under it")[0].clone();
    let runs = dir.path().join("slaves/S0/frameworks/F/executors/t/runs");
    assert_eq!(config.sandbox, runs.join(container.to_string()));
    let latest = std::fs::read_link(runs.join("latest")).expect("a link");
    assert_eq!(latest, PathBuf::from(container.to_string()));
    let variable = |name: &str| {
        let all = config.environment.iter().rev();
        let mut found = all.filter(|(n, _)| n == name);
        found
            .next()
            .map_or("-", |(_, value)| value.as_str())
            .to_owned()
    };
    assert_eq!(variable("MINE"), "1");
    assert_eq!(variable("MESOS_ALLOCATION_ROLE"), "r");
    assert_eq!(variable("MESOS_CHECKPOINT"), "1");
    assert_eq!(variable("MESOS_EXECUTOR_ID"), "t");
    assert_eq!(config.resources.cpus().to_f64(), 0.2);
    assert_eq!(config.resources.mem().to_f64(), 48.0);

    for prefix in ["", "/slave(1)"] {
        let state = running.get(&format!("{prefix}/state")).await;
        let executor = &state["frameworks"][0]["executors"][0];
        assert_eq!(
            executor["name"],
            "Command Executor (Task: t) (Command: sh -c 'sleep 1000')"
        );
        assert_eq!(executor["resources"]["mem"], 48.0);
        assert_eq!(executor["tasks"][0]["state"], "TASK_RUNNING");
        assert_eq!(state["master_hostname"], "there");
        assert_eq!(state["unreserved_resources_allocated"]["cpus"], 0.2);
    }
    let tasks = running.call(r#"{"type": "GET_TASKS"}"#).await.1;
    assert!(tasks.starts_with(r#"{"type":"GET_TASKS","get_tasks":{"pending_tasks":[],"queued_tasks":[],"launched_tasks":[{"name":"t""#), "{tasks}");
    let seen = running.call(r#"{"type": "GET_CONTAINERS"}"#).await.1;
    assert!(seen.contains(r#""executor_pid":7"#), "{seen}");
    let listed = running.get("/containers").await;
    assert_eq!(listed[0]["statistics"]["timestamp"], 1.5);
    for (only, count) in [
        ("framework_id=F&executor_id=t".to_owned(), 1),
        (format!("container_id={container}"), 1),
        ("framework_id=G".to_owned(), 0),
        ("executor_id=u".to_owned(), 0),
        ("container_id=x".to_owned(), 0),
    ] {
        let listed = running.get(&format!("/containers?{only}")).await;
        assert_eq!(listed.as_array().map(Vec::len), Some(count), "{only}");
    }
    let virtual_path = "/files/read?path=/frameworks/F/executors/t/runs/latest/stdout&offset=0";
    assert_eq!(running.get(virtual_path).await["data"], "hello\n");

    containers.end(&container, Exit::Status(0));
    let last = master.states(&[TaskState::TaskFinished]).await;
    assert_eq!(last.message(), "Command exited with status 0");
    wait_until("the task is history", async || {
        let state = running.get("/state").await;
        let completed = &state["completed_frameworks"][0]["completed_executors"][0];
        completed["completed_tasks"][0]["state"] == "TASK_FINISHED"
    })
    .await;
    wait_until("it is forgotten", async || containers.count() == 0).await;
    running.stop().await;
}

/// Records are directories, for whose end a disk may take its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_do_not_wait_while_a_container_is_forgotten() {
    let (_dir, mut master, containers, running) = welcomed().await;
    let forgets = &containers.forgets;
    forgets.send_replace(false);
    master.runs(task("t"), true).await;
    containers.end(&containers.only(), Exit::Status(0));
    master.states(&[TaskState::TaskFinished]).await;
    wait_until("it is being forgotten", async || {
        forgets.receiver_count() > 0
    })
    .await;
    master.runs(task("u"), true).await;
    assert_eq!(containers.count(), 2);
    forgets.send_replace(true);
    wait_until("it is forgotten", async || containers.count() == 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_survives_the_agent() {
    let (dir, mut master, containers, first) = welcomed().await;
    master.runs(task("t"), true).await;
    first.stop().await;

    // It runs on while there is no agent; the next one goes on with it under the same id.
    let second = start(dir.path(), &master, &containers).await;
    let (id, tasks) = master.welcome().await;
    assert_eq!(id.as_deref(), Some("S0"));
    assert_eq!(tasks[0].state(), TaskState::TaskRunning);
    master.kill("t");
    let last = master.states(&[TaskState::TaskKilled]).await;
    assert_eq!(last.message(), "Command terminated with signal Terminated");

    // One that ends while there is no agent is told of by the next one.
    master.runs(task("u"), true).await;
    wait_until("only one container is left", async || {
        containers.count() == 1
    })
    .await;
    let container = containers.only();
    second.stop().await;
    containers.end(&container, Exit::Status(7 << 8));
    let third = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    let last = master.states(&[TaskState::TaskFailed]).await;
    assert_eq!(last.message(), "Command exited with status 7");

    // Without checkpoint nothing survives.
    master.runs(task("v"), false).await;
    third.stop().await;
    let fourth = start(dir.path(), &master, &containers).await;
    let (_, tasks) = master.welcome().await;
    assert!(tasks.is_empty());
    assert_eq!(containers.count(), 0);
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_shutdown_and_leaving() {
    let (dir, mut master, containers, mut running) = welcomed().await;
    let asks_for_more = v1::TaskInfo {
        container: Some(v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos.into(),
            hostname: Some("elsewhere".to_owned()),
            ..v1::ContainerInfo::default()
        }),
        ..task("h")
    };
    master.run(asks_for_more, true);
    let status = master.states(&[TaskState::TaskError]).await;
    assert!(
        status.message().contains("hostname"),
        "{}",
        status.message()
    );
    assert_eq!(status.reason(), v1::task_status::Reason::TaskInvalid);

    master.runs(task("t"), true).await;
    master.send(Body::ShutdownFramework(ShutdownFramework {
        framework_id: framework(true).id,
    }));
    wait_until("its container is gone", async || containers.count() == 0).await;

    for (body, expected) in [
        (r#"{"type": "UNKNOWN"}"#, 501),
        (
            r#"{"type": "LAUNCH_CONTAINER", "launch_container": {"container_id": {"value": "x"}}}"#,
            400,
        ),
        (r#"{"type": "WAIT_CONTAINER"}"#, 400),
        ("{}", 400),
    ] {
        assert_eq!(running.call(body).await.0, expected, "{body}");
    }
    running.agent.unregister();
    let ended = tokio::time::timeout(TIMEOUT, running.agent.ended()).await;
    assert!(matches!(ended, Ok(Ended::Left(_))), "{ended:?}");
    assert!(matches!(master.next().await, MasterEvent::Unregister));
    assert!(!dir.path().join("meta/agent.pb").exists());
    running.stop().await;
}

/// Every file that an agent writes about what it runs, damaged: a strict agent names it and does not
/// start, another ends what it cannot know of and goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_records_are_fatal_or_lost() {
    let (dir, mut master, containers) = surroundings().await;
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("executor.pb", |path| {
            std::fs::write(path, [0xff; 20]).expect("space")
        }),
        ("executor.pb", |path| {
            std::fs::write(path, []).expect("space")
        }),
        ("events.log", |path| {
            let mut log = std::fs::read(path).expect("a log");
            log[10] ^= 1;
            std::fs::write(path, log).expect("space");
        }),
        ("agent.pb", |path| {
            std::fs::write(path, b"?").expect("space")
        }),
    ];
    for (n, (file, damage)) in damages.into_iter().enumerate() {
        let running = start(dir.path(), &master, &containers).await;
        master.welcome().await;
        for name in [format!("bad{n}"), format!("good{n}")] {
            master.runs(task(&name), true).await;
        }
        let bad = containers.of(&format!("bad{n}"));
        running.stop().await;
        let meta = dir.path().join("meta");
        let path = match file {
            "agent.pb" => meta.join(file),
            _ => meta.join("executors").join(bad.to_string()).join(file),
        };
        damage(&path);
        let before = std::fs::read(&path).expect("the file");

        let refused = support::try_start(dir.path(), &master, &containers, |_| {}).await;
        let error = refused.err().expect("it is strict").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        let lives = containers
            .find(&bad)
            .expect("it is there")
            .borrow()
            .is_none();
        assert!(lives, "{file}: a refusal ends nothing");
        assert_eq!(std::fs::read(&path).expect("the file"), before);

        let running = support::start_with(dir.path(), &master, &containers, |settings| {
            settings.strict = false;
        })
        .await;
        let (id, tasks) = master.welcome().await;
        let names: Vec<&str> = tasks.iter().map(|task| &*task.task_id.value).collect();
        assert!(containers.find(&bad).is_err(), "{file}: it is not ended");
        assert_eq!(
            std::fs::read_dir(meta.join("damaged"))
                .expect("kept")
                .count(),
            n + 1 + usize::from(file == "agent.pb")
        );
        let told = running.get("/metrics/snapshot").await;
        let lost = if file == "agent.pb" { 2.0 } else { 1.0 };
        assert_eq!(told["slave/recovery_errors"], lost, "{file}");
        if file == "agent.pb" {
            assert_eq!((id, names.len()), (None, 0));
        } else {
            assert_eq!(names, [format!("good{n}")], "{file}");
            master.kill(&format!("good{n}"));
            master.states(&[TaskState::TaskKilled]).await;
        }
        running.stop().await;
    }
}

/// Names as recorded from Mesos 1.11 (there master and agent shared one process), and its values for
/// one command task, whose executor has resources of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_those_of_mesos() {
    let (_dir, mut master, containers, running) = welcomed().await;
    master.runs(task("t"), true).await;

    let told: BTreeMap<String, f64> =
        serde_json::from_value(running.get("/metrics/snapshot").await).expect("numbers");
    let recorded = "../../tools/e2e/recordings/http-busy/get-metrics-snapshot.body";
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join(recorded);
    let recorded = std::fs::read(recorded).expect("the recording");
    let mut recorded: BTreeMap<String, f64> = serde_json::from_slice(&recorded).expect("numbers");
    recorded.retain(|name, _| {
        let mut masters = ["master/", "allocator/", "registrar/"].iter();
        !masters.any(|process| name.starts_with(process))
    });
    assert!(told.keys().eq(recorded.keys()), "{told:#?}");
    let same = [
        "cpus_",
        "mem_",
        "disk_",
        "gpus_",
        "executors_",
        "frameworks_",
        "tasks_running",
    ];
    for (name, value) in recorded {
        let name = name.as_str();
        let own = name.strip_prefix("slave/").unwrap_or_default();
        if same.iter().any(|part| own.starts_with(part)) {
            assert!((told[name] - value).abs() < 1e-9, "{name}: {}", told[name]);
        }
    }
    assert_eq!(told["slave/valid_status_updates"], 2.0);

    containers.end(&containers.only(), Exit::Status(0));
    master.states(&[TaskState::TaskFinished]).await;
    wait_until("the end is counted", async || {
        let told = running.get("/metrics/snapshot").await;
        told["slave/tasks_finished"] == 1.0 && told["slave/executors_terminated"] == 1.0
    })
    .await;
    running.stop().await;
}
