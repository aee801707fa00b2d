//! What a containerizer uses beside isolators: a fetcher and a logger.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt;
use tepui_host::CallError;
use tepui_host::kinds::{fetcher::FetcherClient, logger::LoggerClient};
use tepui_module_proto::fetcher::{CacheReply, FetchRequest, Uri};
use tepui_module_proto::logger::{PrepareReply, PrepareRequest};
use tepui_proto::v1::command_info;

use crate::Called;

/// Brings what a command asks for into its sandbox.
pub trait Fetcher: fmt::Debug + Send + Sync {
    /// Brings everything; dropped, it stops.
    fn fetch(&self, request: FetchRequest) -> Called<'_, ()>;
    /// What it keeps for later.
    fn cache(&self) -> CacheReply;
}

/// Says where output goes.
pub trait Logger: fmt::Debug + Send + Sync {
    /// The first call: which containers run on.
    fn recover(&self, running: Vec<String>) -> Called<'_, ()>;
    /// A container is about to be started.
    fn prepare(&self, request: PrepareRequest) -> Called<'_, PrepareReply>;
    /// A container is over.
    fn cleanup(&self, container: String) -> Called<'_, ()>;
}

/// What fetching came to since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchCounts {
    /// Containers that got all they asked for.
    pub succeeded: u64,
    /// Containers that did not.
    pub failed: u64,
    /// Bytes that the fetcher may keep.
    pub cache_total: u64,
    /// Bytes that it keeps.
    pub cache_used: u64,
}

/// What containers came to since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// What fetching came to.
    pub fetches: FetchCounts,
    /// Containers that left something behind that could not be cleaned up.
    pub destroy_errors: u64,
    /// Containers whose roots of images could not be removed.
    pub provisioner_errors: u64,
    /// Containers now that have a root of their own; None where `filesystem/linux` gives none.
    pub with_root: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Fetches {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Fetches {
    pub(crate) fn count(&self, succeeded: bool) {
        let counter = match succeeded {
            true => &self.succeeded,
            false => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self, cache: CacheReply) -> FetchCounts {
        FetchCounts {
            succeeded: self.succeeded.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            cache_total: cache.total_bytes,
            cache_used: cache.used_bytes,
        }
    }
}

/// A URI as fetchers are told of it.
pub(crate) fn fetched(uri: &command_info::Uri) -> Uri {
    Uri {
        value: uri.value.clone(),
        executable: uri.executable(),
        extract: uri.extract(),
        cache: uri.cache(),
        output_file: uri.output_file().to_owned(),
    }
}

/// The fetcher behind a client of the module host.
pub fn fetcher(client: FetcherClient) -> Arc<dyn Fetcher> {
    Arc::new(LoadedFetcher(client))
}

/// The logger behind a client of the module host.
pub fn logger(client: LoggerClient) -> Arc<dyn Logger> {
    Arc::new(LoadedLogger(client))
}

#[derive(Debug)]
struct LoadedFetcher(FetcherClient);

impl Fetcher for LoadedFetcher {
    fn fetch(&self, request: FetchRequest) -> Called<'_, ()> {
        async move { self.0.fetch(&request).await.map_err(in_words) }.boxed()
    }

    fn cache(&self) -> CacheReply {
        // A module that is away keeps nothing that anybody can use.
        self.0.cache().unwrap_or_default()
    }
}

#[derive(Debug)]
struct LoadedLogger(LoggerClient);

impl Logger for LoadedLogger {
    fn recover(&self, running: Vec<String>) -> Called<'_, ()> {
        async move { self.0.recover(running).await.map_err(in_words) }.boxed()
    }

    fn prepare(&self, request: PrepareRequest) -> Called<'_, PrepareReply> {
        async move { self.0.prepare(request).await.map_err(in_words) }.boxed()
    }

    fn cleanup(&self, container: String) -> Called<'_, ()> {
        async move { self.0.cleanup(&container).await.map_err(in_words) }.boxed()
    }
}

/// What a module itself said goes on as it is: it is for the framework's users.
fn in_words(error: CallError) -> String {
    match &error {
        CallError::Failed { failure, .. } => failure.chain(),
        _ => error.to_string(),
    }
}
