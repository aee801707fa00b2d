//! The bytes of a [`LaunchSpec`], as they are written to a supervisor.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::{
    Capabilities, CloneFlags, Create, Device, File, FileKind, Input, Join, LaunchSpec, Mount,
    Rlimit, User,
};
use crate::PROTOCOL;

impl LaunchSpec {
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
        put_list(out, self.own_cgroup.as_slice(), |out, path| {
            put_path(out, path)
        });
        put_list(out, &self.mounts, put_mount);
        put_list(out, &self.files, put_file);
        put_list(out, &self.devices, |out, device| {
            put_path(out, &device.path);
            out.push(u8::from(device.is_block));
            put_u32(out, device.major);
            put_u32(out, device.minor);
            put_u32(out, device.mode);
        });
        for paths in [&self.masked_paths, &self.read_only_paths] {
            put_list(out, paths, |out, path| put_path(out, path));
        }
        put_list(out, self.rootfs.as_slice(), |out, path| put_path(out, path));
        let (kind, rows, columns) = match self.input {
            Input::Nothing => (0, 0, 0),
            Input::Pipe => (1, 0, 0),
            Input::Terminal { rows, columns } => (2, rows, columns),
        };
        out.push(kind);
        put_u32(out, u32::from(rows));
        put_u32(out, u32::from(columns));
        for path in [
            &self.stdout,
            &self.stderr,
            &self.sandboxes,
            &self.working_directory,
        ] {
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
            own_cgroup: reader.list(Reader::path)?.pop(),
            mounts: reader.list(Reader::mount)?,
            files: reader.list(Reader::file)?,
            devices: reader.list(|reader| {
                Some(Device {
                    path: reader.path()?,
                    is_block: reader.u8()? != 0,
                    major: reader.u32()?,
                    minor: reader.u32()?,
                    mode: reader.u32()?,
                })
            })?,
            masked_paths: reader.list(Reader::path)?,
            read_only_paths: reader.list(Reader::path)?,
            rootfs: reader.list(Reader::path)?.pop(),
            input: {
                let kind = reader.u8()?;
                let mut side = || u16::try_from(reader.u32()?).ok();
                let (rows, columns) = (side()?, side()?);
                match kind {
                    0 => Input::Nothing,
                    1 => Input::Pipe,
                    2 => Input::Terminal { rows, columns },
                    _ => return None,
                }
            },
            stdout: reader.path()?,
            stderr: reader.path()?,
            sandboxes: reader.path()?,
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

fn put_path(out: &mut Vec<u8>, path: &Path) {
    put_bytes(out, path.as_os_str().as_bytes());
}

fn put_mount(out: &mut Vec<u8>, mount: &Mount) {
    for text in [&mount.source, &mount.fstype, &mount.data] {
        put_bytes(out, text.as_bytes());
    }
    for path in [&mount.source_root, &mount.target, &mount.directory] {
        put_path(out, path);
    }
    put_u64(out, mount.flags);
    for flag in [mount.outside, mount.shared, mount.optional] {
        out.push(u8::from(flag));
    }
    out.push(match mount.create {
        Create::Nothing => 0,
        Create::Directory => 1,
        Create::File => 2,
    });
}

fn put_file(out: &mut Vec<u8>, file: &File) {
    put_path(out, &file.path);
    let (kind, content): (u8, &[u8]) = match &file.kind {
        FileKind::Regular(content) => (0, content),
        FileKind::Directory => (1, &[]),
        FileKind::Symlink(target) => (2, target.as_bytes()),
    };
    out.push(kind);
    put_bytes(out, content);
    put_u32(out, file.mode);
    for id in [file.uid, file.gid] {
        put_list(out, id.as_slice(), |out, id| put_u32(out, *id));
    }
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

    fn mount(&mut self) -> Option<Mount> {
        Some(Mount {
            source: self.os_string()?,
            fstype: self.os_string()?,
            data: self.os_string()?,
            source_root: self.path()?,
            target: self.path()?,
            directory: self.path()?,
            flags: self.u64()?,
            outside: self.u8()? != 0,
            shared: self.u8()? != 0,
            optional: self.u8()? != 0,
            create: match self.u8()? {
                0 => Create::Nothing,
                1 => Create::Directory,
                2 => Create::File,
                _ => return None,
            },
        })
    }

    fn file(&mut self) -> Option<File> {
        let path = self.path()?;
        let kind = self.u8()?;
        let content = self.bytes()?;
        Some(File {
            path,
            kind: match kind {
                0 => FileKind::Regular(content),
                1 => FileKind::Directory,
                2 => FileKind::Symlink(OsString::from_vec(content)),
                _ => return None,
            },
            mode: self.u32()?,
            uid: self.list(Self::u32)?.pop(),
            gid: self.list(Self::u32)?.pop(),
        })
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
            own_cgroup: Some("/sys/fs/cgroup/freezer/mesos/c".into()),
            mounts: vec![Mount {
                source: "proc".into(),
                target: "/proc".into(),
                fstype: "proc".into(),
                flags: 14,
                data: "x".into(),
                source_root: "/s".into(),
                outside: true,
                directory: "/d".into(),
                create: Create::File,
                shared: true,
                optional: true,
            }],
            files: vec![
                File {
                    path: "/dev/fd".into(),
                    kind: FileKind::Symlink("/proc/self/fd".into()),
                    mode: 0o777,
                    ..File::default()
                },
                File {
                    path: "/etc/x".into(),
                    kind: FileKind::Regular(vec![1]),
                    mode: 0o600,
                    uid: Some(3),
                    gid: Some(4),
                },
            ],
            devices: vec![Device {
                path: "/dev/null".into(),
                is_block: false,
                major: 1,
                minor: 3,
                mode: 0o666,
            }],
            masked_paths: vec!["/proc/kcore".into()],
            read_only_paths: vec!["/proc/sys".into()],
            rootfs: Some("/r".into()),
            input: Input::Terminal {
                rows: 24,
                columns: 80,
            },
            stdout: "/s/stdout".into(),
            stderr: "/s/stderr".into(),
            sandboxes: "/s".into(),
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
