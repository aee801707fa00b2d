//! Isolator `disk/du`: how much disk sandboxes and persistent volumes take.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/posix/disk.cpp`, which runs `du`; this one walks the tree itself, on
//! a thread of its own. What a container writes into a root file system of its own counts as what it writes into its sandbox.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tepui_module_sdk::mesos::{DiskStatistics, Resource, ResourceStatistics, value};
use tepui_module_sdk::prelude::{
    Container, ContainerId, Context, Failure, Isolator, LaunchPlan, Limitation, Module, Result,
    Update, blocking, config, time,
};

use crate::persistent::{is_persistent, volume_path};

/// Settings of `disk/du`, named as Mesos' flags.
#[config]
pub struct Config {
    /// Seconds between two looks at a container's disk.
    #[serde(default = "interval")]
    container_disk_watch_interval_secs: u64,
    /// End containers that take more disk than they were given.
    #[serde(default)]
    enforce_container_disk_quota: bool,
}

fn interval() -> u64 {
    15
}

/// See the module.
pub struct Du {
    config: Config,
    work_dir: PathBuf,
    containers: Mutex<BTreeMap<ContainerId, Vec<Watched>>>,
}

/// Directories that are looked at together.
#[derive(Clone, Debug)]
struct Watched {
    paths: Vec<PathBuf>,
    /// What the container was given for it; none where it was given nothing.
    quota: Option<Resource>,
    /// At the last look.
    used: Option<u64>,
}

const MEGABYTE: f64 = (1 << 20) as f64;

impl Watched {
    fn limit(&self) -> Option<u64> {
        let scalar = self.quota.as_ref()?.scalar.as_ref()?;
        Some((scalar.value * MEGABYTE) as u64)
    }

    /// What is beyond the quota, if anything.
    fn limitation(&self) -> Option<Limitation> {
        let (used, limit) = (self.used?, self.limit()?);
        if used <= limit {
            return None;
        }
        let mut exceeded = self.quota.clone()?;
        exceeded.scalar = Some(value::Scalar {
            value: used as f64 / MEGABYTE,
        });
        let message = format!("Disk usage ({used}B) exceeds quota ({limit}B)");
        Some(Limitation {
            resources: vec![exceeded],
            ..Limitation::disk(message)
        })
    }
}

impl Module for Du {
    type Config = Config;
    const NAME: &'static str = "disk/du";
    const DESCRIPTION: &'static str = "usage and quota of sandboxes and persistent volumes";

    fn create(config: Config, context: Context) -> Result<Self> {
        if config.container_disk_watch_interval_secs == 0 {
            let failure =
                Failure::invalid("'container_disk_watch_interval_secs' must be 1 or more");
            return Err(failure.setting("container_disk_watch_interval_secs"));
        }
        Ok(Self {
            config,
            work_dir: context.work_dir(),
            containers: Mutex::default(),
        })
    }
}

impl Isolator for Du {
    const STANDALONE: bool = true;

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        for container in running {
            self.watch(&container.id, own(&container), &container.resources);
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        self.watch(&container.id, own(&container), &container.resources);
        Ok(LaunchPlan::none())
    }

    async fn update(&self, id: &ContainerId, update: Update) -> Result<()> {
        let sandbox = self
            .containers()
            .get(id)
            .and_then(|watched| watched.first().cloned());
        if let Some(sandbox) = sandbox {
            self.watch(id, sandbox.paths, &update.resources);
        }
        Ok(())
    }

    async fn limited(&self, id: &ContainerId) -> Limitation {
        let period = Duration::from_secs(self.config.container_disk_watch_interval_secs);
        loop {
            // The first look is at once, so that statistics have something to tell.
            let found = self.look(id).await;
            if let Some(limitation) = found.filter(|_| self.config.enforce_container_disk_quota) {
                return limitation;
            }
            time::sleep(period).await;
        }
    }

    async fn usage(&self, id: &ContainerId) -> Result<ResourceStatistics> {
        let watched = self.containers().get(id).cloned().unwrap_or_default();
        let sandbox = watched.first();
        let volumes = watched.iter().skip(1).map(|volume| {
            let disk = volume.quota.as_ref().and_then(|quota| quota.disk.clone());
            DiskStatistics {
                source: disk.as_ref().and_then(|disk| disk.source.clone()),
                persistence: disk.and_then(|disk| disk.persistence),
                limit_bytes: volume.limit(),
                used_bytes: volume.used,
            }
        });
        Ok(ResourceStatistics {
            disk_limit_bytes: sandbox.and_then(Watched::limit),
            disk_used_bytes: sandbox.and_then(|sandbox| sandbox.used),
            disk_statistics: volumes.collect(),
            ..ResourceStatistics::default()
        })
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        self.containers().remove(id);
        Ok(())
    }
}

