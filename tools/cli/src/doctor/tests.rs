use super::machine::{Machine, NAMESPACES, PROGRAMS, version};
use super::*;

fn full() -> Machine {
    Machine {
        root: true,
        kernel: version("6.1.0-13-amd64"),
        v1: [
            "blkio",
            "cpu",
            "cpuset",
            "devices",
            "hugetlb",
            "memory",
            "net_cls",
            "net_prio",
            "perf_event",
            "pids",
        ]
        .map(str::to_owned)
        .into(),
        namespaces: NAMESPACES.to_vec(),
        seccomp: true,
        libraries: ["libtepui_images.so", "libtepui_isolators.so"]
            .map(str::to_owned)
            .into(),
        programs: PROGRAMS.to_vec(),
        ..Machine::default()
    }
}

fn missing(machine: &Machine, isolator: &str) -> Option<String> {
    let report = Report::of(machine);
    let found = report
        .isolators
        .into_iter()
        .find(|one| one.isolator == isolator);
    found.unwrap().missing
}

#[test]
fn what_is_missing_is_named_with_how_to_get_it() {
    let report = Report::of(&full());
    assert!(
        report.isolators.iter().all(|one| one.missing.is_none()),
        "{report:?}"
    );
    let without = Machine {
        programs: Vec::new(),
        project_quota: Some("'/' is ext4".to_owned()),
        ..full()
    };
    let lacks = missing(&without, "docker/volume").unwrap();
    assert!(lacks.starts_with("'dvdcli' is not on the PATH"), "{lacks}");
    let lacks = missing(&without, "disk/xfs").unwrap();
    assert!(lacks.ends_with("'/' is ext4"), "{lacks}");
    let user = Machine {
        root: false,
        ..full()
    };
    assert!(
        missing(&user, "filesystem/linux")
            .unwrap()
            .contains("run the agent as root")
    );
    assert_eq!(
        Report::of(&user).isolation,
        "posix/cpu,posix/mem,linux/seccomp,posix/rlimits,disk/du"
    );
    let unified = Machine {
        v1: Vec::new(),
        v2: Some(["cpu", "memory"].map(str::to_owned).into()),
        ..full()
    };
    assert_eq!(missing(&unified, "cgroups/mem"), None);
    assert!(
        missing(&unified, "cgroups/pids")
            .unwrap()
            .contains("no controller 'pids'")
    );
    assert_eq!(missing(&unified, "cgroups/devices"), None);
    let bare = Machine {
        v1: Vec::new(),
        overlay: Some("why".to_owned()),
        kernel: version("5.4.0"),
        libraries: vec!["libtepui_isolators.so".to_owned()],
        ..full()
    };
    assert!(
        missing(&bare, "cgroups/cpu")
            .unwrap()
            .contains("mount -t cgroup -o cpu")
    );
    assert!(
        missing(&bare, "filesystem/linux")
            .unwrap()
            .contains("Linux 5.12")
    );
    assert!(
        missing(&bare, "docker/runtime")
            .unwrap()
            .contains("libtepui_images.so is missing")
    );
}

#[test]
fn this_machine_is_looked_at_without_leaving_anything() {
    let at = tempfile::tempdir().unwrap();
    let machine = Machine::look(&at.path().join("not/there"));
    assert!(machine.is_at_least(4, 0), "{machine:?}");
    assert!(machine.namespaces.contains(&"mnt"), "{machine:?}");
    assert_eq!(std::fs::read_dir(at.path()).unwrap().count(), 0);
}
