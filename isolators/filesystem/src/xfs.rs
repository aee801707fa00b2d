//! Isolator `disk/xfs`: sandboxes and persistent volumes as projects of XFS, which the kernel counts and limits.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/xfs/disk.cpp`. Nothing is recorded beside the file system: a directory's
//! project is read from it. Ids go back when the directory is gone, which may be long after its container.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tepui_isolators_linux::{
    ProjectQuotas, ProjectUsage, QUOTA_BLOCK, give_to_project, project_of, show_bytes,
};
use tepui_module_sdk::mesos::{DiskStatistics, Resource, ResourceStatistics, value};
use tepui_module_sdk::prelude::{
    Container, ContainerId, Context, Failure, Isolator, LaunchPlan, Limitation, Module, Result,
    Update, blocking, config, time, warn,
};

use crate::du::own;
use crate::persistent::{is_persistent, volume_path};

const RANGE: &str = "xfs_project_range";

/// Settings of `disk/xfs`, named as Mesos' flags.
#[config]
pub struct Config {
    /// Ids of projects that no other program uses on this file system, such as `[5000-10000]`.
    #[serde(default = "range")]
    xfs_project_range: String,
    /// End containers that are beyond their limit, instead of only refusing what they write.
    #[serde(default)]
    xfs_kill_containers: bool,
    /// Bytes that a container may be beyond its limit before it is noticed and ended.
    #[serde(default = "headroom")]
    xfs_quota_headroom: u64,
    /// Limit what containers write; without it only count.
    #[serde(default)]
    enforce_container_disk_quota: bool,
    /// Seconds between two looks at a container's disk.
    #[serde(default = "interval")]
    container_disk_watch_interval_secs: u64,
}

fn range() -> String {
    "[5000-10000]".to_owned()
}

fn headroom() -> u64 {
    10 << 20
}

fn interval() -> u64 {
    15
}

/// See the module.
pub struct Xfs {
    config: Config,
    work_dir: PathBuf,
    /// Known when `recover` has found the file system fit.
    quotas: OnceLock<Arc<ProjectQuotas>>,
    state: Mutex<State>,
}

/// Which projects there are, and what containers have of them.
#[derive(Debug)]
struct State {
    range: RangeInclusive<u32>,
    /// Projects in use, with a directory whose end is theirs.
    taken: BTreeMap<u32, PathBuf>,
    containers: BTreeMap<ContainerId, Vec<Limited>>,
}

/// A project of a container: its own first, then its persistent volumes.
#[derive(Clone, Debug)]
struct Limited {
    project: u32,
    /// What the container was given for it; none where it was given nothing.
    quota: Option<Resource>,
}

impl Limited {
    fn bytes(&self) -> Option<u64> {
        let scalar = self.quota.as_ref()?.scalar.as_ref()?;
        Some((scalar.value * f64::from(1 << 20)) as u64)
    }

    fn limitation(&self, usage: ProjectUsage) -> Option<Limitation> {
        if usage.soft_limit == 0 || usage.used <= usage.soft_limit {
            return None;
        }
        let mut exceeded = self.quota.clone().unwrap_or_else(|| Resource {
            name: "disk".to_owned(),
            ..Resource::default()
        });
        exceeded.scalar = Some(value::Scalar {
            value: usage.used as f64 / f64::from(1 << 20),
        });
        let (used, limit) = (show_bytes(usage.used), show_bytes(usage.soft_limit));
        Some(Limitation {
            resources: vec![exceeded],
            ..Limitation::disk(format!("Disk usage ({used}) exceeds quota ({limit})"))
        })
    }
}

impl State {
    /// A project for a directory: the one it has, or the lowest that is free.
    fn take(&mut self, directory: &Path, had: u32) -> Result<u32> {
        // One that another directory has was inherited from it.
        let is_own = self.taken.get(&had).is_none_or(|of| of == directory);
        let project = if self.range.contains(&had) && is_own {
            Some(had)
        } else {
            self.range.clone().find(|id| !self.taken.contains_key(id))
        };
        let project = project.ok_or_else(|| {
            let (first, last) = (self.range.start(), self.range.end());
            Failure::unavailable(format!(
                "all projects of XFS from {first} to {last} are in use: '{RANGE}' has no more, and those of sandboxes that wait \
                 for their removal are free after it"
            ))
        })?;
        self.taken.insert(project, directory.to_owned());
        Ok(project)
    }
}

