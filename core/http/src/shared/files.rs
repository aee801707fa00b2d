//! Virtual files: `/files/{browse,read,download,debug}` and the v1 calls LIST_FILES and READ_FILE.
//!
//! A table maps virtual roots to real files and directories. A path is resolved by its longest
//! attached prefix. What is read must lie below the attached directory after all symbolic links are
//! followed, and what was found so is opened without following any: sandboxes belong to tasks, which may swap a
//! link at any moment.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Group, Uid, User};
use tepui_model::authorization::Action;
use tokio::sync::mpsc;

use crate::Subject;
use crate::authorize::{Authorizer, Denied, Object, require};
use crate::request::Request;
use crate::response::{Body, Response, TEXT};
use crate::router::Router;
use crate::shared::{guarded, parse_number};

/// Most that one read returns: 16 pages.
const READ_LIMIT: u64 = 16 * 4096;

/// Why a file cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// 400.
    #[error("{0}")]
    Invalid(String),
    /// 404.
    #[error("no such file")]
    NotFound,
    /// 500.
    #[error("{0}")]
    Io(String),
}

impl FileError {
    fn io(what: &str, error: &io::Error) -> FileError {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::NotFound,
            _ => FileError::Io(format!("Failed to {what}: {error}")),
        }
    }

    /// The v0 answer.
    pub fn response(&self) -> Response {
        match self {
            FileError::Invalid(text) => Response::bad_request(format!("{text}.\n")),
            FileError::NotFound => {
                Response::empty(StatusCode::NOT_FOUND).header(CONTENT_TYPE, TEXT)
            }
            FileError::Io(text) => {
                Response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}.\n"))
            }
        }
    }
}

/// One entry of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct FileInfo {
    /// Virtual path.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Links.
    pub nlink: u64,
    /// Time of the last change, whole seconds since 1970.
    pub mtime: Duration,
    /// Type and permission bits.
    pub mode: u32,
    /// Owner's name, or number where it has none.
    pub uid: String,
    /// Group's name, or number where it has none.
    pub gid: String,
}

/// The table of virtual roots. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Files {
    roots: Arc<RwLock<BTreeMap<String, Root>>>,
}

/// What a virtual root shows, and to whom.
#[derive(Debug, Clone)]
struct Root {
    real: PathBuf,
    guard: Option<Arc<Guard>>,
}

/// What somebody must be allowed to do who wants to see a root and what is below it.
#[derive(Debug, Clone)]
pub struct Guard {
    /// ACCESS_SANDBOX, ACCESS_MESOS_LOG.
    pub action: Action,
    /// Whose it is.
    pub object: Object,
}

/// A path that was found: what it is really, and what it must stay below.
struct Resolved {
    real: PathBuf,
    base: PathBuf,
}

impl Files {
    /// Shows the file or directory `real` as `root`, in place of what was there, to everybody.
    pub fn attach(&self, root: &str, real: impl Into<PathBuf>) {
        self.show(root, real.into(), None);
    }

    /// The same to those who are authorized.
    pub fn attach_guarded(&self, root: &str, real: impl Into<PathBuf>, guard: Arc<Guard>) {
        self.show(root, real.into(), Some(guard));
    }

    fn show(&self, root: &str, real: PathBuf, guard: Option<Arc<Guard>>) {
        let root = format!("/{}", root.trim_matches('/'));
        self.roots
            .write()
            .expect("no panic happens under this lock")
            .insert(root, Root { real, guard });
    }

    /// Whether somebody may see a path. Everybody may see what is not there, and be told so.
    pub async fn permit(
        &self,
        authorizer: &dyn Authorizer,
        subject: Option<&Subject>,
        path: &str,
    ) -> Result<(), Denied> {
        let guard = {
            let clean = parts(path);
            let roots = self.roots.read().expect("no panic happens under this lock");
            longest(&roots, &clean).and_then(|(root, _)| root.guard.clone())
        };
        match guard {
            Some(guard) => require(authorizer, subject, guard.action, &guard.object).await,
            None => Ok(()),
        }
    }

    /// Ends every [`Files::attach`] of what lies in a directory, or is it.
    pub fn detach_below(&self, real: &Path) {
        self.roots
            .write()
            .expect("no panic happens under this lock")
            .retain(|_, root| !root.real.starts_with(real));
    }

