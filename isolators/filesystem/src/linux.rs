//! Isolator `filesystem/linux`: a mount namespace for each container, what a root file system of its own has to have,
//! and persistent volumes.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/filesystem/linux.cpp` and `src/linux/fs.cpp`. Everything is mounted
//! in the container's namespace and vanishes with it, so there is nothing to clean up.

use std::path::Path;

use tepui_module_sdk::mesos::{self, volume};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::{ContainerClass, Device, File, file, mount};

use crate::persistent::{give_to, volume_path};

/// See the module.
pub struct LinuxFilesystem {
    work_dir: PathBuf,
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
    type Config = NoConfig;
    const NAME: &'static str = "filesystem/linux";
    const DESCRIPTION: &'static str =
        "a mount namespace, a root file system and persistent volumes for each container";

    fn create(_: NoConfig, context: Context) -> Result<Self> {
        Ok(Self {
            work_dir: context.work_dir(),
        })
    }
}

impl Isolator for LinuxFilesystem {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["root", "launcher/linux"];

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
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
        for resource in &container.resources {
            if let Some(mount) = self.persistent_volume(&container, resource)? {
                plan = plan.mount(mount);
            }
        }
        Ok(plan)
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

impl LinuxFilesystem {
    /// The mount of a persistent volume among the resources; none of any other resource.
    fn persistent_volume(
        &self,
        container: &Container,
        resource: &mesos::Resource,
    ) -> Result<Option<Mount>> {
        let disk = resource.disk.as_ref();
        let Some((persistence, volume)) =
            disk.and_then(|disk| disk.persistence.as_ref().zip(disk.volume.as_ref()))
        else {
            return Ok(None);
        };
        let id = &persistence.id;
        let source = volume_path(&self.work_dir, resource).ok_or_else(|| {
            Failure::invalid(format!(
                "the volume '{id}' has no place on a disk of this agent"
            ))
        })?;
        if !source.is_dir() {
            return Err(Failure::not_found(format!(
                "the directory '{}' of the volume '{id}' is missing",
                source.display()
            )));
        }
        if resource.shared.is_none()
            && let Some(user) = &container.user
        {
            give_to(&source, user)?;
        }
        let target = inside(&container.config.sandbox_inside, &volume.container_path)?;
        let read_only = match volume.mode() {
            volume::Mode::Ro => MS_RDONLY,
            volume::Mode::Rw => 0,
        };
        Ok(Some(Mount {
            source: source.to_string_lossy().into_owned(),
            target,
            flags: MS_BIND | MS_REC | read_only,
            create: mount::Create::Directory.into(),
            ..Mount::default()
        }))
    }
}

/// A volume's path in a container: one that is relative lies in the sandbox.
fn inside(sandbox: &str, container_path: &str) -> Result<String> {
    let path = Path::new(container_path);
    if path
        .components()
        .any(|part| part == std::path::Component::ParentDir)
    {
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
