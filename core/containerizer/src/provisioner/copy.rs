//! Copies layers over one another.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, lchown, symlink},
    path::Path,
};

use nix::sys::stat::{Mode, SFlag, mknod};

/// Copies a layer over what those below it have left: its marks take away what they name. The destination is nobody
/// else's, and its links are not followed.
pub(super) fn onto(layer: &Path, root: &Path) -> io::Result<()> {
    directory(layer, root)
}

fn directory(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    if is_opaque(from) {
        remove(to)?;
    }
    if !fs::symlink_metadata(to).is_ok_and(|there| there.is_dir()) {
        remove(to)?;
        fs::create_dir(to)?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        entry_onto(&entry.path(), &to.join(entry.file_name()))?;
    }
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(to, metadata.permissions())
}

fn entry_onto(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let kind = metadata.file_type();
    if kind.is_dir() {
        return directory(from, to);
    }
    remove(to)?;
    if kind.is_char_device() && metadata.rdev() == 0 {
        // The name was taken away.
        return Ok(());
    }
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
        return lchown(to, Some(metadata.uid()), Some(metadata.gid()));
    }
    if kind.is_fifo() {
        mknod(to, SFlag::S_IFIFO, Mode::empty(), 0)?;
    } else {
        fs::copy(from, to)?;
    }
    lchown(to, Some(metadata.uid()), Some(metadata.gid()))?;
    // After the owner, whose change takes the set-user-id bit.
    fs::set_permissions(to, metadata.permissions())
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::lgetxattr(directory, "trusted.overlay.opaque", &mut value).is_ok() && value == *b"y"
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
