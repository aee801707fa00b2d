//! Errors of the containerizer.

use std::{io, path::PathBuf};

use tepui_model::id::ContainerId;

use crate::Termination;

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such container.
    #[error("container {0} cannot be found")]
    Unknown(ContainerId),
    /// A file or directory of the containerizer.
    #[error("failed to {what} '{path}': {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A record on disk that cannot be understood.
    #[error("the record '{path}' cannot be read: {message}")]
    Record {
        /// Which file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// An isolator failed or did not answer.
    #[error("isolator {name}: {message}")]
    Isolator {
        /// Its name.
        name: String,
        /// What it said.
        message: String,
    },
    /// The logger failed or did not answer.
    #[error("container logger: {0}")]
    Logger(String),
    /// An isolator refused new resources.
    #[error("failed to update container {id}: {message}")]
    Update {
        /// Which container.
        id: ContainerId,
        /// Why.
        message: String,
    },
    /// Too many requests wait for the container.
    #[error("container {0} is busy")]
    Busy(ContainerId),
    /// The container still runs, or is being cleaned up.
    #[error("container {0} is not over")]
    NotOver(ContainerId),
    /// Nothing can be sent to the command.
    #[error("container {0} has no standard input to attach to")]
    NoInput(ContainerId),
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
}

/// A launch that failed. Nothing of it is left but its records.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The id is in use.
    #[error("container {0} is already there")]
    Exists(ContainerId),
    /// The container that it is to be nested in cannot take it.
    #[error("parent container {0} cannot be found, or does not run")]
    Parent(ContainerId),
    /// It asks for what no isolator of this agent gives.
    #[error("{0}")]
    Unmet(String),
    /// The containerizer is shutting down.
    #[error("the launch of container {0} was interrupted")]
    Interrupted(ContainerId),
    /// A step failed, or the container was ended before its command started.
    #[error("{message}")]
    Failed {
        /// What failed, for people.
        message: String,
        /// How it ended.
        termination: Box<Termination>,
    },
}
