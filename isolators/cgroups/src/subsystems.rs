//! Which subsystems of the kernel the configured names mean.

use tepui_isolators_linux::{Hierarchies, Mounted};
use tepui_module_sdk::prelude::*;

/// Names of isolators, and the kernel's subsystems behind each.
const NAMED: [(&str, &[&str]); 10] = [
    ("cgroups/blkio", &["blkio"]),
    ("cgroups/cpu", &["cpu", "cpuacct"]),
    ("cgroups/cpuset", &["cpuset"]),
    ("cgroups/devices", &["devices"]),
    ("cgroups/hugetlb", &["hugetlb"]),
    ("cgroups/mem", &["memory"]),
    ("cgroups/net_cls", &["net_cls"]),
    ("cgroups/net_prio", &["net_prio"]),
    ("cgroups/perf_event", &["perf_event"]),
    ("cgroups/pids", &["pids"]),
];

/// The name that means all of them.
const ALL: &str = "cgroups/all";

/// An older name, and what it means.
const OLD: &str = "cgroups";
const OF_OLD: [&str; 2] = ["cgroups/cpu", "cgroups/mem"];

/// The subsystems that are in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subsystems(BTreeSet<&'static str>);

impl Subsystems {
    /// Those that some names select; `cgroups/all` stands for what this machine has.
    pub(crate) fn selected(names: &[String], hierarchies: &Hierarchies) -> Self {
        let has = |wanted: &str| names.iter().any(|name| name == wanted);
        let all = has(ALL);
        // What only the hierarchy of version 2 beside those of version 1 has is left alone.
        let is_unified = hierarchies.unified().is_some();
        let there = |subsystem: &&str| match hierarchies.find(subsystem) {
            Mounted::V1(_) => true,
            Mounted::V2(_) => is_unified,
            Mounted::Nowhere => false,
        };
        let chosen = NAMED.iter().filter(|(name, subsystems)| {
            if all {
                subsystems.iter().all(there)
            } else {
                has(name) || has(OLD) && OF_OLD.contains(name)
            }
        });
        Self(chosen.flat_map(|(_, of)| of.iter().copied()).collect())
    }

    /// These.
    #[cfg(test)]
    pub(crate) fn of(subsystems: &[&'static str]) -> Self {
        Self(subsystems.iter().copied().collect())
    }

    pub(crate) fn has(&self, subsystem: &str) -> bool {
        self.0.contains(subsystem)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_means_what_the_machine_has() {
        let mount = |name: &str| (name.to_owned(), PathBuf::from("/cgroups").join(name));
        let hierarchies = Hierarchies {
            v1: ["cpu", "memory", "pids", "cpuacct"].map(mount).into(),
            v2: None,
        };
        let selected = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found = Subsystems::selected(&names, &hierarchies);
            found.iter().collect::<Vec<_>>()
        };
        let all = ["cpu", "cpuacct", "memory", "pids"];
        assert_eq!(selected(&["cgroups/all", "cgroups/devices"]), all);
        assert_eq!(selected(&["cgroups"]), ["cpu", "cpuacct", "memory"]);
        assert_eq!(
            selected(&["cgroups/cpu", "cgroups/devices"]),
            ["cpu", "cpuacct", "devices"]
        );
    }
}
