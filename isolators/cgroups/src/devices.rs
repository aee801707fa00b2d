//! Subsystem `devices`: which device nodes containers may use. Mirrors `subsystems/devices.cpp`.

use std::fmt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use tepui_isolators_linux::Cgroup;
use tepui_module_sdk::prelude::*;

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
        let metadata = std::fs::metadata(&self.device.path)
            .map_err(|error| Failure::invalid(format!("the device '{path}': {error}")))?;
        let kind = match metadata.file_type() {
            kind if kind.is_char_device() => 'c',
            kind if kind.is_block_device() => 'b',
            _ => return Err(Failure::invalid(format!("'{path}' is not a device"))),
        };
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
        let (major, minor) = numbers(metadata.rdev());
        Ok(Entry(format!("{kind} {major}:{minor} {letters}")))
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
