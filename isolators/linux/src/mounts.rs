//! Mounts in the mount namespace of a process that runs already.
//!
//! A directory of the host is copied as a mount of its own, which can be carried into another namespace (`open_tree`,
//! `move_mount`). What lies there may be a task's own work: no link below the base is followed.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    mount::{MntFlags, umount2},
    sched::{CloneFlags, setns, unshare},
    sys::stat::{Mode, fstat, mkdirat},
    unistd::{UnlinkatFlags, fchdir, unlinkat},
};

/// A process, by a descriptor that never means another one.
#[derive(Debug)]
pub struct Process(OwnedFd);

/// A place in a process' mount namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// A directory that is trusted.
    pub base: Box<Path>,
    /// Below it, of plain names only; no part of it may be a link.
    pub below: Box<Path>,
}

impl Place {
    /// The directory at the place, which must be there.
    ///
    /// # Errors
    ///
    /// When it is not, or a part of the place is a link or a file.
    pub fn existing(&self) -> io::Result<OwnedFd> {
        let (parent, name) = parent_of(self, false)?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&parent, name, flags, Mode::empty())?)
    }

    /// The directory at the place, and whether it was made: none was there.
    ///
    /// # Errors
    ///
    /// When a part of the place is a link or a file.
    pub fn directory(&self) -> io::Result<(OwnedFd, bool)> {
        let (parent, name) = parent_of(self, true)?;
        let made = match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Err(Errno::EEXIST) => false,
            made => {
                made?;
                true
            }
        };
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok((openat(&parent, name, flags, Mode::empty())?, made))
    }
}

impl Process {
    /// The process that has this number now; the caller knows that it is the one meant.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: the call takes two numbers; its result is checked.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        owned(fd).map(Self)
    }

    /// Mounts a directory of the host at a place, whose directories are made. Nothing happens where it is mounted
    /// already.
    ///
    /// # Errors
    ///
    /// When the process is gone, a part of the place is a link or a file, or something else is mounted there.
    pub fn mount(&self, source: &Path, place: &Place, read_only: bool) -> io::Result<()> {
        let tree = copy_of(source, read_only)?;
        let what = fstat(&tree)?;
        self.inside(move || {
            let (parent, name) = parent_of(place, true)?;
            make(&parent, name)?;
            let target = openat(&parent, name, DIRECTORY, Mode::empty())?;
            let there = fstat(&target)?;
            if (there.st_dev, there.st_ino) == (what.st_dev, what.st_ino) {
                return Ok(());
            }
            attach(&tree, &target)
        })
    }

    /// Unmounts what [`Self::mount`] has mounted, also if it was removed since, and removes its directory if that is empty.
    /// Nothing happens where it is not mounted.
    ///
    /// # Errors
    ///
    /// When the process is gone, or a part of the place is a link now.
    pub fn unmount(&self, source: &Path, place: &Place) -> io::Result<()> {
        let what = match open(source, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(Errno::ENOENT) => None,
            opened => Some(fstat(&opened?)?),
        };
        self.inside(move || {
            let (parent, name) = match parent_of(place, false) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                found => found?,
            };
            let there = match openat(&parent, name, DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) => return Ok(()),
                opened => fstat(&opened?)?,
            };
            let is_it = match what {
                Some(what) => (there.st_dev, there.st_ino) == (what.st_dev, what.st_ino),
                // A directory without a name is only there because it is mounted.
                None => there.st_nlink == 0,
            };
            if !is_it {
                return Ok(());
            }
            fchdir(&parent)?;
            umount2(name, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
            // A task may have put something below it before it was mounted.
            let _ = unlinkat(&parent, name, UnlinkatFlags::RemoveDir);
            Ok(())
        })
    }

    /// Does something on a thread of its own, which is in the process' mount namespace until it ends.
    fn inside<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // Root and working directory are shared by threads, and belong to the namespace.
                unshare(CloneFlags::CLONE_FS)?;
                setns(&self.0, CloneFlags::CLONE_NEWNS)?;
                work()
            });
            let panicked = |_| Err(io::Error::other("the thread in the namespace panicked"));
            thread.join().unwrap_or_else(panicked)
        })
    }
}

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The directory that holds a place's last name, and that name.
fn parent_of(place: &Place, make_it: bool) -> io::Result<(OwnedFd, &OsStr)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = open(&*place.base, flags, Mode::empty())?;
    let mut names = Vec::new();
    for part in place.below.components() {
        match part {
            Component::Normal(name) => names.push(name),
            _ => return Err(Errno::EINVAL.into()),
        }
    }
    let last = names.pop().ok_or(Errno::EINVAL)?;
    for name in names {
        if make_it {
            make(&at, name)?;
        }
        at = openat(&at, name, DIRECTORY, Mode::empty())?;
    }
    Ok((at, last))
}

fn make(at: &OwnedFd, name: &OsStr) -> nix::Result<()> {
    match mkdirat(at, name, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => Ok(()),
        made => made,
    }
}

/// A directory and what is mounted below it, as a mount that is nowhere yet.
fn copy_of(source: &Path, read_only: bool) -> io::Result<OwnedFd> {
    let path = CString::new(source.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE.unsigned_abs();
    // SAFETY: the path outlives the call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let tree = owned(fd)?;
    let attributes = libc::mount_attr {
        attr_set: if read_only {
            libc::MOUNT_ATTR_RDONLY
        } else {
            0
        },
        attr_clr: 0,
        // What is mounted on the host later does not come, and nothing goes back.
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    // SAFETY: both pointers outlive the call, the size is the structure's, the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            EMPTY.as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    done(result)?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, target: &OwnedFd) -> io::Result<()> {
    // SAFETY: the paths are constants, both descriptors are open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            EMPTY.as_ptr(),
            target.as_raw_fd(),
            EMPTY.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    done(result)
}

const EMPTY: &CStr = c"";

fn done(result: libc::c_long) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    done(fd)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) })
}
