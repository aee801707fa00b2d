//! The cgroups of the agent itself: by `--agent_subsystems`, and where it would be in the way of its containers.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use tepui_isolators_linux::{Cgroup, Hierarchies};

/// Below `--cgroups_root`, as in Mesos.
const NAME: &str = "slave";

/// Moves this process into `<root>/slave` of the hierarchies of some subsystems of version 1, with all its threads. What it
/// starts from now on is there too: supervisors of containers, and programs of the logger. Containers are not.
///
/// # Errors
/// If there is no such hierarchy, or the kernel does not let this process in.
pub(crate) fn enter(
    hierarchies: &Hierarchies,
    root: &str,
    subsystems: &[String],
) -> anyhow::Result<()> {
    for subsystem in subsystems {
        let mount = hierarchies.v1.get(subsystem).ok_or_else(|| {
            anyhow!(
                "--agent_subsystems: there is no cgroup hierarchy of version 1 of '{subsystem}': mount it, or leave it out"
            )
        })?;
        let mut place = mount.clone();
        for part in root.trim_matches('/').split('/').chain([NAME]) {
            place.push(part);
            enter_one(&place, subsystem, part == NAME)
                .with_context(|| format!("--agent_subsystems: '{subsystem}'"))?;
        }
    }
    Ok(())
}

fn enter_one(place: &std::path::Path, subsystem: &str, is_last: bool) -> anyhow::Result<()> {
    let cgroup = Cgroup::at(place);
    cgroup.create()?;
    if subsystem == "cpuset" {
        cgroup.inherit_cpuset()?;
    }
    if is_last {
        cgroup.write("cgroup.procs", &std::process::id().to_string())?;
    }
    Ok(())
}

/// Moves this process, with all its threads, out of a cgroup of version 2 that has to give controllers to containers: a cgroup
/// with processes of its own cannot give any. So it is where `root` is below the agent's own cgroup, as in a unit of systemd with
/// `Delegate=yes`. The place is that of Mesos, `<root>/agent/leaf`. The machine's own root may have processes and is left as it is.
///
/// # Errors
/// If the kernel does not let this process make cgroups below its own.
pub(crate) fn make_way(mount: &Path, root: &str) -> anyhow::Result<()> {
    let own = own_unified(mount).context("the agent's own cgroup cannot be found")?;
    let root = mount.join(root.trim_matches('/'));
    // Only the machine's root has no such file.
    if !root.starts_with(&own) || !own.join("cgroup.events").exists() {
        return Ok(());
    }
    let place = root.join("agent/leaf");
    std::fs::create_dir_all(&place).with_context(|| {
        format!(
            "'{}' cannot be made for the agent itself: its unit needs Delegate=yes, or choose another --cgroups_root",
            place.display()
        )
    })?;
    let process = std::process::id().to_string();
    Ok(Cgroup::at(place).write("cgroup.procs", &process)?)
}

/// The cgroup of version 2 that this process is in.
fn own_unified(mount: &Path) -> anyhow::Result<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.context("/proc/self/cgroup has no line of version 2")?;
    Ok(mount.join(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Set for a process that is to make way, to the name of its unit.
    const DELEGATED: &str = "TEPUI_TEST_DELEGATED";

    /// What systemd does for a unit: makes a cgroup and starts the agent in it.
    #[test]
    fn an_agent_makes_way_for_containers_below_its_own_cgroup() {
        let mount = Hierarchies::detect().unwrap().v2;
        let (Some(mount), true) = (mount, nix::unistd::geteuid().is_root()) else {
            eprintln!("not run: needs root and cgroups v2");
            return;
        };
        if let Ok(unit) = std::env::var(DELEGATED) {
            let own = mount.join(&unit);
            let cgroup = Cgroup::at(&own);
            let process = std::process::id().to_string();
            cgroup.write("cgroup.procs", &process).unwrap();
            make_way(&mount, "elsewhere").unwrap();
            assert_eq!(own_unified(&mount).unwrap(), own, "nobody is in the way");
            let processes = || cgroup.read("cgroup.procs").unwrap();
            // Where the unit was given controllers it can pass them on only without processes.
            let offered = cgroup.read("cgroup.controllers").unwrap();
            let offered = offered.split_whitespace().map(|one| format!("+{one} "));
            let offered: String = offered.collect();
            let give = || cgroup.write("cgroup.subtree_control", offered.trim());
            assert_eq!(processes().trim(), process);
            assert!(offered.is_empty() || give().unwrap_err().is_busy());
            make_way(&mount, &format!("{unit}/mesos")).unwrap();
            assert_eq!(own_unified(&mount).unwrap(), own.join("mesos/agent/leaf"));
            assert_eq!(processes(), "");
            assert!(offered.is_empty() || give().is_ok());
            return;
        }
        let unit = format!("tepui-test-unit-{}", std::process::id());
        let own = mount.join(&unit);
        std::fs::create_dir(&own).unwrap();
        let test = std::thread::current().name().unwrap().to_owned();
        let agent = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(DELEGATED, &unit)
            .output()
            .unwrap();
        for cgroup in ["mesos/agent/leaf", "mesos/agent", "mesos", ""] {
            let _ = std::fs::remove_dir(own.join(cgroup));
        }
        assert!(agent.status.success(), "{agent:?}");
        assert!(!own.exists());
    }

    /// Set for a process that is to move, to the name of its root.
    const MOVES: &str = "TEPUI_TEST_MOVES";

    #[test]
    fn the_agent_is_in_cgroups_of_its_own() {
        let hierarchies = Hierarchies::detect().unwrap();
        let subsystems = ["cpuset", "pids"].map(str::to_owned);
        if let Ok(root) = std::env::var(MOVES) {
            enter(&hierarchies, &root, &subsystems).unwrap();
            println!("{}", std::fs::read_to_string("/proc/self/cgroup").unwrap());
            return;
        }
        let mounts = subsystems.each_ref().map(|name| hierarchies.v1.get(name));
        let ([Some(cpuset), Some(pids)], true) = (mounts, nix::unistd::geteuid().is_root()) else {
            eprintln!("not run: needs root and cgroups v1 of cpuset and pids");
            return;
        };
        let missing = enter(&hierarchies, "x", &["no-such".to_owned()]).unwrap_err();
        assert!(missing.to_string().contains("version 1 of 'no-such'"));
        let root = format!("tepui-test-agent-{}", std::process::id());
        let test = std::thread::current().name().unwrap().to_owned();
        let moved = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &test, "--nocapture"])
            .env(MOVES, &root)
            .output()
            .unwrap();
        for mount in [cpuset, pids] {
            for cgroup in [mount.join(&root).join(NAME), mount.join(&root)] {
                std::fs::remove_dir(cgroup).unwrap();
            }
        }
        let said = String::from_utf8_lossy(&moved.stdout);
        for subsystem in subsystems {
            assert!(
                said.contains(&format!(":{subsystem}:/{root}/slave\n")),
                "{said}"
            );
        }
    }
}
