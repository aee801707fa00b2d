//! The container's file tree: mounts, files, devices, and the change of root.
//!
//! A root file system comes from strangers: every path in it is resolved by the kernel inside that root, so that no
//! link of an image leads a mount or a file to the host.

use std::{
    cell::OnceCell,
    ffi::OsStr,
    fs,
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2},
    mount::{MsFlags, mount},
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, makedev, mkdirat, mknodat},
    unistd::{Gid, Uid, fchown, fchownat, symlinkat},
};
use tepui_init::{Create, Device, File, FileKind, LaunchSpec, Mount};

use crate::{
    root::{self, Nowhere},
    sys,
};

/// Builds the tree of a container that has a mount namespace of its own, and makes it the root.
pub(crate) fn build(spec: &LaunchSpec, nowhere: Option<&Nowhere>) -> Result<(), String> {
    let taken = take_shared(spec)?;
    // What is mounted here stays here; what the host unmounts goes here as well.
    change_propagation("/".as_ref(), MsFlags::MS_REC | MsFlags::MS_SLAVE)
        .map_err(|error| format!("failed to make mounts private: {error}"))?;
    let mut tree = Tree {
        root: spec.rootfs.as_deref(),
        opened: OnceCell::new(),
        owner: spec.user.as_ref().map(|user| (user.uid, user.gid)),
    };
    for (entry, taken) in spec.mounts.iter().zip(taken) {
        match tree.mount(entry, taken) {
            Err(error) if !entry.optional => {
                return Err(format!(
                    "failed to mount '{}': {error}",
                    entry.target.display()
                ));
            }
            _ => {}
        }
    }
    let mut around = Around::default();
    for file in &spec.files {
        tree.file(file, &mut around)
            .map_err(|error| format!("failed to make '{}': {error}", file.path.display()))?;
    }
    for device in &spec.devices {
        tree.device(device, &mut around)
            .map_err(|error| format!("failed to make '{}': {error}", device.path.display()))?;
    }
    let mut nothing = None;
    for path in &spec.masked_paths {
        tree.mask(path, &mut nothing)
            .map_err(|error| format!("failed to hide '{}': {error}", path.display()))?;
    }
    for path in &spec.read_only_paths {
        tree.protect(path)
            .map_err(|error| format!("failed to protect '{}': {error}", path.display()))?;
    }
    let Some(rootfs) = &spec.rootfs else {
        return Ok(());
    };
    // A copy would be without such mounts.
    let is_copied = |entry: &Mount| entry.flags & libc::MS_UNBINDABLE == 0;
    let nowhere = nowhere.filter(|_| spec.mounts.iter().all(is_copied));
    root::change(rootfs, nowhere).map_err(|error| {
        format!(
            "failed to change the root to '{}': {error}",
            rootfs.display()
        )
    })
}

/// Copies of what the container shares with the host, made while they still are in the host's peer groups.
fn take_shared(spec: &LaunchSpec) -> Result<Vec<Option<OwnedFd>>, String> {
    let take = |entry: &Mount| {
        if !entry.shared {
            return Ok(None);
        }
        sys::clone_tree(Path::new(&entry.source)).map(Some)
    };
    let taken = spec.mounts.iter().map(|entry| {
        take(entry).map_err(|error| {
            format!(
                "failed to share '{}': {error}",
                entry.source.to_string_lossy()
            )
        })
    });
    taken.collect()
}

fn change_propagation(path: &Path, flags: MsFlags) -> nix::Result<()> {
    mount(None::<&Path>, path, None::<&Path>, flags, None::<&Path>)
}

/// How the kernel is told of an open file where it takes a path. The host's /proc is there until the root changes.
fn path_of(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// The directory that files are being made in, while nothing is mounted.
#[derive(Default)]
struct Around(Option<(PathBuf, OwnedFd)>);

struct Tree<'a> {
    root: Option<&'a Path>,
    /// The root, once a path in it was opened.
    opened: OnceCell<OwnedFd>,
    /// The container's user, where it has one.
    owner: Option<(u32, u32)>,
}

