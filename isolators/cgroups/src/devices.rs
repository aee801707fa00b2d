//! Subsystem `devices`: which device nodes containers may use. Mirrors `subsystems/devices.cpp`.

use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use tepui_isolators_linux::Cgroup;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator;

use crate::groups::failure;

/// What every container may do: make any node, and use the harmless devices and terminals.
const DEFAULT: [&str; 14] = [
    "c *:* m",
    "b *:* m",
    "c 5:1 rwm",
    "c 4:0 rwm",
    "c 4:1 rwm",
    "c 136:* rwm",
    "c 5:2 rwm",
    "c 10:200 rwm",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 5:0 rwm",
    "c 1:9 rwm",
    "c 1:8 rwm",
];

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

/// An entry of the kernel's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry(String);

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Allowed {
    /// The entries of the kernel's list.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let entries = self.allowed_devices.iter().map(Device::entry);
        entries
            .collect::<Result<_>>()
            .map_err(|failure| failure.setting("allowed_devices"))
    }
}

impl Device {
    fn entry(&self) -> Result<Entry> {
        let path = self.device.path.display();
        let (kind, major, minor) = self.node()?;
        let Access { read, write, mknod } = self.access;
        let letters: String = [(read, 'r'), (write, 'w'), (mknod, 'm')]
            .into_iter()
            .filter_map(|(allowed, letter)| allowed.then_some(letter))
            .collect();
        if letters.is_empty() {
            return Err(Failure::invalid(format!(
                "the device '{path}' is listed with no access: expected 'read', 'write' or 'mknod' to be true"
            )));
        }
        Ok(Entry(format!("{kind} {major}:{minor} {letters}")))
    }

    /// Kind, major and minor number of the host's node.
    fn node(&self) -> Result<(char, u64, u64)> {
        let path = self.device.path.display();
        let metadata = std::fs::metadata(&self.device.path)
            .map_err(|error| Failure::invalid(format!("the device '{path}': {error}")))?;
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => 'c',
            kind if kind.is_block_device() => 'b',
            _ => return Err(Failure::invalid(format!("'{path}' is not a device"))),
        };
        let (major, minor) = numbers(metadata.rdev());
        Ok((kind, major, minor))
    }

    /// The same node in a container, for everybody in it with the access that is listed.
    fn planned(&self) -> Result<isolator::Device> {
        let (kind, major, minor) = self.node()?;
        let Access { read, write, .. } = self.access;
        let number = |number: u64| u32::try_from(number).unwrap_or_default();
        let letters = [(read, "r"), (write, "w")];
        Ok(isolator::Device {
            path: self.device.path.to_string_lossy().into_owned(),
            r#type: kind.to_string(),
            major: number(major),
            minor: number(minor),
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
fn numbers(device: u64) -> (u64, u64) {
    let major = device >> 32 & 0xffff_f000 | device >> 8 & 0xfff;
    let minor = device >> 12 & 0xffff_ff00 | device & 0xff;
    (major, minor)
}

/// Refuses every device, then allows those that all containers may use, and some more.
pub(crate) fn limit(cgroup: &Cgroup, more: &[Entry]) -> Result<()> {
    cgroup.write("devices.deny", "a *:* rwm").map_err(failure)?;
    let more = more.iter().map(|entry| entry.0.as_str());
    for entry in DEFAULT.into_iter().chain(more) {
        cgroup.write("devices.allow", entry).map_err(failure)?;
    }
    Ok(())
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

    fn entry(path: &str, letters: &str) -> Result<Entry> {
        let has = |letter| letters.contains(letter);
        let device = Device {
            device: Node { path: path.into() },
            access: Access {
                read: has('r'),
                write: has('w'),
                mknod: has('m'),
            },
        };
        device.entry()
    }

    #[test]
    fn kind_and_numbers_come_from_the_node() {
        assert_eq!(entry("/dev/full", "rw"), Ok(Entry("c 1:7 rw".to_owned())));
        for (path, letters, said) in [
            ("/dev/null", "", "no access"),
            ("/dev", "r", "'/dev' is not a device"),
            ("/dev/no-such", "r", "No such file"),
        ] {
            let error = entry(path, letters).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(numbers(0x0000_0000_0010_3b12), (0x3b, 0x112));
    }
}
