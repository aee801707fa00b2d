//! Subsystem `devices`: which device nodes containers may use. Mirrors `subsystems/devices.cpp`; in version 2 a program in
//! the kernel decides by the same list, as in `controllers/devices.cpp`.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::OnceLock;

use tepui_isolators_linux::{Cgroup, DeviceAccess, DeviceFilter, DeviceKind, DeviceRule};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator;

use crate::groups::failure;

/// What every container may do: make any node, and use the harmless devices and terminals.
const DEFAULT: [DeviceRule; 14] = [
    makes(DeviceKind::Character),
    makes(DeviceKind::Block),
    uses(5, Some(1)),
    uses(4, Some(0)),
    uses(4, Some(1)),
    uses(136, None),
    uses(5, Some(2)),
    uses(10, Some(200)),
    uses(1, Some(3)),
    uses(1, Some(5)),
    uses(1, Some(7)),
    uses(5, Some(0)),
    uses(1, Some(9)),
    uses(1, Some(8)),
];

/// Nodes of all devices of a kind may be made.
const fn makes(kind: DeviceKind) -> DeviceRule {
    DeviceRule {
        kind,
        major: None,
        minor: None,
        access: DeviceAccess {
            read: false,
            write: false,
            mknod: true,
        },
    }
}

/// A character device, or all of a major number, may be used in every way.
const fn uses(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule {
        kind: DeviceKind::Character,
        major: Some(major),
        minor,
        access: DeviceAccess {
            read: true,
            write: true,
            mknod: true,
        },
    }
}

/// Devices that all containers may use, in the form of Mesos' flag.
#[config]
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// One entry a device.
    #[serde(default)]
    allowed_devices: Vec<Device>,
}

/// One device.
#[config]
#[derive(Clone, Debug)]
pub struct Device {
    /// Which one.
    device: Node,
    /// What containers may do with it.
    access: Access,
}

/// A device node.
#[config]
#[derive(Clone, Debug)]
pub struct Node {
    /// Path on the host; kind and numbers are read from it.
    path: PathBuf,
}

/// Ways to use a device.
#[config]
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Reading.
    #[serde(default)]
    read: bool,
    /// Writing.
    #[serde(default)]
    write: bool,
    /// Making its node.
    #[serde(default)]
    mknod: bool,
}

impl Allowed {
    /// What they come to, as rules.
    fn rules(&self) -> Result<Vec<DeviceRule>> {
        let rules = self.allowed_devices.iter().map(Device::rule);
        rules
            .collect::<Result<_>>()
            .map_err(|failure| failure.setting("allowed_devices"))
    }
}

impl Device {
    /// One that may be used in every way.
    pub(crate) fn all_ways(path: PathBuf) -> Self {
        Self {
            device: Node { path },
            access: Access {
                read: true,
                write: true,
                mknod: true,
            },
        }
    }

    pub(crate) fn rule(&self) -> Result<DeviceRule> {
        let path = self.device.path.display();
        let (kind, major, minor) = self.node()?;
        let Access { read, write, mknod } = self.access;
        if !(read || write || mknod) {
            return Err(Failure::invalid(format!(
                "the device '{path}' is listed with no access: expected 'read', 'write' or 'mknod' to be true"
            )));
        }
        Ok(DeviceRule {
            kind,
            major: Some(major),
            minor: Some(minor),
            access: DeviceAccess { read, write, mknod },
        })
    }

    /// Kind, major and minor number of the host's node.
    fn node(&self) -> Result<(DeviceKind, u32, u32)> {
        let path = self.device.path.display();
        let metadata = std::fs::metadata(&self.device.path)
            .map_err(|error| Failure::invalid(format!("the device '{path}': {error}")))?;
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => DeviceKind::Character,
            kind if kind.is_block_device() => DeviceKind::Block,
            _ => return Err(Failure::invalid(format!("'{path}' is not a device"))),
        };
        let (major, minor) = numbers(metadata.rdev());
        Ok((kind, major, minor))
    }

    /// The same node in a container, in another directory.
    pub(crate) fn planned_in(&self, directory: &str) -> Result<isolator::Device> {
        let name = self.device.path.file_name().unwrap_or_default();
        Ok(isolator::Device {
            path: format!("{directory}/{}", name.to_string_lossy()),
            ..self.planned()?
        })
    }

    /// The same node in a container, for everybody in it with the access that is listed.
    fn planned(&self) -> Result<isolator::Device> {
        let (kind, major, minor) = self.node()?;
        let Access { read, write, .. } = self.access;
        let letters = [(read, "r"), (write, "w")];
        Ok(isolator::Device {
            path: self.device.path.to_string_lossy().into_owned(),
            r#type: match kind {
                DeviceKind::Block => "b".to_owned(),
                DeviceKind::Character => "c".to_owned(),
            },
            major,
            minor,
            access: letters
                .iter()
                .filter(|(allowed, _)| *allowed)
                .map(|(_, letter)| *letter)
                .collect(),
            mode: if read { 0o444 } else { 0 } | if write { 0o222 } else { 0 },
        })
    }
}

