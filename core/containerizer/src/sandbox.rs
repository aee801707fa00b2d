//! Sandboxes: the directory a command starts in.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{Mode, mkdirat},
};

use crate::{Error, os};

/// A sandbox, and the directory above it that nobody but the agent writes to. What is between the two and in it belongs
/// to the users of tasks, who may have put links there; so no path is followed through one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    trusted: PathBuf,
    inside: PathBuf,
}

impl Sandbox {
    /// The sandbox of an outermost container.
    pub fn new(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_else(|| OsStr::new("."));
        Self {
            trusted: path.parent().unwrap_or(path).to_owned(),
            inside: name.into(),
        }
    }

    /// The sandbox of what is nested in a container with this one.
    pub fn nested(&self, path: &Path) -> Self {
        match path.strip_prefix(&self.trusted) {
            Ok(inside) => Self {
                trusted: self.trusted.clone(),
                inside: inside.to_owned(),
            },
            Err(_) => Self::new(path),
        }
    }

    /// Where it is on the host.
    pub fn path(&self) -> PathBuf {
        self.trusted.join(&self.inside)
    }

    /// The directory that only the agent writes to.
    pub(crate) fn trusted(&self) -> &Path {
        &self.trusted
    }

    /// Opens a file of it for reading, without waiting for anything.
    ///
    /// # Errors
    ///
    /// When there is none, or a link is on the way to it, or it is something else than a file.
    pub fn file(&self, name: &str) -> io::Result<File> {
        let file = self.open(&self.inside.join(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::ErrorKind::InvalidInput.into())
        }
    }

    /// Puts a link into a directory of it, which is made if need be, in the place of an earlier link of that name.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or the directory is a link.
    pub fn link(&self, directory: &str, name: &str, target: &Path) -> io::Result<()> {
        let directory = self.make(&self.inside.join(directory), 0o755)?;
        let fresh = format!("{name}.new");
        match fs::remove_file(at(&directory, fresh.as_ref())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(target, at(&directory, fresh.as_ref()))?;
        fs::rename(
            at(&directory, fresh.as_ref()),
            at(&directory, name.as_ref()),
        )
    }

    /// Removes it with all that is in it; nothing happens when it is not there.
    ///
    /// # Errors
    ///
    /// When something of it cannot be removed, or a link is on the way to it.
    pub fn remove(&self) -> io::Result<()> {
        match self.around(|around, name| fs::remove_dir_all(at(around, name))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Acts on its name in the directory around it.
    fn around(&self, act: impl FnOnce(&File, &OsStr) -> io::Result<()>) -> io::Result<()> {
        let (Some(around), Some(name)) = (self.inside.parent(), self.inside.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let around = self.open(around, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        act(&around, name)
    }

    /// Moves it with all that is in it.
    ///
    /// # Errors
    ///
    /// When it is not there, a link is on the way to it, or it cannot be moved to there.
    pub fn move_to(&self, place: &Path) -> io::Result<()> {
        self.around(|around, name| fs::rename(at(around, name), place))
    }

    /// Makes it: mode 0750, owned by its user, as Mesos does since 1.6. Parents are made as the agent's own. A sandbox
    /// that is already there keeps what is in it.
    pub(crate) fn prepare(&self, user: Option<&tepui_init::User>) -> Result<(), Error> {
        let error = |what| {
            move |source| Error::Io {
                what,
                path: self.path(),
                source,
            }
        };
        fs::create_dir_all(&self.trusted).map_err(error("create the parents of"))?;
        let directory = self.make(&self.inside, 0o750).map_err(error("create"))?;
        // The umask has cut the mode.
        directory
            .set_permissions(fs::Permissions::from_mode(0o750))
            .map_err(error("set the mode of"))?;
        if let Some(user) = user {
            os::give_to(&directory, user).map_err(error("change the owner of"))?;
        }
        Ok(())
    }

    fn open(&self, path: &Path, flags: OFlag) -> io::Result<File> {
        let trusted = File::open(&self.trusted)?;
        // The kernel takes no empty path.
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        Ok(openat2(trusted, path, how)?.into())
    }

    /// Opens a directory below the trusted one; makes it, and what is missing on the way to it.
    fn make(&self, path: &Path, mode: libc::mode_t) -> io::Result<File> {
        let mut directory = File::open(&self.trusted)?;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            let mode = match parts.peek() {
                Some(_) => 0o755,
                None => mode,
            };
            match mkdirat(&directory, name, Mode::from_bits_truncate(mode)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            directory = openat(&directory, name, flags, Mode::empty())?.into();
        }
        Ok(directory)
    }
}

/// A name in an open directory, as a path.
fn at(directory: &File, name: &OsStr) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_out_of_a_sandbox() {
        let at = tempfile::tempdir().unwrap();
        let outer = Sandbox::new(&at.path().join("runs/c"));
        outer.prepare(None).unwrap();
        let inner = outer.nested(&outer.path().join("containers/n"));
        inner.prepare(None).unwrap();
        assert_eq!(inner.path(), at.path().join("runs/c/containers/n"));
        fs::write(inner.path().join("stdout"), "said").unwrap();
        outer
            .link("tasks", "t", Path::new("../containers/n"))
            .unwrap();
        outer
            .link("tasks", "t", Path::new("../containers/n"))
            .unwrap();
        let named = outer.path().join("tasks/t/stdout");
        assert_eq!(fs::read_to_string(named).unwrap(), "said");
        assert!(inner.file("stdout").is_ok());

        // The directories of others, which a task's user leads to from its own.
        let others = at.path().join("others");
        fs::create_dir_all(others.join("n")).unwrap();
        fs::write(others.join("n/stdout"), "secret").unwrap();
        for name in ["containers", "tasks"] {
            fs::remove_dir_all(outer.path().join(name)).unwrap();
            std::os::unix::fs::symlink(&others, outer.path().join(name)).unwrap();
        }
        assert!(inner.file("stdout").is_err());
        assert!(inner.prepare(None).is_err() && inner.remove().is_err());
        assert!(inner.move_to(&at.path().join("moved")).is_err());
        assert!(outer.link("tasks", "t", Path::new("x")).is_err());
        assert_eq!(fs::read_dir(&others).unwrap().count(), 1);
        assert_eq!(
            fs::read_to_string(others.join("n/stdout")).unwrap(),
            "secret"
        );

        let moved = at.path().join("moved");
        outer.move_to(&moved).unwrap();
        assert!(moved.join("tasks").is_symlink() && outer.move_to(&moved).is_err());
        outer.prepare(None).unwrap();
        outer.remove().unwrap();
        outer.remove().unwrap();
        assert!(!outer.path().exists() && others.join("n/stdout").exists());
    }
}
