//! Finds the library of a module by the notes of the files, in the documented order of directories.
//!
//! The first directory that has the name wins; two files in it with one name are an error, because
//! which of them is meant would depend on their file names.

use std::path::{Path, PathBuf};

use crate::config::nearest;
use crate::error::LoadError;
use crate::note::{self, FileNote, NoNote};

/// A library and the module in it.
#[derive(Debug, Clone)]
pub struct Found {
    /// The file.
    pub file: PathBuf,
    /// What it says about itself.
    pub note: FileNote,
    /// The module's own name, of which the asked one may be an alias.
    pub module: String,
    /// Its kinds.
    pub kinds: Vec<String>,
}

/// Where modules are looked for.
#[derive(Debug, Clone, Default)]
pub struct Search {
    dirs: Vec<PathBuf>,
}

impl Search {
    /// The configured directories, then those of the environment, the package and the executable.
    pub fn new(configured: &[PathBuf]) -> Self {
        let mut dirs = configured.to_vec();
        if let Some(list) = std::env::var_os("TEPUI_MODULE_DIRS") {
            dirs.extend(std::env::split_paths(&list).filter(|dir| !dir.as_os_str().is_empty()));
        }
        if let Some(dir) = option_env!("TEPUI_MODULE_DIR") {
            dirs.push(dir.into());
        }
        if let Some(folder) = std::env::current_exe()
            .ok()
            .as_deref()
            .and_then(Path::parent)
        {
            dirs.push(folder.join("../lib/tepui/modules"));
            dirs.extend(cargo_folder(folder));
        }
        Search { dirs }
    }

    /// The directories, first one first.
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// The library that has a module of this name and kind. `file` is the configured one, which may
    /// be a file name only (Mesos' manifests): that is searched for.
    pub fn find(&self, kind: &str, name: &str, file: Option<&Path>) -> Result<Found, LoadError> {
        if let Some(file) = file.filter(|file| file.is_absolute()) {
            let note = read_named(file)?;
            return named(file, note, kind, name);
        }
        let mut known = Vec::new();
        let mut looked = Vec::new();
        for dir in &self.dirs {
            let mut found: Option<Found> = None;
            let listing = list(dir);
            looked.push(describe(dir, &listing));
            for (path, note) in listing.into_iter().flatten() {
                let note = match note {
                    Ok(note) => note,
                    Err(NoNote::Other) => continue,
                    Err(NoNote::Damaged(why)) => {
                        looked.push(format!("{}: {why}", path.display()));
                        continue;
                    }
                };
                if file.is_some_and(|file| path.file_name() != file.file_name()) {
                    continue;
                }
                known.extend(names(&note));
                let matching = note
                    .note
                    .modules
                    .iter()
                    .find(|m| serves(&m.kinds, kind) && m.answers_to(name));
                let Some(module) = matching else { continue };
                if let Some(first) = found {
                    return Err(LoadError::TwoFiles {
                        name: name.into(),
                        dir: dir.clone(),
                        first: first.file,
                        second: path,
                    });
                }
                let (module, kinds) = (module.name.clone(), module.kinds.clone());
                found = Some(Found {
                    file: path,
                    module,
                    kinds,
                    note,
                });
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
        if let Some(file) = file {
            looked.insert(0, format!("for the file {}:", file.display()));
        }
        Err(not_found(kind, name, &known, looked))
    }
}

/// Every module library of a directory with its note, in the order of names; damaged ones included.
pub fn list(dir: &Path) -> std::io::Result<Vec<(PathBuf, Result<FileNote, NoNote>)>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|e| e == std::env::consts::DLL_EXTENSION)
        })
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    Ok(files
        .into_iter()
        .map(|file| {
            let note = note::read_file(&file);
            (file, note)
        })
        .collect())
}

/// The note of a file that was named, so that it has to have one.
pub fn read_named(file: &Path) -> Result<FileNote, LoadError> {
    let error = |message: String| LoadError::File {
        file: file.into(),
        message,
    };
    match note::read_file(file) {
        Ok(note) => Ok(note),
        Err(NoNote::Damaged(why)) => Err(error(why)),
        Err(NoNote::Other) => Err(error(
            "not a module library: it has no note (section .tepui)".into(),
        )),
    }
}

fn named(file: &Path, note: FileNote, kind: &str, name: &str) -> Result<Found, LoadError> {
    let modules = &note.note.modules;
    if let Some(module) = modules
        .iter()
        .find(|m| serves(&m.kinds, kind) && m.answers_to(name))
    {
        let (module, kinds) = (module.name.clone(), module.kinds.clone());
        return Ok(Found {
            file: file.into(),
            module,
            kinds,
            note,
        });
    }
    let known: Vec<_> = names(&note).collect();
    let names: Vec<&str> = modules.iter().map(|m| m.name.as_str()).collect();
    let looked = vec![format!("{} (has {})", file.display(), names.join(", "))];
    Err(not_found(kind, name, &known, looked))
}

/// Every name that the modules of a library answer to, with their kinds.
fn names(note: &FileNote) -> impl Iterator<Item = (String, Vec<String>)> + '_ {
    note.note.modules.iter().flat_map(|module| {
        let names = std::iter::once(&module.name).chain(&module.aliases);
        names.map(|name| (name.clone(), module.kinds.clone()))
    })
}

/// An empty kind stands for any.
fn serves(kinds: &[String], kind: &str) -> bool {
    kind.is_empty() || kinds.iter().any(|k| k == kind)
}

fn describe(
    dir: &Path,
    listing: &std::io::Result<Vec<(PathBuf, Result<FileNote, NoNote>)>>,
) -> String {
    match listing {
        Ok(files) => {
            let count = files.iter().filter(|(_, note)| note.is_ok()).count();
            format!(
                "{} ({count} module {})",
                dir.display(),
                if count == 1 { "library" } else { "libraries" }
            )
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            format!("{} (is not there)", dir.display())
        }
        Err(error) => format!("{} ({error})", dir.display()),
    }
}

fn not_found(
    kind: &str,
    name: &str,
    known: &[(String, Vec<String>)],
    looked: Vec<String>,
) -> LoadError {
    let other_kind = known
        .iter()
        .find(|(n, _)| n == name)
        .map(|(_, kinds)| kinds.join(", "));
    let nearest_is_kind = other_kind.is_some();
    let of_kind = known
        .iter()
        .filter(|(_, kinds)| serves(kinds, kind))
        .map(|(n, _)| n.as_str());
    let nearest = other_kind.or_else(|| nearest(name, of_kind).map(String::from));
    LoadError::NotFound {
        name: name.into(),
        kind: kind.into(),
        nearest,
        nearest_is_kind,
        looked,
    }
}

/// The executable's folder, or its parent, when cargo made it.
fn cargo_folder(folder: &Path) -> Option<PathBuf> {
    let cargo = |dir: &Path| dir.join(".fingerprint").is_dir() && dir.join("deps").is_dir();
    [Some(folder), folder.parent()]
        .into_iter()
        .flatten()
        .find(|dir| cargo(dir))
        .map(Path::to_path_buf)
}
