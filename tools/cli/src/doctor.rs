//! `tepui agent doctor`: what this machine has of what isolators need, and how to get the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

/// Say which isolators work on this machine for this user, and what the others lack
///
/// Nothing is changed. The exit status is 0 when an agent can run tasks at all.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the agent would keep its data: whether overlayfs works depends on its file system
    #[arg(long, default_value = "/var/lib/tepui")]
    work_dir: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let machine = Machine::look(&args.work_dir);
    let report = Report::of(&machine);
    match args.json {
        true => say!("{}", serde_json::to_string_pretty(&report)?),
        false => report.print(),
    }
    let can_run = report.init.is_none();
    Ok(if can_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What was found. Texts say why something is missing and how to get it; none is there.
#[derive(Debug, Clone, Default)]
struct Machine {
    root: bool,
    kernel: (u32, u32),
    kernel_text: String,
    /// Controllers of version 1 by name, with where they are mounted.
    v1: Vec<String>,
    /// Controllers of version 2 that are at its root; none where it is not mounted at /sys/fs/cgroup.
    v2: Option<Vec<String>>,
    /// Why this process may not make cgroups.
    delegation: Option<String>,
    namespaces: Vec<&'static str>,
    overlay: Option<String>,
    seccomp: bool,
    init: Option<String>,
    libraries: Vec<String>,
    /// Those of [`PROGRAMS`] that are on the PATH.
    programs: Vec<&'static str>,
}

/// Programs that isolators run.
const PROGRAMS: [&str; 1] = ["dvdcli"];

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

impl Machine {
    fn look(work_dir: &Path) -> Self {
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
            seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
            init: crate::beside("tepui-init")
                .err()
                .map(|error| error.to_string()),
            libraries: libraries(),
            programs: PROGRAMS.into_iter().filter(on_path).collect(),
        }
    }

    fn is_at_least(&self, major: u32, minor: u32) -> bool {
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
fn version(release: &str) -> (u32, u32) {
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

/// Tries overlayfs where the agent would use it.
fn overlay(work_dir: &Path, root: bool) -> Option<String> {
    if !read("/proc/filesystems").contains("overlay") {
        return Some("the kernel has no overlayfs: modprobe overlay".to_owned());
    }
    if !root {
        return Some("mounting needs root".to_owned());
    }
    // The nearest directory that exists is on the same file system.
    let on = work_dir
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("/"));
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

/// Module libraries beside this program.
fn libraries() -> Vec<String> {
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own.parent().map(PathBuf::from).unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::var_os("TEPUI_MODULE_DIRS")
        .map(|dirs| std::env::split_paths(&dirs).collect())
        .unwrap_or_default();
    dirs.extend([beside.join("../lib/tepui/modules"), beside]);
    let entries = dirs
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

/// What an agent can do here.
#[derive(Debug, Serialize)]
struct Report {
    user: &'static str,
    kernel: String,
    cgroups: String,
    /// Why no task can run at all.
    init: Option<String>,
    libraries: Vec<String>,
    isolators: Vec<Verdict>,
    /// A list for `--isolation` that works here.
    isolation: String,
}

#[derive(Debug, Serialize)]
struct Verdict {
    isolator: &'static str,
    /// What is missing and how to get it; none where it works.
    missing: Option<String>,
}

impl Report {
    fn of(machine: &Machine) -> Self {
        let isolators: Vec<Verdict> = ISOLATORS
            .iter()
            .map(|(isolator, needs)| Verdict {
                isolator,
                missing: needs.iter().find_map(|need| need.missing(machine)),
            })
            .collect();
        let works = |wanted: &str| {
            isolators
                .iter()
                .any(|one| one.isolator == wanted && one.missing.is_none())
        };
        let wanted = [
            "filesystem/linux",
            "docker/runtime",
            "cgroups/cpu",
            "cgroups/mem",
            "cgroups/pids",
            "namespaces/pid",
            "namespaces/ipc",
            "linux/capabilities",
            "linux/seccomp",
            "posix/rlimits",
            "disk/du",
        ];
        let mut isolation: Vec<&str> = wanted.into_iter().filter(|name| works(name)).collect();
        if !works("cgroups/cpu") {
            isolation.splice(0..0, ["posix/cpu", "posix/mem"]);
        }
        Self {
            user: if machine.root { "root" } else { "not root" },
            kernel: machine.kernel_text.clone(),
            cgroups: match (&machine.v2, machine.v1.is_empty()) {
                (Some(controllers), _) => format!("version 2: {}", controllers.join(", ")),
                (None, false) => format!("version 1: {}", machine.v1.join(", ")),
                (None, true) => "none are mounted".to_owned(),
            },
            init: machine.init.clone(),
            libraries: machine.libraries.clone(),
            isolators,
            isolation: isolation.join(","),
        }
    }

    fn print(&self) {
        say!("user        {}", self.user);
        say!("kernel      {}", self.kernel);
        say!("cgroups     {}", self.cgroups);
        say!("tepui-init  {}", self.init.as_deref().unwrap_or("found"));
        say!("libraries   {}", self.libraries.join(", "));
        say!("");
        for verdict in &self.isolators {
            let missing = verdict.missing.as_deref().unwrap_or("works");
            say!("{:<22}{missing}", verdict.isolator);
        }
        say!("");
        say!("works here: --isolation={}", self.isolation);
        if self.user != "root" {
            say!(
                "Without root tasks run as this user, in the host's namespaces and without limits."
            );
        }
    }
}

/// What an isolator rests on.
#[derive(Debug, Clone, Copy)]
enum Need {
    Root,
    /// A controller, by its names in version 1 and 2; none where version 2 does without one.
    Controller(&'static str, Option<&'static str>),
    /// A controller that version 2 does not have.
    Version1(&'static str),
    Namespace(&'static str),
    /// A release of the kernel, and for what.
    Kernel(u32, u32, &'static str),
    Overlay,
    Seccomp,
    Library(&'static str),
    /// A program on the PATH, and where it comes from.
    Program(&'static str, &'static str),
}

impl Need {
    fn missing(self, machine: &Machine) -> Option<String> {
        match self {
            Self::Root => (!machine.root).then(|| "needs root: run the agent as root".to_owned()),
            Self::Controller(v1, v2) => {
                let missing = match (&machine.v2, v2) {
                    (Some(controllers), Some(v2)) if !controllers.iter().any(|one| one == v2) => {
                        Some(format!(
                            "cgroups version 2 has no controller '{v2}': enable it in the kernel, or in \
                             cgroup.subtree_control of the cgroups above"
                        ))
                    }
                    (None, _) if !machine.v1.iter().any(|one| one == v1) => Some(format!(
                        "the cgroup hierarchy '{v1}' is not mounted: mount -t cgroup -o {v1} cgroup /sys/fs/cgroup/{v1}"
                    )),
                    _ => None,
                };
                missing.or_else(|| machine.delegation.clone())
            }
            Self::Version1(_) if machine.v2.is_some() => Some(
                "works with cgroups version 1 only: boot with systemd.unified_cgroup_hierarchy=0"
                    .to_owned(),
            ),
            Self::Version1(controller) => Self::Controller(controller, None).missing(machine),
            Self::Namespace(kind) => (!machine.namespaces.contains(&kind))
                .then(|| format!("the kernel has no namespaces of kind '{kind}'")),
            Self::Kernel(major, minor, what) => (!machine.is_at_least(major, minor))
                .then(|| format!("needs Linux {major}.{minor} or later ({what})")),
            Self::Overlay => machine.overlay.as_ref().map(|why| {
                format!("overlayfs: {why}; --image_provisioner_backend=copy does without")
            }),
            Self::Seccomp => {
                (!machine.seccomp).then(|| "the kernel has no seccomp filters".to_owned())
            }
            Self::Library(name) => {
                let file = format!("libtepui_{name}.so");
                (!machine.libraries.contains(&file))
                    .then(|| format!("{file} is missing: it belongs beside this program or into TEPUI_MODULE_DIRS"))
            }
            Self::Program(name, from) => (!machine.programs.contains(&name))
                .then(|| format!("'{name}' is not on the PATH: get it from {from}")),
        }
    }
}

const LIBRARY: Need = Need::Library("isolators");

/// In the order of docs/ISOLATORS.md.
const ISOLATORS: &[(&str, &[Need])] = &[
    ("posix/cpu", &[LIBRARY]),
    ("posix/mem", &[LIBRARY]),
    ("posix/rlimits", &[LIBRARY]),
    ("disk/du", &[LIBRARY]),
    (
        "cgroups/cpu",
        &[LIBRARY, Need::Root, Need::Controller("cpu", Some("cpu"))],
    ),
    (
        "cgroups/mem",
        &[
            LIBRARY,
            Need::Root,
            Need::Controller("memory", Some("memory")),
        ],
    ),
    (
        "cgroups/pids",
        &[LIBRARY, Need::Root, Need::Controller("pids", Some("pids"))],
    ),
    (
        "cgroups/cpuset",
        &[
            LIBRARY,
            Need::Root,
            Need::Controller("cpuset", Some("cpuset")),
        ],
    ),
    (
        "cgroups/blkio",
        &[LIBRARY, Need::Root, Need::Controller("blkio", Some("io"))],
    ),
    (
        "cgroups/devices",
        &[
            LIBRARY,
            Need::Root,
            Need::Controller("devices", None),
            Need::Kernel(4, 15, "BPF programs for devices"),
        ],
    ),
    (
        "cgroups/hugetlb",
        &[
            LIBRARY,
            Need::Root,
            Need::Controller("hugetlb", Some("hugetlb")),
        ],
    ),
    (
        "cgroups/net_cls",
        &[LIBRARY, Need::Root, Need::Version1("net_cls")],
    ),
    (
        "cgroups/perf_event",
        &[
            LIBRARY,
            Need::Root,
            Need::Controller("perf_event", Some("perf_event")),
        ],
    ),
    (
        "cgroups/net_prio",
        &[LIBRARY, Need::Root, Need::Version1("net_prio")],
    ),
    ("filesystem/posix", &[LIBRARY]),
    (
        "filesystem/linux",
        &[
            LIBRARY,
            Need::Root,
            Need::Namespace("mnt"),
            Need::Kernel(5, 12, "openat2, mount_setattr"),
        ],
    ),
    (
        "docker/runtime",
        &[
            LIBRARY,
            Need::Library("images"),
            Need::Root,
            Need::Namespace("mnt"),
            Need::Overlay,
        ],
    ),
    (
        "docker/volume",
        &[
            LIBRARY,
            Need::Root,
            Need::Namespace("mnt"),
            Need::Program("dvdcli", "https://github.com/rexray/dvdcli"),
        ],
    ),
    (
        "volume/host_path",
        &[LIBRARY, Need::Root, Need::Namespace("mnt")],
    ),
    (
        "volume/sandbox_path",
        &[LIBRARY, Need::Root, Need::Namespace("mnt")],
    ),
    (
        "volume/image",
        &[
            LIBRARY,
            Need::Library("images"),
            Need::Root,
            Need::Namespace("mnt"),
            Need::Overlay,
        ],
    ),
    (
        "volume/secret",
        &[LIBRARY, Need::Root, Need::Namespace("mnt")],
    ),
    (
        "linux/devices",
        &[
            LIBRARY,
            Need::Root,
            Need::Controller("devices", None),
            Need::Kernel(4, 15, "BPF programs for devices"),
        ],
    ),
    ("linux/capabilities", &[LIBRARY, Need::Root]),
    ("linux/nnp", &[LIBRARY]),
    ("linux/seccomp", &[LIBRARY, Need::Seccomp]),
    (
        "namespaces/ipc",
        &[LIBRARY, Need::Root, Need::Namespace("ipc")],
    ),
    (
        "namespaces/pid",
        &[LIBRARY, Need::Root, Need::Namespace("pid")],
    ),
    ("environment_secret", &[LIBRARY]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Machine {
        Machine {
            root: true,
            kernel: version("6.1.0-13-amd64"),
            v1: ["blkio", "cpu", "cpuset", "devices", "memory", "pids"]
                .map(str::to_owned)
                .into(),
            namespaces: NAMESPACES.to_vec(),
            seccomp: true,
            libraries: ["libtepui_images.so", "libtepui_isolators.so"]
                .map(str::to_owned)
                .into(),
            ..Machine::default()
        }
    }

    fn missing(machine: &Machine, isolator: &str) -> Option<String> {
        let report = Report::of(machine);
        let found = report
            .isolators
            .into_iter()
            .find(|one| one.isolator == isolator);
        found.unwrap().missing
    }

    #[test]
    fn what_is_missing_is_named_with_how_to_get_it() {
        let report = Report::of(&full());
        assert!(
            report.isolators.iter().all(|one| one.missing.is_none()),
            "{report:?}"
        );
        let lacks = missing(&full(), "docker/volume").unwrap();
        assert!(lacks.starts_with("'dvdcli' is not on the PATH"), "{lacks}");
        let user = Machine {
            root: false,
            ..full()
        };
        assert!(
            missing(&user, "filesystem/linux")
                .unwrap()
                .contains("run the agent as root")
        );
        assert_eq!(
            Report::of(&user).isolation,
            "posix/cpu,posix/mem,linux/seccomp,posix/rlimits,disk/du"
        );
        let unified = Machine {
            v1: Vec::new(),
            v2: Some(["cpu", "memory"].map(str::to_owned).into()),
            ..full()
        };
        assert_eq!(missing(&unified, "cgroups/mem"), None);
        assert!(
            missing(&unified, "cgroups/pids")
                .unwrap()
                .contains("no controller 'pids'")
        );
        assert_eq!(missing(&unified, "cgroups/devices"), None);
        let bare = Machine {
            v1: Vec::new(),
            overlay: Some("why".to_owned()),
            kernel: version("5.4.0"),
            libraries: vec!["libtepui_isolators.so".to_owned()],
            ..full()
        };
        assert!(
            missing(&bare, "cgroups/cpu")
                .unwrap()
                .contains("mount -t cgroup -o cpu")
        );
        assert!(
            missing(&bare, "filesystem/linux")
                .unwrap()
                .contains("Linux 5.12")
        );
        assert!(
            missing(&bare, "docker/runtime")
                .unwrap()
                .contains("libtepui_images.so is missing")
        );
    }

    #[test]
    fn this_machine_is_looked_at_without_leaving_anything() {
        let at = tempfile::tempdir().unwrap();
        let machine = Machine::look(&at.path().join("not/there"));
        assert!(machine.is_at_least(4, 0), "{machine:?}");
        assert!(machine.namespaces.contains(&"mnt"), "{machine:?}");
        assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);
    }
}
