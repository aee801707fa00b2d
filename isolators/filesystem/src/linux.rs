//! Isolator `filesystem/linux`: a mount namespace for each container, what a root file system of its own has to have,
//! and persistent volumes.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/filesystem/linux.cpp` and `src/linux/fs.cpp`. Everything is mounted
//! in the container's namespace, also the volumes that later tasks of an executor bring, and vanishes with it: there is
//! nothing to clean up.

use std::collections::BTreeSet;
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tepui_isolators_linux::gids::VolumeGids;
use tepui_isolators_linux::mounts::{Place, Process};

use tepui_module_sdk::mesos::{self, volume};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::{ContainerClass, Device, File, file, mount};

use crate::persistent::{give_to, volume_path};

/// Settings of `filesystem/linux`.
#[config]
pub struct Config {
    /// First and last group of each range from which a shared persistent volume gets one whose container's user is not
    /// root.
    #[serde(default)]
    volume_gid_ranges: Vec<(u32, u32)>,
}

/// See the module.
pub struct LinuxFilesystem {
    work_dir: PathBuf,
    gids: Option<VolumeGids>,
    containers: Mutex<BTreeMap<ContainerId, Running>>,
}

/// A container with the persistent volumes that it has.
struct Running {
    /// None until its first process is there.
    process: Option<Arc<Process>>,
    user: Option<String>,
    sandbox_inside: String,
    volumes: BTreeMap<String, Volume>,
}

/// A persistent volume that is to be at some path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Volume {
    id: String,
    source: PathBuf,
    read_only: bool,
    shared: bool,
}

const MS_RDONLY: u64 = 1;
const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;
const MS_BIND: u64 = 4096;
const MS_REC: u64 = 16384;
const MS_STRICTATIME: u64 = 1 << 24;

/// Hidden from containers with a root of their own: what tells of the host or changes it.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
];
/// Cannot be changed by them.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// The devices that every program may expect.
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/full", 1, 7),
    ("/dev/null", 1, 3),
    ("/dev/random", 1, 8),
    ("/dev/tty", 5, 0),
    ("/dev/urandom", 1, 9),
    ("/dev/zero", 1, 5),
];
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
];
/// What tells of the network, which is the host's.
const OF_NETWORK: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

impl Module for LinuxFilesystem {
    type Config = Config;
    const NAME: &'static str = "filesystem/linux";
    const DESCRIPTION: &'static str =
        "a mount namespace, a root file system and persistent volumes for each container";

    fn create(config: Config, context: Context) -> Result<Self> {
        let work_dir = context.work_dir();
        Ok(Self {
            gids: VolumeGids::new(config.volume_gid_ranges, &work_dir),
            work_dir,
            containers: Mutex::default(),
        })
    }
}

impl Isolator for LinuxFilesystem {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["root", "launcher/linux"];

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        for container in running {
            if container.config.class() == ContainerClass::Debug {
                continue;
            }
            let (id, resources) = (container.id.clone(), container.resources.clone());
            let mut running = Running::of(&container);
            running.process = Process::open(container.pid).ok().map(Arc::new);
            self.containers().insert(id.clone(), running);
            // A change may have been recorded and not done.
            let changed = match self.take_away(&id, &container).await {
                Ok(()) => self.change(&id, &resources).await,
                failed => failed,
            };
            if let Err(error) = changed {
                warn!(container = %id, %error, "its volumes are not as they should be");
            }
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        if container.config.class() == ContainerClass::Debug {
            // It sees what the container sees that it looks into.
            return Ok(LaunchPlan::none());
        }
        let mut plan = LaunchPlan::none().namespace(Namespace::Mount);
        if container.plan.rootfs.is_some() {
            plan = root(plan, &container);
        }
        let mut running = Running::of(&container);
        running.volumes = self.wanted(&running.sandbox_inside, &container.resources)?;
        for (target, volume) in &running.volumes {
            let is_used = self.used_beside(&container.id).contains(&volume.source);
            let group = volume.give_to(running.user.as_deref(), self.gids.as_ref(), is_used)?;
            plan.supplementary_groups.extend(group);
            plan = plan.mount(volume.mount(target));
        }
        self.containers().insert(container.id.clone(), running);
        Ok(plan)
    }

    async fn isolate(&self, id: &ContainerId, pid: u32) -> Result<()> {
        if let Some(running) = self.containers().get_mut(id) {
            let process = Process::open(pid).map_err(|error| {
                Failure::unavailable(format!("failed to open the process {pid}: {error}"))
            })?;
            running.process = Some(Arc::new(process));
        }
        Ok(())
    }

    async fn update(&self, id: &ContainerId, update: Update) -> Result<()> {
        self.change(id, &update.resources).await
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        self.containers().remove(id);
        Ok(())
    }
}

impl LinuxFilesystem {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Running>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The persistent volumes that other containers have.
    fn used_beside(&self, id: &ContainerId) -> BTreeSet<PathBuf> {
        let containers = self.containers();
        let others = containers.iter().filter(|(other, _)| *other != id);
        let volumes = others.flat_map(|(_, other)| other.volumes.values());
        volumes.map(|volume| volume.source.clone()).collect()
    }