    /// Real path of a virtual one, by its longest attached prefix.
    fn resolve(&self, path: &str) -> Result<Resolved, FileError> {
        let clean = parts(path);
        let roots = self.roots.read().expect("no panic happens under this lock");
        let (root, rest) = longest(&roots, &clean).ok_or(FileError::NotFound)?;
        let base = root
            .real
            .canonicalize()
            .map_err(|error| FileError::io("resolve path", &error))?;
        if !rest.is_empty() && !base.is_dir() {
            return Err(FileError::Invalid(
                "Resolved path is not a directory".to_owned(),
            ));
        }
        // Joining nothing would add a slash, which no file bears.
        let real = if rest.is_empty() {
            Ok(base.clone())
        } else {
            base.join(rest.join("/")).canonicalize()
        };
        let real = real.map_err(|error| FileError::io("resolve path", &error))?;
        Resolved { real, base }.inside()
    }

    /// Entries of a directory, sorted by path.
    pub fn browse(&self, path: &str) -> Result<Vec<FileInfo>, FileError> {
        let resolved = self.resolve(path)?;
        let failed = |error: &io::Error| FileError::io("list directory", error);
        let directory = match resolved.open(OFlag::O_DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(Vec::new()),
            opened => opened.map_err(|error| failed(&error))?,
        };
        let mut names = BTreeMap::new();
        let mut found = Vec::new();
        for entry in fs::read_dir(itself(&directory)).map_err(|error| failed(&error))? {
            let entry = entry.map_err(|error| failed(&error))?;
            // An entry that vanishes between the two calls is simply not there.
            let Ok(about) = entry.metadata() else {
                continue;
            };
            let name = entry.file_name().to_string_lossy().into_owned();
            found.push(info(
                format!("{}/{name}", path.trim_end_matches('/')),
                &about,
                &mut names,
            ));
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Part of a file: its size, and at most 16 pages from `offset` on. Without an offset only the size.
    pub fn read(
        &self,
        path: &str,
        offset: Option<u64>,
        length: Option<u64>,
    ) -> Result<(u64, Bytes), FileError> {
        let file = self.open(path, "read")?;
        let size = file
            .metadata()
            .map_err(|error| FileError::io("stat file", &error))?
            .len();
        let offset = offset.unwrap_or(size);
        let wanted = length
            .unwrap_or(READ_LIMIT)
            .min(READ_LIMIT)
            .min(size.saturating_sub(offset));
        let mut data = vec![0; wanted as usize];
        let mut got = 0;
        while got < data.len() {
            match file.read_at(&mut data[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::io("read file", &error)),
            }
        }
        data.truncate(got);
        Ok((size, data.into()))
    }

    /// Opens a regular file below its root.
    fn open(&self, path: &str, what: &str) -> Result<File, FileError> {
        let failed = |error: &io::Error| FileError::io("open file", error);
        // Nothing is opened for reading before it is known what it is: a device may do something at that.
        let found = self
            .resolve(path)?
            .open(OFlag::O_PATH)
            .map_err(|error| failed(&error))?;
        let about = found
            .metadata()
            .map_err(|error| FileError::io("stat file", &error))?;
        if about.is_dir() {
            return Err(FileError::Invalid(format!("Cannot {what} a directory")));
        }
        if !about.is_file() {
            return Err(FileError::Invalid(format!(
                "Cannot {what} what is not a regular file"
            )));
        }
        File::open(itself(&found)).map_err(|error| failed(&error))
    }

    pub(crate) fn register(&self, router: &mut Router, authorizer: &Arc<dyn Authorizer>) {
        type Answer = fn(&Files, &Request) -> Result<Response, FileError>;
        let routes: [(&str, Answer); 3] = [
            ("/files/browse", browse),
            ("/files/read", read),
            ("/files/download", download),
        ];
        for (path, answer) in routes {
            let (files, authorizer) = (self.clone(), Arc::clone(authorizer));
            router.route(path, move |request: Request| {
                let (files, authorizer) = (files.clone(), Arc::clone(&authorizer));
                async move {
                    let path = request.query.get("path").unwrap_or_default();
                    let subject = request.subject.as_ref();
                    if let Err(denied) = files.permit(&*authorizer, subject, path).await {
                        return denied.into();
                    }
                    let work =
                        move || answer(&files, &request).unwrap_or_else(|error| error.response());
                    tokio::task::spawn_blocking(work)
                        .await
                        .expect("file access does not panic")
                }
            });
        }
        let files = self.clone();
        guarded(
            router,
            authorizer,
            "/files/debug",
            "/files/debug",
            move |request: Request| {
                let answer = debug(&files, &request).unwrap_or_else(|error| error.response());
                async move { answer }
            },
        );
    }
}

/// An open file or directory, as a path.
fn itself(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}

/// The longest attached prefix of a path, and what follows it.
fn longest<'a, 'p>(
    roots: &'a BTreeMap<String, Root>,
    clean: &'p [&'p str],
) -> Option<(&'a Root, &'p [&'p str])> {
    (1..=clean.len()).rev().find_map(|length| {
        let root = roots.get(&format!("/{}", clean[..length].join("/")))?;
        Some((root, &clean[length..]))
    })
}

impl Resolved {
    fn inside(self) -> Result<Resolved, FileError> {
        if self.real.starts_with(&self.base) {
            return Ok(self);
        }
        Err(FileError::Invalid(
            "Resolved path is inaccessible".to_owned(),
        ))
    }

    /// Opens what was found, unless it is behind a link by now.
    fn open(&self, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_CLOEXEC;
        let inside = self.real.strip_prefix(&self.base).unwrap_or(&self.real);
        if inside.as_os_str().is_empty() {
            return Ok(open(&self.base, flags | OFlag::O_NOFOLLOW, Mode::empty())?.into());
        }
        let base = open(&self.base, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        Ok(openat2(base, inside, how)?.into())
    }
}

/// Owner and group names are looked up once for each listing.
fn info(path: String, about: &fs::Metadata, names: &mut BTreeMap<(bool, u32), String>) -> FileInfo {
    let (uid, gid) = (about.uid(), about.gid());
    let user =
        names
            .entry((true, uid))
            .or_insert_with(|| match User::from_uid(Uid::from_raw(uid)) {
                Ok(Some(user)) => user.name,
                _ => uid.to_string(),
            });
    let user = user.clone();
    let group =
        names
            .entry((false, gid))
            .or_insert_with(|| match Group::from_gid(Gid::from_raw(gid)) {
                Ok(Some(group)) => group.name,
                _ => gid.to_string(),
            });
    let changed = about
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    FileInfo {
        path,
        size: about.size(),
        nlink: about.nlink(),
        mtime: Duration::from_secs(changed.as_secs()),
        mode: about.mode(),
        uid: user,
        gid: group.clone(),
    }
}

/// `drwxr-xr-x`, as `ls` and Mesos write it.
fn mode_text(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let bit = |shift: u32| {
        if mode & (1 << shift) == 0 {
            '-'
        } else {
            ['x', 'w', 'r'][(shift % 3) as usize]
        }
    };
    std::iter::once(kind).chain((0..9).rev().map(bit)).collect()
}

fn path_of(request: &Request) -> Result<&str, FileError> {
    let path = request.query.get("path").filter(|path| !path.is_empty());
    path.ok_or_else(|| FileError::Invalid("Expecting 'path=value' in query".to_owned()))
}

fn browse(files: &Files, request: &Request) -> Result<Response, FileError> {
    let listed = files.browse(path_of(request)?)?;
    let entry = |file: &FileInfo| {
        serde_json::json!({
            "gid": file.gid,
            "mode": mode_text(file.mode),
            "mtime": file.mtime.as_secs() as f64,
            "nlink": file.nlink,
            "path": file.path,
            "size": file.size,
            "uid": file.uid,
        })
    };
    let body = serde_json::Value::from(listed.iter().map(entry).collect::<Vec<_>>());
    Ok(Response::jsonp(request, vec![body.to_string().into()]))
}

/// A number of the query; -1 and its absence mean "not said".
fn number(request: &Request, name: &str) -> Result<Option<u64>, FileError> {
    let Some(text) = request.query.get(name) else {
        return Ok(None);
    };
    let failed = |error| FileError::Invalid(format!("Failed to parse {name}: {error}"));
    match parse_number::<i64>(text).map_err(failed)? {
        -1 => Ok(None),
        number => u64::try_from(number)
            .map(Some)
            .map_err(|_| FileError::Invalid(format!("Negative {name} provided: {number}"))),
    }
}

fn read(files: &Files, request: &Request) -> Result<Response, FileError> {
    let path = path_of(request)?;
    let offset = number(request, "offset")?;
    let length = number(request, "length")?;
    let (size, data) = files.read(path, offset, length)?;
    let body = serde_json::json!({
        "data": String::from_utf8_lossy(&data),
        "offset": offset.unwrap_or(size),
    });
    Ok(Response::jsonp(request, vec![body.to_string().into()]))
}

fn download(files: &Files, request: &Request) -> Result<Response, FileError> {
    let path = path_of(request)?;
    let file = match files.open(path, "download") {
        Err(FileError::NotFound) => return Ok(Response::not_found()),
        opened => opened?,
    };
    let name = Path::new(path)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let size = file
        .metadata()
        .map_err(|error| FileError::io("stat file", &error))?
        .len();
    let response = Response {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: send(file, size),
    };
    let disposition = format!("attachment; filename={name}");
    Ok(response
        .header(CONTENT_DISPOSITION, &disposition)
        .header(CONTENT_TYPE, content_type(&name)))
}

/// Reads a file as fast as the client takes it. What is appended meanwhile is not sent.
fn send(file: File, size: u64) -> Body {
    let (sender, pieces) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let mut at = 0;
        while at < size {
            let mut piece = vec![0; (size - at).min(64 * 1024) as usize];
            let Ok(got @ 1..) = file.read_at(&mut piece, at) else {
                return;
            };
            piece.truncate(got);
            at += got as u64;
            if sender.blocking_send(piece.into()).is_err() {
                return;
            }
        }
    });
    Body::Sized(pieces, size)
}

fn debug(files: &Files, request: &Request) -> Result<Response, FileError> {
    let roots = files
        .roots
        .read()
        .expect("no panic happens under this lock");
    let shown = roots.iter().map(|(name, root)| (name, &root.real));
    let shown: BTreeMap<&String, &PathBuf> = shown.collect();
    let body = serde_json::to_vec(&shown).map_err(|error| FileError::Io(error.to_string()))?;
    Ok(Response::jsonp(request, vec![body.into()]))
}

/// Type of a download by its extension.
fn content_type(name: &str) -> &'static str {
    match Path::new(name)
        .extension()
        .and_then(|extension| extension.to_str())
    {
        Some("css") => "text/css",
        Some("csv") => "text/csv",
        Some("gif") => "image/gif",
        Some("gz" | "tgz") => "application/gzip",
        Some("htm" | "html") => "text/html",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("js") => "application/javascript",
        Some("json") => "application/json",
        Some("log" | "txt") => "text/plain",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("tar") => "application/x-tar",
        Some("xml") => "application/xml",
        Some("zip") => "application/zip",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_swapped_for_a_link_after_it_was_found_is_not_opened() {
        let at = tempfile::tempdir().expect("a directory");
        let base = at.path().canonicalize().expect("a path").join("sandbox");
        fs::create_dir_all(base.join("dir")).expect("a directory");
        fs::write(base.join("dir/file"), "own").expect("a file");
        fs::write(at.path().join("file"), "other").expect("a file");
        let files = Files::default();
        files.attach("/s", &base);
        let found = files.resolve("/s/dir/file").expect("it is there");
        assert!(found.open(OFlag::O_RDONLY).is_ok());
        fs::rename(base.join("dir"), base.join("away")).expect("own");
        std::os::unix::fs::symlink(at.path(), base.join("dir")).expect("a link");
        assert!(found.open(OFlag::O_RDONLY).is_err());
        assert!(files.open("/s/dir/file", "read").is_err());
        // Links that stay inside are followed, as ever.
        fs::remove_file(base.join("dir")).expect("own");
        std::os::unix::fs::symlink("away", base.join("dir")).expect("a link");
        assert_eq!(
            files
                .read("/s/dir/file", Some(0), None)
                .map(|(size, _)| size),
            Ok(3)
        );
    }
}
