//! What a container with a root of its own sees of cgroups: its own, at the usual place, and cannot change them.
//!
//! Mirrors `CgroupsIsolatorProcess::prepare` of Mesos 1.7 for version 1, which knows no version 2: there the container's
//! cgroup is what is mounted.

use tepui_isolators_linux::Cgroup;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::{File, file, mount};

use crate::groups::Groups;

/// Where programs look for cgroups.
const PLACE: &str = "/sys/fs/cgroup";

const MS_RDONLY: u64 = 1;
const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;
const MS_BIND: u64 = 4096;

/// Adds the mounts of a container in the cgroups of `home`.
pub(crate) fn mounts(mut plan: LaunchPlan, groups: &Groups, home: &ContainerId) -> LaunchPlan {
    let flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    let own = |cgroup: &Cgroup, target: String| Mount {
        source: cgroup.path().to_string_lossy().into_owned(),
        target,
        flags: flags | MS_BIND | MS_RDONLY,
        ..Mount::default()
    };
    if groups.are_unified() {
        for (_, cgroup) in groups.of_each_hierarchy(home) {
            plan = plan.mount(own(&cgroup, PLACE.to_owned()));
        }
        return plan;
    }
    plan = plan.mount(Mount {
        source: "tmpfs".to_owned(),
        target: PLACE.to_owned(),
        fstype: "tmpfs".to_owned(),
        flags,
        options: "mode=755,size=64k".to_owned(),
        ..Mount::default()
    });
    for (subsystems, cgroup) in groups.by_hierarchy(home) {
        let name = subsystems.join(",");
        let target = format!("{PLACE}/{name}");
        plan = plan.mount(Mount {
            create: mount::Create::Directory.into(),
            ..own(&cgroup, target)
        });
        let others = subsystems.iter().filter(|one| ***one != *name);
        plan.files.extend(others.map(|one| File {
            path: format!("{PLACE}/{one}"),
            r#type: file::Type::Symlink.into(),
            content: name.clone().into_bytes(),
            ..File::default()
        }));
    }
    plan.read_only_paths.push(PLACE.to_owned());
    plan
}