impl Module for Xfs {
    type Config = Config;
    const NAME: &'static str = "disk/xfs";
    const DESCRIPTION: &'static str =
        "usage and quota of sandboxes and persistent volumes by projects of XFS";

    fn create(config: Config, context: Context) -> Result<Self> {
        if config.container_disk_watch_interval_secs == 0 {
            let failure = Failure::invalid("it must be 1 or more");
            return Err(failure.setting("container_disk_watch_interval_secs"));
        }
        if config.xfs_kill_containers && !config.enforce_container_disk_quota {
            let failure = Failure::invalid("it needs 'enforce_container_disk_quota'");
            return Err(failure.setting("xfs_kill_containers"));
        }
        let state = State {
            range: parse(&config.xfs_project_range)?,
            taken: BTreeMap::new(),
            containers: BTreeMap::new(),
        };
        Ok(Self {
            work_dir: context.work_dir(),
            config,
            quotas: OnceLock::new(),
            state: Mutex::new(state),
        })
    }
}

impl Isolator for Xfs {
    const STANDALONE: bool = true;
    const NEEDS: &'static [&'static str] = &["root"];

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        self.open()?;
        let work_dir = self.work_dir.clone();
        let found = blocking(move || projects_below(&work_dir)).await?;
        for (project, directory) in found {
            let mut state = self.state();
            if state.range.contains(&project) {
                state.taken.insert(project, directory);
            }
        }
        for container in running {
            let project = project_of(&container.sandbox).unwrap_or_default();
            // A container of an earlier configuration has none, and its files were not counted from the beginning.
            if self.state().range.contains(&project) {
                self.limit(&container.id, project, &container.resources)?;
            }
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        self.free_what_is_gone();
        let had =
            project_of(&container.sandbox).map_err(|error| failed(&container.sandbox, &error))?;
        let project = self.state().take(&container.sandbox, had)?;
        let directories = on_the_same(own(&container));
        let given = blocking(move || {
            directories.iter().try_for_each(|directory| {
                give_to_project(directory, project).map_err(|error| failed(directory, &error))
            })
        });
        given.await??;
        self.limit(&container.id, project, &container.resources)?;
        Ok(LaunchPlan::none())
    }

    async fn update(&self, id: &ContainerId, update: Update) -> Result<()> {
        let own = self
            .state()
            .containers
            .get(id)
            .and_then(|all| Some(all.first()?.project));
        own.map_or(Ok(()), |project| self.limit(id, project, &update.resources))
    }

    async fn limited(&self, id: &ContainerId) -> Limitation {
        let period = Duration::from_secs(self.config.container_disk_watch_interval_secs);
        if !self.config.xfs_kill_containers {
            return std::future::pending().await;
        }
        loop {
            if let Some(limitation) = self.exceeded(id).await {
                return limitation;
            }
            time::sleep(period).await;
        }
    }

    async fn exceeded(&self, id: &ContainerId) -> Option<Limitation> {
        let used = self.used(id).ok()?;
        let mut limitations = used
            .iter()
            .filter_map(|(limited, usage)| limited.limitation(*usage));
        limitations
            .next()
            .filter(|_| self.config.xfs_kill_containers)
    }

    async fn usage(&self, id: &ContainerId) -> Result<ResourceStatistics> {
        let used = self.used(id)?;
        let volumes = used.iter().skip(1).map(|(volume, usage)| {
            let disk = volume.quota.as_ref().and_then(|quota| quota.disk.clone());
            DiskStatistics {
                source: disk.as_ref().and_then(|disk| disk.source.clone()),
                persistence: disk.and_then(|disk| disk.persistence),
                limit_bytes: volume.bytes(),
                used_bytes: Some(usage.used),
            }
        });
        let own = used.first();
        Ok(ResourceStatistics {
            disk_limit_bytes: own.and_then(|(own, _)| own.bytes()),
            disk_used_bytes: own.map(|(_, usage)| usage.used),
            disk_statistics: volumes.collect(),
            ..ResourceStatistics::default()
        })
    }

    /// What the sandbox takes is counted until it is removed; only then its project is free.
    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        self.state().containers.remove(id);
        Ok(())
    }
}

