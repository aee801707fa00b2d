//! Where the cgroups of containers are; making and removing them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use tepui_isolators_linux::{Cgroup, CgroupError, Hierarchies};
use tepui_module_sdk::prelude::*;

use crate::{subsystems::Subsystems, unified};

/// The cgroups of all containers, by subsystem.
#[derive(Debug)]
pub(crate) struct Groups {
    /// `<cgroups_root>`.
    root: PathBuf,
    /// `<hierarchy>/<cgroups_root>` of each subsystem; all the same in version 2.
    roots: BTreeMap<&'static str, PathBuf>,
    /// Where the hierarchy of version 2 is mounted, when it is the one in use.
    unified: Option<PathBuf>,
    /// `<hierarchy>/<cgroups_root>` of the freezer of version 1, where it is mounted: no isolator, but the way to kill all of
    /// a container at once, as in Mesos.
    freezer: Option<PathBuf>,
}

/// The freezer of version 1.
pub(crate) const FREEZER: &str = "freezer";
/// In version 2 the processes of a container are in a cgroup of this name: the kernel wants none in a cgroup that
/// has others below it, and containers may be nested.
const LEAF: &str = "leaf";
/// Between a container's cgroup and those of what is nested in it, as in Mesos.
const NESTED: &str = "mesos";

impl Groups {
    pub(crate) fn find(
        hierarchies: &Hierarchies,
        subsystems: &Subsystems,
        root: &str,
    ) -> Result<Self> {
        let root = root.trim_matches('/');
        if let Some(mount) = hierarchies.unified() {
            unified::check(mount, subsystems)?;
            let roots = subsystems
                .iter()
                .map(|subsystem| (subsystem, mount.join(root)));
            return Ok(Self {
                root: root.into(),
                roots: roots.collect(),
                unified: Some(mount.to_owned()),
                freezer: None,
            });
        }
        let mut roots = BTreeMap::new();
        for subsystem in subsystems.iter() {
            let Some(mount) = hierarchies.v1.get(subsystem) else {
                return Err(Failure::unavailable(format!(
                    "cgroup subsystem '{subsystem}' is not mounted: mount it at '/sys/fs/cgroup/{subsystem}'"
                )));
            };
            roots.insert(subsystem, mount.join(root));
        }
        Ok(Self {
            root: root.into(),
            roots,
            unified: None,
            freezer: hierarchies.v1.get(FREEZER).map(|mount| mount.join(root)),
        })
    }

