//! Verifies a library's file and makes a private copy of exactly the bytes that were checked.
//!
//! The rule about owners is one sentence: nobody may write the library or its folder who could not
//! also write the daemon's executable; the daemon's own user may, since the daemon is in its hands.

use std::fs::{File, Metadata};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::memfd::{MFdFlags, memfd_create};
use sha2::{Digest, Sha256};
use tepui_module_abi::ABI_VERSION;

use crate::error::LoadError;
use crate::note::{self, FileNote, NoNote};

/// The bytes of a library, checked.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The file they came from.
    pub(crate) file: PathBuf,
    /// Their digest, in hex.
    pub(crate) sha256: String,
    /// What they say about themselves.
    pub(crate) note: FileNote,
    bytes: Vec<u8>,
}

/// Opens the file once, and checks owner, type, digest, note and panic mode.
pub(crate) fn verify(file: &Path, pinned: Option<&str>) -> Result<Verified, LoadError> {
    let io = |e: std::io::Error| LoadError::File {
        file: file.into(),
        message: e.to_string(),
    };
    let real = file.canonicalize().map_err(io)?;
    // Not blocking: a FIFO in the place of a library must not hang the daemon.
    let mut open = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(&real)
        .map_err(io)?;
    let metadata = open.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(refuse(
            file,
            "not a regular file",
            "a shared library",
            "something else",
            "check the path",
        ));
    }
    owners(file, &real, &metadata)?;
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    open.read_to_end(&mut bytes).map_err(io)?;
    let sha256 = hex::encode(Sha256::digest(&bytes));
    if let Some(pinned) = pinned.filter(|pinned| *pinned != sha256) {
        let advice = "the file was changed; check where it came from, then change sha256 in [load]";
        return Err(refuse(
            file,
            "the digest is not the configured one",
            pinned,
            &sha256,
            advice,
        ));
    }
    let note = match note::read(bytes.as_slice()) {
        Ok(note) => note,
        Err(NoNote::Damaged(message)) => {
            return Err(LoadError::File {
                file: file.into(),
                message,
            });
        }
        Err(NoNote::Other) => {
            let message = "not a module library: it has no note (section .tepui)".into();
            return Err(LoadError::File {
                file: file.into(),
                message,
            });
        }
    };
    agrees(file, &note)?;
    Ok(Verified {
        file: file.into(),
        sha256,
        note,
        bytes,
    })
}

/// What the note says must fit this host.
fn agrees(file: &Path, note: &FileNote) -> Result<(), LoadError> {
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_string();
    if major(&note.note.abi) != major(ABI_VERSION) {
        let advice = "build the module with an SDK of this host's major version";
        return Err(refuse(
            file,
            "another version of the module ABI",
            ABI_VERSION,
            &note.note.abi,
            advice,
        ));
    }
    let aborts = match note.note.panic.as_str() {
        "abort" => Some("panic = \"abort\" in its note"),
        "unwind" if !note.unwinds => {
            Some("no import of the unwinder, as in a build with panic = \"abort\"")
        }
        _ => None,
    };
    match aborts {
        Some(found) => {
            let advice = "build it with panic = \"unwind\": any panic in it would end the daemon";
            Err(refuse(
                file,
                "a panic in it would not stay in it",
                "a build that unwinds",
                found,
                advice,
            ))
        }
        None => Ok(()),
    }
}

fn refuse(
    file: &Path,
    problem: &'static str,
    expected: &str,
    found: &str,
    advice: &'static str,
) -> LoadError {
    let (expected, found) = (expected.into(), found.into());
    LoadError::Refused {
        file: file.into(),
        problem,
        expected,
        found,
        advice,
    }
}

/// Who may write a file: its owner always (who could change the mode), others by the mode.
struct Writers {
    owner: u32,
    group: Option<u32>,
    anyone: bool,
}

impl Writers {
    fn of(metadata: &Metadata) -> Self {
        let mode = metadata.mode();
        // In a sticky directory others can add files, but neither rename nor remove this one.
        let sticky = metadata.is_dir() && mode & 0o1000 != 0;
        Writers {
            owner: metadata.uid(),
            group: (mode & 0o020 != 0 && !sticky).then(|| metadata.gid()),
            anyone: mode & 0o002 != 0 && !sticky,
        }
    }
}

