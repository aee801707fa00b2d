//! Client of a container logger.
//!
//! It remembers what runs, so that a new instance is told by `Recover` before it gets any other call.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prost::Message;
use tepui_module_proto::logger::{
    CleanupRequest, Method, PrepareReply, PrepareRequest, RecoverRequest,
};

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// A container logger. Calls about one container wait for each other.
#[derive(Debug, Clone)]
pub struct LoggerClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: Instance,
    running: Mutex<BTreeSet<String>>,
    /// The generation that knows what runs; 0: none.
    recovered: tokio::sync::Mutex<u64>,
}

impl LoggerClient {
    /// A client of this instance. Begin with [`Self::recover`].
    pub fn new(instance: Instance) -> Self {
        LoggerClient(Arc::new(Inner {
            instance,
            running: Mutex::default(),
            recovered: tokio::sync::Mutex::default(),
        }))
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    /// The first call: which containers run on.
    pub async fn recover(&self, running: Vec<String>) -> Result<(), CallError> {
        *self.0.running() = running.into_iter().collect();
        *self.0.recovered.lock().await = 0;
        self.0.ready().await
    }

    /// A container is about to be started; answers where its output goes.
    pub async fn prepare(&self, request: PrepareRequest) -> Result<PrepareReply, CallError> {
        self.0.ready().await?;
        let id = request.config.as_ref().map_or("", |config| &config.id);
        self.0.running().insert(id.to_owned());
        let bytes = self.0.send(Method::Prepare, Some(id), &request).await?;
        decode(&self.0.instance, "PREPARE", &bytes)
    }

    /// A container is over.
    pub async fn cleanup(&self, container: &str) -> Result<(), CallError> {
        self.0.ready().await?;
        let request = CleanupRequest {
            container: container.to_owned(),
        };
        self.0
            .send(Method::Cleanup, Some(container), &request)
            .await?;
        self.0.running().remove(container);
        Ok(())
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells an instance that does not know yet what runs.
    async fn ready(&self) -> Result<(), CallError> {
        let mut recovered = self.recovered.lock().await;
        let generation = self.instance.generation();
        if *recovered != generation {
            let running = self.running().iter().cloned().collect();
            let request = RecoverRequest { running };
            self.send(Method::Recover, None, &request).await?;
            *recovered = generation;
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        lane: Option<&str>,
        request: &impl Message,
    ) -> Result<Vec<u8>, CallError> {
        let timeout = Some(self.instance.timeout());
        let bytes = request.encode_to_vec();
        self.instance
            .start(method as u32, lane, timeout, bytes)
            .await
    }
}
