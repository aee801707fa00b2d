//! Where the kernel's cgroup hierarchies are mounted.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// The cgroup mounts of this mount namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hierarchies {
    /// Mount point of each v1 subsystem. Two that are mounted together have the same.
    pub v1: BTreeMap<String, PathBuf>,
    /// Mount point of v2.
    pub v2: Option<PathBuf>,
}

/// Which version of cgroups has a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A v1 hierarchy, mounted here.
    V1(PathBuf),
    /// The v2 hierarchy, mounted here, offers it.
    V2(PathBuf),
    /// Neither.
    Nowhere,
}

impl Hierarchies {
    /// Reads the mounts of this process.
    ///
    /// # Errors
    ///
    /// When /proc cannot be read.
    pub fn detect() -> io::Result<Self> {
        fs::read_to_string("/proc/self/mountinfo").map(|text| Self::parse(&text))
    }

    /// Where a subsystem is, named as v1 does (`cpu`, `cpuacct`, `memory`, ...).
    pub fn find(&self, subsystem: &str) -> Mounted {
        if let Some(mount) = self.v1.get(subsystem) {
            return Mounted::V1(mount.clone());
        }
        let Some(mount) = &self.v2 else {
            return Mounted::Nowhere;
        };
        let offered = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
        let is_there = match controller_of(subsystem) {
            // Every hierarchy of v2 has these.
            None => matches!(subsystem, "cpuacct" | "devices" | "perf_event"),
            Some(wanted) => offered
                .split_ascii_whitespace()
                .any(|controller| controller == wanted),
        };
        if is_there {
            Mounted::V2(mount.clone())
        } else {
            Mounted::Nowhere
        }
    }

    /// Where v2 is mounted, when it is the only version: v1 hierarchies without subsystems do not count.
    pub fn unified(&self) -> Option<&Path> {
        let plain = |name: &String| name.starts_with("name=");
        self.v2.as_deref().filter(|_| self.v1.keys().all(plain))
    }

    /// Fields of a line: id, parent, device, root, mount point, options, [tags ...], -, type, source, super options.
    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((head, tail)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = head.split(' ').nth(4).map(unescape) else {
                continue;
            };
            let mut tail = tail.split(' ');
            match (tail.next(), tail.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    for option in options
                        .split(',')
                        .filter(|option| !matches!(*option, "rw" | "ro"))
                    {
                        // The first mount of a subsystem is the one that administrators see.
                        found
                            .v1
                            .entry(option.to_owned())
                            .or_insert_with(|| point.clone());
                    }
                }
                (Some("cgroup2"), _) => {
                    found.v2.get_or_insert(point);
                }
                _ => {}
            }
        }
        found
    }
}

/// The v2 controller that does what a v1 subsystem does; none for `cpuacct`, `devices` and `perf_event`, whose work v2
/// does without one, and for what v2 does not have.
pub fn controller_of(subsystem: &str) -> Option<&str> {
    match subsystem {
        "cpuacct" | "devices" | "freezer" | "net_cls" | "net_prio" | "perf_event" => None,
        "blkio" => Some("io"),
        same => Some(same),
    }
}

/// Mount points have blanks, tabs, newlines and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut out = text.to_owned();
    for (code, real) in [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ] {
        out = out.replace(code, real);
    }
    Path::new(&out).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_subsystem() {
        let found = Hierarchies::parse(
            "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 master:1 - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /mnt/with\\040blank rw - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(
            found.find("cpu"),
            Mounted::V1("/sys/fs/cgroup/cpu,cpuacct".into())
        );
        assert_eq!(found.find("cpuacct"), found.find("cpu"));
        assert_eq!(found.find("memory"), Mounted::V1("/mnt/with blank".into()));
        assert_eq!(found.v2, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(found.unified(), None);
        assert_eq!(Hierarchies::default().find("cpu"), Mounted::Nowhere);

        let found = Hierarchies::parse(
            "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(found.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
    }
}
