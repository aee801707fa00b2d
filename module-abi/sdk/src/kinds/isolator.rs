//! Kind `isolator`: prepares, limits and measures containers.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use prost::Message;
use tepui_module_proto::isolator::{
    self as messages, CleanupReply, CleanupRequest, ContainerConfig, IsolateReply, IsolateRequest,
    LaunchPlan, LimitedReply, LimitedRequest, Method, PrepareReply, PrepareRequest, RecoverReply,
    RecoverRequest, RunningContainer, StatusReply, StatusRequest, UpdateReply, UpdateRequest,
    UsageReply, UsageRequest, status_reply, usage_reply,
};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::{common_call, common_start, decode};
use crate::call::{self, Scope};
use crate::export::Made;
use crate::instance::{self, Service, Started};
use crate::mesos::{
    ContainerInfo, ContainerStatus, Resource, ResourceStatistics, task_status::Reason,
};
use crate::{Failure, Host, Module, Result, log};

/// Isolates containers: one mechanism, such as a cgroup controller, a namespace, or a kind of volume. Mirrors
/// `mesos::slave::Isolator`.
///
/// For one container the methods run one at a time and in this order: `prepare`, `isolate`, then any number of `update`,
/// at last `cleanup`; for different containers they run beside each other. `cleanup` is called after whatever else failed
/// or came too late, never beside it. Any of them may be the first after a restart of the agent, after `recover`.
/// Checkpoints belong below [`Context::state_dir`](crate::Context::state_dir), and must not rest on a process id alone.
pub trait Isolator: Module {
    /// Is called for nested containers too.
    const NESTING: bool = false;
    /// Is called for standalone containers too.
    const STANDALONE: bool = false;
    /// Overrides [`Self::limited`]. Without it nothing waits for a container.
    const LIMITS: bool = true;
    /// Isolators that must be configured as well; `root` and `launcher/linux` are known too.
    const NEEDS: &'static [&'static str] = &[];
    /// Isolators that prepare before this one if they are configured.
    const AFTER: &'static [&'static str] = &[];

    /// The first call: containers that still run, and ids of those of which only remains are left, to be cleaned up.
    /// Also called with nothing on a first start. An error fails the start of the agent.
    fn recover(
        &self,
        running: Vec<Container>,
        orphans: Vec<ContainerId>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Says what the container needs, before anything of it exists. Isolators prepare in a fixed order, and
    /// [`Container::plan`] holds what those before have planned. An error fails the launch, then `cleanup` is called.
    fn prepare(&self, container: Container) -> impl Future<Output = Result<LaunchPlan>> + Send;

    /// The container's first process exists and waits, in its namespaces and cgroups. `pid` is in the host's namespace.
    /// An error fails the launch.
    fn isolate(&self, id: &ContainerId, pid: u32) -> impl Future<Output = Result<()>> + Send {
        let _ = (id, pid);
        async { Ok(()) }
    }

    /// Resources or limits of a running container change.
    fn update(&self, id: &ContainerId, update: Update) -> impl Future<Output = Result<()>> + Send {
        let _ = (id, update);
        async { Ok(()) }
    }

    /// Waits until the container is over a limit. Begins after `prepare` or `recover`, is dropped at `cleanup`; runs beside
    /// everything else. The agent kills the container.
    fn limited(&self, id: &ContainerId) -> impl Future<Output = Limitation> + Send {
        let _ = id;
        std::future::pending()
    }

    /// Asked once after the container has ended, before `cleanup`: a limit that it exceeded and that [`Self::limited`]
    /// may have had no time to tell of.
    fn exceeded(&self, id: &ContainerId) -> impl Future<Output = Option<Limitation>> + Send {
        let _ = id;
        async { None }
    }

    /// What is known of the container's consumption; the agent merges the answers of all isolators. May run beside
    /// everything else. An error leaves this isolator's part out.
    fn usage(&self, id: &ContainerId) -> impl Future<Output = Result<ResourceStatistics>> + Send {
        let _ = id;
        async { Ok(ResourceStatistics::default()) }
    }

    /// What is known of the container's addresses and cgroups; merged and called as `usage`.
    fn status(&self, id: &ContainerId) -> impl Future<Output = Result<ContainerStatus>> + Send {
        let _ = id;
        async { Ok(ContainerStatus::default()) }
    }

    /// Removes all traces. Nothing of the container runs any more. Isolators clean up in the reverse order. Must accept
    /// containers it does not know and a second call. An error is reported and it is called again at the next start.
    fn cleanup(&self, id: &ContainerId) -> impl Future<Output = Result<()>> + Send;
}