impl Xfs {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks whether the work directory is on a file system that can do all this.
    fn open(&self) -> Result<()> {
        let opened = ProjectQuotas::of(&self.work_dir).and_then(|quotas| {
            if self.config.enforce_container_disk_quota {
                quotas.enforce()?;
            }
            Ok(quotas)
        });
        let opened = opened.map_err(|error| Failure::unavailable(format!("disk/xfs: {error}")))?;
        self.quotas.get_or_init(|| Arc::new(opened));
        Ok(())
    }

    fn quotas(&self) -> Result<&ProjectQuotas> {
        let quotas = self.quotas.get();
        quotas
            .map(|quotas| &**quotas)
            .ok_or_else(|| Failure::unavailable("disk/xfs has not recovered"))
    }

    /// Sets the limits of a container's own project and of its persistent volumes.
    fn limit(&self, id: &ContainerId, own: u32, resources: &[Resource]) -> Result<()> {
        let disks = resources.iter().filter(|resource| resource.name == "disk");
        let (volumes, plain): (Vec<_>, Vec<_>) = disks.partition(|disk| is_persistent(disk));
        let amounts = plain.iter().filter_map(|disk| disk.scalar.as_ref());
        let amount: f64 = amounts.map(|scalar| scalar.value).sum();
        let quota = plain.first().map(|disk| Resource {
            scalar: Some(value::Scalar { value: amount }),
            ..(*disk).clone()
        });
        let mut all = vec![Limited {
            project: own,
            quota,
        }];
        for volume in volumes {
            let Some(path) = volume_path(&self.work_dir, volume) else {
                continue;
            };
            let had = project_of(&path).map_err(|error| failed(&path, &error))?;
            let project = self.state().take(&path, had)?;
            if had != project {
                give_to_project(&path, project).map_err(|error| failed(&path, &error))?;
            }
            all.push(Limited {
                project,
                quota: Some(volume.clone()),
            });
        }
        for limited in &all {
            let (soft, hard) = self.config.limits(limited.bytes());
            let set = self.quotas()?.limit(limited.project, soft, hard);
            set.map_err(|error| {
                let project = limited.project;
                Failure::unavailable(format!(
                    "the limit of project {project} cannot be set: {error}"
                ))
            })?;
        }
        self.state().containers.insert(id.clone(), all);
        Ok(())
    }

    fn used(&self, id: &ContainerId) -> Result<Vec<(Limited, ProjectUsage)>> {
        let all = self.state().containers.get(id).cloned().unwrap_or_default();
        let used = all.into_iter().map(|limited| {
            let usage = self.quotas()?.usage(limited.project).map_err(|error| {
                Failure::unavailable(format!(
                    "project {} is not counted: {error}",
                    limited.project
                ))
            })?;
            Ok((limited, usage))
        });
        used.collect()
    }

    /// Takes back the projects of directories that have been removed.
    fn free_what_is_gone(&self) {
        let gone: Vec<u32> = {
            let state = self.state();
            let gone = state
                .taken
                .iter()
                .filter(|(_, directory)| !directory.exists());
            gone.map(|(project, _)| *project).collect()
        };
        for project in gone {
            match self.quotas().map(|quotas| quotas.limit(project, 0, 0)) {
                Ok(Ok(())) => drop(self.state().taken.remove(&project)),
                Ok(Err(error)) => warn!(project, %error, "the limit of a project is kept"),
                Err(_) => {}
            }
        }
    }
}

impl Config {
    /// Soft and hard limit in bytes; 0 is none. Nothing given is the least that there is.
    fn limits(&self, given: Option<u64>) -> (u64, u64) {
        let limit = given.unwrap_or_default().max(QUOTA_BLOCK);
        match (self.enforce_container_disk_quota, self.xfs_kill_containers) {
            (false, _) => (0, 0),
            (true, false) => (limit, limit),
            (true, true) => (limit, limit + self.xfs_quota_headroom),
        }
    }
}