/// Major and minor number, as the kernel packs them for programs.
fn numbers(device: u64) -> (u32, u32) {
    let major = device >> 32 & 0xffff_f000 | device >> 8 & 0xfff;
    let minor = device >> 12 & 0xffff_ff00 | device & 0xff;
    // Both are of 32 bits by their masks.
    (major as u32, minor as u32)
}

/// What every container may do: the usual, and some more.
pub(crate) fn base_rules(more: &Allowed) -> Result<Vec<DeviceRule>> {
    Ok(DEFAULT.into_iter().chain(more.rules()?).collect())
}

/// What containers may do with devices.
#[derive(Debug)]
pub(crate) struct Devices {
    rules: Vec<DeviceRule>,
    /// Made when the first container needs it. It stays with the cgroups it is attached to, whatever becomes of the agent.
    filter: OnceLock<DeviceFilter>,
}

impl Devices {
    /// The usual ones, and some more.
    pub(crate) fn new(more: &Allowed) -> Result<Self> {
        Ok(Self {
            rules: base_rules(more)?,
            filter: OnceLock::new(),
        })
    }

    /// Refuses a cgroup of version 1 all others.
    pub(crate) fn limit(&self, cgroup: &Cgroup) -> Result<()> {
        cgroup.write("devices.deny", "a *:* rwm").map_err(failure)?;
        for rule in &self.rules {
            let line = rule.to_string();
            cgroup.write("devices.allow", &line).map_err(failure)?;
        }
        Ok(())
    }

    /// Refuses a cgroup of version 2 all others.
    pub(crate) fn limit_unified(&self, cgroup: &Cgroup) -> Result<()> {
        self.load()?.attach(cgroup).map_err(failure)
    }

    /// The program that decides in version 2; the same for all containers.
    pub(crate) fn load(&self) -> Result<&DeviceFilter> {
        if let Some(filter) = self.filter.get() {
            return Ok(filter);
        }
        let filter = DeviceFilter::load(&self.rules).map_err(|error| {
            Failure::unavailable(format!(
                "cgroups/devices needs a BPF program of type 'cgroup device' in version 2 of cgroups, which the kernel does \
                 not take: {error}"
            ))
        })?;
        Ok(self.filter.get_or_init(|| filter))
    }
}

/// Isolator `linux/devices`: nodes of the listed devices in containers with a root file system of their own. Mirrors
/// `src/slave/containerizer/mesos/isolators/linux/devices.cpp`; the other containers have the host's.
pub struct LinuxDevices(Allowed);

impl Module for LinuxDevices {
    type Config = Allowed;
    const NAME: &'static str = "linux/devices";
    const DESCRIPTION: &'static str = "nodes of the allowed devices in containers with an image";

    fn create(config: Allowed, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Isolator for LinuxDevices {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["cgroups/devices", "filesystem/linux"];

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let is_debug = container.config.class() == isolator::ContainerClass::Debug;
        if container.plan.rootfs.is_none() || is_debug {
            return Ok(LaunchPlan::none());
        }
        let devices = self.0.allowed_devices.iter().map(Device::planned);
        Ok(LaunchPlan {
            devices: devices.collect::<Result<_>>()?,
            ..LaunchPlan::none()
        })
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(path: &str, letters: &str) -> Result<String> {
        let has = |letter| letters.contains(letter);
        let device = Device {
            device: Node { path: path.into() },
            access: Access {
                read: has('r'),
                write: has('w'),
                mknod: has('m'),
            },
        };
        device.rule().map(|rule| rule.to_string())
    }

    #[test]
    fn kind_and_numbers_come_from_the_node() {
        assert_eq!(rule("/dev/full", "rw"), Ok("c 1:7 rw".to_owned()));
        for (path, letters, said) in [
            ("/dev/null", "", "no access"),
            ("/dev", "r", "'/dev' is not a device"),
            ("/dev/no-such", "r", "No such file"),
        ] {
            let error = rule(path, letters).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(numbers(0x0000_0000_0010_3b12), (0x3b, 0x112));
    }
}