impl Tree<'_> {
    /// Opens a path of the container without reading it.
    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        let Some(root) = self.root else {
            return open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
        };
        let directory = match self.opened.get() {
            Some(opened) => opened,
            None => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                let opened = open(root, flags, Mode::empty())?;
                self.opened.get_or_init(|| opened)
            }
        };
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        openat2(directory, path, how)
    }

    fn mount(&mut self, entry: &Mount, taken: Option<OwnedFd>) -> io::Result<()> {
        let inside = match entry.outside {
            true => None,
            false => Some(self.target(entry)?),
        };
        let target = inside
            .as_ref()
            .map_or_else(|| entry.target.clone(), path_of);
        let flags = MsFlags::from_bits_retain(entry.flags as libc::c_ulong);
        if let Some(tree) = taken {
            sys::attach_tree(&tree, &target)?;
        } else {
            let source = self.source(entry)?;
            let source = match &source {
                Some(opened) => path_of(opened).into_os_string(),
                None => entry.source.clone(),
            };
            if !entry.directory.as_os_str().is_empty() {
                std::env::set_current_dir(&entry.directory)?;
            }
            mount(
                given(&source),
                &target,
                given(&entry.fstype),
                flags,
                given(&entry.data),
            )?;
        }
        if entry.outside || entry.target == Path::new("/") {
            // Perhaps over the root: what is mounted there counts from now on.
            self.opened.take();
        }
        // The kernel takes the source's own flags for a bind mount; a change of flags has none of these.
        let wanted = flags
            & (MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC);
        if flags.contains(MsFlags::MS_BIND)
            && !flags.contains(MsFlags::MS_REMOUNT)
            && !wanted.is_empty()
        {
            drop(inside);
            let mounted = match entry.outside {
                true => open(
                    &entry.target,
                    OFlag::O_PATH | OFlag::O_CLOEXEC,
                    Mode::empty(),
                )?,
                false => self.open(&entry.target)?,
            };
            sys::restrict_tree(&mounted, wanted)?;
        }
        Ok(())
    }

    /// The target, made when it is missing and that was asked for.
    fn target(&self, entry: &Mount) -> io::Result<OwnedFd> {
        match (self.open(&entry.target), entry.create) {
            (Err(Errno::ENOENT), Create::Directory) => self.directory(&entry.target, None),
            (Err(Errno::ENOENT), Create::File) => {
                let (parent, name) = self.parent(&entry.target)?;
                create(&parent, name, 0o644)?;
                self.open(&entry.target).map_err(Into::into)
            }
            (opened, _) => opened.map_err(Into::into),
        }
    }

    /// The source where it may not lead out of a directory.
    fn source(&self, entry: &Mount) -> io::Result<Option<OwnedFd>> {
        if entry.source_root.as_os_str().is_empty() {
            return Ok(None);
        }
        let below = Tree {
            root: Some(&entry.source_root),
            opened: OnceCell::new(),
            owner: None,
        };
        below
            .directory(Path::new(&entry.source), self.owner)
            .map(Some)
    }

    /// A directory, made with its parents where they are missing.
    fn directory(&self, path: &Path, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
        match self.open(path) {
            Err(Errno::ENOENT) => {}
            opened => return opened.map_err(Into::into),
        }
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let above = path.parent().unwrap_or(Path::new(""));
        let above = match above.as_os_str().is_empty() {
            true => Path::new("/"),
            false => above,
        };
        let parent = self.directory(above, owner)?;
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return self.open(path).map_err(Into::into),
            Err(error) => return Err(error.into()),
        }
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            let no_follow = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(&parent, name, Some(uid), Some(gid), no_follow)?;
        }
        self.open(path).map_err(Into::into)
    }

    /// The same as [`Self::parent`], for one file after the other.
    fn parent_again<'a, 'b>(
        &self,
        path: &'a Path,
        around: &'b mut Around,
    ) -> io::Result<(&'b OwnedFd, &'a OsStr)> {
        let same = matches!(&around.0, Some((known, _)) if Some(&**known) == path.parent());
        if !same {
            let (opened, _) = self.parent(path)?;
            around.0 = path.parent().map(|known| (known.to_owned(), opened));
        }
        match (&around.0, path.file_name()) {
            (Some((_, opened)), Some(name)) => Ok((opened, name)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// The directory a file is to be in, made when it is missing, and the file's name.
    fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok((self.directory(parent, None)?, name)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn file(&self, file: &File, around: &mut Around) -> io::Result<()> {
        let (parent, name) = self.parent_again(&file.path, around)?;
        let mode = Mode::from_bits_truncate(file.mode);
        let opened = match &file.kind {
            FileKind::Symlink(to) => {
                return symlinkat(to.as_os_str(), parent, name).map_err(Into::into);
            }
            FileKind::Regular(content) => {
                let mut opened = create(parent, name, 0o600)?;
                opened.write_all(content)?;
                opened
            }
            FileKind::Directory => {
                mkdirat(parent, name, mode)?;
                let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(parent, name, flags, Mode::empty())?.into()
            }
        };
        if file.uid.is_some() || file.gid.is_some() {
            fchown(
                &opened,
                file.uid.map(Uid::from_raw),
                file.gid.map(Gid::from_raw),
            )?;
        }
        // After the owner, whose change takes the set-user-id bit, and without the umask.
        fchmod(&opened, mode).map_err(Into::into)
    }

    fn device(&self, device: &Device, around: &mut Around) -> io::Result<()> {
        let (parent, name) = self.parent_again(&device.path, around)?;
        let kind = match device.is_block {
            true => SFlag::S_IFBLK,
            false => SFlag::S_IFCHR,
        };
        let mode = Mode::from_bits_truncate(device.mode);
        let number = makedev(device.major.into(), device.minor.into());
        match mknodat(parent, name, kind, mode, number) {
            // Two isolators may ask for one device.
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink).map_err(Into::into)
    }

    /// Puts nothing in the place of a path: the same empty directory for all directories, since each file system that is made
    /// takes its time, and as much again at the end.
    fn mask(&self, path: &Path, nothing: &mut Option<OwnedFd>) -> io::Result<()> {
        let opened = match self.open(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            opened => opened?,
        };
        let target = path_of(&opened);
        if fs::metadata(&target)?.is_dir() {
            let flags =
                MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            if let Some(empty) = nothing {
                // With the flags of what it is a bind mount of.
                let (flags, none) = (MsFlags::MS_BIND, None::<&Path>);
                mount(Some(&path_of(empty)), &target, none, flags, none)?;
            } else {
                mount(Some("tmpfs"), &target, Some("tmpfs"), flags, Some("size=0"))?;
                *nothing = Some(self.open(path)?);
            }
        } else {
            let null = Some("/dev/null");
            mount(
                null,
                &target,
                None::<&Path>,
                MsFlags::MS_BIND,
                None::<&Path>,
            )?;
        }
        Ok(())
    }

    fn protect(&self, path: &Path) -> io::Result<()> {
        let opened = match self.open(path) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            opened => opened?,
        };
        let itself = path_of(&opened);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&itself), &itself, None::<&Path>, flags, None::<&Path>)?;
        sys::restrict_tree(&self.open(path)?, MsFlags::MS_RDONLY)
    }
}

fn given(text: &OsStr) -> Option<&OsStr> {
    (!text.is_empty()).then_some(text)
}

/// Makes a file that was not there.
fn create(parent: &impl AsFd, name: &OsStr, mode: u32) -> io::Result<fs::File> {
    let flags =
        OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(parent, name, flags, Mode::from_bits_truncate(mode))?;
    Ok(file.into())
}
