//! What a container's processes are made of.

mod wire;

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use wire::{Reader, put_bytes};

/// Everything that the supervisor has to know to start a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaunchSpec {
    /// The container's id, told to whoever connects.
    pub container: String,
    /// The supervisor's directory: lock, socket, exit file. It exists.
    pub directory: PathBuf,
    /// Kill the container when the agent's connection closes.
    pub die_with_agent: bool,
    /// The new namespaces of the first process.
    pub clone_flags: CloneFlags,
    /// Existing namespaces that the first process enters instead.
    pub joins: Vec<Join>,
    /// Files to which the first process writes `0` to put itself into a cgroup.
    pub cgroups: Vec<PathBuf>,
    /// The directory of one of these cgroups that nothing but the container is in: of version 2, or of the freezer. All in
    /// it is killed at once.
    pub own_cgroup: Option<PathBuf>,
    /// Mounts made in the container's mount namespace, in this order.
    pub mounts: Vec<Mount>,
    /// Files made after the mounts, as the container sees their paths.
    pub files: Vec<File>,
    /// Device nodes made after the files.
    pub devices: Vec<Device>,
    /// Paths of the container that show nothing; those that are missing are left out.
    pub masked_paths: Vec<PathBuf>,
    /// Paths of the container that cannot be changed; those that are missing are left out.
    pub read_only_paths: Vec<PathBuf>,
    /// The directory, a mount point by then, that becomes the container's root; none leaves the host's.
    pub rootfs: Option<PathBuf>,
    /// What standard input is.
    pub input: Input,
    /// Where standard output goes: appended to; made, as the user's own, when it is missing.
    pub stdout: PathBuf,
    /// Where standard error goes, in the same way.
    pub stderr: PathBuf,
    /// Whose output is below this directory may have put links there: none is followed.
    pub sandboxes: PathBuf,
    /// Where the command starts.
    pub working_directory: PathBuf,
    /// The program: a path, or a name that is looked for in the PATH of `environment`. Empty for none: the first
    /// process only keeps the namespaces, until it is sent SIGTERM, and its status is 0 then.
    pub program: OsString,
    /// The argument vector, name of the program included.
    pub arguments: Vec<OsString>,
    /// `NAME=value`.
    pub environment: Vec<OsString>,
    /// User and groups of the command; none leaves them as they are.
    pub user: Option<User>,
    /// How readily the kernel kills the container's processes when memory runs out; none leaves it.
    pub oom_score_adj: Option<i32>,
    /// Limits of the command.
    pub rlimits: Vec<Rlimit>,
    /// Capabilities of the command; none leaves what the kernel gives its user.
    pub capabilities: Option<Capabilities>,
    /// Programs that the command executes gain nothing by their set-user-id bits or file capabilities.
    pub no_new_privileges: bool,
    /// Instructions of the command's system call filter (`struct sock_filter`); empty for none.
    pub seccomp: Vec<u8>,
}

/// What a command's standard input is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Input {
    /// /dev/null.
    #[default]
    Nothing,
    /// What an agent sends.
    Pipe,
    /// A terminal of this size, which is its standard output and error, too. What it says is copied to `stdout`.
    Terminal {
        /// Lines.
        rows: u16,
        /// Characters of a line.
        columns: u16,
    },
}

/// Sets of capabilities: bit n is the kernel's capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// What is in force.
    pub effective: u64,
    /// What the command may put in force.
    pub permitted: u64,
    /// What programs with file capabilities may keep.
    pub inheritable: u64,
    /// What can ever be gained.
    pub bounding: u64,
    /// What programs without file capabilities keep.
    pub ambient: u64,
}

/// User and groups, as numbers: the program does not look names up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Namespaces, as the kernel's `CLONE_NEW*` bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneFlags(pub u64);

impl CloneFlags {
    /// The kernel's `CLONE_NEWPID`.
    pub const PID: Self = Self(0x2000_0000);
    /// The kernel's `CLONE_NEWNS`.
    pub const MOUNT: Self = Self(0x0002_0000);

    /// Whether all of these bits are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A namespace to enter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Join {
    /// Its kind: one of the kernel's `CLONE_NEW*` bits.
    pub kind: CloneFlags,
    /// A file that is the namespace: `/proc/<pid>/ns/ipc`.
    pub path: PathBuf,
}

/// A mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Source, may be empty.
    pub source: OsString,
    /// A directory that the source cannot lead out of, whatever links are in it; empty for none. A source below one
    /// is made, as a directory of the container's user, when it is missing.
    pub source_root: PathBuf,
    /// Target: in the container's tree, where no link leads out of its root.
    pub target: PathBuf,
    /// The target is a path of the host instead.
    pub outside: bool,
    /// Type, may be empty.
    pub fstype: OsString,
    /// The kernel's `MS_*` bits.
    pub flags: u64,
    /// Options, may be empty.
    pub data: OsString,
    /// Where relative paths in the options begin; may be empty.
    pub directory: PathBuf,
    /// What is made of a target that is missing.
    pub create: Create,
    /// What the container mounts below a bind mount shows on the host as well.
    pub shared: bool,
    /// The container does without it when it fails.
    pub optional: bool,
}

/// What is made of a path that is missing, its parents included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Create {
    /// Nothing: it has to be there.
    #[default]
    Nothing,
    /// A directory.
    Directory,
    /// An empty file.
    File,
}

/// A file to make. One that is there already is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Its path in the container.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Permissions, of files and directories.
    pub mode: u32,
    /// Owner; none is root.
    pub uid: Option<u32>,
    /// Group; none is root's.
    pub gid: Option<u32>,
}

/// Kinds of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A file with this content.
    Regular(Vec<u8>),
    /// A directory.
    Directory,
    /// A link to this path.
    Symlink(OsString),
}

impl Default for FileKind {
    fn default() -> Self {
        Self::Regular(Vec::new())
    }
}

/// A device node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its path in the container.
    pub path: PathBuf,
    /// A block device, not a character device.
    pub is_block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
}

/// A POSIX limit; `u64::MAX` means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rlimit {
    /// The kernel's number of the resource.
    pub resource: u32,
    /// Soft limit.
    pub soft: u64,
    /// Hard limit.
    pub hard: u64,
}

impl LaunchSpec {
    /// Whether the new mount namespace is made of one that is entered: of the container's around this one.
    pub fn copies_joined_mounts(&self) -> bool {
        self.clone_flags.has(CloneFlags::MOUNT) && self.joins_one(CloneFlags::MOUNT)
    }

    /// Whether the first process is in the pid namespace of another container, without one of its own below it.
    pub fn shares_pids(&self) -> bool {
        self.joins_one(CloneFlags::PID) && !self.clone_flags.has(CloneFlags::PID)
    }

    /// Whether it enters a namespace of a kind.
    pub fn joins_one(&self, kind: CloneFlags) -> bool {
        self.joins.iter().any(|join| join.kind == kind)
    }
}
