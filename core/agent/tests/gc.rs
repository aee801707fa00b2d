//! Sandboxes are removed in time, and only those that nobody needs.

mod support;

use std::time::Duration;

use support::{Running, start_with, surroundings, task, wait_until};
use tepui_containerizer::Exit;
use tepui_proto::v1::TaskState;

const WEEK: Duration = Duration::from_hours(7 * 24);

async fn metric(running: &Running, name: &str) -> f64 {
    let all = running.get("/metrics/snapshot").await;
    all[name].as_f64().unwrap_or(-1.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_sandboxes_that_are_over() {
    let (dir, mut master, containers) = surroundings().await;
    // All of the disk is to stay free: what is over is too old at once.
    let running = start_with(dir.path(), &master, &containers, |settings| {
        settings.gc_delay = WEEK;
        settings.gc_disk_headroom = 1.0;
        settings.disk_watch_interval = Duration::from_millis(20);
    })
    .await;
    master.welcome().await;
    for id in ["ends", "runs"] {
        master.runs(task(id), true).await;
    }
    let frameworks = dir.path().join("slaves/S0/frameworks");
    let sandbox = |id: &str| {
        let runs = frameworks.join(format!("F/executors/{id}/runs"));
        runs.join(containers.of(id).to_string())
    };
    let (ended, live) = (sandbox("ends"), sandbox("runs"));
    assert!(ended.is_dir() && live.is_dir());
    let shown = format!("/files/browse?path={}", ended.display());
    assert!(running.get(&shown).await.is_array());
    containers.end(&containers.of("ends"), Exit::Status(0));
    master.states(&[TaskState::TaskFinished]).await;
    wait_until("the sandbox is gone", async || !ended.exists()).await;
    wait_until("its executor's directory is gone", async || {
        !frameworks.join("F/executors/ends").exists()
    })
    .await;
    assert!(live.is_dir(), "its task runs");
    assert_eq!(
        running
            .client
            .get(&shown)
            .await
            .expect("an answer")
            .status
            .as_u16(),
        404
    );
    wait_until("the removal is counted", async || {
        metric(&running, "gc/path_removals_succeeded").await >= 1.0
    })
    .await;
    assert_eq!(metric(&running, "gc/path_removals_failed").await, 0.0);
    assert_eq!(
        metric(&running, "slave/executor_directory_max_allowed_age_secs").await,
        0.0
    );
    // The last one of a framework takes the framework's directory with it.
    containers.end(&containers.of("runs"), Exit::Status(0));
    master.states(&[TaskState::TaskFinished]).await;
    wait_until("its framework's directory is gone", async || {
        !frameworks.join("F").exists()
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_earlier_processes_left_goes_when_it_is_old_enough() {
    let (dir, mut master, containers) = surroundings().await;
    let old = dir
        .path()
        .join("slaves/old/frameworks/F/executors/t/runs/c");
    std::fs::create_dir_all(&old).expect("space");
    let trash = dir.path().join("meta/trash/7");
    std::fs::create_dir_all(&trash).expect("space");
    let running = start_with(dir.path(), &master, &containers, |settings| {
        settings.gc_disk_headroom = 0.0;
        settings.disk_watch_interval = Duration::from_millis(20);
    })
    .await;
    master.welcome().await;
    master.runs(task("runs"), true).await;
    wait_until("the trash is empty", async || !trash.exists()).await;
    assert!(old.is_dir(), "it is young, and the disk is not full");
    assert_eq!(metric(&running, "gc/path_removals_pending").await, 1.0);
    running.stop().await;

    let running = start_with(dir.path(), &master, &containers, |settings| {
        settings.gc_delay = Duration::ZERO;
    })
    .await;
    wait_until("the old agent's directory is gone", async || {
        !dir.path().join("slaves/old").exists()
    })
    .await;
    let container = containers.only();
    let live = format!("slaves/S0/frameworks/F/executors/runs/runs/{container}");
    assert!(dir.path().join(live).is_dir(), "its task runs on");
    running.stop().await;
}
