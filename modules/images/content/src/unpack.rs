//! Layers: archives from strangers, unpacked below one directory.
//!
//! Every path is resolved by the kernel with that directory as its root, so that nothing is written outside of it
//! whatever links a layer has. What other layers have under a name is taken away by overlayfs' own marks: a device
//! 0:0 for one name, an attribute for all names of a directory.
//!
//! Kept are owners, permissions (set-user-id bits too, as in Mesos), times of files, and the attributes
//! `security.capability` and `user.*`. Devices are left out below `/dev`, which every container gets anew, and refused
//! anywhere else. Refused as well: paths with `..`, links to nowhere, more bytes or files than allowed.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use rustix::fs::{
    self as sys, AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps,
    Uid, XattrFlags,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};
use tepui_fetcher_base::Described;

use crate::error::{Error, Result};

/// What all layers of an image may still come to.
#[derive(Debug)]
pub struct Allowance {
    bytes: AtomicU64,
    files: AtomicU64,
}

impl Allowance {
    /// So many bytes and files.
    pub fn new(bytes: u64, files: u64) -> Self {
        Self {
            bytes: AtomicU64::new(bytes),
            files: AtomicU64::new(files),
        }
    }

    fn file(&self) -> Result<()> {
        take(&self.files, 1)
            .ok_or_else(|| Error::Refused("the image has too many files".to_owned()))
    }

    /// Bytes that were unpacked.
    pub(crate) fn bytes(&self, bytes: u64) -> Result<()> {
        take(&self.bytes, bytes).ok_or_else(|| {
            Error::Refused(
                "the image unpacks to more bytes than the setting 'max_image_bytes' allows"
                    .to_owned(),
            )
        })
    }
}

fn take(left: &AtomicU64, amount: u64) -> Option<()> {
    let taken = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(amount));
    taken.ok().map(drop)
}

/// Padding of a last file, and the two empty blocks that end an archive.
const END: u64 = 3 * 512;

const OPAQUE: &[u8] = b".wh..wh..opq";
const WHITEOUT: &[u8] = b".wh.";
/// The rest of what other storage drivers leave in layers.
const OF_DRIVER: &[u8] = b".wh..wh.";

/// Unpacks a layer into an empty directory.
///
/// # Errors
///
/// When the layer is refused or broken, or the disk fails. What was unpacked by then is the caller's to remove.
pub fn unpack(layer: impl Read, into: &Path, allowance: &Allowance) -> Result<()> {
    // Some tools leave out the padding and the end of an archive. What is missing otherwise shows by the digest.
    let (layer, budget) = Described::new(layer.chain(io::repeat(0).take(END)));
    let mut archive = Archive::new(layer);
    let root = sys::open(
        into,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Error::Disk(format!("failed to open '{}': {error}", into.display())))?;
    let unpacker = Unpacker { root, allowance };
    let broken = |error: io::Error| Error::Refused(format!("the layer is no archive: {error}"));
    let mut entries = archive.entries().map_err(broken)?;
    loop {
        budget.begin();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(broken)?;
        allowance.bytes(budget.end())?;
        unpacker.entry(&mut entry)?;
        // What is left of it is not the next one's description.
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
    }
    Ok(())
}

