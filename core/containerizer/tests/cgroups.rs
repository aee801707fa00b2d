//! Containers with the kernel isolators, as root on cgroups v1.

mod common;

use std::{collections::BTreeSet, path::Path};

use common::{busybox, containerizer, kernel, provisioner, read, shell, wait_for};
use tepui_containerizer::{Command, ContainerConfig, Exit, Limit, leaks};
use tepui_model::resources::{Resources, Scalar};
use tepui_proto::v1::task_status::Reason;

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_takes_two_descriptors_and_its_statistics_three() {
    if !kernel::available() {
        return;
    }
    let root = kernel::Root::new("descriptors");
    let at = tempfile::tempdir().unwrap();
    let isolators = kernel::isolators(&root.0, serde_json::json!({}));
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    // With the first comes what all of them share.
    let configs = ["first", "a", "b", "c"].map(|id| shell(at.path(), id, "sleep 1000"));
    containerizer.launch(configs[0].clone()).await.unwrap();
    let before = open();
    for config in &configs[1..] {
        containerizer.launch(config.clone()).await.unwrap();
    }
    assert_eq!(open() - before, 2 * 3);
    for config in &configs[1..] {
        containerizer.usage(&config.id).await.unwrap();
    }
    assert_eq!(open() - before, 5 * 3);
    for config in &configs {
        containerizer.destroy(&config.id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_those_of_mesos_and_follow_updates() {
    if !kernel::available() {
        return;
    }
    let root = kernel::Root::new("limits");
    let at = tempfile::tempdir().unwrap();
    let settings = serde_json::json!({ "cgroups_enable_cfs": true, "cgroups_limit_swap": true });
    let containerizer = containerizer(at.path(), kernel::isolators(&root.0, settings));
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let mut config = shell(at.path(), "c", "echo $$; sleep 1000");
    config.resources = Resources::cpus_mem(0.2, 48.0);
    let launched = containerizer.launch(config.clone()).await.unwrap();
    let file = |subsystem: &str, file: &str| root.file(subsystem, "c", file);
    assert_eq!(file("cpu", "cpu.shares"), "204");
    assert_eq!(file("cpu", "cpu.cfs_quota_us"), "20000");
    assert_eq!(file("cpu", "cpu.cfs_period_us"), "100000");
    assert_eq!(
        file("memory", "memory.limit_in_bytes"),
        (48 << 20).to_string()
    );
    assert_eq!(
        file("memory", "memory.soft_limit_in_bytes"),
        (48 << 20).to_string()
    );
    assert_eq!(
        file("memory", "memory.memsw.limit_in_bytes"),
        (48 << 20).to_string()
    );
    let score = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(score(launched.pid), score(std::process::id()));
    for subsystem in ["cpu", "cpuacct", "memory"] {
        let processes = file(subsystem, "cgroup.procs");
        assert!(
            processes.lines().any(|pid| pid == launched.pid.to_string()),
            "{subsystem}: {processes}"
        );
        assert!(
            processes.lines().count() >= 2,
            "the command is there too: {processes}"
        );
    }
    // Not pid 1 of its own namespace, and far from a pid of the host.
    wait_for("the pid", || !read(&config, "stdout").is_empty()).await;
    assert_eq!(read(&config, "stdout"), "2\n");

    let limits = [
        ("mem".to_owned(), Limit::Infinite),
        ("cpus".to_owned(), Limit::Amount(Scalar(500))),
    ]
    .into();
    containerizer
        .update(&config.id, Resources::cpus_mem(0.1, 64.0), limits)
        .await
        .unwrap();
    assert_eq!(file("cpu", "cpu.shares"), "102");
    assert_eq!(file("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(
        file("memory", "memory.soft_limit_in_bytes"),
        (64 << 20).to_string()
    );
    let unlimited = std::fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes").unwrap();
    assert_eq!(file("memory", "memory.limit_in_bytes"), unlimited.trim());
    containerizer
        .update(
            &config.id,
            Resources::cpus_mem(0.1, 32.0),
            Default::default(),
        )
        .await
        .unwrap();
    assert_eq!(
        file("memory", "memory.limit_in_bytes"),
        unlimited.trim(),
        "a hard limit is never lowered"
    );

    assert_eq!(
        file("memory", "memory.memsw.limit_in_bytes"),
        unlimited.trim()
    );

    let usage = containerizer.usage(&config.id).await.unwrap();
    assert!(usage.cpus_user_time_secs.is_some() && usage.cpus_nr_periods.is_some());
    assert!(usage.mem_total_bytes.unwrap() > 0 && usage.mem_rss_bytes.is_some());
    assert_eq!(usage.mem_low_pressure_counter, Some(0));
    // What the kernel itself keeps for a process: its stack, page tables, open files.
    assert!(usage.mem_kmem_usage_bytes.unwrap() > 0);
    assert_eq!(usage.mem_kmem_tcp_usage_bytes, Some(0));
    assert_eq!(usage.mem_soft_limit_bytes, Some(32 << 20));

    // A task that may use more than it asked for is killed before others.
    let mut burstable = shell(at.path(), "b", "sleep 1000");
    burstable.limits = [("mem".to_owned(), Limit::Amount(Scalar(64_000)))].into();
    let launched = containerizer.launch(burstable.clone()).await.unwrap();
    assert_eq!(
        root.file("memory", "b", "memory.limit_in_bytes"),
        (64 << 20).to_string()
    );
    assert_eq!(
        root.file("memory", "b", "memory.soft_limit_in_bytes"),
        (32 << 20).to_string()
    );
    assert!((900..=1000).contains(&score(launched.pid).trim().parse::<i32>().unwrap()));

    containerizer.destroy(&burstable.id).await.unwrap();
    containerizer.destroy(&config.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_uses_too_much_memory_is_killed_and_the_others_go_on() {
    if !kernel::available() {
        return;
    }
    let root = kernel::Root::new("hog");
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), kernel::isolators(&root.0, serde_json::json!({})));
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let sibling = shell(at.path(), "sibling", "sleep 1000");
    containerizer.launch(sibling.clone()).await.unwrap();
    // Alone; as one process of several, of which the others would go on; and so that the command survives it.
    let hog = "dd if=/dev/zero of=/dev/null bs=200M count=1";
    let commands = [
        format!("exec {hog}"),
        format!("{hog} & sleep 1000"),
        format!("while :; do {hog}; done"),
    ];
    for (number, command) in commands.iter().enumerate() {
        let config = shell(at.path(), &format!("hog{number}"), command);
        containerizer.launch(config.clone()).await.unwrap();
        let termination = containerizer.wait(&config.id).await.unwrap();
        let limitation = termination
            .limitation
            .unwrap_or_else(|| panic!("no limitation: {command}"));
        assert_eq!(
            limitation.reason,
            i32::from(Reason::ContainerLimitationMemory)
        );
        assert!(
            limitation.message.starts_with(
                "Memory limit exceeded: Requested: 32MB Maximum Used: 32MB\n\nMEMORY STATISTICS: \n"
            ),
            "{}",
            limitation.message
        );
        assert!(
            limitation.message.contains("total_rss "),
            "{}",
            limitation.message
        );
        assert_eq!(limitation.resources[0].name, "mem");
        assert_eq!(limitation.resources[0].scalar.as_ref().unwrap().value, 32.0);
        assert!(matches!(termination.exit, Exit::Status(_)));
    }
    assert!(
        containerizer
            .status(&sibling.id)
            .await
            .unwrap()
            .executor_pid
            .is_some()
    );
    assert!(Path::new(&root.cgroup("memory", "sibling")).exists());
    containerizer.destroy(&sibling.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_container_may_have_cgroups_of_its_own() {
    if !kernel::available() {
        return;
    }
    let root = kernel::Root::new("nested");
    let at = tempfile::tempdir().unwrap();
    let isolators = || kernel::isolators(&root.0, serde_json::json!({}));
    let first = containerizer(at.path(), isolators());
    first.recover(BTreeSet::new()).await.unwrap();
    let mut around = shell(at.path(), "around", "");
    around.command = None;
    around.is_command_task = false;
    around.resources = Resources::cpus_mem(0.5, 128.0);
    first.launch(around.clone()).await.unwrap();
    let nested = |name: &str, text: &str, share_cgroups: bool| ContainerConfig {
        id: around.id.child(name),
        sandbox: around.sandbox.join("containers").join(name),
        share_cgroups,
        is_command_task: false,
        resources: Resources::cpus_mem(0.2, 32.0),
        limits: [("mem".to_owned(), Limit::Amount(Scalar(48_000)))].into(),
        ..shell(at.path(), name, text)
    };
    let hog =
        "while ! test -e go; do sleep 0.01; done; dd if=/dev/zero of=/dev/null bs=100M count=1";
    let own = nested("own", &format!("{hog}; sleep 1000"), false);
    let sharing = nested("sharing", "sleep 1000", true);
    let launched = first.launch(own.clone()).await.unwrap();
    let other = first.launch(sharing.clone()).await.unwrap();
    let file = |id: &str, subsystem: &str, name: &str| root.file(subsystem, id, name);
    let below = "around/mesos/own";
    assert_eq!(file(below, "cpu", "cpu.shares"), "204");
    let bytes = |megabytes: u64| (megabytes << 20).to_string();
    assert_eq!(file(below, "memory", "memory.limit_in_bytes"), bytes(48));
    assert_eq!(
        file(below, "memory", "memory.soft_limit_in_bytes"),
        bytes(32)
    );
    assert_eq!(
        file("around", "memory", "memory.limit_in_bytes"),
        bytes(128)
    );
    let is_in = |pid: u32, id: &str| {
        let processes = file(id, "memory", "cgroup.procs");
        processes.lines().any(|line| line == pid.to_string())
    };
    assert!(is_in(launched.pid, below) && is_in(other.pid, "around"));
    let score = std::fs::read_to_string(format!("/proc/{}/oom_score_adj", launched.pid));
    assert!((900..=1000).contains(&score.unwrap().trim().parse::<i32>().unwrap()));

    // The same for a later agent process, and for whoever looks into it.
    drop(first);
    let second = containerizer(at.path(), isolators());
    let known = [&around.id, &own.id, &sharing.id].map(Clone::clone).into();
    assert_eq!(second.recover(known).await.unwrap().running.len(), 3);
    let usage = second.usage(&own.id).await.unwrap();
    assert!(usage.mem_total_bytes.unwrap() > 0 && usage.cpus_user_time_secs.is_some());
    assert_eq!(usage.mem_limit_bytes, Some(48 << 20));
    let looks = Command {
        shell: true,
        value: "exec sleep 1000".to_owned(),
        arguments: Vec::new(),
    };
    let looks = second.inside(&own.id, "looks", looks).unwrap();
    assert!(is_in(second.launch(looks).await.unwrap().pid, below));

    std::fs::write(own.sandbox.join("go"), "").unwrap();
    let termination = second.wait(&own.id).await.unwrap();
    let limitation = termination
        .limitation
        .expect("it went beyond its own limit");
    assert!(
        limitation
            .message
            .starts_with("Memory limit exceeded: Requested: 48MB Maximum Used: 48MB"),
        "{}",
        limitation.message
    );
    assert!(!root.cgroup("memory", below).exists());
    let listed = second.list();
    let runs = |id: &_| listed.iter().any(|one| one.id == *id && !one.over);
    assert!(runs(&around.id) && runs(&sharing.id));
    second.destroy(&around.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_hierarchy_of_the_machine_takes_its_part() {
    if !kernel::available() {
        return;
    }
    let root = kernel::Root::new("all");
    let at = tempfile::tempdir().unwrap();
    let allowed = serde_json::json!({ "allowed_devices": [
        { "device": { "path": "/dev/kmsg" }, "access": { "read": true } },
    ]});
    let settings = serde_json::json!({ "cgroups": {
        "cgroups_root": root.0, "allowed_devices": allowed,
    }});
    let isolators = kernel::load(&["cgroups/all"], settings).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let mounted = |subsystem: &str| {
        let there = Path::new("/sys/fs/cgroup").join(subsystem);
        let there = there.join("cgroup.procs").exists();
        if !there {
            eprintln!("not looked at: there is no v1 hierarchy of {subsystem}");
        }
        there
    };
    // What may be opened is seen from inside: to make a node is allowed, to use it is not.
    let text = "mknod disk b 7 0 && (true < disk) 2>&1 | tail -c 24; mknod other c 1 1; \
                (true < other) 2>&1 | tail -c 24; head -c 1 /dev/zero > /dev/null && echo zero; \
                (true < /dev/kmsg) && echo kmsg; (true > /dev/kmsg) 2>&1 | tail -c 24; \
                head -c 1M /dev/zero > file; echo end; sleep 1000";
    let config = shell(at.path(), "c", text);
    let launched = containerizer.launch(config.clone()).await.unwrap();
    wait_for("the end", || read(&config, "stdout").ends_with("end\n")).await;
    let pid = launched.pid.to_string();
    for subsystem in [
        "blkio", "cpu", "cpuacct", "cpuset", "devices", "memory", "pids",
    ] {
        if mounted(subsystem) {
            let processes = root.file(subsystem, "c", "cgroup.procs");
            assert!(processes.lines().any(|line| line == pid), "{subsystem}");
        }
    }
    if mounted("cpuset") {
        let of =
            |file: &str| std::fs::read_to_string(Path::new("/sys/fs/cgroup/cpuset").join(file));
        for file in ["cpuset.cpus", "cpuset.mems"] {
            assert_eq!(root.file("cpuset", "c", file), of(file).unwrap().trim());
        }
    }
    if mounted("devices") {
        let refused = "Operation not permitted\n";
        assert_eq!(
            read(&config, "stdout"),
            format!("{refused}{refused}zero\nkmsg\n{refused}end\n")
        );
        let list = root.file("devices", "c", "devices.list");
        assert!(list.lines().any(|line| line == "c 1:11 r"), "{list}");
        assert_eq!(list.lines().count(), 15, "{list}");
    }
    let usage = containerizer.usage(&config.id).await.unwrap();
    assert!(usage.cpus_user_time_secs.is_some() && usage.mem_total_bytes.unwrap() > 0);
    if mounted("blkio") {
        let counters = usage.blkio_statistics.unwrap();
        assert!(!counters.throttling.is_empty(), "{counters:?}");
    }
    containerizer.destroy(&config.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn devices_that_are_none_stop_the_start() {
    if !kernel::available() {
        return;
    }
    let allowed = serde_json::json!({ "allowed_devices": [
        { "device": { "path": "/etc/passwd" }, "access": { "read": true } },
    ]});
    let settings = serde_json::json!({ "cgroups": { "allowed_devices": allowed } });
    let said = kernel::load(&["cgroups/devices"], settings)
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("setting 'allowed_devices': '/etc/passwd' is not a device"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_a_root_of_its_own_sees_its_own_cgroups() {
    let at = tempfile::tempdir().unwrap();
    if !kernel::available() {
        return;
    }
    let Some(rootfs) = busybox(at.path()) else {
        return;
    };
    let root = kernel::Root::new("seen");
    let settings = serde_json::json!({ "cgroups": { "cgroups_root": root.0 } });
    let names = ["filesystem/linux", "cgroups/cpu", "cgroups/mem"];
    let mut isolators = kernel::load_in(&names, settings, None, Some(at.path())).unwrap();
    isolators.push(provisioner(&rootfs));
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    let text = "cd /sys/fs/cgroup; ls; cat memory/memory.limit_in_bytes cpu/cpu.shares; test -n \"$(cat memory/cgroup.procs)\" && echo own; \
                 (echo 1 > memory/memory.limit_in_bytes) 2>/dev/null || echo refused; \
                mkdir memory/x 2>/dev/null || echo refused; touch x 2>/dev/null || echo refused";
    let mut config = shell(at.path(), "c", text);
    config.resources = Resources::cpus_mem(0.2, 48.0);
    containerizer.launch(config.clone()).await.unwrap();
    containerizer.wait(&config.id).await.unwrap();
    assert_eq!(read(&config, "stderr"), "");
    let limit = 48 << 20;
    assert_eq!(
        read(&config, "stdout"),
        format!("cpu\ncpuacct\nmemory\n{limit}\n204\nown\nrefused\nrefused\nrefused\n")
    );
}

/// Without a pid namespace, whose end would be theirs. No list of processes is ever up to date: each ends as soon as it has
/// forked the next.
#[tokio::test(flavor = "multi_thread")]
async fn what_forks_without_end_is_killed_all_at_once() {
    if !kernel::available() {
        return;
    }
    let root = kernel::Root::new("bomb");
    let at = tempfile::tempdir().unwrap();
    let settings = serde_json::json!({ "cgroups": { "cgroups_root": root.0 } });
    let isolators = kernel::load(&["cgroups/cpu", "cgroups/pids"], settings).unwrap();
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    // So that the machine goes on: no limit is written by Mesos.
    std::fs::write(root.cgroup("pids", "").join("pids.max"), "1000").unwrap();
    let bomb = "i=0; while test $i -lt 10; do i=$((i + 1)); perl -e 'while () { exit if fork }' & done; : > exploded;";
    let around = shell(at.path(), "around", "sleep 1000");
    containerizer.launch(around.clone()).await.unwrap();
    let nested = ContainerConfig {
        id: around.id.child("nested"),
        sandbox: around.sandbox.join("containers/nested"),
        is_command_task: false,
        ..shell(at.path(), "nested", &format!("{bomb} sleep 1000"))
    };
    let lasting = shell(at.path(), "lasting", &format!("{bomb} sleep 1000"));
    let soon = std::time::Duration::from_secs(60);
    for (config, place) in [(&lasting, "lasting"), (&nested, "around/mesos/nested")] {
        let launched = containerizer.launch(config.clone()).await.unwrap();
        let frozen = root.file("freezer", place, "cgroup.procs");
        assert!(frozen.lines().any(|pid| pid == launched.pid.to_string()));
        let exploded = config.sandbox.join("exploded");
        wait_for("the explosion", || exploded.exists()).await;
        let destroyed = containerizer.destroy(&config.id);
        let destroyed = tokio::time::timeout(soon, destroyed).await;
        destroyed.expect("it does not outrun its end").unwrap();
    }
    // The command is over, and what it has left behind is not.
    let ending = shell(at.path(), "ending", &format!("{bomb} exit 3"));
    containerizer.launch(ending.clone()).await.unwrap();
    let ended = tokio::time::timeout(soon, containerizer.wait(&ending.id)).await;
    assert_eq!(ended.unwrap().unwrap().exit, Exit::Status(3 << 8));
    let status = containerizer.status(&around.id).await.unwrap();
    assert!(status.executor_pid.is_some(), "nobody else is killed");
    containerizer.destroy(&around.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}
