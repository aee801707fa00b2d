//! Makes a private copy of a library's file and verifies the copy: what is loaded is exactly what was
//! checked, and a large file passes through little memory.
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
use tempfile::NamedTempFile;
use tepui_module_abi::ABI_VERSION;

use crate::error::LoadError;
use crate::note::{self, FileNote, NoNote};

/// Bytes that are copied at once.
const COPY_SIZE: usize = 64 << 10;

/// A library that was checked, as a copy that is not in its place yet.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The file it came from.
    pub(crate) file: PathBuf,
    /// Digest of its bytes, in hex.
    pub(crate) sha256: String,
    /// What they say about themselves.
    pub(crate) note: FileNote,
    draft: Draft,
}

/// Opens the file once, copies it to where nobody else can change it (below `runtime_dir`, else into
/// memory of its own), and checks owner, type, digest, note and panic mode of the copy.
pub(crate) fn verify(
    file: &Path,
    pinned: Option<&str>,
    runtime_dir: Option<&Path>,
) -> Result<Verified, LoadError> {
    let failed = |message: String| LoadError::File {
        file: file.into(),
        message,
    };
    let io = |e: std::io::Error| failed(e.to_string());
    let real = file.canonicalize().map_err(io)?;
    // Not blocking: a FIFO in the place of a library must not hang the daemon.
    let open = File::options()
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
    let (draft, sha256) = Draft::of(open, file, runtime_dir)
        .map_err(|e| failed(format!("cannot make a private copy: {e}")))?;
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
    let note = note::read_open(draft.file()).map_err(|no_note| match no_note {
        NoNote::Damaged(message) => failed(message),
        NoNote::Other => failed("not a module library: it has no note (section .tepui)".into()),
    })?;
    agrees(file, &note)?;
    Ok(Verified {
        file: file.into(),
        sha256,
        note,
        draft,
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
    /// Puts what was verified into its place.
    pub(crate) fn make(verified: Verified) -> Result<Self, LoadError> {
        let error = |e: std::io::Error| LoadError::File {
            file: verified.file.clone(),
            message: format!("cannot make a private copy: {e}"),
        };
        match verified.draft {
            Draft::File(file) => in_dir(file, &verified.sha256).map_err(error),
            Draft::Memory(file) => in_memory(file, &verified.file).map_err(error),
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

/// A copy under way: gone when it is dropped.
#[derive(Debug)]
enum Draft {
    File(NamedTempFile),
    Memory(File),
}

impl Draft {
    /// Copies a file; the digest of what was copied, in hex.
    fn of(
        mut from: File,
        name: &Path,
        runtime_dir: Option<&Path>,
    ) -> std::io::Result<(Self, String)> {
        let dir = runtime_dir.map(|dir| dir.join("modules"));
        let draft = match dir.filter(|dir| make_dir(dir)) {
            Some(dir) => Self::File(NamedTempFile::new_in(dir)?),
            None => {
                let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
                let name = name.file_name().unwrap_or_default();
                Self::Memory(File::from(memfd_create(name, flags)?))
            }
        };
        let mut digest = Sha256::new();
        let mut piece = vec![0; COPY_SIZE];
        loop {
            let read = from.read(&mut piece)?;
            if read == 0 {
                return Ok((draft, hex::encode(digest.finalize())));
            }
            digest.update(&piece[..read]);
            draft.file().write_all(&piece[..read])?;
        }
    }

    fn file(&self) -> &File {
        match self {
            Self::File(file) => file.as_file(),
            Self::Memory(file) => file,
        }
    }
}

fn in_dir(file: NamedTempFile, sha256: &str) -> std::io::Result<PrivateCopy> {
    let name = format!("{sha256}.{}", std::env::consts::DLL_EXTENSION);
    let path = file.path().with_file_name(name);
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o500))?;
    // A rename: whoever has an older copy of the same name loaded keeps it.
    file.persist(&path)?;
    Ok(PrivateCopy { path, memory: None })
}

fn in_memory(file: File, path: &Path) -> std::io::Result<PrivateCopy> {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(PrivateCopy {
        path: path.to_owned(),
        memory: Some(file.into()),
    })
}
