//! Containers in hierarchies of cgroups v1 that few machines mount: each test mounts them for itself. As root.

mod common;

use std::{collections::BTreeSet, path::Path};

use common::{containerizer, kernel, shell, wait_for};
use serde_json::json;
use tepui_containerizer::{ContainerConfig, Containerizer, LaunchError, leaks};
use tepui_model::id::ContainerId;

fn file(at: &Path, subsystem: &str, root: &str, file: &str) -> String {
    let path = at.join(subsystem).join(root).join(file);
    let text = std::fs::read_to_string(&path);
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

/// What clients are told of a container's network class.
async fn class(containerizer: &Containerizer, id: &ContainerId) -> Option<u32> {
    let status = containerizer.status(id).await.unwrap();
    status.cgroup_info?.net_cls?.classid
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_have_network_classes_of_their_own_and_keep_them() {
    let subsystems = ["net_cls", "net_prio", "hugetlb"];
    let Some(hierarchies) = kernel::mounted(&subsystems) else {
        return;
    };
    let root = format!("tepui-test-class-{}", std::process::id());
    // Of the freezer, which the machine has mounted.
    let _others = kernel::Root(root.clone());
    let at = tempfile::tempdir().unwrap();
    let isolators = || {
        let settings = json!({ "cgroups": {
            "cgroups_root": root,
            "cgroups_net_cls_primary_handle": "0x12",
            "cgroups_net_cls_secondary_handles": "0x1,0x2",
        }});
        let names = ["cgroups/net_cls", "cgroups/net_prio", "cgroups/hugetlb"];
        kernel::load(&names, settings).unwrap()
    };
    let first = containerizer(at.path(), isolators());
    first.recover(BTreeSet::new()).await.unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|id| shell(at.path(), id, "sleep 1000"));
    let launched = first.launch(a.clone()).await.unwrap();
    first.launch(b.clone()).await.unwrap();
    for subsystem in subsystems {
        let processes = file(&hierarchies, subsystem, &root, "a/cgroup.procs");
        let pid = launched.pid.to_string();
        assert!(processes.lines().any(|line| line == pid), "{subsystem}");
    }
    let class_of = |id: &str| {
        let id = format!("{id}/net_cls.classid");
        file(&hierarchies, "net_cls", &root, &id).parse::<u32>()
    };
    assert_eq!(
        (class_of("a"), class_of("b")),
        (Ok(0x12_0001), Ok(0x12_0002))
    );
    assert_eq!(class(&first, &a.id).await, Some(0x12_0001));
    match first.launch(c.clone()).await {
        Err(LaunchError::Failed { message, .. }) => assert!(
            message.contains("all secondary handles of net_cls from 0x0001 to 0x0002 are in use"),
            "{message}"
        ),
        other => panic!("not refused: {other:?}"),
    }

    // The next agent knows who has what, and whose class a nested container has.
    drop(first);
    let second = containerizer(at.path(), isolators());
    let known = [a.id.clone(), b.id.clone()].into();
    assert_eq!(second.recover(known).await.unwrap().running.len(), 2);
    let nested = ContainerConfig {
        id: b.id.child("nested"),
        sandbox: b.sandbox.join("nested"),
        is_command_task: false,
        ..shell(at.path(), "nested", "sleep 1000")
    };
    second.launch(nested.clone()).await.unwrap();
    assert_eq!(class(&second, &nested.id).await, Some(0x12_0002));
    second.destroy(&a.id).await.unwrap();
    let again = shell(at.path(), "again", "sleep 1000");
    second.launch(again.clone()).await.unwrap();
    assert_eq!(class(&second, &again.id).await, Some(0x12_0001));
    assert_eq!(class(&second, &b.id).await, Some(0x12_0002));
    for config in [&again, &b] {
        second.destroy(&config.id).await.unwrap();
    }
    assert_eq!(
        leaks::find(at.path(), Some(&root), &[]),
        Vec::<String>::new()
    );
    for subsystem in subsystems {
        std::fs::remove_dir(hierarchies.join(subsystem).join(&root)).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_each_container_are_counted_by_perf() {
    let Some(hierarchies) = kernel::mounted(&["perf_event"]) else {
        return;
    };
    let root = format!("tepui-test-perf-{}", std::process::id());
    // Of the freezer, which the machine has mounted.
    let _others = kernel::Root(root.clone());
    let at = tempfile::tempdir().unwrap();
    let isolators = |events: &str| {
        let settings = json!({ "cgroups": {
            "cgroups_root": root,
            "perf_events": events,
            "perf_interval_secs": 1,
            "perf_duration_secs": 1,
        }});
        kernel::load(&["cgroups/perf_event"], settings).unwrap()
    };
    // Those of the kernel, since virtual machines have no others.
    let events = "task-clock,cpu-clock,context-switches";
    let agent = containerizer(at.path(), isolators(events));
    if let Err(error) = agent.recover(BTreeSet::new()).await {
        let error = error.to_string();
        assert!(error.contains("'perf' cannot be run"), "{error}");
        eprintln!("not run: needs perf (Debian's linux-perf)");
        return;
    }
    let busy = shell(at.path(), "busy", "while :; do :; done");
    let idle = shell(at.path(), "idle", "sleep 1000");
    for config in [&busy, &idle] {
        agent.launch((*config).clone()).await.unwrap();
    }
    let statistics = async |config: &ContainerConfig| {
        let usage = agent.usage(&config.id).await.unwrap();
        usage.perf.unwrap()
    };
    // The first sample may have begun before the container.
    let started = std::time::Instant::now();
    let (worked, rested) = loop {
        let (worked, rested) = (statistics(&busy).await, statistics(&idle).await);
        if worked.task_clock() > 0.0 && rested.duration > 0.0 {
            break (worked, rested);
        }
        assert!(started.elapsed().as_secs() < 60, "{worked:?} {rested:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!((worked.duration, rested.duration), (1.0, 1.0));
    assert!(worked.timestamp > 0.0 && worked.context_switches.is_some());
    assert!(worked.cycles.is_none(), "nobody asked for them");
    assert!(rested.task_clock() < worked.task_clock(), "{rested:?}");
    for config in [&busy, &idle] {
        agent.destroy(&config.id).await.unwrap();
    }
    drop(agent);
    // A run of perf that goes on has the directory as its own.
    wait_for("the end of perf", || {
        leaks::find(at.path(), Some(&root), &[]).is_empty()
    })
    .await;
    std::fs::remove_dir(hierarchies.join("perf_event").join(&root)).unwrap();

    let unknown = containerizer(at.path(), isolators("node-loads"));
    if let Err(error) = unknown.recover(BTreeSet::new()).await {
        assert!(error.to_string().contains("perf stat"), "{error}");
    }
}