struct Unpacker<'a> {
    root: OwnedFd,
    allowance: &'a Allowance,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&self, entry: &mut Entry<'_, R>) -> Result<()> {
        self.allowance.file()?;
        if entry.header().entry_type() == EntryType::XGlobalHeader {
            // About the archive, not about a file: the commit, say.
            return Ok(());
        }
        let raw = entry.path_bytes().into_owned();
        let path = plain(&raw)?;
        let Some(name) = path.file_name().map(OsStr::to_owned) else {
            // The root itself.
            return self.root_entry(entry);
        };
        let above = path.parent().unwrap_or(Path::new(""));
        let failed = |error: Errno| not_unpacked(&path, error);
        let parent = self.directory(above).map_err(failed)?;
        if name.as_bytes() == OPAQUE {
            return mark_opaque(&parent).map_err(failed);
        }
        if name.as_bytes().starts_with(OF_DRIVER) {
            return Ok(());
        }
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return white_out(&parent, hidden, &path);
        }
        self.make(entry, &parent, &name, &path)
    }

    fn root_entry<R: Read>(&self, entry: &Entry<'_, R>) -> Result<()> {
        let mode = entry.header().mode().map_err(bad_header)?;
        if entry.header().entry_type() != EntryType::Directory {
            return Err(Error::Refused(
                "the layer's root is no directory".to_owned(),
            ));
        }
        let itself = self.open(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY);
        itself
            .and_then(|root| sys::fchmod(root, permissions(mode)))
            .map_err(|error| Error::Disk(format!("the layer's root: {error}")))
    }

    /// Opens a path of the layer.
    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = match path.as_os_str().is_empty() {
            true => Path::new("."),
            false => path,
        };
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        sys::openat2(
            &self.root,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            inside,
        )
    }

    /// A directory of the layer, made with its parents where the layer does not name them.
    fn directory(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        match self.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = self.directory(path.parent().unwrap_or(Path::new("")))?;
        sys::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        self.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    fn make<R: Read>(
        &self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let failed = |error: Errno| not_unpacked(path, error);
        let kind = entry.header().entry_type();
        let was_hidden = clear(parent, name, kind == EntryType::Directory).map_err(failed)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.regular(entry, parent, name, path)?;
            }
            EntryType::Directory => {
                match sys::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                if was_hidden {
                    let flags =
                        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let made = sys::openat(parent, name, flags, Mode::empty()).map_err(failed)?;
                    mark_opaque(&made).map_err(failed)?;
                }
            }
            EntryType::Symlink => {
                let to = link_of(entry, path)?;
                sys::symlinkat(to.as_os_str(), parent, name).map_err(failed)?;
            }
            EntryType::Link => return self.hard_link(entry, parent, name, path),
            EntryType::Fifo => {
                let mode = Mode::from_raw_mode(0o600);
                sys::mknodat(parent, name, FileType::Fifo, mode, 0).map_err(failed)?;
            }
            EntryType::Char | EntryType::Block if path.starts_with("dev") => return Ok(()),
            EntryType::Char | EntryType::Block => {
                return Err(Error::Refused(format!(
                    "'{}' is a device: images must have none but in /dev",
                    path.display()
                )));
            }
            other => {
                return Err(Error::Refused(format!(
                    "'{}' is of the unknown kind {:?}",
                    path.display(),
                    other.as_byte()
                )));
            }
        }
        self.dress(entry, parent, name).map_err(failed)
    }

    fn regular<R: Read>(
        &self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = sys::openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let mut file = File::from(made.map_err(|error| {
            Error::Disk(format!("failed to create '{}': {error}", path.display()))
        })?);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = entry.read(&mut buffer).map_err(|error| {
                Error::Refused(format!(
                    "the layer ends or breaks in '{}': {error}",
                    path.display()
                ))
            })?;
            if length == 0 {
                return Ok(());
            }
            self.allowance.bytes(length as u64)?;
            file.write_all(&buffer[..length]).map_err(|error| {
                Error::Disk(format!("failed to write '{}': {error}", path.display()))
            })?;
        }
    }

    /// A second name of a file of this layer.
    fn hard_link<R: Read>(
        &self,
        entry: &Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<()> {
        let to = plain(link_of(entry, path)?.as_bytes())?;
        let refused = |error: Errno| {
            Error::Refused(format!(
                "'{}' is a link to '{}', which is no file of its layer: {error}",
                path.display(),
                to.display()
            ))
        };
        let last = to.file_name().ok_or_else(|| refused(Errno::INVAL))?;
        let above = self
            .open(
                to.parent().unwrap_or(Path::new("")),
                OFlags::PATH | OFlags::DIRECTORY,
            )
            .map_err(refused)?;
        let found = sys::statat(&above, last, AtFlags::SYMLINK_NOFOLLOW).map_err(refused)?;
        if FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice {
            // A name that is taken away has no other.
            return Err(refused(Errno::NOENT));
        }
        // Without a flag the last part is not followed.
        sys::linkat(&above, last, parent, name, AtFlags::empty()).map_err(|error| match is_of_disk(
            error,
        ) {
            true => not_unpacked(path, error),
            false => refused(error),
        })
    }

    /// Owner, permissions, attributes and time.
    fn dress<R: Read>(
        &self,
        entry: &mut Entry<'_, R>,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> rustix::io::Result<()> {
        let header = entry.header();
        let kind = header.entry_type();
        let number =
            |read: io::Result<u64>| read.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        let (uid, gid) = (number(header.uid()), number(header.gid()));
        let (mode, mtime) = (header.mode().unwrap_or(0o644), header.mtime().unwrap_or(0));
        let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        sys::chownat(parent, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != EntryType::Symlink {
            // After the owner, whose change takes the set-user-id bit.
            sys::chmodat(parent, name, permissions(mode), AtFlags::empty())?;
        }
        if kind == EntryType::Regular {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let opened = sys::openat(parent, name, flags, Mode::empty())?;
            for (attribute, value) in attributes(entry) {
                match sys::fsetxattr(&opened, attribute.as_str(), &value, XattrFlags::empty()) {
                    // Not every file system takes those of users.
                    Ok(()) | Err(Errno::OPNOTSUPP) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let time = Timespec {
            tv_sec: i64::try_from(mtime).unwrap_or(0),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        sys::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }
}

/// What the kernel refuses is the layer's fault, unless it is the disk's.
fn not_unpacked(path: &Path, error: Errno) -> Error {
    let message = format!("'{}' cannot be unpacked: {error}", path.display());
    match is_of_disk(error) {
        true => Error::Disk(message),
        false => Error::Refused(message),
    }
}

fn is_of_disk(error: Errno) -> bool {
    matches!(error, Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO)
}

/// A path without a root; one that leads up is refused.
fn plain(raw: &[u8]) -> Result<PathBuf> {
    let given = Path::new(OsStr::from_bytes(raw));
    let mut path = PathBuf::new();
    for part in given.components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Error::Refused(format!(
                    "the layer has the path '{}', which leads out of it",
                    given.display()
                )));
            }
        }
    }
    Ok(path)
}

fn link_of<R: Read>(entry: &Entry<'_, R>, path: &Path) -> Result<OsString> {
    let to = entry.link_name_bytes().filter(|to| !to.is_empty());
    let to =
        to.ok_or_else(|| Error::Refused(format!("'{}' is a link to nowhere", path.display())))?;
    Ok(OsString::from_vec(to.into_owned()))
}

fn bad_header(error: io::Error) -> Error {
    Error::Refused(format!("the layer is no archive: {error}"))
}

fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o7777)
}

