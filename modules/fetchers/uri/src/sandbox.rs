//! Writing into a sandbox.
//!
//! A sandbox belongs to its user, and a nested one to whatever runs beside it. So nothing in it is trusted: every
//! path is resolved by the kernel beneath the sandbox's directory (`openat2`), and every step is made with the user's
//! rights for files, not the agent's. What is made belongs to the user from the start.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{
    Gid, LinkatFlags, Uid, UnlinkatFlags, geteuid, linkat, setfsgid, setfsuid, symlinkat, unlinkat,
};
use tepui_module_sdk::proto::fetcher::User;
use tepui_module_sdk::{Failure, Result};

use crate::{Watched, mode};

/// A sandbox that is open.
#[derive(Debug)]
pub(crate) struct Sandbox {
    path: PathBuf,
    directory: OwnedFd,
    user: Option<User>,
}

/// A sandbox while this thread has its user's rights.
pub(crate) struct Here<'a>(&'a Sandbox);

impl Sandbox {
    /// Opens a sandbox.
    pub(crate) fn open(path: &Path, user: Option<User>) -> Result<Self> {
        let directory = File::open(path).map_err(|error| {
            Failure::not_found(format!("sandbox '{}': {error}", path.display()))
        })?;
        Ok(Self {
            path: path.to_owned(),
            directory: directory.into(),
            user,
        })
    }

    /// Number of the user that all belongs to.
    pub(crate) fn owner(&self) -> u32 {
        self.user
            .as_ref()
            .map_or(geteuid().as_raw(), |user| user.uid)
    }

    /// A path in the sandbox, for people.
    pub(crate) fn shown(&self, path: &Path) -> String {
        self.path.join(path).display().to_string()
    }

    /// Does something with the rights of the sandbox's user. Blocks; other threads keep the agent's rights.
    pub(crate) fn act<T>(&self, work: impl FnOnce(&Here) -> Result<T>) -> Result<T> {
        let _rights = self.user.as_ref().map(Rights::take).transpose()?;
        work(&Here(self))
    }

    /// Copies an open file to a path in the sandbox.
    pub(crate) fn place(&self, mut from: Watched, to: &Path, executable: bool) -> Result<()> {
        let mode = mode(executable, Some(from.file.metadata()?.mode()));
        self.act(|here| {
            io::copy(&mut from, &mut here.create(to, mode)?)?;
            Ok(())
        })
    }
}

/// File rights of another user for this thread alone, until it is dropped.
struct Rights {
    uid: Uid,
    gid: Gid,
}

impl Rights {
    fn take(user: &User) -> Result<Self> {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        let own = Self {
            gid: setfsgid(gid),
            uid: setfsuid(uid),
        };
        // These calls tell nothing of an error but the unchanged number.
        if setfsuid(uid) != uid || setfsgid(gid) != gid {
            return Err(Failure::internal(format!(
                "the agent may not act as user {uid}: it does not run as root"
            )));
        }
        Ok(own)
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
    }
}

impl Here<'_> {
    /// Makes a file, with its directories; one that is there is replaced, and links are not followed.
    pub(crate) fn create(&self, path: &Path, mode: u32) -> Result<File> {
        let (parent, name) = self.parent(path)?;
        self.remove(&parent, &name)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let file: File = open(&parent, &name, flags, 0o600)
            .map_err(in_words(path))?
            .into();
        // The umask has cut the mode.
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(file)
    }

    /// Opens a file to read. Does not wait for the other end of what somebody put in its place.
    pub(crate) fn read(&self, path: &Path) -> Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let file = open(&self.0.directory, path, flags, 0);
        Ok(file.map_err(in_words(path))?.into())
    }

    /// Appends to a file of the sandbox's own.
    pub(crate) fn append(&self, name: &Path, text: &str) -> Result<()> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK;
        let file = open(&self.0.directory, name, flags, 0o644);
        let mut file: File = file.map_err(in_words(name))?.into();
        Ok(file.write_all(text.as_bytes())?)
    }

    /// Makes a directory with those above it.
    pub(crate) fn directory(&self, path: &Path, mode: u32) -> Result<()> {
        let directory: File = self.descend(Path::new(path))?.into();
        // It stays usable for its owner, so that it can be filled.
        Ok(directory.set_permissions(Permissions::from_mode(mode | 0o700))?)
    }

    /// Makes a symbolic link, which nothing here will follow out of the sandbox.
    pub(crate) fn symlink(&self, path: &Path, target: &Path) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        self.remove(&parent, &name)?;
        symlinkat(target, &parent, &name).map_err(in_words(path))
    }

    /// Makes another name of a file in the sandbox.
    pub(crate) fn hard_link(&self, path: &Path, target: &Path) -> Result<()> {
        let (from, old) = self.existing(target)?;
        let (parent, name) = self.parent(path)?;
        self.remove(&parent, &name)?;
        linkat(&from, &*old, &parent, &*name, LinkatFlags::empty()).map_err(in_words(path))
    }

    /// Reads all of a short thing into a file.
    pub(crate) fn write(&self, path: &Path, mode: u32, from: &mut impl Read) -> Result<()> {
        io::copy(from, &mut self.create(path, mode)?)?;
        Ok(())
    }

    /// Removes a file or link; a directory stays, and what should take its place fails.
    fn remove(&self, parent: &OwnedFd, name: &Path) -> Result<()> {
        match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(in_words(name)(errno)),
        }
    }

    /// The directory that a path is in, made if it is missing, and the path's last part.
    fn parent(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let name = path.file_name().ok_or_else(|| {
            Failure::invalid(format!("'{}' does not name a file", path.display()))
        })?;
        let parent = self.descend(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name.into()))
    }

    /// The same for a path that must be there.
    fn existing(&self, path: &Path) -> Result<(OwnedFd, PathBuf)> {
        let name = path.file_name().unwrap_or_default();
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let parent = open(
            &self.0.directory,
            parent,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            0,
        );
        Ok((parent.map_err(in_words(path))?, name.into()))
    }

    /// Opens a directory, and makes what is missing on the way.
    fn descend(&self, path: &Path) -> Result<OwnedFd> {
        let mut so_far = PathBuf::from(".");
        let mut at = self.open_directory(&so_far)?;
        for part in path.components() {
            if let std::path::Component::Normal(name) = part {
                match mkdirat(&at, name, Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(in_words(path)(errno)),
                }
                so_far.push(name);
                at = self.open_directory(&so_far)?;
            } else if part != std::path::Component::CurDir {
                return Err(in_words(path)(Errno::EXDEV));
            }
        }
        Ok(at)
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        open(&self.0.directory, path, flags, 0).map_err(in_words(path))
    }
}

/// Opens a path that stays beneath a directory, wherever the links in it lead.
fn open(beneath: &impl AsFd, path: &Path, flags: OFlag, mode: u32) -> nix::Result<OwnedFd> {
    let beneath: BorrowedFd = beneath.as_fd();
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .mode(Mode::from_bits_truncate(mode))
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    loop {
        match openat2(beneath, path, how) {
            // Something was renamed meanwhile.
            Err(Errno::EAGAIN) => {}
            other => return other,
        }
    }
}

fn in_words(path: &Path) -> impl FnOnce(Errno) -> Failure + '_ {
    let path = path.display();
    move |errno| {
        Failure::invalid(match errno {
            Errno::EXDEV => format!("'{path}' leads out of the sandbox"),
            errno => format!("cannot write '{path}' in the sandbox: {}", errno.desc()),
        })
    }
}
