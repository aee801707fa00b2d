//! Groups for volumes that tasks of several users share.
//!
//! Each volume gets a group of a range that nobody else uses; its directory belongs to that group, and the tasks that
//! have the volume are in it. Mirrors `VolumeGidManager` of Mesos: a volume in a sandbox keeps its group until the
//! container of the sandbox is over, and what is left of it is given to its owners' own groups then; any other keeps it
//! for as long as its directory is there. So nothing that is left belongs to the group of another one. What was given is written down where
//! Mesos keeps it, and shared by all who open the same file:
//!
//! ```text
//! 1                      the version
//! 10000 /path/of/it      group and directory
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    fcntl::{AtFlags, Flock, FlockArg, OFlag, open, openat},
    sys::stat::{Mode, SFlag, fchmod, fstatat},
    unistd::{Gid, Uid, User, fchown, fchownat},
};

use crate::mounts::Place;

/// Below the work directory of an agent.
const FILE: &str = "meta/volume_gid_manager/volume_gids";
const VERSION: &str = "1";
/// Where sandboxes are, below it.
const SANDBOXES: [&str; 2] = ["slaves", "containers"];
/// Written by the group, and what is made in it is the group's, too.
const SHARED: u32 = 0o2070;
const SET_GID: u32 = 0o2000;

/// The groups of volumes.
#[derive(Debug, Clone)]
pub struct VolumeGids {
    /// First and last, each.
    ranges: Vec<(u32, u32)>,
    work_dir: PathBuf,
    file: PathBuf,
}

/// Why a volume gets no group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GidError {
    /// All are in use.
    #[error("all {0} groups of --volume_gid_range are in use by other volumes")]
    Exhausted(u64),
    /// What was written down cannot be read.
    #[error("line {line} of '{}' is not a group and a path", file.display())]
    Damaged {
        /// Where it is.
        file: PathBuf,
        /// Which line.
        line: usize,
    },
    /// The path has a line break.
    #[error("the path '{}' cannot be written down", .0.display())]
    Path(PathBuf),
    /// The system refuses.
    #[error("failed to {what} '{}': {source}", path.display())]
    Io {
        /// What was done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn failed<E: Into<io::Error>>(what: &'static str, path: &Path) -> impl FnOnce(E) -> GidError {
    move |error| GidError::Io {
        what,
        path: path.to_owned(),
        source: error.into(),
    }
}

impl VolumeGids {
    /// Gives groups of these ranges, first and last of each, to volumes of the agent with this work directory. None when
    /// there are no ranges.
    pub fn new(ranges: Vec<(u32, u32)>, work_dir: &Path) -> Option<Self> {
        (!ranges.is_empty()).then_some(Self {
            ranges,
            work_dir: work_dir.to_owned(),
            file: work_dir.join(FILE),
        })
    }

    /// The group of the volume at this directory, which is made and given to the group.
    ///
    /// # Errors
    ///
    /// When all groups are in use, the place cannot be had, or the group cannot be written down.
    pub fn share(&self, place: &Place) -> Result<u32, GidError> {
        let path = place.base.join(&place.below);
        let directory = self.open(place, &path)?;
        let gid = self.allocate(&path)?;
        let about = directory.metadata().map_err(failed("look at", &path))?;
        // The other way round the kernel would take the bit away.
        fchown(&directory, None, Some(Gid::from_raw(gid)))
            .map_err(failed("change the group of", &path))?;
        let mode = Mode::from_bits_truncate(about.mode() & 0o7777 | SHARED);
        fchmod(&directory, mode).map_err(failed("change the mode of", &path))?;
        Ok(gid)
    }

    /// Takes the groups back that were given to what lies in this sandbox: its container is over. What is left of it
    /// belongs to its owners' own groups then.
    ///
    /// # Errors
    ///
    /// When what was given cannot be read or written.
    pub fn release(&self, sandbox: &Path) -> Result<(), GidError> {
        self.release_where(|volume| volume.starts_with(sandbox))
    }

