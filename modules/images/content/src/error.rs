//! Errors of pulling images.

use std::{io, path::Path};

/// Why an image cannot be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It must not be had: it lies about itself, or would do harm. Trying again does not help.
    #[error("{0}")]
    Refused(String),
    /// It is not there, or the registry does not give it to these credentials.
    #[error("{0}")]
    Missing(String),
    /// What has it does not answer as it should; it may do so later.
    #[error("{0}")]
    Unavailable(String),
    /// This machine's disk.
    #[error("{0}")]
    Disk(String),
}

impl Error {
    /// The same, with what it is about in front.
    #[must_use]
    pub fn about(self, what: &str) -> Self {
        match self {
            Self::Refused(said) => Self::Refused(format!("{what}: {said}")),
            Self::Missing(said) => Self::Missing(format!("{what}: {said}")),
            Self::Unavailable(said) => Self::Unavailable(format!("{what}: {said}")),
            Self::Disk(said) => Self::Disk(format!("{what}: {said}")),
        }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was tried on which path.
pub(crate) fn on_disk(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Disk(format!("failed to {what} '{}': {error}", path.display()))
}
