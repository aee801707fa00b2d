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
                    .then(|| format!("{file} is missing: it belongs into ../lib/tepui/modules beside the programs' folder, or into a directory of TEPUI_MODULE_DIRS"))
            }
            Self::Program(name, from) => (!machine.programs.contains(&name))
                .then(|| format!("'{name}' is not on the PATH: get it from {from}")),
        }
    }
}

/// What all of them need: the library that has them.
pub(super) const LIBRARY: Need = Need::Library("isolators");

/// What brings mounts into a container.
const MOUNTS: &[Need] = &[Need::Root, Need::Namespace("mnt")];

/// What makes roots and volumes of images.
const OF_IMAGES: &[Need] = &[
    Need::Library("images"),
    Need::Root,
    Need::Namespace("mnt"),
    Need::Overlay,
];

/// What decides on devices: a program of the kernel where version 2 has no controller for it.
const DEVICES: &[Need] = &[
    Need::Root,
    Need::Controller("devices", None),
    Need::Kernel(4, 15, "BPF programs for devices"),
];

/// What each needs beside [`LIBRARY`], in the order of docs/ISOLATORS.md.
pub(super) const ISOLATORS: &[(&str, &[Need])] = &[
    ("posix/cpu", &[]),
    ("posix/mem", &[]),
    ("posix/rlimits", &[]),
    ("disk/du", &[]),
    ("disk/xfs", &[Need::Root, Need::ProjectQuota]),
    (
        "cgroups/cpu",
        &[Need::Root, Need::Controller("cpu", Some("cpu"))],
    ),
    (
        "cgroups/mem",
        &[Need::Root, Need::Controller("memory", Some("memory"))],
    ),
    (
        "cgroups/pids",
        &[Need::Root, Need::Controller("pids", Some("pids"))],
    ),
    (
        "cgroups/cpuset",
        &[Need::Root, Need::Controller("cpuset", Some("cpuset"))],
    ),
    (
        "cgroups/blkio",
        &[Need::Root, Need::Controller("blkio", Some("io"))],
    ),
    ("cgroups/devices", DEVICES),
    (
        "cgroups/hugetlb",
        &[Need::Root, Need::Controller("hugetlb", Some("hugetlb"))],
    ),
    ("cgroups/net_cls", &[Need::Root, Need::Version1("net_cls")]),
    (
        "cgroups/perf_event",
        &[
            Need::Root,
            Need::Controller("perf_event", Some("perf_event")),
            Need::Program("perf", "your distribution (Debian: linux-perf)"),
        ],
    ),
    (
        "cgroups/net_prio",
        &[Need::Root, Need::Version1("net_prio")],
    ),
    ("filesystem/posix", &[]),
    (
        "filesystem/linux",
        &[
            Need::Root,
            Need::Namespace("mnt"),
            Need::Kernel(5, 12, "openat2, mount_setattr"),
        ],
    ),
    ("docker/runtime", OF_IMAGES),
    ("appc/runtime", OF_IMAGES),
    (
        "docker/volume",
        &[
            Need::Root,
            Need::Namespace("mnt"),
            Need::Program("dvdcli", "https://github.com/rexray/dvdcli"),
        ],
    ),
    ("volume/host_path", MOUNTS),
    ("volume/sandbox_path", MOUNTS),
    ("volume/image", OF_IMAGES),
    ("volume/secret", MOUNTS),
    ("linux/devices", DEVICES),
    (
        "gpu/nvidia",
        &[
            Need::Root,
            Need::Controller("devices", None),
            Need::Namespace("mnt"),
            Need::Nvidia,
        ],
    ),
    ("linux/capabilities", &[Need::Root]),
    ("linux/nnp", &[]),
    ("linux/seccomp", &[Need::Seccomp]),
    ("namespaces/ipc", &[Need::Root, Need::Namespace("ipc")]),
    ("namespaces/pid", &[Need::Root, Need::Namespace("pid")]),
    ("environment_secret", &[]),
];
