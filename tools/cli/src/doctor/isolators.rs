//! What each isolator needs.

use super::machine::Machine;

/// What an isolator rests on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need {
    Root,
    /// A controller, by its names in version 1 and 2; none where version 2 does without one.
    Controller(&'static str, Option<&'static str>),
    /// A controller that version 2 does not have.
    Version1(&'static str),
    Namespace(&'static str),
    /// A release of the kernel, and for what.
    Kernel(u32, u32, &'static str),
    Overlay,
    ProjectQuota,
    Seccomp,
    Nvidia,
    Library(&'static str),
    /// A program on the PATH, and where it comes from.
    Program(&'static str, &'static str),
}

impl Need {
    pub(super) fn missing(self, machine: &Machine) -> Option<String> {
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
            Self::ProjectQuota => {
                let why = machine.project_quota.as_ref();
                why.map(|why| format!("project quotas of XFS: {why}"))
            }
            Self::Seccomp => {
                (!machine.seccomp).then(|| "the kernel has no seccomp filters".to_owned())
            }
            Self::Nvidia => machine.nvidia.clone(),
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
pub(super) const ISOLATORS: &[(&str, &[Need])] = &[
    ("posix/cpu", &[LIBRARY]),
    ("posix/mem", &[LIBRARY]),
    ("posix/rlimits", &[LIBRARY]),
    ("disk/du", &[LIBRARY]),
    ("disk/xfs", &[LIBRARY, Need::Root, Need::ProjectQuota]),
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
            Need::Program("perf", "your distribution (Debian: linux-perf)"),
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
        "appc/runtime",
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
    (
        "gpu/nvidia",
        &[
            LIBRARY,
            Need::Root,
            Need::Controller("devices", None),
            Need::Namespace("mnt"),
            Need::Nvidia,
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
