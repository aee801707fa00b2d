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
        self.reworded(|said| format!("{what}: {said}"))
    }

    /// The same, with what else failed behind it.
    #[must_use]
    pub(crate) fn behind(self, what: &str) -> Self {
        self.reworded(|said| format!("{said}; {what}"))
    }

    fn reworded(self, with: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Refused(said) => Self::Refused(with(said)),
            Self::Missing(said) => Self::Missing(with(said)),
            Self::Unavailable(said) => Self::Unavailable(with(said)),
            Self::Disk(said) => Self::Disk(with(said)),
        }
    }
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Says what was tried on which path.
pub(crate) fn on_disk(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::Disk(format!("failed to {what} '{}': {error}", path.display()))
}
