//! Containers with the kernel isolators, as root on cgroups v1.

mod common;

use std::{collections::BTreeSet, path::Path};

use common::{containerizer, kernel, read, shell, wait_for};
use tepui_containerizer::{Exit, Limit, leaks};
use tepui_model::resources::{Resources, Scalar};
use tepui_proto::v1::task_status::Reason;

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