impl Du {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Vec<Watched>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what to look at: the container's own directories first.
    fn watch(&self, id: &ContainerId, own: Vec<PathBuf>, resources: &[Resource]) {
        let (volumes, plain): (Vec<_>, Vec<_>) = resources
            .iter()
            .filter(|resource| resource.name == "disk")
            .partition(|resource| is_persistent(resource));
        let amounts = plain.iter().filter_map(|resource| resource.scalar.as_ref());
        let amount: f64 = amounts.map(|scalar| scalar.value).sum();
        let quota = plain.first().map(|resource| Resource {
            scalar: Some(value::Scalar { value: amount }),
            ..(*resource).clone()
        });
        let mut watched = vec![Watched {
            paths: own,
            quota,
            used: None,
        }];
        watched.extend(volumes.into_iter().filter_map(|volume| {
            Some(Watched {
                paths: vec![volume_path(&self.work_dir, volume)?],
                quota: Some(volume.clone()),
                used: None,
            })
        }));
        self.containers().insert(id.clone(), watched);
    }

    /// Looks at a container's disk once.
    async fn look(&self, id: &ContainerId) -> Option<Limitation> {
        let watched = self.containers().get(id)?.clone();
        let all = |one: &Watched| one.paths.iter().map(|path| size(path)).sum::<Option<u64>>();
        let sizes = blocking(move || watched.iter().map(all).collect::<Vec<_>>()).await;
        let mut containers = self.containers();
        let watched = containers.get_mut(id)?;
        for (watched, size) in watched.iter_mut().zip(sizes.ok()?) {
            watched.used = size;
        }
        watched.iter().find_map(Watched::limitation)
    }
}

/// Where the container writes: its sandbox, and what its root file system keeps of it.
pub(crate) fn own(container: &Container) -> Vec<PathBuf> {
    let plan = &container.plan;
    let root = plan.rootfs.as_ref().and_then(|root| {
        let mount = plan.mounts.iter().find(|mount| mount.target == *root)?;
        match mount.fstype.as_str() {
            "overlay" => {
                let mut options = mount.options.split(',');
                options.find_map(|option| option.strip_prefix("upperdir="))
            }
            // A copy of the image; one that is bound from elsewhere is not the container's own.
            _ if mount.source == *root => Some(root.as_str()),
            _ => None,
        }
    });
    let sandbox = std::iter::once(container.sandbox.clone());
    sandbox.chain(root.map(PathBuf::from)).collect()
}

/// Bytes on the disk of all below a directory, a file with several names once; links are not followed, nor are mounts.
/// None when the directory cannot be looked at.
fn size(dir: &Path) -> Option<u64> {
    let top = std::fs::symlink_metadata(dir).ok()?;
    let mut blocks = top.blocks();
    let mut seen = std::collections::BTreeSet::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        // What is removed meanwhile does not count.
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.dev() != top.dev() {
                continue;
            }
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else if metadata.nlink() > 1 && !seen.insert(metadata.ino()) {
                continue;
            }
            blocks += metadata.blocks();
        }
    }
    Some(blocks * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_as_large_as_du_says() {
        let at = tempfile::tempdir().unwrap();
        let path = |name: &str| at.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("d/file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(path("d/file"), path("again")).unwrap();
        std::os::unix::fs::symlink("/", path("root")).unwrap();
        let said = std::process::Command::new("du")
            .args(["-k", "-s"])
            .arg(at.path())
            .output()
            .unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        let kilobytes: u64 = said.split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(size(at.path()), Some(kilobytes << 10));
        assert_eq!(size(&path("missing")), None);
    }

    #[test]
    fn what_is_beyond_the_quota_is_told_as_mesos_tells_it() {
        let quota = Resource {
            name: "disk".to_owned(),
            scalar: Some(value::Scalar { value: 1.0 }),
            ..Resource::default()
        };
        let watched = |used| Watched {
            paths: Vec::new(),
            quota: Some(quota.clone()),
            used: Some(used),
        };
        assert_eq!(watched(1 << 20).limitation(), None);
        let limitation = watched(3 << 20).limitation().unwrap();
        assert_eq!(
            limitation.message,
            "Disk usage (3145728B) exceeds quota (1048576B)"
        );
        assert_eq!(limitation.resources[0].scalar.as_ref().unwrap().value, 3.0);
    }
}
