//! Opens a library and checks its layout.

use std::path::{Path, PathBuf};

use abi_stable::library::{
    AbiHeaderRef, LibraryError, ROOT_MODULE_LOADER_NAME, ROOT_MODULE_LOADER_NAME_WITH_NUL,
};

use crate::tables::RootV1Ref;

/// An open library. It is never unloaded: values of this type are as cheap as a reference.
#[derive(Clone, Copy)]
pub struct Library {
    root: RootV1Ref,
}

impl Library {
    /// A library whose root is linked into this program.
    pub fn linked(root: RootV1Ref) -> Self {
        Self { root }
    }

    /// The library's table.
    pub fn root(&self) -> RootV1Ref {
        self.root
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").finish_non_exhaustive()
    }
}

/// Why a file is not a module library of this host. The text is a few lines; [`OpenError::details`] has the rest.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system's loader refused the file.
    #[error("{}: the system cannot load it: {reason}", path.display())]
    NotLoadable {
        /// The file.
        path: PathBuf,
        /// The loader's own words.
        reason: String,
    },
    /// A shared library, but not of a module.
    #[error("{}: not a module library: it does not export `{}`", path.display(), ROOT_MODULE_LOADER_NAME)]
    NotAModule {
        /// The file.
        path: PathBuf,
    },
    /// The tables are of another abi_stable, version, or layout.
    #[error("{}: its tables are not those of this host: {reason}", path.display())]
    OtherAbi {
        /// The file.
        path: PathBuf,
        /// Expected and found, in one line.
        reason: String,
        /// abi_stable's own report, tens of kilobytes.
        details: String,
    },
}

impl OpenError {
    /// The full report, where there is more than the message.
    pub fn details(&self) -> Option<&str> {
        match self {
            Self::OtherAbi { details, .. } => Some(details),
            Self::NotLoadable { .. } | Self::NotAModule { .. } => None,
        }
    }
}

/// Opens the library in `path`, checks the layout of its tables, and never closes it.
///
/// All symbols are bound now: one that is missing is an error here and not an exit at the first call. Nothing
/// is cached by type, so each file has its own root. Code of the library (constructors, layout functions)
/// runs with the rights of this process before anything was checked: try a library in a child process first.
///
/// The system's loader knows files by name too: a second file under a `path` that was open before (for one,
/// `/proc/self/fd/7`) is not looked at. Every file needs a path of its own.
pub fn open(path: &Path) -> Result<Library, OpenError> {
    let library = open_now(path)?;
    // SAFETY: the symbol of this name is a static of abi_stable's `LibHeader`, which begins with an
    // `AbiHeader`; a reference to it is what `AbiHeaderRef` is. Nothing but the header is read before
    // `upgrade` has compared abi_stable's magic and version.
    let header =
        unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) }
            .map(|symbol| *symbol)
            .map_err(|_| OpenError::NotAModule {
                path: path.to_owned(),
            });
    // Even a library that is refused stays: its constructors may have left threads or callbacks behind.
    std::mem::forget(library);
    let other = |error| other_abi(path, &error);
    let root = header?
        .upgrade()
        .map_err(other)?
        .init_root_module::<RootV1Ref>()
        .map_err(other)?;
    Ok(Library { root })
}

#[cfg(unix)]
fn open_now(path: &Path) -> Result<libloading::Library, OpenError> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: loading runs the library's constructors. The caller chose the file, and the documentation of
    // `open` says what that means.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
        .map(Into::into)
        .map_err(|error| not_loadable(path, &error))
}

#[cfg(not(unix))]
fn open_now(path: &Path) -> Result<libloading::Library, OpenError> {
    // SAFETY: as on Unix. Windows binds all imports when it loads.
    unsafe { libloading::Library::new(path) }.map_err(|error| not_loadable(path, &error))
}

fn not_loadable(path: &Path, error: &libloading::Error) -> OpenError {
    let reason =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    // The loader repeats the path, which the message names already.
    let reason = reason
        .trim_start_matches(&format!("{}: ", path.display()))
        .to_owned();
    OpenError::NotLoadable {
        path: path.to_owned(),
        reason,
    }
}

fn other_abi(path: &Path, error: &LibraryError) -> OpenError {
    let reason = match error {
        LibraryError::IncompatibleVersionNumber { expected_version, actual_version, .. } => {
            format!("expected version {expected_version} of the tables, found {actual_version}")
        }
        LibraryError::InvalidAbiHeader(found) => {
            format!("expected abi_stable 0.11, found {}.{}", found.abi_major, found.abi_minor)
        }
        LibraryError::AbiInstability(_) => {
            "the layout of a table or of a type in it differs; build the library with a released tepui-module-sdk"
                .to_owned()
        }
        LibraryError::RootModule { .. } => "the library's own start-up failed".to_owned(),
        _ => "the library and this host were built for different C interfaces".to_owned(),
    };
    OpenError::OtherAbi {
        path: path.to_owned(),
        reason,
        details: error.to_string(),
    }
}
