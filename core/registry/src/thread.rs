//! The registry's own thread: takes what waits, stores it together, answers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::store::{Batch, Store};
use crate::{Op, RegistryError, Snapshot};

type Reply<T> = oneshot::Sender<Result<T, RegistryError>>;

pub(crate) enum Request {
    Load(Reply<Snapshot>),
    BeginEpoch(Reply<u64>),
    Store {
        epoch: u64,
        ops: Vec<Op>,
        reply: Reply<()>,
    },
    Close(Reply<()>),
}

/// Changes in one commit; more would keep those behind it waiting.
const MAX_OPS: usize = 20_000;

/// Opens the file and starts the thread that owns it.
pub(crate) fn start(
    path: Arc<PathBuf>,
    waiting: usize,
) -> Result<mpsc::Sender<Request>, RegistryError> {
    let (sender, receiver) = mpsc::channel(waiting);
    let store = guarded(&path, || Store::open(&path))?;
    let owner = Owner {
        store,
        path: Arc::clone(&path),
        requests: receiver,
        held: None,
    };
    std::thread::Builder::new()
        .name("registry".to_owned())
        .spawn(move || owner.run())
        .map_err(|error| RegistryError::Storage {
            path: path.to_path_buf(),
            reason: error.to_string(),
        })?;
    Ok(sender)
}

/// redb panics on some damaged files; that must not end the master without a word.
pub(crate) fn guarded<T>(
    path: &Path,
    work: impl FnOnce() -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "the store panicked".to_owned());
        Err(RegistryError::Damaged {
            path: path.to_path_buf(),
            reason,
        })
    })
}

struct Owner {
    store: Store,
    path: Arc<PathBuf>,
    requests: mpsc::Receiver<Request>,
    /// Taken from the queue while a group was gathered, to be done after it.
    held: Option<Request>,
}

struct Waiting {
    epoch: u64,
    ops: Vec<Op>,
    reply: Reply<()>,
}

impl Owner {
    fn run(mut self) {
        loop {
            let Some(request) = self.held.take().or_else(|| self.requests.blocking_recv()) else {
                return;
            };
            let failure = match request {
                Request::Load(reply) => {
                    let result = guarded(&self.path, || self.store.load());
                    let _ = reply.send(result);
                    None
                }
                Request::BeginEpoch(reply) => {
                    let result = guarded(&self.path, || self.store.begin_epoch());
                    let failure = result.as_ref().err().cloned();
                    let _ = reply.send(result);
                    failure
                }
                Request::Store { epoch, ops, reply } => {
                    let group = self.gather(Waiting { epoch, ops, reply });
                    self.commit(group)
                }
                Request::Close(reply) => return self.close(reply),
            };
            if let Some(failure) = failure {
                return self.refuse_all(&failure);
            }
        }
    }

    /// The group of the next commit: the first batch, and those that wait behind it.
    fn gather(&mut self, first: Waiting) -> Vec<Waiting> {
        let mut ops = first.ops.len();
        let mut group = vec![first];
        while ops < MAX_OPS {
            match self.requests.try_recv() {
                Ok(Request::Store {
                    epoch,
                    ops: more,
                    reply,
                }) => {
                    ops += more.len();
                    group.push(Waiting {
                        epoch,
                        ops: more,
                        reply,
                    });
                }
                Ok(other) => {
                    self.held = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        group
    }

    /// Stores a group and answers its callers. Returns a failure that ends the registry.
    fn commit(&self, group: Vec<Waiting>) -> Option<RegistryError> {
        let batches: Vec<Batch<'_>> = group
            .iter()
            .map(|waiting| Batch {
                epoch: waiting.epoch,
                ops: &waiting.ops,
            })
            .collect();
        match guarded(&self.path, || self.store.store(&batches)) {
            Ok(results) => {
                for (waiting, result) in group.into_iter().zip(results) {
                    // A caller that left has its batch stored all the same.
                    let _ = waiting.reply.send(result);
                }
                None
            }
            Err(failure) => {
                tracing::error!(%failure, "could not write the registry");
                for waiting in group {
                    let _ = waiting.reply.send(Err(failure.clone()));
                }
                Some(failure)
            }
        }
    }

    /// What is on the disk is uncertain: answers everything with the failure until all handles go.
    fn refuse_all(mut self, failure: &RegistryError) {
        let stopped = RegistryError::Stopped {
            reason: failure.to_string(),
        };
        while let Some(request) = self.held.take().or_else(|| self.requests.blocking_recv()) {
            match request {
                Request::Load(reply) => drop(reply.send(Err(stopped.clone()))),
                Request::BeginEpoch(reply) => drop(reply.send(Err(stopped.clone()))),
                Request::Store { reply, .. } => drop(reply.send(Err(stopped.clone()))),
                Request::Close(reply) => return self.close(reply),
            }
        }
    }

    /// The file is closed before the answer, so that the caller may open it again.
    fn close(self, reply: Reply<()>) {
        let Self {
            store, requests, ..
        } = self;
        drop(requests);
        drop(store);
        let _ = reply.send(Ok(()));
    }
}