/// The first directory, and those of the others that are on its file system: an image may be on another.
fn on_the_same(mut directories: Vec<PathBuf>) -> Vec<PathBuf> {
    let device = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.dev()).ok();
    let first = directories.first().and_then(|first| device(first));
    directories.retain(|directory| device(directory) == first);
    directories
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::unavailable(format!("'{path}' cannot be made a project of XFS: {error}"))
}

/// Where directories with projects are below a work directory: sandboxes of agents, also earlier ones, those of standalone
/// containers, and volumes.
fn projects_below(work_dir: &Path) -> BTreeMap<u32, PathBuf> {
    let patterns: [&[&str]; 3] = [
        &[
            "slaves",
            "*",
            "frameworks",
            "*",
            "executors",
            "*",
            "runs",
            "*",
        ],
        &["containers", "*"],
        &["volumes", "roles", "*", "*"],
    ];
    let mut found = BTreeMap::new();
    for pattern in patterns {
        for directory in matching(work_dir, pattern) {
            match project_of(&directory) {
                Ok(0) | Err(_) => {}
                Ok(project) => drop(found.insert(project, directory)),
            }
        }
    }
    found
}

/// The directories below one whose path has these names, where `*` is any; links are left out.
fn matching(below: &Path, pattern: &[&str]) -> Vec<PathBuf> {
    let Some((first, rest)) = pattern.split_first() else {
        return vec![below.to_owned()];
    };
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    let fitting = entries.filter(|entry| {
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        is_directory && (*first == "*" || entry.file_name() == *first)
    });
    fitting
        .flat_map(|entry| matching(&entry.path(), rest))
        .collect()
}

/// A range such as `[5000-10000]`; 0 is no project.
fn parse(text: &str) -> Result<RangeInclusive<u32>> {
    let inner = text
        .trim()
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let parsed = inner.and_then(|inner| {
        let (first, last) = inner.split_once('-')?;
        let first: u32 = first.trim().parse().ok()?;
        Some(first..=last.trim().parse().ok()?)
    });
    parsed
        .filter(|range| *range.start() > 0 && !range.is_empty())
        .ok_or_else(|| {
            Failure::invalid(format!(
                "'{text}' is not a range of projects: expected one such as [5000-10000], without 0"
            ))
            .setting(RANGE)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_those_of_the_mode() {
        let config = |enforce: bool, kill: bool| Config {
            xfs_project_range: range(),
            xfs_kill_containers: kill,
            xfs_quota_headroom: 1 << 20,
            enforce_container_disk_quota: enforce,
            container_disk_watch_interval_secs: 1,
        };
        let given = Some(4 << 20);
        assert_eq!(config(false, false).limits(given), (0, 0));
        assert_eq!(config(true, false).limits(given), (4 << 20, 4 << 20));
        assert_eq!(config(true, true).limits(given), (4 << 20, 5 << 20));
        assert_eq!(config(true, false).limits(None), (512, 512));
    }

    #[test]
    fn a_project_is_the_one_that_a_directory_has_or_the_lowest_that_is_free() {
        for text in ["", "[5-4]", "[0-4]", "5-6", "[a-b]"] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains("is not a range of projects"), "{said}");
        }
        let mut state = State {
            range: parse("[5-7]").unwrap(),
            taken: BTreeMap::new(),
            containers: BTreeMap::new(),
        };
        let mut take = |directory: &str, had| state.take(Path::new(directory), had);
        assert_eq!(take("/a", 6), Ok(6));
        assert_eq!(take("/a", 6), Ok(6));
        // What another directory has was inherited from it, and one of another range is another program's.
        assert_eq!(take("/a/b", 6), Ok(5));
        assert_eq!(take("/c", 99), Ok(7));
        let said = take("/d", 0).unwrap_err().to_string();
        assert!(said.contains("from 5 to 7 are in use"), "{said}");
    }
}
