//! How a tree becomes the root of a container.
//!
//! `pivot_root` looks at every thread of the machine, for those whose root it has to change: beside a thousand containers
//! it takes longer than all mounts of one together. So the tree of a container is put into a copy of a mount namespace
//! in which there is nothing, and with the one that was copied of the host's goes all that the container must not see.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
    unistd::{chdir, chroot, fchdir, pivot_root},
};

use crate::sys;

/// A mount namespace whose only directory is empty and cannot be written to.
#[derive(Debug)]
pub(crate) struct Nowhere(OwnedFd);

impl Nowhere {
    /// Makes one, by a process that ends with it.
    ///
    /// # Errors
    ///
    /// When this process may not.
    pub(crate) fn make() -> io::Result<Self> {
        let (mut ours, mut theirs) = UnixStream::pair()?;
        let new = u64::from(libc::CLONE_NEWNS.unsigned_abs());
        let Some(maker) = sys::fork_into(new)? else {
            drop(ours);
            if forget_host().and_then(|()| theirs.write_all(&[0])).is_ok() {
                // Until it was opened.
                let _ = theirs.read(&mut [0]);
            }
            sys::exit_now(0);
        };
        drop(theirs);
        let made = ours.read_exact(&mut [0]);
        let opened = made.and_then(|()| File::open(format!("/proc/{maker}/ns/mnt")));
        drop(ours);
        sys::reap(Some(maker), true);
        opened.map(|file| Self(file.into()))
    }
}

/// Leaves an empty directory of this process's mount namespace, which is its own.
fn forget_host() -> io::Result<()> {
    let (none, all) = (None::<&Path>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    mount(none, "/", none, all, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Over a directory that every host has.
    let (kind, options) = (Some("tmpfs"), Some("mode=555,size=4k,nr_inodes=1"));
    mount(kind, "/proc", kind, flags, options)?;
    pivot(Path::new("/proc"))?;
    // Containers will have to, and pivoting does not say whether they may.
    chroot(".").map_err(Into::into)
}

/// Makes a mounted tree the root of this process, whose mount namespace is its own. None of the host's mounts is left.
pub(crate) fn change(tree: &Path, nowhere: Option<&Nowhere>) -> io::Result<()> {
    match nowhere {
        Some(nowhere) => replace(tree, nowhere),
        None => pivot(tree).map_err(Into::into),
    }
}

fn replace(tree: &Path, Nowhere(namespace): &Nowhere) -> io::Result<()> {
    // Of the same peer groups and masters: what the host unmounts goes here as well.
    let tree = sys::clone_tree(tree)?;
    // The last process in the copy of the host's leaves it.
    setns(namespace, CloneFlags::CLONE_NEWNS)?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    sys::attach_tree(&tree, Path::new("/"))?;
    fchdir(&tree)?;
    chroot(".").map_err(Into::into)
}

/// The old root is stacked on the new one for a moment, so that no directory in the new one is needed for it.
fn pivot(tree: &Path) -> nix::Result<()> {
    chdir(tree)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")
}