/// Id of a container: values from the root to the container, joined by periods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// The container this one is nested in.
    pub fn parent(&self) -> Option<ContainerId> {
        self.0
            .rsplit_once('.')
            .map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The outermost container, which is the one with a sandbox and cgroups of its own.
    pub fn root(&self) -> ContainerId {
        Self(self.0.split('.').next().unwrap_or_default().to_owned())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for ContainerId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

impl From<&str> for ContainerId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl std::ops::Deref for ContainerId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container, as isolators see it.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its sandbox on the host.
    pub sandbox: PathBuf,
    /// User that the command runs as; none: the agent's.
    pub user: Option<String>,
    /// Labels of the task, else of the executor.
    pub labels: BTreeMap<String, String>,
    /// What it asked for.
    pub resources: Vec<Resource>,
    /// Its first process in the host's namespace, in `recover`; 0 if it was not started.
    pub pid: u32,
    /// In `prepare`, what isolators before this one planned; in `recover`, what it was launched with.
    pub plan: LaunchPlan,
    /// In `recover`, persistent volumes that it had once and has no more. An agent that ended in between may have
    /// recorded that they are taken away and not done so.
    pub former_volumes: Vec<Resource>,
    /// All else that is known: command, container info, limits, secrets, devices, class.
    pub config: ContainerConfig,
}

impl Container {
    fn new(config: Option<ContainerConfig>, plan: Option<LaunchPlan>, pid: u32) -> Result<Self> {
        let config = config.ok_or_else(|| Failure::invalid("a container without a config"))?;
        Ok(Self {
            id: ContainerId(config.id.clone()),
            sandbox: PathBuf::from(&config.sandbox),
            user: config.user.clone(),
            labels: config.labels.clone(),
            resources: resources(&config.resources)?,
            pid,
            plan: plan.unwrap_or_default(),
            former_volumes: Vec::new(),
            config,
        })
    }

    fn running(running: RunningContainer) -> Result<Self> {
        Ok(Self {
            former_volumes: resources(&running.former_volumes)?,
            ..Self::new(running.config, running.plan, running.pid)?
        })
    }

    /// The amount of a scalar resource it asked for.
    pub fn requested(&self, name: &str) -> f64 {
        amount(&self.resources, name)
    }

    /// Upper limit of a scalar resource, where one was given; infinity for no bound.
    pub fn limit(&self, name: &str) -> Option<f64> {
        limit(&self.config.limits, name)
    }

    /// How it was described; the default where it was not.
    pub fn info(&self) -> Result<ContainerInfo> {
        decode(&self.config.container_info)
    }
}

/// New resources of a running container.
#[derive(Debug, Clone)]
pub struct Update {
    /// What it has now.
    pub resources: Vec<Resource>,
    /// Upper limits.
    pub limits: Vec<messages::Limit>,
}

impl Update {
    /// The amount of a scalar resource.
    pub fn requested(&self, name: &str) -> f64 {
        amount(&self.resources, name)
    }

    /// Upper limit of a scalar resource, where one was given; infinity for no bound.
    pub fn limit(&self, name: &str) -> Option<f64> {
        limit(&self.limits, name)
    }
}

fn amount(resources: &[Resource], name: &str) -> f64 {
    let named = resources.iter().filter(|resource| resource.name == name);
    named
        .filter_map(|resource| resource.scalar.as_ref())
        .map(|scalar| scalar.value)
        .sum()
}

fn limit(limits: &[messages::Limit], name: &str) -> Option<f64> {
    let limit = limits.iter().find(|limit| limit.name == name)?;
    Some(if limit.infinite {
        f64::INFINITY
    } else {
        limit.amount as f64 / 1000.0
    })
}

fn resources(encoded: &[Vec<u8>]) -> Result<Vec<Resource>> {
    encoded
        .iter()
        .map(|bytes| decode::<Resource>(bytes))
        .collect()
}

/// A container is over a limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Limitation {
    /// Reason for the task's status.
    pub reason: Reason,
    /// One sentence for the task's status.
    pub message: String,
    /// What was exceeded.
    pub resources: Vec<Resource>,
}

