//! The data of persistent volumes.
//!
//! A volume is a directory below the work directory, or below the root of the disk that it is on; on a disk of its own
//! it is the root itself. Its data lives as long as the volume, whoever uses it, and goes with it: moved out of the
//! way at once, deleted when there is time. Nothing else below is ever touched.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tepui_model::resources::{Resource, SourceKind};

/// Volumes, by role and id.
const ROLES: &str = "volumes/roles";

/// What is left of destroyed ones.
const REMOVED: &str = "volumes/removed";

/// A volume's data cannot be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} '{path}'")]
pub(crate) struct VolumeError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl VolumeError {
    fn io<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// The directory under which a volume's disk keeps its volumes, and whether the disk is the volume.
fn base(work_dir: &Path, volume: &Resource) -> (PathBuf, bool) {
    let source = volume.disk().and_then(|disk| disk.source.as_ref());
    match source {
        // Roots may be relative to the work directory.
        Some(source) => {
            let root = source.root.as_deref().unwrap_or_default();
            (work_dir.join(root), source.kind == SourceKind::Mount)
        }
        None => (work_dir.to_owned(), false),
    }
}

/// Where a volume's data lies (`paths::getPersistentVolumePath` in Mesos). A space stands for the slashes of a role,
/// so that no volume is inside of another.
pub(crate) fn path(work_dir: &Path, volume: &Resource) -> PathBuf {
    let (base, whole) = base(work_dir, volume);
    if whole {
        return base;
    }
    let role = volume.reservation_role().map_or("*", |role| role.as_str());
    let persistence = volume.disk().and_then(|disk| disk.persistence.as_ref());
    let id = persistence.map_or("", |persistence| &*persistence.id);
    base.join(ROLES).join(role.replace('/', " ")).join(id)
}

/// Makes the directory of a new volume, empty; when this returns it outlives the machine. What an earlier volume of
/// that name left there goes; a disk of its own is taken as it is.
pub(crate) fn make(work_dir: &Path, volume: &Resource) -> Result<(), VolumeError> {
    let path = path(work_dir, volume);
    if base(work_dir, volume).1 {
        return fs::read_dir(&path)
            .map(|_| ())
            .map_err(VolumeError::io("read", &path));
    }
    remove(work_dir, volume)?;
    fs::create_dir_all(&path).map_err(VolumeError::io("make", &path))?;
    let mut synced = path.as_path();
    // The directories above it may be new, too.
    for _ in 0..3 {
        let Some(parent) = synced.parent() else { break };
        File::open(parent)
            .and_then(|parent| parent.sync_all())
            .map_err(VolumeError::io("sync", parent))?;
        synced = parent;
    }
    Ok(())
}

/// Takes a volume's data away. It is out of the way when this returns, and deleted later.
pub(crate) fn remove(work_dir: &Path, volume: &Resource) -> Result<(), VolumeError> {
    let path = path(work_dir, volume);
    let (base, whole) = base(work_dir, volume);
    if whole {
        return empty(&path).map_err(VolumeError::io("empty", &path));
    }
    if !path.exists() {
        return Ok(());
    }
    let removed = base.join(REMOVED);
    fs::create_dir_all(&removed).map_err(VolumeError::io("make", &removed))?;
    let free = |number: &u64| !removed.join(number.to_string()).exists();
    let number = (0..).find(free).unwrap_or_default();
    let away = removed.join(number.to_string());
    fs::rename(&path, &away).map_err(VolumeError::io("move", &path))?;
    let deleted = std::thread::Builder::new()
        .name("volume".to_owned())
        .spawn(move || delete(&away));
    if let Err(error) = deleted {
        // The next agent process deletes it.
        tracing::warn!(%error, "volume not deleted yet");
    }
    Ok(())
}

/// Deletes what an earlier agent process had no time for, on the disks of these volumes and in the work directory.
pub(crate) fn delete_removed<'a>(work_dir: &Path, disks: impl Iterator<Item = &'a Resource>) {
    let mut bases: Vec<PathBuf> = disks
        .map(|disk| base(work_dir, disk))
        .filter_map(|(base, whole)| (!whole).then_some(base))
        .collect();
    bases.push(work_dir.to_owned());
    bases.sort();
    bases.dedup();
    for base in bases {
        let removed = base.join(REMOVED);
        for entry in fs::read_dir(&removed).into_iter().flatten().flatten() {
            delete(&entry.path());
        }
    }
}

fn delete(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        tracing::warn!(path = %path.display(), %error, "volume not deleted");
    }
}

/// Deletes all that is in a directory, but not the directory.
fn empty(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tepui_model::Resources;
    use tepui_model::resources::Resource;

    use super::{make, path, remove};

    fn volume(text: &str) -> Resource {
        let all = Resources::parse(text, "*").expect("a resource");
        all.into_iter().next().expect("one")
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).expect("a directory");
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("an entry").file_name();
        let mut names: Vec<String> = entries
            .map(name)
            .map(|n| n.into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_volume_goes_with_its_data_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let work = dir.path();
        let own = volume("disk(reservations: [(DYNAMIC,a)])[b:d]:1");
        // The names of its role and id look like the path of the first one.
        let below = volume("disk(reservations: [(DYNAMIC,a),(DYNAMIC,a/b)])[c:d]:1");
        for volume in [&own, &below] {
            make(work, volume).expect("space");
            std::fs::write(path(work, volume).join("data"), "x").expect("space");
        }
        remove(work, &own).expect("it is there");
        assert!(!path(work, &own).exists());
        assert_eq!(names(&path(work, &below)), ["data"]);
        remove(work, &own).expect("it is gone already");
        // A new volume of the same name does not see the data of the old one.
        std::fs::create_dir_all(path(work, &own)).expect("space");
        std::fs::write(path(work, &own).join("old"), "x").expect("space");
        make(work, &own).expect("space");
        assert!(names(&path(work, &own)).is_empty());
    }

    #[test]
    fn a_volume_on_a_disk_of_its_own_is_emptied() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("disk");
        std::fs::create_dir_all(root.join("some/data")).expect("space");
        let text = format!(
            "disk(reservations: [(DYNAMIC,a)])[MOUNT:{},v:d]:1",
            root.display()
        );
        let whole = volume(&text);
        assert_eq!(path(dir.path(), &whole), root);
        remove(dir.path(), &whole).expect("it is there");
        assert!(names(&root).is_empty());
    }
}
