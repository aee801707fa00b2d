//! URIs of commands, from a real server to real sandboxes.

use std::process::Command;

use nix::sys::signal::Signal;
use tepui_e2e::scheduler::task;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::server::{Page, PageServer};
use tepui_e2e::{Bench, Scratch, wait_for};
use tepui_proto::v1::command_info::Uri;
use tepui_proto::v1::{TaskInfo, TaskState, task_status};

fn wanting(id: &str, command: &str, uris: Vec<Uri>) -> TaskInfo {
    let mut task = task(id, command, 0.1, 32.0);
    task.command.as_mut().expect("set").uris = uris;
    task
}

fn uri(value: String) -> Uri {
    Uri {
        value,
        ..Uri::default()
    }
}

fn cached(value: String) -> Uri {
    Uri {
        cache: Some(true),
        ..uri(value)
    }
}

/// `d/file` with this text, as a gzipped tar archive, made by the machine's own `tar`.
fn archive(scratch: &Scratch, text: &str) -> Vec<u8> {
    let directory = scratch.path().join("archive");
    std::fs::create_dir_all(directory.join("d")).expect("the scratch folder");
    std::fs::write(directory.join("d/file"), text).expect("the scratch folder");
    let made = Command::new("tar")
        .args(["-czf", "-", "-C"])
        .arg(&directory)
        .arg("d")
        .output();
    made.expect("tar runs").stdout
}

#[test]
fn tasks_find_what_they_asked_for() {
    let bench = Bench::new();
    let script = b"#!/bin/sh\necho \"$1\"\n".to_vec();
    let server = PageServer::start([
        (
            "/d.tar.gz",
            Page::Whole("200 OK", archive(&bench.scratch, "unpacked")),
        ),
        ("/tool?v=1", Page::Whole("200 OK", script)),
    ]);
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let tool = Uri {
        executable: Some(true),
        output_file: Some("bin/tool".to_owned()),
        ..uri(server.url("/tool?v=1"))
    };
    let check = "set -e; test \"$(cat d/file)\" = unpacked; test \"$(bin/tool hello)\" = hello; \
                 grep -q 'Fetching URI' stderr";
    let ids = ["t0", "t1", "t2"];
    let tasks = ids.map(|id| {
        wanting(
            id,
            check,
            vec![cached(server.url("/d.tar.gz")), tool.clone()],
        )
    });
    scheduler.launch(tasks.to_vec());
    for id in ids {
        scheduler.wait_state(id, TaskState::TaskFinished);
    }
    assert_eq!(
        server.asked("/d.tar.gz"),
        1,
        "the others took it from the cache"
    );
    assert_eq!(server.asked("/tool?v=1"), 3);
    let metrics = agent.get("/metrics/snapshot");
    let metric = |name: &str| metrics[format!("containerizer/fetcher/{name}")].as_f64();
    assert_eq!(metric("task_fetches_succeeded"), Some(3.0));
    assert_eq!(metric("task_fetches_failed"), Some(0.0));
    assert_eq!(metric("cache_size_total_bytes"), Some((2_u64 << 30) as f64));
    assert!(metric("cache_size_used_bytes") > Some(0.0));
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn a_failure_says_what_the_server_said() {
    let bench = Bench::new();
    let gone = Page::Whole("410 Gone", b"moved to the attic".into());
    let server = PageServer::start([("/gone", gone)]);
    let agent = bench.agent(&[]);
    let mut scheduler = bench.scheduler(true);
    let task = wanting("t", "touch started", vec![uri(server.url("/gone"))]);
    scheduler.launch(vec![task]);
    let failed = scheduler.wait_state("t", TaskState::TaskFailed);
    assert_eq!(failed.reason(), task_status::Reason::ContainerLaunchFailed);
    let said = failed.message();
    assert!(
        said.starts_with("Failed to launch container: Failed to fetch all URIs"),
        "{said}"
    );
    assert!(said.contains("410 Gone: moved to the attic"), "{said}");
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn an_end_in_the_middle_of_a_fetch_leaves_nothing() {
    let bench = Bench::new();
    let server = PageServer::start([
        ("/kill", Page::Stuck(b"half".into())),
        ("/crash", Page::Stuck(b"half".into())),
    ]);
    let agent = bench.agent(&[]);
    let port = agent.address.port();
    let mut scheduler = bench.scheduler(true);
    let asked = |path: &str| match server.asked(path) {
        0 => Err(format!("{path} was not asked for")),
        _ => Ok(()),
    };
    scheduler.launch(vec![wanting(
        "kill",
        "true",
        vec![cached(server.url("/kill"))],
    )]);
    wait_for("a fetch", || asked("/kill"));
    scheduler.kill("kill");
    scheduler.wait_state("kill", TaskState::TaskKilled);
    wait_clean(bench.scratch.path());

    scheduler.launch(vec![wanting(
        "crash",
        "true",
        vec![cached(server.url("/crash"))],
    )]);
    wait_for("a fetch", || asked("/crash"));
    agent.kill();
    server.set("/crash", Page::Whole("200 OK", b"whole".into()));
    let agent = bench.agent_at(port, &[]);
    scheduler.wait("an end of the task", |scheduler| {
        let all = scheduler.updates.get("crash")?;
        let ends = [
            TaskState::TaskFailed,
            TaskState::TaskLost,
            TaskState::TaskGone,
        ];
        all.iter()
            .find(|status| ends.contains(&status.state()))
            .cloned()
    });
    // What was half there is not taken for the whole.
    let again = wanting(
        "again",
        "test \"$(cat crash)\" = whole",
        vec![cached(server.url("/crash"))],
    );
    scheduler.launch(vec![again]);
    scheduler.wait_state("again", TaskState::TaskFinished);
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}
