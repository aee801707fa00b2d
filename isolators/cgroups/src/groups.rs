//! Where the cgroups of containers are; making and removing them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use tepui_isolators_linux::{Cgroup, CgroupError, Hierarchies, Mounted};
use tepui_module_sdk::prelude::*;

use crate::{cpuset, subsystems::Subsystems};

/// The cgroups of all containers, by subsystem.
#[derive(Debug)]
pub(crate) struct Groups {
    /// `<hierarchy>/<cgroups_root>` of each subsystem.
    roots: BTreeMap<&'static str, PathBuf>,
}

impl Groups {
    pub(crate) fn find(
        hierarchies: &Hierarchies,
        subsystems: &Subsystems,
        root: &str,
    ) -> Result<Self> {
        let root = root.trim_matches('/');
        let mut roots = BTreeMap::new();
        for subsystem in subsystems.iter() {
            match hierarchies.find(subsystem) {
                Mounted::V1(mount) => roots.insert(subsystem, mount.join(root)),
                Mounted::V2(mount) => {
                    let mount = mount.display();
                    return Err(Failure::unavailable(format!(
                        "cgroup subsystem '{subsystem}' is in the version 2 hierarchy at '{mount}', which is not \
                         supported yet: start the kernel with 'systemd.unified_cgroup_hierarchy=0', or leave the \
                         cgroups/* isolators out of --isolation"
                    )));
                }
                Mounted::Nowhere => {
                    return Err(Failure::unavailable(format!(
                        "cgroup subsystem '{subsystem}' is not mounted: mount it at '/sys/fs/cgroup/{subsystem}'"
                    )));
                }
            };
        }
        Ok(Self { roots })
    }

    pub(crate) fn create_roots(&self) -> Result<()> {
        for (subsystem, root) in &self.roots {
            let mut missing: Vec<_> = root.ancestors().take_while(|dir| !dir.exists()).collect();
            missing.reverse();
            std::fs::create_dir_all(root).map_err(|error| {
                let root = root.display();
                Failure::unavailable(format!(
                    "the cgroup '{root}' of '{subsystem}' cannot be made: {error}"
                ))
            })?;
            if *subsystem == "cpuset" {
                for made in missing {
                    cpuset::inherit(&Cgroup::at(made))?;
                }
            }
        }
        Ok(())
    }

    /// The cgroup of a container for a subsystem in use.
    pub(crate) fn of(&self, subsystem: &str, id: &ContainerId) -> Cgroup {
        let root = self
            .roots
            .get(subsystem)
            .expect("asked only for subsystems in use");
        Cgroup::at(root.join(id.as_str()))
    }

    /// The cgroups of a container, one a hierarchy, each with one of its subsystems.
    pub(crate) fn of_each_hierarchy(&self, id: &ContainerId) -> Vec<(&'static str, Cgroup)> {
        let mut found: Vec<(&'static str, Cgroup)> = Vec::new();
        for subsystem in self.roots.keys() {
            let cgroup = self.of(subsystem, id);
            if !found.iter().any(|(_, other)| *other == cgroup) {
                found.push((subsystem, cgroup));
            }
        }
        found
    }

    pub(crate) fn exist(&self, id: &ContainerId) -> bool {
        self.of_each_hierarchy(id)
            .iter()
            .all(|(_, cgroup)| cgroup.exists())
    }

    pub(crate) fn create(&self, id: &ContainerId) -> Result<()> {
        for (_, cgroup) in self.of_each_hierarchy(id) {
            cgroup.create().map_err(failure)?;
        }
        if self.roots.contains_key("cpuset") {
            cpuset::inherit(&self.of("cpuset", id))?;
        }
        Ok(())
    }

    /// Kills what is left in the cgroups of a container and removes them.
    pub(crate) async fn destroy(&self, id: &ContainerId, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        for (_, cgroup) in self.of_each_hierarchy(id) {
            let mut pause = Duration::from_micros(200);
            loop {
                match cgroup.remove() {
                    Ok(()) => break,
                    // A process that has just ended is still counted for a moment.
                    Err(error) if error.is_busy() && Instant::now() < until => {
                        let _ = cgroup.kill();
                        time::sleep(pause).await;
                        pause = (pause * 2).min(Duration::from_millis(50));
                    }
                    Err(error) => return Err(failure(error)),
                }
            }
        }
        Ok(())
    }
}

pub(crate) fn failure(error: CgroupError) -> Failure {
    Failure::unavailable(error.to_string())
}