impl Limitation {
    /// Over any limit.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            resources: Vec::new(),
        }
    }

    /// Over its memory.
    pub fn memory(message: impl Into<String>) -> Self {
        Self::new(Reason::ContainerLimitationMemory, message)
    }

    /// Over its disk.
    pub fn disk(message: impl Into<String>) -> Self {
        Self::new(Reason::ContainerLimitationDisk, message)
    }
}

impl Limitation {
    fn to_message(&self, id: &ContainerId) -> messages::Limitation {
        messages::Limitation {
            id: id.0.clone(),
            reason: self.reason as u32,
            message: self.message.clone(),
            resources: self.resources.iter().map(Message::encode_to_vec).collect(),
        }
    }
}

/// What `Limited` answers from: a revision that grows with each change.
#[derive(Default)]
struct Limited {
    revision: u64,
    limitations: BTreeMap<ContainerId, Limitation>,
    /// A panic in `limited`.
    failed: Option<Failure>,
}

pub(crate) struct IsolatorService<M> {
    module: Arc<M>,
    host: Host,
    limited: watch::Sender<Limited>,
    /// What waits for each container.
    watched: std::sync::Mutex<BTreeMap<ContainerId, AbortHandle>>,
}

impl<M> Drop for IsolatorService<M> {
    fn drop(&mut self) {
        for (_, waiting) in std::mem::take(&mut *self.watched()) {
            waiting.abort();
        }
    }
}

