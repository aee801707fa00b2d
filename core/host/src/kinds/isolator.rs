//! Client of an isolator.
//!
//! It remembers what runs, so that a new instance is told by `Recover` before it gets any other call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message;
use tepui_module_proto::common::IsolatorManifest;
use tepui_module_proto::isolator::{
    CleanupReply, CleanupRequest, IsolateRequest, LaunchPlan, LimitedReply, LimitedRequest, Method,
    PrepareReply, PrepareRequest, RecoverRequest, RunningContainer, StatusReply, StatusRequest,
    UpdateRequest, UsageReply, UsageRequest,
};

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// An isolator. Calls about one container wait for each other, also those of callers that gave up.
#[derive(Debug, Clone)]
pub struct IsolatorClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    instance: Instance,
    /// What runs, as the module was told.
    running: Mutex<BTreeMap<String, Told>>,
    /// The generation that knows what runs; 0: none.
    recovered: tokio::sync::Mutex<u64>,
}

/// A container as a module was told of it. Encoded, which takes a fraction of the memory: only a module that is started
/// again has to hear it.
#[derive(Debug)]
struct Told {
    /// A [`RunningContainer`] without its pid.
    container: Vec<u8>,
    pid: u32,
}

impl Told {
    fn new(container: &RunningContainer) -> Self {
        Self {
            container: container.encode_to_vec(),
            pid: container.pid,
        }
    }

    fn decode(&self) -> RunningContainer {
        let container = RunningContainer::decode(&*self.container);
        RunningContainer {
            pid: self.pid,
            ..container.expect("it was encoded here")
        }
    }
}

impl IsolatorClient {
    /// A client of this instance. Begin with [`Self::recover`].
    pub fn new(instance: Instance) -> Self {
        let (running, recovered) = Default::default();
        IsolatorClient(Arc::new(Inner {
            instance,
            running,
            recovered,
        }))
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.0.instance
    }

    /// What the module declares about itself.
    pub fn manifest(&self) -> IsolatorManifest {
        self.0
            .instance
            .manifest()
            .isolator
            .clone()
            .unwrap_or_default()
    }

    /// The first call: what runs, and of what only remains are left.
    pub async fn recover(&self, request: RecoverRequest) -> Result<(), CallError> {
        let mut recovered = self.0.recovered.lock().await;
        {
            let mut running = self.0.running();
            running.clear();
            for container in &request.running {
                if let Some(config) = &container.config {
                    running.insert(config.id.clone(), Told::new(container));
                }
            }
        }
        let generation = self.0.instance.generation();
        self.0.send(Method::Recover, None, &request).await?;
        *recovered = generation;
        Ok(())
    }

    /// Prepares a container; answers what the module adds to the plan.
    pub async fn prepare(&self, request: PrepareRequest) -> Result<LaunchPlan, CallError> {
        let config = request.config.unwrap_or_default();
        let id = config.id.clone();
        self.0.ready().await?;
        // Known from here on: after a failure the new instance must be told to clean it up or keep it.
        let begun = RunningContainer {
            config: Some(config),
            pid: 0,
            plan: request.plan,
            former_volumes: Vec::new(),
        };
        self.0.running().insert(id.clone(), Told::new(&begun));
        let request = PrepareRequest {
            config: begun.config,
            plan: begun.plan,
        };
        let bytes = self.0.send(Method::Prepare, Some(&id), &request).await?;
        let reply: PrepareReply = decode(&self.0.instance, "PREPARE", &bytes)?;
        Ok(reply.plan.unwrap_or_default())
    }

    /// The first process waits at the gate.
    pub async fn isolate(&self, request: IsolateRequest) -> Result<(), CallError> {
        self.0.ready().await?;
        if let Some(container) = self.0.running().get_mut(&request.id) {
            container.pid = request.pid;
        }
        optional(
            self.0
                .send(Method::Isolate, Some(&request.id), &request)
                .await,
        )
        .map(drop)
    }

    /// New resources of a running container.
    pub async fn update(&self, request: UpdateRequest) -> Result<(), CallError> {
        self.0.ready().await?;
        if let Some(told) = self.0.running().get_mut(&request.id) {
            let mut container = told.decode();
            if let Some(config) = &mut container.config {
                config.resources.clone_from(&request.resources);
                config.limits.clone_from(&request.limits);
            }
            *told = Told::new(&container);
        }
        optional(
            self.0
                .send(Method::Update, Some(&request.id), &request)
                .await,
        )
        .map(drop)
    }

    /// Removes all traces of a container. It may be called again, and for containers never prepared.
    pub async fn cleanup(&self, id: &str) -> Result<CleanupReply, CallError> {
        self.0.ready().await?;
        let request = CleanupRequest { id: id.into() };
        let bytes = self.0.send(Method::Cleanup, Some(id), &request).await?;
        self.0.running().remove(id);
        decode(&self.0.instance, "CLEANUP", &bytes)
    }

    /// Consumption of some containers.
    pub async fn usage(&self, ids: Vec<String>) -> Result<UsageReply, CallError> {
        self.0.ready().await?;
        let bytes = optional(
            self.0
                .send(Method::Usage, None, &UsageRequest { ids })
                .await,
        )?;
        decode(&self.0.instance, "USAGE", &bytes)
    }

    /// Addresses and cgroups of some containers.
    pub async fn status(&self, ids: Vec<String>) -> Result<StatusReply, CallError> {
        self.0.ready().await?;
        let bytes = optional(
            self.0
                .send(Method::Status, None, &StatusRequest { ids })
                .await,
        )?;
        decode(&self.0.instance, "STATUS", &bytes)
    }

    /// Answers once the revision differs from the one seen. Only for modules whose manifest says so.
    pub async fn limited(&self, seen: u64) -> Result<LimitedReply, CallError> {
        self.0.ready().await?;
        let request = LimitedRequest { seen }.encode_to_vec();
        let bytes = self
            .0
            .instance
            .start(Method::Limited as u32, None, None, request)
            .await?;
        decode(&self.0.instance, "LIMITED", &bytes)
    }
}

/// A module that lacks an optional method has nothing to say there.
fn optional(result: Result<Vec<u8>, CallError>) -> Result<Vec<u8>, CallError> {
    match result {
        Err(error) if error.is_unimplemented() => Ok(Vec::new()),
        other => other,
    }
}

impl Inner {
    fn running(&self) -> MutexGuard<'_, BTreeMap<String, Told>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(
        &self,
        method: Method,
        lane: Option<&str>,
        request: &impl Message,
    ) -> Result<Vec<u8>, CallError> {
        let timeout = self.instance.timeout();
        self.instance
            .start(method as u32, lane, Some(timeout), request.encode_to_vec())
            .await
    }

    /// Waits a moment for a module that is being started again, and tells a new instance what runs.
    async fn ready(&self) -> Result<(), CallError> {
        const PATIENCE: Duration = Duration::from_secs(5);
        let mut recovered = self.recovered.lock().await;
        if *recovered == self.instance.generation() && self.instance.is_active() {
            return Ok(());
        }
        // When nothing comes in time, the call below says why.
        let _ = tokio::time::timeout(PATIENCE, self.instance.newer_than(*recovered)).await;
        let running = self.running().values().map(Told::decode).collect();
        let generation = self.instance.generation();
        let request = RecoverRequest {
            running,
            orphans: Vec::new(),
        };
        self.send(Method::Recover, None, &request).await?;
        *recovered = generation;
        Ok(())
    }
}
