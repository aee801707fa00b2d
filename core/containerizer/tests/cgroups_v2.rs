//! Containers on a machine that has cgroups v2 only, as root: `tools/e2e/cgroup2-vm.sh` runs these in one.

mod common;

use std::collections::BTreeSet;

use common::{busybox, containerizer, kernel, kernel::Root, provisioner, read, shell, wait_for};
use serde_json::json;
use tepui_containerizer::{ContainerConfig, Limit, leaks};
use tepui_model::resources::{Resources, Scalar};
use tepui_proto::v1::task_status::Reason;

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_mesos_and_follow_updates() {
    if !kernel::is_unified() {
        return;
    }
    let root = Root::new("v2");
    let at = tempfile::tempdir().unwrap();
    let settings = json!({ "cgroups": {
        "cgroups_root": root.0, "cgroups_enable_cfs": true, "cgroups_cpu_enable_pids_and_tids_count": true,
    }});
    let isolators = kernel::load(&["namespaces/pid", "cgroups/all"], settings).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let mut config = shell(at.path(), "c", "echo up; sleep 1000");
    config.resources = Resources::cpus_mem(0.2, 48.0);
    let launched = containerizer.launch(config.clone()).await.unwrap();
    wait_for("the command", || read(&config, "stdout") == "up\n").await;
    let file = |name: &str| root.file("", "c", name);
    assert_eq!(file("cpu.weight"), "20");
    assert_eq!(file("cpu.max"), "20000 100000");
    assert_eq!(file("memory.low"), (48 << 20).to_string());
    assert_eq!(file("memory.max"), (48 << 20).to_string());
    let processes = file("leaf/cgroup.procs");
    assert!(
        processes.lines().any(|pid| pid == launched.pid.to_string()),
        "{processes}"
    );
    assert_eq!(file("cgroup.procs"), "");

    let limits = [
        ("mem".to_owned(), Limit::Infinite),
        ("cpus".to_owned(), Limit::Amount(Scalar(500))),
    ];
    let resources = Resources::cpus_mem(0.1, 64.0);
    containerizer
        .update(&config.id, resources, limits.into())
        .await
        .unwrap();
    assert_eq!(file("cpu.weight"), "10");
    assert_eq!(file("cpu.max"), "50000 100000");
    assert_eq!(file("memory.low"), (64 << 20).to_string());
    assert_eq!(file("memory.max"), "max");
    let resources = Resources::cpus_mem(0.1, 32.0);
    containerizer
        .update(&config.id, resources, Default::default())
        .await
        .unwrap();
    assert_eq!(file("memory.max"), "max", "a hard limit is never lowered");

    let usage = containerizer.usage(&config.id).await.unwrap();
    assert!(usage.cpus_user_time_secs.is_some() && usage.cpus_nr_periods.is_some());
    assert!(usage.mem_total_bytes.unwrap() > 0 && usage.mem_rss_bytes.unwrap() > 0);
    assert!(usage.mem_kmem_usage_bytes.unwrap() > 0 && usage.mem_kmem_tcp_usage_bytes.is_some());
    assert!(usage.mem_total_memsw_bytes >= usage.mem_total_bytes || usage.mem_swap_bytes.is_none());
    assert!(usage.blkio_statistics.is_some());
    // The first process and the shell, and what it runs where that is a process of its own.
    assert!(usage.processes >= Some(2) && usage.threads >= usage.processes);
    containerizer.destroy(&config.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_too_much_memory_is_killed_and_the_others_go_on() {
    if !kernel::is_unified() {
        return;
    }
    let root = Root::new("v2-hog");
    let at = tempfile::tempdir().unwrap();
    let settings = json!({ "cgroups": { "cgroups_root": root.0 } });
    let isolators = kernel::load(&["cgroups/mem", "cgroups/cpu"], settings).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let sibling = shell(at.path(), "sibling", "sleep 1000");
    containerizer.launch(sibling.clone()).await.unwrap();
    // Alone; and so that the command survives it.
    let hog = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    for (number, command) in [format!("exec {hog}"), format!("while :; do {hog}; done")]
        .iter()
        .enumerate()
    {
        let config = shell(at.path(), &format!("hog{number}"), command);
        containerizer.launch(config.clone()).await.unwrap();
        let termination = containerizer.wait(&config.id).await.unwrap();
        let limitation = termination.limitation.expect(command);
        assert_eq!(
            limitation.reason,
            i32::from(Reason::ContainerLimitationMemory)
        );
        let message = limitation.message;
        assert!(
            message.starts_with("Memory limit exceeded: Requested: 32MB Maximum Used: "),
            "{message}"
        );
        assert!(message.contains("anon "), "{message}");
        assert!(!root.cgroup("", &config.id.to_string()).exists());
    }
    assert!(
        containerizer
            .status(&sibling.id)
            .await
            .unwrap()
            .executor_pid
            .is_some()
    );
    containerizer.destroy(&sibling.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_container_may_have_cgroups_of_its_own() {
    if !kernel::is_unified() {
        return;
    }
    let root = Root::new("v2-nested");
    let at = tempfile::tempdir().unwrap();
    let settings = json!({ "cgroups": { "cgroups_root": root.0 } });
    let isolators = || kernel::load(&["cgroups/mem", "cgroups/cpu"], settings.clone()).unwrap();
    let first = containerizer(at.path(), isolators());
    first.recover(BTreeSet::new()).await.unwrap();
    let mut around = shell(at.path(), "around", "");
    around.command = None;
    around.is_command_task = false;
    around.resources = Resources::cpus_mem(0.5, 128.0);
    first.launch(around.clone()).await.unwrap();
    let hog = "echo up; while ! test -e go; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=100M count=1";
    let own = ContainerConfig {
        id: around.id.child("own"),
        sandbox: around.sandbox.join("containers/own"),
        share_cgroups: false,
        is_command_task: false,
        limits: [("mem".to_owned(), Limit::Amount(Scalar(48_000)))].into(),
        ..shell(at.path(), "own", &format!("{hog}; sleep 1000"))
    };
    let launched = first.launch(own.clone()).await.unwrap();
    wait_for("the command", || read(&own, "stdout") == "up\n").await;
    let below = |file: &str| root.file("", "around/mesos/own", file);
    assert_eq!(below("cpu.weight"), "10");
    assert_eq!(below("memory.low"), (32 << 20).to_string());
    assert_eq!(below("memory.max"), (48 << 20).to_string());
    let processes = below("leaf/cgroup.procs");
    assert!(processes.lines().any(|pid| pid == launched.pid.to_string()));
    assert_eq!(
        root.file("", "around", "memory.max"),
        (128 << 20).to_string()
    );

    // The same for a later agent process.
    drop(first);
    let containerizer = containerizer(at.path(), isolators());
    let known = [&around.id, &own.id].map(Clone::clone).into();
    assert_eq!(containerizer.recover(known).await.unwrap().running.len(), 2);
    let usage = containerizer.usage(&own.id).await.unwrap();
    assert_eq!(usage.mem_limit_bytes, Some(48 << 20));
    assert!(usage.mem_total_bytes.unwrap() > 0 && usage.cpus_user_time_secs.is_some());

    std::fs::write(own.sandbox.join("go"), "").unwrap();
    let termination = containerizer.wait(&own.id).await.unwrap();
    let limitation = termination
        .limitation
        .expect("it went beyond its own limit");
    assert_eq!(
        limitation.reason,
        i32::from(Reason::ContainerLimitationMemory)
    );
    assert!(!root.cgroup("", "around/mesos/own").exists());
    // What was killed in it counts for the one around as well, which is not told of it.
    containerizer
        .stop(&around.id, std::time::Duration::from_secs(60))
        .unwrap();
    let termination = containerizer.wait(&around.id).await.unwrap();
    assert_eq!(termination.limitation, None);
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_those_allowed_and_stay_so_without_the_agent() {
    if !kernel::is_unified() {
        return;
    }
    let root = Root::new("v2-devices");
    let at = tempfile::tempdir().unwrap();
    let allowed = json!({ "allowed_devices": [
        { "device": { "path": "/dev/kmsg" }, "access": { "read": true } },
    ]});
    let settings = json!({ "cgroups": { "cgroups_root": root.0, "allowed_devices": allowed } });
    let isolators = || kernel::load(&["cgroups/all"], settings.clone()).unwrap();
    let first = containerizer(at.path(), isolators());
    first.recover(BTreeSet::new()).await.unwrap();
    let tries = "rm -f disk other; mknod disk b 7 0 && (true < disk) 2>&1 | tail -c 24; mknod other c 1 1; \
                 (true < other) 2>&1 | tail -c 24; head -c 1 /dev/zero > /dev/null && echo zero; \
                 (true < /dev/kmsg) && echo kmsg; (true > /dev/kmsg) 2>&1 | tail -c 24; echo end; ";
    let refused = "Operation not permitted\n";
    let once = format!("{refused}{refused}zero\nkmsg\n{refused}end\n");
    let again = "while ! test -e go; do sleep 0.1; done; ";
    let mut around = shell(
        at.path(),
        "around",
        &format!("{tries}{again}{tries}sleep 1000"),
    );
    around.resources = Resources::cpus_mem(0.5, 128.0);
    first.launch(around.clone()).await.unwrap();
    wait_for("the first tries", || {
        read(&around, "stdout").ends_with("end\n")
    })
    .await;
    assert_eq!(read(&around, "stdout"), once);
    // The program is the cgroup's, so it decides while there is no agent and with the next one.
    drop(first);
    std::fs::write(around.sandbox.join("go"), "").unwrap();
    let twice = once.repeat(2);
    wait_for("the second tries", || read(&around, "stdout") == twice).await;
    let second = containerizer(at.path(), isolators());
    second.recover([around.id.clone()].into()).await.unwrap();
    for share_cgroups in [true, false] {
        let name = if share_cgroups { "sharing" } else { "own" };
        let nested = ContainerConfig {
            id: around.id.child(name),
            sandbox: around.sandbox.join("containers").join(name),
            share_cgroups,
            is_command_task: false,
            ..shell(at.path(), name, tries)
        };
        second.launch(nested.clone()).await.unwrap();
        second.wait(&nested.id).await.unwrap();
        assert_eq!(read(&nested, "stdout"), once, "{name}");
    }
    second.destroy(&around.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_forks_without_end_is_killed_all_at_once() {
    if !kernel::is_unified() {
        return;
    }
    let root = Root::new("v2-bomb");
    let at = tempfile::tempdir().unwrap();
    let settings = json!({ "cgroups": {
        "cgroups_root": root.0, "cgroups_cpu_enable_pids_and_tids_count": true,
    }});
    // Without a pid namespace, whose end would be theirs.
    let isolators = kernel::load(&["cgroups/cpu", "cgroups/pids"], settings).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    // So no list of processes is ever up to date.
    let text = "f() { while :; do (f) & true; done; }; f";
    let config = shell(at.path(), "bomb", text);
    containerizer.launch(config.clone()).await.unwrap();
    // So that the machine goes on: no limit is written by Mesos.
    std::fs::write(root.cgroup("", "bomb/pids.max"), "200").unwrap();
    wait_for("the explosion", || {
        root.file("", "bomb", "pids.current")
            .parse::<u32>()
            .unwrap()
            > 150
    })
    .await;
    let usage = containerizer.usage(&config.id).await.unwrap();
    assert!(usage.processes > Some(100), "{:?}", usage.processes);
    containerizer.destroy(&config.id).await.unwrap();
    assert!(!root.cgroup("", "bomb").exists());
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_root_of_its_own_sees_its_own_cgroup() {
    let at = tempfile::tempdir().unwrap();
    if !kernel::is_unified() {
        return;
    }
    let Some(rootfs) = busybox(at.path()) else {
        return;
    };
    let root = Root::new("v2-seen");
    let settings = json!({ "cgroups": { "cgroups_root": root.0 } });
    let names = ["filesystem/linux", "cgroups/cpu", "cgroups/mem"];
    let mut isolators = kernel::load_in(&names, settings, None, Some(at.path())).unwrap();
    isolators.push(provisioner(&rootfs));
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let text = "cd /sys/fs/cgroup; cat memory.max; test -n \"$(cat leaf/cgroup.procs)\" && echo own; \
                (echo 1 > memory.max) 2>/dev/null || echo refused; mkdir x 2>/dev/null || echo refused";
    let mut config = shell(at.path(), "c", text);
    config.resources = Resources::cpus_mem(0.2, 48.0);
    containerizer.launch(config.clone()).await.unwrap();
    containerizer.wait(&config.id).await.unwrap();
    assert_eq!(read(&config, "stderr"), "");
    let limit = 48 << 20;
    assert_eq!(
        read(&config, "stdout"),
        format!("{limit}\nown\nrefused\nrefused\n")
    );
}