    /// The persistent volumes among resources, by their paths in the container.
    fn wanted(
        &self,
        sandbox: &str,
        resources: &[mesos::Resource],
    ) -> Result<BTreeMap<String, Volume>> {
        let mut wanted = BTreeMap::new();
        for resource in resources {
            let Some((target, volume)) = self.volume(sandbox, resource)? else {
                continue;
            };
            if !volume.source.is_dir() {
                return Err(Failure::not_found(format!(
                    "the directory '{}' of the volume '{}' is missing",
                    volume.source.display(),
                    volume.id
                )));
            }
            wanted.insert(target, volume);
        }
        Ok(wanted)
    }

    /// A persistent volume and its path in the container; none of any other resource.
    fn volume(
        &self,
        sandbox: &str,
        resource: &mesos::Resource,
    ) -> Result<Option<(String, Volume)>> {
        let disk = resource.disk.as_ref();
        let Some((persistence, volume)) =
            disk.and_then(|disk| disk.persistence.as_ref().zip(disk.volume.as_ref()))
        else {
            return Ok(None);
        };
        let id = persistence.id.clone();
        let source = volume_path(&self.work_dir, resource).ok_or_else(|| {
            Failure::invalid(format!(
                "the volume '{id}' has no place on a disk of this agent"
            ))
        })?;
        let target = inside(sandbox, &volume.container_path)?;
        let volume = Volume {
            id,
            source,
            read_only: volume.mode() == volume::Mode::Ro,
            shared: resource.shared.is_some(),
        };
        Ok(Some((target, volume)))
    }

    /// Unmounts what a container had once and has no more, as far as it is mounted still.
    async fn take_away(&self, id: &ContainerId, container: &Container) -> Result<()> {
        let sandbox = container.config.sandbox_inside.clone();
        let process = self.containers().get(id).and_then(|c| c.process.clone());
        let Some(process) = process.filter(|_| !container.former_volumes.is_empty()) else {
            return Ok(());
        };
        let wanted = self.wanted(&sandbox, &container.resources)?;
        let mut former = Vec::new();
        for resource in &container.former_volumes {
            former.extend(self.volume(&sandbox, resource)?);
        }
        // What is there still in another mode stays as it is.
        former.retain(|(target, volume)| {
            let there = wanted.get(target);
            there.is_none_or(|there| there.source != volume.source)
        });
        let unmounted = blocking(move || -> Result<()> {
            for (target, volume) in &former {
                volume.unmount(&process, &place(&sandbox, target))?;
            }
            Ok(())
        });
        unmounted.await?
    }

    /// Mounts the volumes that a running container has now and did not have, and unmounts those that it has no more.
    async fn change(&self, id: &ContainerId, resources: &[mesos::Resource]) -> Result<()> {
        let (process, sandbox, user, before) = match self.containers().get(id) {
            Some(Running {
                process: Some(process),
                sandbox_inside,
                user,
                volumes,
            }) => (
                process.clone(),
                sandbox_inside.clone(),
                user.clone(),
                volumes.clone(),
            ),
            // It has not begun, or is over.
            _ => return Ok(()),
        };
        let wanted = self.wanted(&sandbox, resources)?;
        if wanted == before {
            return Ok(());
        }
        let (now, gids, used) = (wanted.clone(), self.gids.clone(), self.used_beside(id));
        let changed = blocking(move || -> Result<()> {
            for (target, volume) in &before {
                if wanted.get(target) != Some(volume) {
                    volume.unmount(&process, &place(&sandbox, target))?;
                }
            }
            for (target, volume) in &wanted {
                if before.get(target) != Some(volume) {
                    // The groups of a process that runs stay what they are, as in Mesos: who needs the one of a shared
                    // volume that comes later is a container of its own, such as a task of a group.
                    let is_used = used.contains(&volume.source);
                    volume.give_to(user.as_deref(), gids.as_ref(), is_used)?;
                    volume.attach(&process, &place(&sandbox, target))?;
                }
            }
            Ok(())
        });
        changed.await??;
        if let Some(running) = self.containers().get_mut(id) {
            running.volumes = now;
        }
        Ok(())
    }
}

impl Running {
    fn of(container: &Container) -> Self {
        Self {
            process: None,
            user: container.user.clone(),
            sandbox_inside: container.config.sandbox_inside.clone(),
            volumes: BTreeMap::new(),
        }
    }
}