/// The attributes that are kept, by name.
fn attributes<R: Read>(entry: &mut Entry<'_, R>) -> Vec<(String, Vec<u8>)> {
    let extensions = entry.pax_extensions().ok().flatten().into_iter().flatten();
    let named = extensions.flatten().filter_map(|extension| {
        let name = extension.key().ok()?.strip_prefix("SCHILY.xattr.")?;
        let is_kept = name == "security.capability" || name.starts_with("user.");
        is_kept.then(|| (name.to_owned(), extension.value_bytes().to_vec()))
    });
    named.collect()
}

/// Makes room for a file; a directory stays for a directory. Answers whether the layer had taken the name away.
fn clear(parent: &OwnedFd, name: &OsStr, for_directory: bool) -> rustix::io::Result<bool> {
    let found = match sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(false),
        found => found?,
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::Directory if for_directory => Ok(false),
        FileType::Directory => {
            let path = Path::new("/proc/self/fd")
                .join(parent.as_raw_fd().to_string())
                .join(name);
            std::fs::remove_dir_all(path)
                .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            Ok(false)
        }
        kind => {
            sys::unlinkat(parent, name, AtFlags::empty())?;
            Ok(kind == FileType::CharacterDevice)
        }
    }
}

/// Nothing of the directory in other layers shows.
fn mark_opaque(directory: &impl AsFd) -> rustix::io::Result<()> {
    // A descriptor that only stands for a path takes no attributes.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = sys::openat(directory, ".", flags, Mode::empty())?;
    sys::fsetxattr(opened, "trusted.overlay.opaque", b"y", XattrFlags::empty())
}

/// Nothing of this name in other layers shows. What this layer has under the name does.
fn white_out(parent: &OwnedFd, hidden: &[u8], path: &Path) -> Result<()> {
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(Error::Refused(format!(
            "'{}' takes away no name",
            path.display()
        )));
    }
    let name = OsStr::from_bytes(hidden);
    let device = FileType::CharacterDevice;
    match sys::mknodat(parent, name, device, Mode::from_raw_mode(0), 0) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match sys::openat(parent, name, flags, Mode::empty()) {
                Ok(directory) => mark_opaque(&directory)
                    .map_err(|error| Error::Disk(format!("'{}': {error}", path.display()))),
                Err(_) => Ok(()),
            }
        }
        Err(error) => Err(Error::Disk(format!("'{}': {error}", path.display()))),
    }
}

/// Whether a file of an unpacked layer takes a name of the layers below away.
pub fn is_whiteout(path: &Path) -> io::Result<bool> {
    let found = sys::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice && found.st_rdev == 0)
}
