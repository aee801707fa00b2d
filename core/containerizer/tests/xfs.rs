//! Disk of containers on XFS, counted and limited by the kernel. As root, in a directory on XFS with project quotas that
//! `TEPUI_TEST_XFS` names: `tools/e2e/cgroup2-vm.sh` has one.

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use common::{kernel, read, shell, wait_for};
use serde_json::{Value, json};
use tepui_containerizer::{ContainerConfig, Containerizer, LaunchError};
use tepui_proto::{convert, json as mesos_json, v1};

fn directory() -> Option<PathBuf> {
    let named = std::env::var_os("TEPUI_TEST_XFS").map(PathBuf::from);
    if named.is_none() {
        eprintln!("not run: needs a directory on XFS with project quotas, named by TEPUI_TEST_XFS");
    }
    named
}

fn containerizer(at: &Path, settings: Value) -> Containerizer {
    let names = ["filesystem/linux", "disk/xfs"];
    let settings = json!({ "disk/xfs": settings });
    let isolators = kernel::load_in(&names, settings, None, Some(at)).unwrap();
    common::containerizer(at, isolators)
}

/// A container where an agent keeps it, with so many megabytes of disk and maybe a persistent volume of as many.
fn container(
    at: &Path,
    id: &str,
    text: &str,
    megabytes: u32,
    with_volume: bool,
) -> ContainerConfig {
    let scalar = json!({ "value": megabytes });
    let mut disks = vec![json!({ "name": "disk", "type": "SCALAR", "scalar": scalar })];
    if with_volume {
        disks.push(json!({
            "name": "disk", "type": "SCALAR", "scalar": scalar,
            "reservations": [{ "type": "DYNAMIC", "role": "r" }],
            "disk": { "persistence": { "id": "id" }, "volume": { "mode": "RW", "container_path": "kept" } },
        }));
    }
    let disks: Vec<v1::Resource> = disks
        .iter()
        .map(|disk| mesos_json::to_message(disk.to_string().as_bytes()).unwrap())
        .collect();
    let executor = at.join("slaves/S/frameworks/F/executors/E/runs");
    let sandbox = executor.join(id);
    fs::create_dir_all(&sandbox).unwrap();
    ContainerConfig {
        sandbox,
        resources: convert::resources(&disks).unwrap(),
        ..shell(at, id, text)
    }
}