impl Volume {
    /// A volume is its container's, unless others share it: these share it by a group, which is answered, where groups
    /// are given and the user is not root. Without groups it is the first one's who has it.
    fn give_to(
        &self,
        user: Option<&str>,
        gids: Option<&VolumeGids>,
        is_used: bool,
    ) -> Result<Option<u32>> {
        match (user, gids) {
            (Some(user), _) if !self.shared => give_to(&self.source, user).map(|()| None),
            (Some(user), None) if user != "root" && !is_used => {
                give_to(&self.source, user).map(|()| None)
            }
            (Some(user), Some(gids)) if user != "root" => {
                let place = Place {
                    base: self.source.as_path().into(),
                    below: Path::new("").into(),
                };
                gids.share(&place).map(Some).map_err(|error| {
                    let id = &self.id;
                    Failure::unavailable(format!("the volume '{id}' cannot be shared: {error}"))
                })
            }
            _ => Ok(None),
        }
    }

    /// For the launch of a container.
    fn mount(&self, target: &str) -> Mount {
        let read_only = if self.read_only { MS_RDONLY } else { 0 };
        Mount {
            source: self.source.to_string_lossy().into_owned(),
            target: target.to_owned(),
            flags: MS_BIND | MS_REC | read_only,
            create: mount::Create::Directory.into(),
            ..Mount::default()
        }
    }

    /// For a container that runs.
    fn attach(&self, process: &Process, place: &Place) -> Result<()> {
        let mounted = process.mount(&self.source, place, self.read_only);
        mounted.map_err(|error| self.failure("mount", place, &error))
    }

    fn unmount(&self, process: &Process, place: &Place) -> Result<()> {
        let unmounted = process.unmount(&self.source, place);
        unmounted.map_err(|error| self.failure("unmount", place, &error))
    }

    fn failure(&self, what: &str, place: &Place, error: &io::Error) -> Failure {
        Failure::unavailable(format!(
            "failed to {what} the volume '{}' at '{}' in the running container: {error}",
            self.id,
            place.base.join(&place.below).display()
        ))
    }
}

/// Where a target is in a container. What is below the sandbox is its user's.
fn place(sandbox: &str, target: &str) -> Place {
    let target = Path::new(target);
    let (base, below) = match target.strip_prefix(sandbox) {
        Ok(below) => (Path::new(sandbox), below),
        Err(_) => (Path::new("/"), target.strip_prefix("/").unwrap_or(target)),
    };
    Place {
        base: base.into(),
        below: below.into(),
    }
}

/// A volume's path in a container: one that is relative lies in the sandbox.
fn inside(sandbox: &str, container_path: &str) -> Result<String> {
    let path = Path::new(container_path);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Failure::invalid(format!(
            "the volume's 'container_path' '{container_path}' must not contain '..'"
        )));
    }
    // An absolute path replaces the sandbox's.
    Ok(Path::new(sandbox).join(path).to_string_lossy().into_owned())
}

/// What a root file system of its own has to have.
fn root(mut plan: LaunchPlan, container: &Container) -> LaunchPlan {
    plan.rootfs.clone_from(&container.plan.rootfs);
    let kernel = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    for (fstype, target, flags, options) in [
        ("proc", "/proc", kernel, ""),
        ("sysfs", "/sys", kernel | MS_RDONLY, ""),
        (
            "tmpfs",
            "/dev",
            MS_NOSUID | MS_STRICTATIME,
            "mode=755,size=64k",
        ),
        (
            "devpts",
            "/dev/pts",
            MS_NOSUID | MS_NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        (
            "tmpfs",
            "/dev/shm",
            MS_NOSUID | MS_NODEV | MS_STRICTATIME,
            "mode=1777",
        ),
    ] {
        plan = plan.mount(Mount {
            source: fstype.to_owned(),
            target: target.to_owned(),
            fstype: fstype.to_owned(),
            flags,
            options: options.to_owned(),
            create: mount::Create::Directory.into(),
            ..Mount::default()
        });
    }
    plan = plan.bind(&container.sandbox, &container.config.sandbox_inside);
    for path in OF_NETWORK {
        plan = plan.mount(Mount {
            source: path.to_owned(),
            target: path.to_owned(),
            flags: MS_BIND | MS_RDONLY,
            create: mount::Create::File.into(),
            // Not every host has all of them, and not every image a place for them.
            optional: true,
            ..Mount::default()
        });
    }
    plan.devices
        .extend(DEVICES.map(|(path, major, minor)| Device {
            path: path.to_owned(),
            r#type: "c".to_owned(),
            major,
            minor,
            access: "rwm".to_owned(),
            mode: 0o666,
        }));
    plan.files.extend(LINKS.map(|(path, to)| File {
        path: path.to_owned(),
        r#type: file::Type::Symlink.into(),
        content: to.into(),
        ..File::default()
    }));
    plan.masked_paths.extend(MASKED.map(str::to_owned));
    plan.read_only_paths.extend(READ_ONLY.map(str::to_owned));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn container_paths_stay_in_the_sandbox_or_are_absolute() {
        assert_eq!(inside("/s", "a/b").unwrap(), "/s/a/b");
        assert_eq!(inside("/s", "/a").unwrap(), "/a");
        assert!(
            inside("/s", "a/../../b")
                .unwrap_err()
                .to_string()
                .contains("'..'")
        );
    }
}