impl<M> IsolatorService<M> {
    fn watched(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, AbortHandle>> {
        self.watched
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<M: Isolator> IsolatorService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self {
            module: Arc::new(made.module),
            host: made.host,
            limited: watch::Sender::default(),
            watched: std::sync::Mutex::default(),
        }
    }

    /// Begins to wait for a limit of the container.
    fn watch(&self, id: &ContainerId) {
        if !M::LIMITS {
            return;
        }
        let (module, limited, id) = (self.module.clone(), self.limited.clone(), id.clone());
        let scope = Scope::new(M::NAME, self.host, id.0.clone());
        let of = id.clone();
        let waiting = tokio::spawn(async move {
            let future = async { module.limited(&of).await };
            match AssertUnwindSafe(call::scoped(scope, future))
                .catch_unwind()
                .await
            {
                Ok(limitation) => limited.send_modify(|state| {
                    state.revision += 1;
                    state.limitations.insert(of.clone(), limitation);
                }),
                Err(payload) => {
                    let failure =
                        Failure::panicked(&instance::message_of(&*payload), log::take_backtrace());
                    std::mem::forget(payload);
                    limited.send_modify(|state| state.failed = Some(failure));
                }
            }
        });
        if let Some(before) = self.watched().insert(id, waiting.abort_handle()) {
            before.abort();
        }
    }

    /// Answers the limitation that was told.
    fn unwatch(&self, id: &ContainerId) -> Option<Limitation> {
        if let Some(waiting) = self.watched().remove(id) {
            waiting.abort();
        }
        let mut told = None;
        self.limited.send_if_modified(|state| {
            told = state.limitations.remove(id);
            state.revision += u64::from(told.is_some());
            told.is_some()
        });
        told
    }

    async fn recover(self: Arc<Self>, request: RecoverRequest) -> Result<Vec<u8>> {
        let running = request.running.into_iter();
        let running: Vec<_> = running.map(Container::running).collect::<Result<_>>()?;
        let ids: Vec<_> = running
            .iter()
            .map(|container| container.id.clone())
            .collect();
        let orphans = request.orphans.into_iter().map(ContainerId).collect();
        self.module.recover(running, orphans).await?;
        ids.iter().for_each(|id| self.watch(id));
        Ok(RecoverReply {}.encode_to_vec())
    }

    async fn prepare(self: Arc<Self>, request: PrepareRequest) -> Result<Vec<u8>> {
        let container = Container::new(request.config, request.plan, 0)?;
        let id = container.id.clone();
        let plan = self.module.prepare(container).await?;
        self.watch(&id);
        Ok(PrepareReply { plan: Some(plan) }.encode_to_vec())
    }

    async fn isolate(self: Arc<Self>, request: IsolateRequest) -> Result<Vec<u8>> {
        self.module
            .isolate(&ContainerId(request.id), request.pid)
            .await?;
        Ok(IsolateReply {}.encode_to_vec())
    }

    async fn update(self: Arc<Self>, request: UpdateRequest) -> Result<Vec<u8>> {
        let update = Update {
            resources: resources(&request.resources)?,
            limits: request.limits,
        };
        self.module.update(&ContainerId(request.id), update).await?;
        Ok(UpdateReply {}.encode_to_vec())
    }

    async fn cleanup(self: Arc<Self>, request: CleanupRequest) -> Result<Vec<u8>> {
        let id = ContainerId(request.id);
        let exceeded = match self.unwatch(&id) {
            Some(told) => Some(told),
            None => self.module.exceeded(&id).await,
        };
        self.module.cleanup(&id).await?;
        let limitation = exceeded.map(|limitation| limitation.to_message(&id));
        Ok(CleanupReply { limitation }.encode_to_vec())
    }

    async fn usage(self: Arc<Self>, request: UsageRequest) -> Result<Vec<u8>> {
        let mut reply = UsageReply::default();
        for id in request.ids {
            match self.module.usage(&ContainerId(id.clone())).await {
                Ok(usage) => {
                    reply.usages.push(usage_reply::Usage {
                        id,
                        statistics: usage.encode_to_vec(),
                    });
                }
                Err(error) => tracing::debug!(container = id, %error, "no usage"),
            }
        }
        Ok(reply.encode_to_vec())
    }

    async fn status(self: Arc<Self>, request: StatusRequest) -> Result<Vec<u8>> {
        let mut reply = StatusReply::default();
        for id in request.ids {
            match self.module.status(&ContainerId(id.clone())).await {
                Ok(status) => {
                    reply.statuses.push(status_reply::Status {
                        id,
                        status: status.encode_to_vec(),
                    });
                }
                Err(error) => tracing::debug!(container = id, %error, "no status"),
            }
        }
        Ok(reply.encode_to_vec())
    }

    async fn limited(self: Arc<Self>, request: LimitedRequest) -> Result<Vec<u8>> {
        let mut states = self.limited.subscribe();
        let changed = states
            .wait_for(|state| state.revision != request.seen || state.failed.is_some())
            .await;
        let state = changed.map_err(|_| Failure::cancelled())?;
        if let Some(failure) = &state.failed {
            return Err(failure.clone());
        }
        let limitations = state
            .limitations
            .iter()
            .map(|(id, limitation)| limitation.to_message(id))
            .collect();
        Ok(LimitedReply {
            revision: state.revision,
            limitations,
        }
        .encode_to_vec())
    }
}

impl<M: Isolator> Service for IsolatorService<M> {
    fn call(&self, number: u32, _: &[u8]) -> Option<Result<Vec<u8>>> {
        common_call(&*self.module, number)
    }

    fn start(self: Arc<Self>, number: u32, request: &[u8]) -> Option<Result<Started>> {
        let Ok(method) = Method::try_from(i32::try_from(number).ok()?) else {
            return common_start(self.module.clone(), number);
        };
        Some(match method {
            Method::Unspecified => return None,
            Method::Recover => decode(request).map(|request| Started::new(self.recover(request))),
            Method::Prepare => decode::<PrepareRequest>(request).map(|request| {
                let id = request
                    .config
                    .as_ref()
                    .map(|config| config.id.clone())
                    .unwrap_or_default();
                Started::about(id, self.prepare(request))
            }),
            Method::Isolate => decode::<IsolateRequest>(request)
                .map(|request| Started::about(request.id.clone(), self.isolate(request))),
            Method::Update => decode::<UpdateRequest>(request)
                .map(|request| Started::about(request.id.clone(), self.update(request))),
            Method::Cleanup => decode::<CleanupRequest>(request)
                .map(|request| Started::about(request.id.clone(), self.cleanup(request))),
            Method::Usage => decode(request).map(|request| Started::new(self.usage(request))),
            Method::Status => decode(request).map(|request| Started::new(self.status(request))),
            Method::Limited => decode(request).map(|request| Started::new(self.limited(request))),
        })
    }
}