    /// Whether they are in the hierarchy of version 2.
    pub(crate) fn are_unified(&self) -> bool {
        self.unified.is_some()
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
            if *subsystem == "cpuset" && !self.are_unified() {
                for made in missing {
                    Cgroup::at(made).inherit_cpuset().map_err(failure)?;
                }
            }
        }
        match (&self.unified, self.roots.values().next()) {
            (Some(mount), Some(root)) => unified::enable(mount, root, self.roots.keys().copied()),
            _ => Ok(()),
        }
    }

    /// The container's cgroup of the freezer, where there is one. Also one that shares the others has its own.
    pub(crate) fn frozen_by(&self, id: &ContainerId) -> Option<Cgroup> {
        let root = self.freezer.as_ref()?;
        Some(Cgroup::at(root.join(place(id))))
    }

    /// Makes it, with those around it, which are missing where an agent without it launched them.
    pub(crate) fn create_frozen_by(&self, id: &ContainerId) -> Result<Option<Cgroup>> {
        let Some(cgroup) = self.frozen_by(id) else {
            return Ok(None);
        };
        std::fs::create_dir_all(cgroup.path()).map_err(|error| {
            let path = cgroup.path().display();
            Failure::unavailable(format!("the cgroup '{path}' cannot be made: {error}"))
        })?;
        Ok(Some(cgroup))
    }

    /// The cgroup of a container for a subsystem in use.
    pub(crate) fn of(&self, subsystem: &str, id: &ContainerId) -> Cgroup {
        let root = self
            .roots
            .get(subsystem)
            .expect("asked only for subsystems in use");
        Cgroup::at(root.join(place(id)))
    }

    /// The name of a container's cgroup, which is the same in each hierarchy.
    pub(crate) fn name(&self, id: &ContainerId) -> PathBuf {
        self.root.join(place(id))
    }

    /// The cgroups of a container, one a hierarchy, each with one of its subsystems.
    pub(crate) fn of_each_hierarchy(&self, id: &ContainerId) -> Vec<(&'static str, Cgroup)> {
        let each = self.by_hierarchy(id).into_iter();
        each.map(|(subsystems, cgroup)| (subsystems[0], cgroup))
            .collect()
    }

    /// The cgroups of a container, one a hierarchy, each with all of its subsystems that are in use.
    pub(crate) fn by_hierarchy(&self, id: &ContainerId) -> Vec<(Vec<&'static str>, Cgroup)> {
        let mut found: Vec<(Vec<&'static str>, Cgroup)> = Vec::new();
        for subsystem in self.roots.keys() {
            let cgroup = self.of(subsystem, id);
            match found.iter_mut().find(|(_, other)| *other == cgroup) {
                Some((subsystems, _)) => subsystems.push(subsystem),
                None => found.push((vec![subsystem], cgroup)),
            }
        }
        found
    }

    /// The cgroups that a container's processes join, each with its subsystem, which is empty in version 2.
    pub(crate) fn joined(&self, id: &ContainerId) -> Vec<(&'static str, Cgroup)> {
        let all = self.of_each_hierarchy(id).into_iter();
        if self.are_unified() {
            all.map(|(_, cgroup)| ("", Self::leaf(&cgroup))).collect()
        } else {
            all.collect()
        }
    }

    fn leaf(cgroup: &Cgroup) -> Cgroup {
        Cgroup::at(cgroup.path().join(LEAF))
    }

    pub(crate) fn exist(&self, id: &ContainerId) -> bool {
        self.of_each_hierarchy(id)
            .iter()
            .all(|(_, cgroup)| cgroup.exists())
    }

    pub(crate) fn create(&self, id: &ContainerId) -> Result<()> {
        if let Some(around) = id.parent() {
            self.make_room(&around)?;
        }
        for (_, cgroup) in self.of_each_hierarchy(id) {
            cgroup.create().map_err(failure)?;
        }
        if self.are_unified() {
            for (_, cgroup) in self.of_each_hierarchy(id) {
                Self::leaf(&cgroup).create().map_err(failure)?;
            }
        } else if self.roots.contains_key("cpuset") {
            self.of("cpuset", id).inherit_cpuset().map_err(failure)?;
        }
        Ok(())
    }

    /// Makes what the cgroups of containers nested in this one are below.
    fn make_room(&self, around: &ContainerId) -> Result<()> {
        for (subsystem, cgroup) in self.of_each_hierarchy(around) {
            let room = Cgroup::at(cgroup.path().join(NESTED));
            room.create().map_err(failure)?;
            match &self.unified {
                Some(mount) => unified::enable(mount, room.path(), self.roots.keys().copied())?,
                None if subsystem == "cpuset" => room.inherit_cpuset().map_err(failure)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Kills what is left in the cgroups of a container and removes them, with those below.
    pub(crate) async fn destroy(&self, id: &ContainerId, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        let others = self.of_each_hierarchy(id).into_iter();
        let all = self.frozen_by(id).into_iter();
        for cgroup in all.chain(others.map(|(_, cgroup)| cgroup)) {
            let mut pause = Duration::from_micros(200);
            loop {
                match empty_and_remove(&cgroup) {
                    Ok(()) => break,
                    // A process that has just ended is still counted for a moment.
                    Err(error) if error.is_busy() && Instant::now() < until => {
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

/// Where a container's cgroup is below the root of all.
fn place(id: &ContainerId) -> PathBuf {
    let mut place = PathBuf::new();
    for (depth, part) in id.as_str().split('.').enumerate() {
        if depth > 0 {
            place.push(NESTED);
        }
        place.push(part);
    }
    place
}

/// Most cgroups are empty by now, so nothing is looked for in one that goes.
fn empty_and_remove(cgroup: &Cgroup) -> Result<(), CgroupError> {
    match cgroup.remove() {
        Err(error) if error.is_busy() => {}
        done => return done,
    }
    // Version 2 kills everything at once, since Linux 5.14; who forks without end is quicker than any list of processes.
    let _ = cgroup.write("cgroup.kill", "1");
    // Whoever is frozen forks no more; those that were about to are for the next time.
    let _ = cgroup.write("freezer.state", "FROZEN");
    for below in cgroup.below().iter().chain([cgroup]) {
        let _ = below.kill();
    }
    let _ = cgroup.write("freezer.state", "THAWED");
    // What of them cannot be removed keeps the outermost one, which says so.
    for below in cgroup.below() {
        let _ = below.remove();
    }
    cgroup.remove()
}

pub(crate) fn failure(error: CgroupError) -> Failure {
    Failure::unavailable(error.to_string())
}