const MEGABYTE: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_quota_cannot_be_written() {
    let Some(xfs) = directory() else { return };
    let at = tempfile::tempdir_in(xfs).unwrap();
    fs::create_dir_all(at.path().join("volumes/roles/r/id")).unwrap();
    let settings = json!({ "enforce_container_disk_quota": true });
    let first = containerizer(at.path(), settings.clone());
    first.recover(BTreeSet::new()).await.unwrap();
    let writes = |file: &str, megabytes: u32| {
        format!(
            "dd if=/dev/zero of={file} bs=1M count={megabytes} 2>/dev/null && echo {file} || echo no {file}; "
        )
    };
    let text = [
        writes("a", 2),
        writes("b", 8),
        writes("kept/a", 3),
        writes("kept/b", 8),
        "rm b kept/b; while ! test -e go; do sleep 0.1; done; ".to_owned(),
        writes("c", 8),
        "sleep 1000".to_owned(),
    ];
    let config = container(at.path(), "c", &text.concat(), 4, true);
    first.launch(config.clone()).await.unwrap();
    let said = "a\nno b\nkept/a\nno kept/b\n";
    wait_for("what is written", || read(&config, "stdout") == said).await;
    // A file goes a moment after what it said.
    wait_for("what is removed", || !config.sandbox.join("b").exists()).await;

    // The next agent finds the same, and what a container is given later counts at once.
    drop(first);
    let second = containerizer(at.path(), settings);
    second.recover([config.id.clone()].into()).await.unwrap();
    let usage = second.usage(&config.id).await.unwrap();
    let within = |used: Option<u64>, least: u64| {
        used.is_some_and(|used| used >= least && used < 4 * MEGABYTE)
    };
    assert_eq!(usage.disk_limit_bytes, Some(4 * MEGABYTE));
    assert!(within(usage.disk_used_bytes, 2 * MEGABYTE), "{usage:?}");
    let [volume] = &usage.disk_statistics[..] else {
        panic!("one volume: {usage:?}");
    };
    assert_eq!(volume.limit_bytes, Some(4 * MEGABYTE));
    assert!(within(volume.used_bytes, 3 * MEGABYTE), "{volume:?}");
    assert_eq!(volume.persistence.as_ref().unwrap().id, "id");
    let more = container(at.path(), "c", "", 16, true).resources;
    second
        .update(&config.id, more, Default::default())
        .await
        .unwrap();
    fs::write(config.sandbox.join("go"), "").unwrap();
    let said = format!("{said}c\n");
    wait_for("more", || read(&config, "stdout") == said).await;
    second.destroy(&config.id).await.unwrap();

    // A volume keeps its project and what is counted of it.
    let other = container(
        at.path(),
        "other",
        &(writes("kept/c", 2) + &writes("d", 2)),
        4,
        true,
    );
    second.launch(other.clone()).await.unwrap();
    second.wait(&other.id).await.unwrap();
    assert_eq!(read(&other, "stdout"), "no kept/c\nd\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_quota_is_counted_or_ends_the_container_as_asked() {
    let Some(xfs) = directory() else { return };
    let at = tempfile::tempdir_in(xfs).unwrap();
    let text = "w() { dd if=/dev/zero of=$1 bs=1M count=6 2>/dev/null && echo written || echo refused; }; \
                touch wait; w a; while test -e wait; do sleep 0.1; done; w b; sleep 1000";
    let [counts, kills] = ["counts", "kills"].map(|mode| at.path().join(mode));

    let config = container(&counts, "c", text, 4, false);
    let work_dir = counts;
    let counts = containerizer(&work_dir, json!({}));
    counts.recover(BTreeSet::new()).await.unwrap();
    counts.launch(config.clone()).await.unwrap();
    wait_for("what is written", || read(&config, "stdout") == "written\n").await;
    let usage = counts.usage(&config.id).await.unwrap();
    assert_eq!(usage.disk_limit_bytes, Some(4 * MEGABYTE));
    assert!(usage.disk_used_bytes >= Some(6 * MEGABYTE), "{usage:?}");
    // An agent that enforces limits does so for who is there already.
    drop(counts);
    let enforces = containerizer(&work_dir, json!({ "enforce_container_disk_quota": true }));
    enforces.recover([config.id.clone()].into()).await.unwrap();
    fs::remove_file(config.sandbox.join("wait")).unwrap();
    wait_for("the refusal", || {
        read(&config, "stdout") == "written\nrefused\n"
    })
    .await;
    enforces.destroy(&config.id).await.unwrap();

    let text = format!("while ! test -e go; do sleep 0.1; done; {text}");
    let config = container(&kills, "c", &text, 4, false);
    let settings = json!({
        "enforce_container_disk_quota": true,
        "xfs_kill_containers": true,
        // The other agent has the usual ones on the same file system.
        "xfs_project_range": "[6000-6009]",
        "xfs_quota_headroom": 4 * MEGABYTE,
        "container_disk_watch_interval_secs": 1,
    });
    let kills = containerizer(&kills, settings);
    kills.recover(BTreeSet::new()).await.unwrap();
    kills.launch(config.clone()).await.unwrap();
    fs::write(config.sandbox.join("go"), "").unwrap();
    let limitation = kills.wait(&config.id).await.unwrap().limitation.unwrap();
    assert_eq!(
        limitation.reason,
        v1::task_status::Reason::ContainerLimitationDisk as i32
    );
    let message = limitation.message;
    assert!(
        message.starts_with("Disk usage (") && message.ends_with(") exceeds quota (4MB)"),
        "{message}"
    );
    assert_eq!(
        read(&config, "stdout"),
        "written\n",
        "the headroom is there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_is_free_when_its_directory_is_gone() {
    let Some(xfs) = directory() else { return };
    let at = tempfile::tempdir_in(xfs).unwrap();
    let settings =
        json!({ "enforce_container_disk_quota": true, "xfs_project_range": "[7000-7000]" });
    let run = async |containerizer: &Containerizer, id: &str| {
        let config = container(at.path(), id, "true", 4, false);
        let launched = containerizer.launch(config.clone()).await;
        if launched.is_ok() {
            containerizer.wait(&config.id).await.unwrap();
        }
        (config, launched.map(drop))
    };
    let refused = |launched: Result<(), LaunchError>| match launched {
        Err(LaunchError::Failed { message, .. }) => {
            assert!(
                message.contains("from 7000 to 7000 are in use"),
                "{message}"
            );
        }
        other => panic!("not refused: {other:?}"),
    };
    let first = containerizer(at.path(), settings.clone());
    first.recover(BTreeSet::new()).await.unwrap();
    let (old, launched) = run(&first, "old").await;
    launched.unwrap();
    refused(run(&first, "early").await.1);
    drop(first);
    // The next agent knows by the directory.
    let second = containerizer(at.path(), settings);
    second.recover(BTreeSet::new()).await.unwrap();
    refused(run(&second, "still-early").await.1);
    fs::remove_dir_all(&old.sandbox).unwrap();
    run(&second, "late").await.1.unwrap();
}
