//! The hierarchy of version 2: which controllers it has, and giving them to containers.

use std::path::Path;

use tepui_isolators_linux::{Cgroup, controller_of};
use tepui_module_sdk::prelude::*;

use crate::groups::failure;
use crate::subsystems::Subsystems;

const CONTROLLERS: &str = "cgroup.controllers";
const ENABLED: &str = "cgroup.subtree_control";

/// The controllers of some subsystems; time of processors is counted without one.
fn controllers<'a>(subsystems: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    subsystems.filter_map(controller_of).collect()
}

/// Whether the hierarchy has what is asked for.
pub(crate) fn check(mount: &Path, subsystems: &Subsystems) -> Result<()> {
    for subsystem in ["net_cls", "net_prio"] {
        if subsystems.has(subsystem) {
            return Err(Failure::unavailable(format!(
                "cgroups/{subsystem} does not exist in version 2 of cgroups"
            )));
        }
    }
    let offered = Cgroup::at(mount).read(CONTROLLERS).map_err(failure)?;
    let missing = controllers(subsystems.iter())
        .into_iter()
        .find(|wanted| !offered.split_ascii_whitespace().any(|has| has == *wanted));
    match missing {
        Some(controller) => Err(Failure::unavailable(format!(
            "the cgroup hierarchy at '{}' has no controller '{controller}': the kernel was started without it, or it is in \
             use by a hierarchy of version 1",
            mount.display()
        ))),
        None => Ok(()),
    }
}

/// Gives controllers to what is below a root, which needs them all the way from the mount.
pub(crate) fn enable<'a>(
    mount: &Path,
    root: &Path,
    subsystems: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let wanted = controllers(subsystems);
    let mut way: Vec<&Path> = root
        .ancestors()
        .take_while(|above| above.starts_with(mount))
        .collect();
    way.reverse();
    for directory in way {
        let cgroup = Cgroup::at(directory);
        let enabled = cgroup.read(ENABLED).map_err(failure)?;
        let missing = wanted
            .iter()
            .filter(|wanted| !enabled.split_ascii_whitespace().any(|has| has == **wanted));
        let missing: Vec<String> = missing.map(|controller| format!("+{controller}")).collect();
        if missing.is_empty() {
            continue;
        }
        cgroup.write(ENABLED, &missing.join(" ")).map_err(|error| {
            let busy = error.is_busy();
            let failure = failure(error);
            if busy {
                // The kernel's own rule, which its error does not tell.
                failure.context(format!(
                    "'{}' has processes of its own, so it cannot give controllers to cgroups below it: choose another \
                     --cgroups_root, or move them",
                    directory.display()
                ))
            } else {
                failure
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::Groups;
    use tepui_isolators_linux::Hierarchies;

    fn tree(controllers: &str) -> (tempfile::TempDir, Hierarchies) {
        let at = tempfile::tempdir().unwrap();
        std::fs::write(at.path().join(CONTROLLERS), controllers).unwrap();
        for directory in ["", "a", "a/b"] {
            let directory = at.path().join(directory);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(ENABLED), "pids\n").unwrap();
        }
        let hierarchies = Hierarchies {
            v1: [("name=systemd".to_owned(), "/x".into())].into(),
            v2: Some(at.path().to_owned()),
        };
        (at, hierarchies)
    }

    fn groups(names: &[&str], hierarchies: &Hierarchies) -> Result<Groups> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let subsystems = Subsystems::selected(&names, hierarchies);
        Groups::find(hierarchies, &subsystems, "a/b")
    }

    #[test]
    fn controllers_are_enabled_from_the_mount_to_the_root() {
        let (at, hierarchies) = tree("cpuset cpu io memory pids");
        let groups = groups(&["cgroups/all"], &hierarchies).unwrap();
        groups.create_roots().unwrap();
        for directory in ["", "a", "a/b"] {
            let written = std::fs::read_to_string(at.path().join(directory).join(ENABLED));
            // A file of the kernel would add them.
            assert_eq!(written.unwrap(), "+io +cpu +cpuset +memory", "{directory}");
        }
        let id = ContainerId::from("c");
        groups.create(&id).unwrap();
        let [(subsystem, leaf)] = &groups.joined(&id)[..] else {
            panic!("one cgroup")
        };
        assert_eq!(*subsystem, "");
        assert_eq!(leaf.path(), at.path().join("a/b/c/leaf"));
        assert_eq!(groups.of("cpu", &id), groups.of("memory", &id));

        // The same on the way to what is nested in it.
        let nested = ContainerId::from("c.n");
        let room = at.path().join("a/b/c/mesos");
        std::fs::create_dir(&room).unwrap();
        for directory in [&at.path().join("a/b/c"), &room] {
            std::fs::write(directory.join(ENABLED), "pids\n").unwrap();
        }
        groups.create(&nested).unwrap();
        assert_eq!(
            std::fs::read_to_string(room.join(ENABLED)).unwrap(),
            "+io +cpu +cpuset +memory"
        );
        assert!(room.join("n/leaf").is_dir());
    }

    #[test]
    fn what_version_2_does_not_have_is_said() {
        let (_at, hierarchies) = tree("cpu");
        for (name, words) in [
            ("cgroups/mem", "has no controller 'memory'"),
            ("cgroups/net_prio", "does not exist in version 2"),
        ] {
            let error = groups(&[name], &hierarchies).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    /// On the machine's own hierarchy, which has to be writable, whatever its controllers are.
    #[tokio::test]
    async fn processes_of_a_container_are_in_its_leaf_and_end_with_it() {
        let Ok(Hierarchies {
            v2: Some(mount), ..
        }) = Hierarchies::detect()
        else {
            eprintln!("not run: no cgroup2 hierarchy is mounted");
            return;
        };
        if nix::unistd::access(&mount, nix::unistd::AccessFlags::W_OK).is_err() {
            eprintln!("not run: '{}' cannot be written", mount.display());
            return;
        }
        let hierarchies = Hierarchies {
            v1: BTreeMap::new(),
            v2: Some(mount.clone()),
        };
        let root = format!("tepui-test-leaf-{}", std::process::id());
        let accounting = Subsystems::of(&["cpuacct"]);
        let groups = Groups::find(&hierarchies, &accounting, &root).unwrap();
        groups.create_roots().unwrap();
        let id = ContainerId::from("c");
        groups.create(&id).unwrap();
        let joined = groups.joined(&id);
        let join = format!(
            "echo 0 > {}/cgroup.procs; sleep 1000 & while :; do :; done",
            joined[0].1.path().display()
        );
        let mut child = std::process::Command::new("sh")
            .args(["-c", &join])
            .spawn()
            .unwrap();
        let used = || {
            let mut statistics = tepui_module_sdk::mesos::ResourceStatistics::default();
            crate::cpu_v2::usage(&groups.of("cpuacct", &id), &mut statistics).unwrap();
            statistics.cpus_user_time_secs() + statistics.cpus_system_time_secs()
        };
        while used() == 0.0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        groups.destroy(&id, Duration::from_secs(30)).await.unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!groups.exist(&id));
        std::fs::remove_dir(mount.join(&root)).unwrap();
    }
}
