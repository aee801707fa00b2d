//! What of the machine matters to isolators.

use std::fs;
use std::path::Path;

use tepui_host::search::Search;

/// What was found. Texts say why something is missing and how to get it; none is there.
#[derive(Debug, Clone, Default)]
pub(super) struct Machine {
    pub(super) root: bool,
    pub(super) kernel: (u32, u32),
    pub(super) kernel_text: String,
    /// Controllers of version 1 by name, with where they are mounted.
    pub(super) v1: Vec<String>,
    /// Controllers of version 2 that are at its root; none where it is not mounted at /sys/fs/cgroup.
    pub(super) v2: Option<Vec<String>>,
    /// Why this process may not make cgroups.
    pub(super) delegation: Option<String>,
    pub(super) namespaces: Vec<&'static str>,
    pub(super) overlay: Option<String>,
    pub(super) seccomp: bool,
    pub(super) init: Option<String>,
    pub(super) libraries: Vec<String>,
    /// Why the file system of the work directory has no project quotas of XFS.
    pub(super) project_quota: Option<String>,
    /// Why there is no GPU of NVIDIA.
    pub(super) nvidia: Option<String>,
    /// Those of [`PROGRAMS`] that are on the PATH.
    pub(super) programs: Vec<&'static str>,
}

/// Programs that isolators run.
pub(super) const PROGRAMS: [&str; 2] = ["dvdcli", "perf"];

pub(super) const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

impl Machine {
    pub(super) fn look(work_dir: &Path) -> Self {
        let kernel_text = read("/proc/sys/kernel/osrelease");
        let root = nix::unistd::geteuid().is_root();
        let v2 = mounted_v2();
        let exists = |name: &&&str| Path::new("/proc/self/ns").join(name).exists();
        Self {
            root,
            kernel: version(&kernel_text),
            kernel_text,
            v1: mounted_v1(),
            delegation: delegation(v2.is_some()),
            v2,
            namespaces: NAMESPACES.iter().filter(exists).copied().collect(),
            overlay: overlay(work_dir, root),
            project_quota: project_quota(work_dir),
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            init: crate::beside("tepui-init")
                .err()
                .map(|error| error.to_string()),
            libraries: libraries(),
            nvidia: (!Path::new("/proc/driver/nvidia/version").exists()).then(|| {
                "the kernel has no driver of NVIDIA: install it; `nvidia-smi` says whether it works"
                    .to_owned()
            }),
            programs: PROGRAMS.into_iter().filter(on_path).collect(),
        }
    }

    pub(super) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.kernel >= (major, minor)
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The first two numbers of a release: `6.1.0-13-amd64`.
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Fields of /proc/self/mounts: where, type, options.
fn mounts() -> Vec<(String, String, String)> {
    let text = read("/proc/self/mounts");
    let fields = text
        .lines()
        .map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    fields
        .filter_map(|line| match &*line {
            [_, at, kind, options, ..] => Some((at.clone(), kind.clone(), options.clone())),
            _ => None,
        })
        .collect()
}

fn mounted_v1() -> Vec<String> {
    let known = read("/proc/cgroups");
    let known: Vec<&str> = known
        .lines()
        .filter_map(|line| line.split('\t').next())
        .collect();
    let hierarchies = mounts().into_iter().filter(|(_, kind, _)| kind == "cgroup");
    let options = hierarchies
        .flat_map(|(_, _, options)| options.split(',').map(str::to_owned).collect::<Vec<_>>());
    let mut found: Vec<String> = options
        .filter(|option| known.contains(&option.as_str()))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn mounted_v2() -> Option<Vec<String>> {
    let at_root = mounts()
        .into_iter()
        .any(|(at, kind, _)| kind == "cgroup2" && at == "/sys/fs/cgroup");
    let controllers = read("/sys/fs/cgroup/cgroup.controllers");
    at_root.then(|| controllers.split_whitespace().map(str::to_owned).collect())
}

/// Whether cgroups can be made below where an agent makes them.
fn delegation(v2: bool) -> Option<String> {
    let at = if v2 {
        "/sys/fs/cgroup"
    } else {
        "/sys/fs/cgroup/memory"
    };
    let writable = nix::unistd::access(at, nix::unistd::AccessFlags::W_OK);
    match (writable, v2) {
        (Ok(()), _) => None,
        (Err(_), true) => Some(format!(
            "'{at}' cannot be written: run as root, or under systemd with Delegate=yes"
        )),
        (Err(_), false) => Some(format!(
            "'{at}' cannot be written: run as root, with the hierarchy mounted"
        )),
    }
}

/// The nearest directory that exists: it is on the same file system.
fn existing(work_dir: &Path) -> &Path {
    let exists = |path: &&Path| path.is_dir();
    work_dir.ancestors().find(exists).unwrap_or(Path::new("/"))
}

/// Whether the kernel counts the disk of directories where the agent would keep its data.
fn project_quota(work_dir: &Path) -> Option<String> {
    let on = existing(work_dir);
    let on = on.canonicalize().unwrap_or_else(|_| on.to_owned());
    // Of those that are mounted at one place the last is on top.
    let mounts = mounts().into_iter();
    let above = mounts.filter(|(at, ..)| on.starts_with(at));
    let (at, kind, options) = above.max_by_key(|(at, ..)| at.len())?;
    if kind != "xfs" {
        return Some(format!("'{at}' is {kind}: put --work_dir on XFS"));
    }
    let counts = |option: &str| matches!(option, "prjquota" | "pquota" | "pqnoenforce");
    (!options.split(',').any(counts)).then(|| format!("'{at}' has none: mount it with -o prjquota"))
}

/// Tries overlayfs where the agent would use it.
fn overlay(work_dir: &Path, root: bool) -> Option<String> {
    if !read("/proc/filesystems").contains("overlay") {
        return Some("the kernel has no overlayfs: modprobe overlay".to_owned());
    }
    if !root {
        return Some("mounting needs root".to_owned());
    }
    let on = existing(work_dir);
    let why = tepui_containerizer::try_overlay(on).err()?;
    Some(format!(
        "it cannot be mounted on the file system of '{}' ({why}): put --work_dir on ext4 or xfs",
        on.display()
    ))
}

fn on_path(program: &&'static str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Module libraries where an agent beside this program looks for them without `--module_dirs`.
fn libraries() -> Vec<String> {
    let search = Search::new(&[]);
    let entries = search
        .dirs()
        .iter()
        .flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names
        .filter(|name| name.starts_with("libtepui_") && name.ends_with(".so"))
        .collect();
    found.sort();
    found.dedup();
    found
}