fn owners(file: &Path, real: &Path, metadata: &Metadata) -> Result<(), LoadError> {
    let own = std::env::current_exe()
        .and_then(|exe| exe.canonicalize())
        .unwrap_or_default();
    let trusted: Vec<Writers> = [Some(own.as_path()), own.parent()]
        .into_iter()
        .flatten()
        .filter_map(|path| path.metadata().ok())
        .map(|m| Writers::of(&m))
        .collect();
    let user = nix::unistd::geteuid().as_raw();
    if trusted.iter().any(|w| w.anyone) {
        return Ok(());
    }
    let owner_is_fine =
        |uid: u32| uid == 0 || uid == user || trusted.iter().any(|w| w.owner == uid);
    let group_is_fine = |gid: u32| gid == 0 || trusted.iter().any(|w| w.group == Some(gid));
    let folder = real
        .parent()
        .and_then(|dir| Some((dir, dir.metadata().ok()?)));
    let folder = folder.as_ref().map(|(dir, metadata)| (*dir, metadata));
    for (path, metadata) in std::iter::once((real, metadata)).chain(folder) {
        let writers = Writers::of(metadata);
        let found = if writers.anyone {
            Some("anyone".to_string())
        } else if let Some(gid) = writers.group.filter(|gid| !group_is_fine(*gid)) {
            Some(format!("group {gid}"))
        } else {
            Some(writers.owner)
                .filter(|uid| !owner_is_fine(*uid))
                .map(|uid| format!("user {uid}"))
        };
        if let Some(who) = found {
            return Err(refuse(
                file,
                "it could be changed by others than the daemon's owners",
                "only those may write it who may write the daemon's executable",
                &format!("{who} may write {}", path.display()),
                "change owner or mode (chown root, chmod go-w)",
            ));
        }
    }
    Ok(())
}

/// A copy that nobody else can change. It lives as long as the daemon: libraries are never unloaded.
#[derive(Debug)]
pub(crate) struct PrivateCopy {
    path: PathBuf,
    /// Keeps a sealed memfd open.
    memory: Option<OwnedFd>,
}

impl PrivateCopy {
    /// A file below the runtime directory; a sealed memfd without one, or where it is mounted noexec.
    pub(crate) fn make(verified: &Verified, runtime_dir: Option<&Path>) -> Result<Self, LoadError> {
        let error = |e: std::io::Error| LoadError::File {
            file: verified.file.clone(),
            message: format!("cannot make a private copy: {e}"),
        };
        let dir = runtime_dir.map(|dir| dir.join("modules"));
        match dir.filter(|dir| make_dir(dir)) {
            Some(dir) => in_dir(&dir, verified).map_err(error),
            None => in_memory(verified).map_err(error),
        }
    }

    /// Where this process opens it.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.memory {
            Some(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            None => self.path.clone(),
        }
    }

    /// Where a child of this process opens it.
    pub(crate) fn path_for_child(&self) -> PathBuf {
        match &self.memory {
            Some(fd) => format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into(),
            None => self.path.clone(),
        }
    }
}

/// Whether there is a directory of our own that may hold programs.
fn make_dir(dir: &Path) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let made = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)));
    made.is_ok() && statvfs(dir).is_ok_and(|fs| !fs.flags().contains(FsFlags::ST_NOEXEC))
}

fn in_dir(dir: &Path, verified: &Verified) -> std::io::Result<PrivateCopy> {
    let path = dir.join(format!(
        "{}.{}",
        verified.sha256,
        std::env::consts::DLL_EXTENSION
    ));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(&verified.bytes)?;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o500))?;
    // A rename: whoever has an older copy of the same name loaded keeps it.
    file.persist(&path)?;
    Ok(PrivateCopy { path, memory: None })
}

fn in_memory(verified: &Verified) -> std::io::Result<PrivateCopy> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let name = verified.file.file_name().unwrap_or_default();
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create(name, flags)?);
    file.write_all(&verified.bytes)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(PrivateCopy {
        path: verified.file.clone(),
        memory: Some(file.into()),
    })
}
