//! The cgroups of the agent itself, by `--agent_subsystems`.

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

#[cfg(test)]
mod tests {
    use super::*;

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
