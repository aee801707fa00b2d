//! What a leader must not forget: the cluster's id, the epoch of its leadership, and one entry for
//! each admitted agent, quota, weight and so on.
//!
//! The store is embedded (redb), in one file of the master's work directory; only one process has it
//! open. Values are `tepui.disk` messages, opaque here. Invariants:
//! - a batch is stored wholly or not at all, and is on the disk when [`Registry::store`] returns;
//! - a batch of an older epoch than the newest begun is refused, so a leader that lost its
//!   leadership cannot write;
//! - one commit is under way; what waits meanwhile goes together into the next one;
//! - after a write failed nothing more is taken: what is on the disk is uncertain, and the leader
//!   must step down.
//!
//! It does not retry and does not interpret entries. Elsewhere an ensemble stores the registry
//! (a registry module); the calls are the same.

#[cfg(test)]
mod crash_tests;
mod store;
mod thread;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use thread::Request;

/// Names of entries.
pub mod key {
    /// An admitted agent.
    pub fn agent(id: &str) -> String {
        format!("agents/{id}")
    }
    /// An agent that stopped answering.
    pub fn unreachable(id: &str) -> String {
        format!("unreachable/{id}")
    }
    /// An agent that is gone for good.
    pub fn gone(id: &str) -> String {
        format!("gone/{id}")
    }
    /// An agent that is deactivated or drained.
    pub fn drain(id: &str) -> String {
        format!("drain/{id}")
    }
    /// A role's quota.
    pub fn quota(role: &str) -> String {
        format!("quota/{role}")
    }
    /// A role's weight.
    pub fn weight(role: &str) -> String {
        format!("weights/{role}")
    }
}

/// Why the registry did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// Another process, or another handle of this one, has the file open.
    #[error(
        "registry '{}' is in use by another process; is a master running with the same work directory?",
        path.display()
    )]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is not a registry, or is damaged.
    #[error(
        "registry '{}' is damaged or not a registry ({reason}); restore it from a backup, or move it away to start a new cluster",
        path.display()
    )]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// What the store found.
        reason: String,
    },
    /// A newer release wrote the file.
    #[error("registry '{}' has format {found}; this release reads up to format {known}", path.display())]
    TooNew {
        /// The store's file.
        path: PathBuf,
        /// Format of the file.
        found: u64,
        /// Newest format that this release reads.
        known: u64,
    },
    /// The file could not be made, read or written.
    #[error("registry '{}' cannot be used: {reason}", path.display())]
    Storage {
        /// The store's file.
        path: PathBuf,
        /// What the system or the store said.
        reason: String,
    },
    /// A newer epoch has begun: somebody else leads.
    #[error("epoch {epoch} is over, epoch {newest} has begun")]
    Fenced {
        /// Epoch of the refused batch.
        epoch: u64,
        /// Newest epoch.
        newest: u64,
    },
    /// An earlier write failed, or the registry was closed.
    #[error("the registry takes no more requests: {reason}")]
    Stopped {
        /// The failure that ended it.
        reason: String,
    },
}

/// Everything in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Id of the cluster, made when the registry was.
    pub cluster_id: String,
    /// Newest epoch that began; 0 when none has.
    pub epoch: u64,
    /// Entries sorted by key.
    pub entries: Vec<(String, Bytes)>,
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets an entry.
    Put {
        /// The entry's key.
        key: String,
        /// Its value.
        value: Bytes,
    },
    /// Removes an entry; it need not exist.
    Delete {
        /// The entry's key.
        key: String,
    },
}

/// A handle of the embedded registry. Clones share its thread; the file is closed when the last is
/// dropped, or by [`Registry::close`].
#[derive(Clone, Debug)]
pub struct Registry {
    requests: mpsc::Sender<Request>,
    path: Arc<PathBuf>,
}

/// Requests that may wait for the commit under way; callers wait beyond that.
const WAITING: usize = 1024;

impl Registry {
    /// Opens the registry in the file at `path`; makes it, with a new cluster id, if there is none.
    /// Blocks while the store repairs itself after a crash (seconds at most).
    ///
    /// # Errors
    /// A file that is in use, damaged, or not to be read or made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, RegistryError> {
        let path = Arc::new(path.as_ref().to_path_buf());
        let requests = thread::start(Arc::clone(&path), WAITING)?;
        Ok(Self { requests, path })
    }

    /// Where the registry is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads everything.
    ///
    /// # Errors
    /// A damaged file, or a stopped registry.
    pub async fn load(&self) -> Result<Snapshot, RegistryError> {
        self.ask(Request::Load).await
    }

    /// Begins a new epoch, which ends all earlier ones. A new leader does this before anything else.
    ///
    /// # Errors
    /// A failed write, or a stopped registry.
    pub async fn begin_epoch(&self) -> Result<u64, RegistryError> {
        self.ask(Request::BeginEpoch).await
    }

    /// Stores all of `ops`, or nothing; returns when they are on the disk.
    ///
    /// When the returned future is dropped the batch is stored all the same, or not: the caller
    /// does not know.
    ///
    /// # Errors
    /// `Fenced` when `epoch` is over; a failed write, after which the registry takes no more.
    pub async fn store(&self, epoch: u64, ops: Vec<Op>) -> Result<(), RegistryError> {
        self.ask(|reply| Request::Store { epoch, ops, reply }).await
    }

    /// Closes the file when the requests before this one are done; later requests are refused.
    pub async fn close(self) {
        // An error says that it is closed already.
        let _ = self.ask(Request::Close).await;
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, RegistryError>>) -> Request,
    ) -> Result<T, RegistryError> {
        let closed = || RegistryError::Stopped {
            reason: "it is closed".to_owned(),
        };
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}