    /// The same for all sandboxes of the agent but these.
    ///
    /// # Errors
    ///
    /// As [`Self::release`].
    pub fn release_all_but(&self, sandboxes: &[&Path]) -> Result<(), GidError> {
        let places = SANDBOXES.map(|place| self.work_dir.join(place));
        self.release_where(|volume| {
            places.iter().any(|place| volume.starts_with(place))
                && !sandboxes.iter().any(|sandbox| volume.starts_with(sandbox))
        })
    }

    fn release_where(&self, is_over: impl Fn(&Path) -> bool) -> Result<(), GidError> {
        let _alone = self.lock()?;
        let mut given = self.read()?;
        let over: Vec<PathBuf> = given.keys().filter(|path| is_over(path)).cloned().collect();
        if over.is_empty() {
            return Ok(());
        }
        for volume in over {
            let gid = given.remove(&volume).expect("one of its keys");
            // What leads to the work directory may be a link.
            let base = match volume.starts_with(&self.work_dir) {
                true => &*self.work_dir,
                false => Path::new("/"),
            };
            let place = Place {
                base: base.into(),
                below: volume.strip_prefix(base).unwrap_or(&volume).into(),
            };
            // Its user may have removed it, or put something else there.
            if let Ok(directory) = place.existing() {
                give_back(&File::from(directory), gid)
                    .map_err(failed("change the group of what is in", &volume))?;
            }
        }
        self.write(&given)
    }

    fn open(&self, place: &Place, path: &Path) -> Result<File, GidError> {
        if place.below.as_os_str().is_empty() {
            let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let opened = open(path, flags, Mode::empty());
            return opened.map(File::from).map_err(failed("open", path));
        }
        let (opened, made) = place.directory().map_err(failed("open", path))?;
        let directory = File::from(opened);
        if made {
            // As the sandbox around it.
            let around = fs::metadata(&place.base).map_err(failed("look at", &place.base))?;
            fchown(&directory, Some(Uid::from_raw(around.uid())), None)
                .map_err(failed("change the owner of", path))?;
        }
        Ok(directory)
    }

    fn allocate(&self, volume: &Path) -> Result<u32, GidError> {
        if volume.as_os_str().as_bytes().contains(&b'\n') {
            return Err(GidError::Path(volume.to_owned()));
        }
        let _alone = self.lock()?;
        let mut given = self.read()?;
        if let Some(gid) = given.get(volume) {
            return Ok(*gid);
        }
        let free = |given: &BTreeMap<PathBuf, u32>| {
            let mut all = self.ranges.iter().flat_map(|(first, last)| *first..=*last);
            let used: std::collections::BTreeSet<u32> = given.values().copied().collect();
            all.find(|gid| !used.contains(gid))
        };
        let found = free(&given).or_else(|| {
            given.retain(|volume, _| volume.exists());
            free(&given)
        });
        let total = self.ranges.iter();
        let total = total.map(|(first, last)| u64::from(last - first) + 1).sum();
        let gid = found.ok_or(GidError::Exhausted(total))?;
        given.insert(volume.to_owned(), gid);
        self.write(&given)?;
        Ok(gid)
    }

    /// Other isolators of the agent open the same file.
    fn lock(&self) -> Result<Flock<File>, GidError> {
        let directory = self.file.parent().unwrap_or(&self.file);
        fs::create_dir_all(directory).map_err(failed("make", directory))?;
        let opened = File::open(directory).map_err(failed("open", directory))?;
        Flock::lock(opened, FlockArg::LockExclusive)
            .map_err(|(_, error)| failed("lock", directory)(error))
    }

    fn read(&self) -> Result<BTreeMap<PathBuf, u32>, GidError> {
        let text = match fs::read(&self.file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            read => read.map_err(failed("read", &self.file))?,
        };
        let damaged = |line| GidError::Damaged {
            file: self.file.clone(),
            line,
        };
        let mut lines = text.split(|byte| *byte == b'\n');
        if lines.next() != Some(VERSION.as_bytes()) {
            return Err(damaged(1));
        }
        let mut given = BTreeMap::new();
        for (number, line) in lines.enumerate().filter(|(_, line)| !line.is_empty()) {
            let space = line.iter().position(|byte| *byte == b' ');
            let (gid, path) = line.split_at(space.ok_or_else(|| damaged(number + 2))?);
            let gid = std::str::from_utf8(gid)
                .ok()
                .and_then(|gid| gid.parse().ok());
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&path[1..]));
            given.insert(path, gid.ok_or_else(|| damaged(number + 2))?);
        }
        Ok(given)
    }

    fn write(&self, given: &BTreeMap<PathBuf, u32>) -> Result<(), GidError> {
        let mut text = format!("{VERSION}\n").into_bytes();
        for (path, gid) in given {
            text.extend(format!("{gid} ").into_bytes());
            text.extend(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        let new = self.file.with_extension("new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &self.file)
        });
        written.map_err(|error| {
            // It may not have been made.
            let _ = fs::remove_file(&new);
            failed("write", &self.file)(error)
        })
    }
}

