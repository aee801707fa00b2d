//! The registry behind the owner: what a leader must not forget.
//!
//! Batches are written in the order of the effects; several may be under way at once (the store puts
//! them into one commit). A batch that fails or takes too long ends the leader.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use std::sync::Arc;
use tepui_http::shared::{Metrics, Sample};
use tepui_registry::{Op, Registry};
use tepui_state_master::{Entry, Event, StoreId};
use tokio::sync::mpsc;

use crate::owner::Owner;

/// How long measured reads and writes count.
pub(crate) const WINDOW: Duration = Duration::from_hours(24);

/// What a new leader finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovery {
    /// Id of the cluster.
    pub cluster_id: String,
    /// The epoch that has just begun.
    pub epoch: u64,
    /// All entries.
    pub entries: Vec<(String, Bytes)>,
}

/// Where the registry is kept.
#[async_trait]
pub trait Store: Send + Sync {
    /// Begins a new epoch and reads everything.
    async fn recover(&self) -> Result<Recovery, String>;

    /// Writes a batch, all or nothing; refused when `epoch` is not the newest.
    async fn write(&self, epoch: u64, puts: Vec<Entry>, deletes: Vec<String>)
    -> Result<(), String>;

    /// Bytes that the registry takes.
    fn size(&self) -> u64;
}

#[async_trait]
impl Store for Registry {
    async fn recover(&self) -> Result<Recovery, String> {
        let epoch = self
            .begin_epoch()
            .await
            .map_err(|error| error.to_string())?;
        let snapshot = self.load().await.map_err(|error| error.to_string())?;
        Ok(Recovery {
            cluster_id: snapshot.cluster_id,
            epoch,
            entries: snapshot.entries,
        })
    }

    async fn write(
        &self,
        epoch: u64,
        puts: Vec<Entry>,
        deletes: Vec<String>,
    ) -> Result<(), String> {
        let puts = puts.into_iter().map(|entry| Op::Put {
            key: entry.key,
            value: entry.value,
        });
        let deletes = deletes.into_iter().map(|key| Op::Delete { key });
        let ops = puts.chain(deletes).collect();
        self.store(epoch, ops)
            .await
            .map_err(|error| error.to_string())
    }

    fn size(&self) -> u64 {
        let file = std::fs::metadata(self.path());
        file.map_or(0, |file| file.len())
    }
}

/// `--registry=in_memory`: forgotten at exit.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<Vec<(String, Bytes)>>);

#[async_trait]
impl Store for InMemory {
    async fn recover(&self) -> Result<Recovery, String> {
        let entries = self
            .0
            .lock()
            .expect("no panic happens under this lock")
            .clone();
        Ok(Recovery {
            cluster_id: uuid::Uuid::new_v4().to_string(),
            epoch: 1,
            entries,
        })
    }

    async fn write(
        &self,
        _epoch: u64,
        puts: Vec<Entry>,
        deletes: Vec<String>,
    ) -> Result<(), String> {
        let mut entries = self.0.lock().expect("no panic happens under this lock");
        entries.retain(|(key, _)| !deletes.contains(key) && puts.iter().all(|put| put.key != *key));
        entries.extend(puts.into_iter().map(|put| (put.key, put.value)));
        Ok(())
    }

    fn size(&self) -> u64 {
        let entries = self.0.lock().expect("no panic happens under this lock");
        let sizes = entries.iter().map(|(key, value)| key.len() + value.len());
        sizes.sum::<usize>() as u64
    }
}

/// A batch on its way to the store.
pub(crate) struct Batch {
    pub(crate) id: StoreId,
    pub(crate) puts: Vec<Entry>,
    pub(crate) deletes: Vec<String>,
}

/// Writes batches until the outbox is gone.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    epoch: u64,
    timeout: Duration,
    owner: Owner,
    metrics: Metrics,
    mut batches: mpsc::Receiver<Batch>,
) {
    let took = metrics.timer("registrar/state_store", WINDOW);
    let queued = metrics.gauge("registrar/queued_operations");
    metrics.source({
        let store = Arc::clone(&store);
        move || {
            let size = store.size() as f64;
            async move { vec![Sample::gauge("registrar/registry_size_bytes", size)] }
        }
    });
    let mut writing = FuturesOrdered::new();
    loop {
        queued.set((batches.len() + writing.len()) as f64);
        tokio::select! {
            Some(batch) = batches.recv() => {
                let store = Arc::clone(&store);
                let took = took.clone();
                writing.push_back(async move {
                    let begin = Instant::now();
                    let Batch { id, puts, deletes } = batch;
                    let written = tokio::time::timeout(timeout, store.write(epoch, puts, deletes)).await;
                    let written = written.unwrap_or_else(|_| Err(format!("no answer in {timeout:?}")));
                    took.record(begin.elapsed());
                    (id, written)
                });
            }
            Some((id, written)) = writing.next() => {
                let event = match written {
                    Ok(()) => Event::Stored { id },
                    Err(message) => Event::StoreFailed { id, message },
                };
                owner.event(event).await;
            }
            else => return,
        }
    }
}
