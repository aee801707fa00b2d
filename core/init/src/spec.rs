//! What a container's processes are made of.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use crate::PROTOCOL;

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
    /// Mounts made in the container's mount namespace, in this order.
    pub mounts: Vec<Mount>,
    /// Where standard output goes: appended to; made, as the user's own, when it is missing.
    pub stdout: PathBuf,
    /// Where standard error goes, in the same way.
    pub stderr: PathBuf,
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
    /// Target.
    pub target: PathBuf,
    /// Type, may be empty.
    pub fstype: OsString,
    /// The kernel's `MS_*` bits.
    pub flags: u64,
    /// Options, may be empty.
    pub data: OsString,
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

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_u32(out, PROTOCOL);
        put_bytes(out, self.container.as_bytes());
        put_bytes(out, self.directory.as_os_str().as_bytes());
        out.push(u8::from(self.die_with_agent));
        put_u64(out, self.clone_flags.0);
        put_list(out, &self.joins, |out, join| {
            put_u64(out, join.kind.0);
            put_bytes(out, join.path.as_os_str().as_bytes());
        });
        put_list(out, &self.cgroups, |out, path| {
            put_bytes(out, path.as_os_str().as_bytes())
        });
        put_list(out, &self.mounts, |out, mount| {
            put_bytes(out, mount.source.as_bytes());
            put_bytes(out, mount.target.as_os_str().as_bytes());
            put_bytes(out, mount.fstype.as_bytes());
            put_u64(out, mount.flags);
            put_bytes(out, mount.data.as_bytes());
        });
        for path in [&self.stdout, &self.stderr, &self.working_directory] {
            put_bytes(out, path.as_os_str().as_bytes());
        }
        put_bytes(out, self.program.as_bytes());
        put_list(out, &self.arguments, |out, argument| {
            put_bytes(out, argument.as_bytes())
        });
        put_list(out, &self.environment, |out, entry| {
            put_bytes(out, entry.as_bytes())
        });
        put_list(out, self.user.as_slice(), |out, user| {
            put_u32(out, user.uid);
            put_u32(out, user.gid);
            put_list(out, &user.groups, |out, group| put_u32(out, *group));
        });
        put_list(out, self.oom_score_adj.as_slice(), |out, score| {
            put_u32(out, score.cast_unsigned())
        });
        put_list(out, &self.rlimits, |out, limit| {
            put_u32(out, limit.resource);
            put_u64(out, limit.soft);
            put_u64(out, limit.hard);
        });
        put_list(out, self.capabilities.as_slice(), |out, sets| {
            for set in [
                sets.effective,
                sets.permitted,
                sets.inheritable,
                sets.bounding,
                sets.ambient,
            ] {
                put_u64(out, set);
            }
        });
        out.push(u8::from(self.no_new_privileges));
        put_bytes(out, &self.seccomp);
    }

    /// None when the bytes are not a spec of this version.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let reader = &mut Reader(bytes);
        if reader.u32()? != PROTOCOL {
            return None;
        }
        let spec = Self {
            container: reader.string()?,
            directory: reader.path()?,
            die_with_agent: reader.u8()? != 0,
            clone_flags: CloneFlags(reader.u64()?),
            joins: reader.list(|reader| {
                Some(Join {
                    kind: CloneFlags(reader.u64()?),
                    path: reader.path()?,
                })
            })?,
            cgroups: reader.list(Reader::path)?,
            mounts: reader.list(|reader| {
                Some(Mount {
                    source: reader.os_string()?,
                    target: reader.path()?,
                    fstype: reader.os_string()?,
                    flags: reader.u64()?,
                    data: reader.os_string()?,
                })
            })?,
            stdout: reader.path()?,
            stderr: reader.path()?,
            working_directory: reader.path()?,
            program: reader.os_string()?,
            arguments: reader.list(Reader::os_string)?,
            environment: reader.list(Reader::os_string)?,
            user: reader
                .list(|reader| {
                    Some(User {
                        uid: reader.u32()?,
                        gid: reader.u32()?,
                        groups: reader.list(Reader::u32)?,
                    })
                })?
                .pop(),
            oom_score_adj: reader
                .list(|reader| reader.u32().map(u32::cast_signed))?
                .pop(),
            rlimits: reader.list(|reader| {
                Some(Rlimit {
                    resource: reader.u32()?,
                    soft: reader.u64()?,
                    hard: reader.u64()?,
                })
            })?,
            capabilities: reader
                .list(|reader| {
                    Some(Capabilities {
                        effective: reader.u64()?,
                        permitted: reader.u64()?,
                        inheritable: reader.u64()?,
                        bounding: reader.u64()?,
                        ambient: reader.u64()?,
                    })
                })?
                .pop(),
            no_new_privileges: reader.u8()? != 0,
            seccomp: reader.bytes()?,
        };
        reader.0.is_empty().then_some(spec)
    }
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(
        out,
        u32::try_from(bytes.len()).expect("frames are far below 4 GiB"),
    );
    out.extend_from_slice(bytes);
}

fn put_list<T>(out: &mut Vec<u8>, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    put_u32(
        out,
        u32::try_from(items.len()).expect("frames are far below 4 GiB"),
    );
    for item in items {
        put(out, item);
    }
}

/// Reads what the `put` functions wrote; none at the first thing that is not there.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head.to_vec())
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?).ok()
    }

    fn os_string(&mut self) -> Option<OsString> {
        self.bytes().map(OsString::from_vec)
    }

    fn path(&mut self) -> Option<PathBuf> {
        self.os_string().map(PathBuf::from)
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        (0..count).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_spec_comes_back_and_a_torn_one_does_not() {
        let spec = LaunchSpec {
            container: "c".to_owned(),
            directory: "/run/t/c".into(),
            die_with_agent: true,
            clone_flags: CloneFlags(0x2002_0000),
            joins: vec![Join {
                kind: CloneFlags(0x0800_0000),
                path: "/proc/7/ns/ipc".into(),
            }],
            cgroups: vec!["/sys/fs/cgroup/cpu/mesos/c/tasks".into()],
            mounts: vec![Mount {
                source: "proc".into(),
                target: "/proc".into(),
                fstype: "proc".into(),
                flags: 14,
                data: "x".into(),
            }],
            stdout: "/s/stdout".into(),
            stderr: "/s/stderr".into(),
            working_directory: "/s".into(),
            program: "/bin/sh".into(),
            arguments: vec![
                "sh".into(),
                "-c".into(),
                OsString::from_vec(vec![0xff, b'x']),
            ],
            environment: vec!["A=b".into()],
            user: Some(User {
                uid: 1,
                gid: 2,
                groups: vec![3, 4],
            }),
            oom_score_adj: Some(-5),
            rlimits: vec![Rlimit {
                resource: 7,
                soft: 1,
                hard: u64::MAX,
            }],
            capabilities: Some(Capabilities {
                effective: 1,
                permitted: 2,
                inheritable: 3,
                bounding: 4,
                ambient: 5,
            }),
            no_new_privileges: true,
            seccomp: vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f],
        };
        let mut bytes = Vec::new();
        spec.encode(&mut bytes);
        assert_eq!(LaunchSpec::decode(&bytes), Some(spec));
        for cut in 0..bytes.len() {
            assert_eq!(LaunchSpec::decode(&bytes[..cut]), None, "cut at {cut}");
        }
    }
}