/// Gives a directory, and all below it that belongs to this group, to the first group of its owner. Nothing is followed.
fn give_back(directory: &File, gid: u32) -> io::Result<()> {
    let own = |uid: u32| -> nix::Result<Gid> {
        let user = User::from_uid(Uid::from_raw(uid))?;
        Ok(user.map_or(Gid::from_raw(0), |user| user.gid))
    };
    let mut waiting = vec![directory.try_clone()?];
    while let Some(directory) = waiting.pop() {
        let about = directory.metadata()?;
        if about.gid() == gid {
            fchown(&directory, None, Some(own(about.uid())?))?;
            let mode = Mode::from_bits_truncate(about.mode() & 0o7777 & !SET_GID);
            fchmod(&directory, mode)?;
        }
        let mut entries = Dir::from_fd(directory.try_clone()?.into())?;
        for entry in entries.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let found = fstatat(&directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR {
                let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                waiting.push(openat(&directory, name, flags, Mode::empty())?.into());
            } else if found.st_gid == gid {
                let group = Some(own(found.st_uid)?);
                fchownat(&directory, name, None, group, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_keeps_its_group_and_gives_it_back_when_it_is_gone() {
        let at = tempfile::tempdir().unwrap();
        let own = nix::unistd::getegid().as_raw();
        let gids = || VolumeGids::new(vec![(own, own)], at.path()).unwrap();
        let place = |below: &str| Place {
            base: at.path().into(),
            below: Path::new(below).into(),
        };
        assert!(VolumeGids::new(Vec::new(), at.path()).is_none());
        assert_eq!(gids().share(&place("sandbox/a")).unwrap(), own);
        let about = fs::metadata(at.path().join("sandbox/a")).unwrap();
        assert_eq!((about.mode() & 0o2070, about.gid()), (0o2070, own));
        // Also for who comes later, and for no other volume.
        assert_eq!(gids().share(&place("sandbox/a")).unwrap(), own);
        let exhausted = gids().share(&place("sandbox/b")).unwrap_err();
        assert_eq!(
            exhausted.to_string(),
            "all 1 groups of --volume_gid_range are in use by other volumes"
        );
        fs::remove_dir(at.path().join("sandbox/a")).unwrap();
        assert_eq!(gids().share(&place("sandbox/b")).unwrap(), own);
        // What is in sandboxes of containers that are over is given back; other volumes keep theirs.
        let gone = at.path().join("slaves/gone");
        gids().release_all_but(&[&gone]).unwrap();
        assert!(gids().share(&place("slaves/gone/x")).is_err());
        gids().release(&at.path().join("sandbox")).unwrap();
        let about = fs::metadata(at.path().join("sandbox/b")).unwrap();
        assert_eq!(about.mode() & 0o2000, 0);
        assert_eq!(gids().share(&place("slaves/gone/x")).unwrap(), own);
        gids().release_all_but(&[&gone]).unwrap();
        assert!(gids().share(&place("slaves/on/x")).is_err());
        gids().release_all_but(&[]).unwrap();
        assert_eq!(gids().share(&place("slaves/on/x")).unwrap(), own);
        std::os::unix::fs::symlink("/", at.path().join("sandbox/c")).unwrap();
        assert!(matches!(
            gids().share(&place("sandbox/c")),
            Err(GidError::Io { .. })
        ));
        fs::write(at.path().join(FILE), "1\nx y\n").unwrap();
        assert!(matches!(
            gids().share(&place("sandbox/b")),
            Err(GidError::Damaged { line: 2, .. })
        ));
    }
}
