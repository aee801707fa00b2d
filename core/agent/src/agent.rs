//! Starting, recovering and ending an agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tepui_containerizer::{Exit, Recovered};
use tepui_http::Router;
use tepui_http::shared::{ExporterError, Modules, Pace, Shared};
use tepui_model::id::{AgentId, ContainerId, ExecutorId, FrameworkId};
use tepui_model::resources::NotContained;
use tepui_proto::Wire;
use tepui_proto::disk::AgentRecord;
use tepui_state_agent::{
    AgentSettings, AgentState, Event, Found, RecordBody, RecoveredAgent, RecoveredExecutor,
    RecoveredFramework,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::containers::Containers;
use crate::deadlines::Deadlines;
use crate::executors::Executors;
use crate::forgetting::Forgetting;
use crate::gc::{Gc, Policy};
use crate::http::Endpoints;
use crate::launching::{attach, sandbox_guard};
pub use crate::owner::Ended;
use crate::owner::{Handle, Input, Owner, Resumable};
use crate::paths::Paths;
use crate::reconfiguration::Reconfigured;
use crate::store::{Recorded, Store, StoreError};
use crate::{Settings, machine, volumes};

/// Inputs that wait for the owner before whoever has more must wait.
const INPUTS: usize = 4096;

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its records.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its containers.
    #[error("containers cannot be recovered")]
    Containers(#[from] tepui_containerizer::Error),
    /// It is given less than what is reserved on it.
    #[error(
        "the agent's resources do not hold what is reserved on it and its volumes: {0}; give it back with --resources, or unreserve it first"
    )]
    Resources(#[from] NotContained),
    /// It is not what it was.
    #[error(transparent)]
    Reconfigured(#[from] Reconfigured),
    /// Its thread.
    #[error("the owner's thread cannot be started")]
    Thread(#[from] std::io::Error),
}

impl StartError {
    /// Whether an agent that is not strict would go on.
    #[must_use]
    pub fn is_of_record(&self) -> bool {
        match self {
            Self::Store(error) => error.is_of_record(),
            Self::Containers(error) => matches!(error, tepui_containerizer::Error::Record { .. }),
            Self::Thread(_) | Self::Resources(_) | Self::Reconfigured(_) => false,
        }
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    handle: Handle,
    ended: mpsc::Receiver<Ended>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    connection: tokio::task::JoinHandle<()>,
    containers: Arc<dyn Containers>,
    settings: Arc<Settings>,
    gc: Gc,
}

impl std::fmt::Debug for dyn Containers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Containers")
    }
}

impl Agent {
    /// Takes over a work directory and starts to look for the master. `None` when all that was to
    /// be done was the clean-up of what an earlier process left.
    pub async fn start(
        settings: Settings,
        containers: Arc<dyn Containers>,
        shared: &Shared,
    ) -> Result<Option<Self>, StartError> {
        let begin = Instant::now();
        let settings = Arc::new(settings);
        let paths = Paths::new(settings.work_dir.clone());
        let mut store = Store::open(paths.clone())?;
        // Who cleans up wants nothing of what it cannot read.
        let strict = settings.strict && !settings.cleanup;
        let mut agent = store.agent(strict)?;
        let resources = store.resources(strict)?;
        let total = settings.resources.with_made(&resources.made)?;
        let mut recorded = store.load(strict)?;
        let rebooted = store.rebooted(&machine::boot_id(), &mut recorded, strict)?;
        if rebooted {
            tracing::warn!("the machine was started anew: no task has survived");
        }
        if settings.cleanup {
            containers.recover(BTreeSet::new()).await?;
            end_standalone(&*containers).await;
            store.forget_agent()?;
            tracing::info!("cleaned up");
            return Ok(None);
        }
        agent = reconfigured(agent, &settings, rebooted, &store)?;
        let live = recorded.iter().filter(|one| !one.retired);
        let known: BTreeSet<ContainerId> = live.map(|one| one.container.clone()).collect();
        let in_use: BTreeSet<String> = known.iter().map(|id| id.value.to_string()).collect();
        let found = containers.recover(known).await?;
        tracing::info!(
            running = found.running.len(),
            ended = found.ended.len(),
            missing = found.missing.len(),
            orphans = found.orphans.len(),
            "containers recovered"
        );

        let took = shared.metrics.gauge("slave/recovery_time_secs");
        took.set(begin.elapsed().as_secs_f64());

        let id = Some(agent.agent_id).filter(|id| !id.is_empty());
        if let Some(id) = &id {
            show(&paths, &AgentId::from(&**id), &recorded, shared);
        }
        let gc = Gc::new(
            &paths,
            &settings.work_dir,
            Policy {
                delay: settings.gc_delay,
                headroom: settings.gc_disk_headroom,
                interval: settings.disk_watch_interval,
                of_all: settings.gc_non_executor_container_sandboxes,
            },
        );
        let own = id.as_ref().map(|id| paths.slaves().join(id));
        gc.take_over(&paths.slaves(), own.as_deref(), &in_use);
        gc.take_over_standalone(&paths.standalone(), &containers);
        let mut resumable = BTreeMap::new();
        let recovered = RecoveredAgent {
            agent_id: id,
            cluster_id: agent.cluster_id,
            epoch: agent.epoch,
            total: Some(total),
            resources,
            frameworks: frameworks(recorded, &found, &mut resumable),
        };
        let (work_dir, disks) = (settings.work_dir.clone(), settings.resources.clone());
        let delete = move || volumes::delete_removed(&work_dir, disks.iter());
        tokio::task::spawn_blocking(delete);
        let (inputs, received) = crossbeam_channel::bounded(INPUTS);
        let handle = Handle::new(inputs);
        let (ended_sender, ended) = mpsc::channel(1);
        let owner = Owner {
            state: AgentState::new(state_settings(&settings)),
            store,
            paths,
            settings: settings.clone(),
            containers: containers.clone(),
            files: shared.files.clone(),
            gc: gc.clone(),
            forgetting: Forgetting::start(containers.clone())?,
            runtime: tokio::runtime::Handle::current(),
            handle: handle.clone(),
            ended: ended_sender,
            played: BTreeMap::new(),
            groups: BTreeMap::new(),
            deadlines: Deadlines::default(),
            executors: Executors::default(),
            resumable,
            session: None,
            events: VecDeque::from([Event::Recovered(recovered)]),
            over: false,
        };
        let thread = std::thread::Builder::new()
            .name("agent-owner".to_owned())
            .spawn(move || owner.run(&received))?;

        let stop = CancellationToken::new();
        tokio::spawn(gc.clone().run(shared.files.clone(), stop.clone()));
        let connection = Connection {
            settings: settings.clone(),
            handle: handle.clone(),
            stop: stop.clone(),
        };
        let connection = tokio::spawn(connection.run());
        Ok(Some(Self {
            handle,
            ended,
            stop,
            thread: Some(thread),
            connection,
            containers,
            settings,
            gc,
        }))
    }

    /// Answers when the agent is over.
    pub async fn ended(&mut self) -> Ended {
        let ended = self.ended.recv().await;
        ended.unwrap_or_else(|| Ended::Failed("the owner's thread is gone".to_owned()))
    }

    /// Unregisters and ends all executors; [`Self::ended`] answers when that is done.
    pub fn unregister(&self) {
        self.handle.tell(Input::Event(Event::Unregister));
    }

    /// Leaves, and leaves everything as it is for the next process.
    pub async fn stop(mut self) {
        self.handle.tell(Input::Stop);
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the owner's thread panicked");
            }
        }
        self.stop.cancel();
        // It ends by itself, after its last words.
        let _ = self.connection.await;
    }
}

/// Who the agent is, if it is what it was or may be otherwise; what it is now is recorded. After a reboot nothing of the
/// earlier one is left, and one that may not be otherwise begins anew, as in Mesos.
fn reconfigured(
    agent: AgentRecord,
    settings: &Settings,
    rebooted: bool,
    store: &Store,
) -> Result<AgentRecord, StartError> {
    let now = settings.info();
    if agent.agent_id.is_empty() || agent.info.as_ref() == Some(&now) {
        return Ok(agent);
    }
    if let Some(before) = &agent.info
        && let Err(error) = settings.reconfiguration_policy.check(before, &now)
    {
        if !rebooted {
            return Err(error.into());
        }
        tracing::warn!(agent = agent.agent_id, %error, "the machine was started anew: a new agent begins");
        store.forget_agent()?;
        return Ok(AgentRecord::default());
    }
    let agent = AgentRecord {
        info: Some(now),
        ..agent
    };
    store.set_agent(agent.clone())?;
    Ok(agent)
}

/// Ends the containers that belong to operators, which no recovery does.
async fn end_standalone(containers: &dyn Containers) {
    for one in containers.list() {
        if one.id.parent.is_none() {
            let ended = containers.destroy(&one.id).await.map(drop);
            if let Err(error) = ended.and_then(|()| containers.forget(&one.id)) {
                tracing::warn!(container = %one.id, %error, "not cleaned up");
            }
        }
    }
}

/// Adds the agent's own endpoints to a router whose delegate is `slave(1)`.
pub fn attach_endpoints(
    agent: &Agent,
    shared: &Shared,
    modules: Modules,
    router: &mut Router,
) -> Result<(), ExporterError> {
    shared.register(router, "slave(1)");
    let endpoints = Endpoints {
        handle: agent.handle.clone(),
        containers: agent.containers.clone(),
        settings: agent.settings.clone(),
        gc: agent.gc.clone(),
        shared: shared.clone(),
        modules,
        started: crate::clock::now().wall,
        pace: Pace::default(),
    };
    let endpoints = Arc::new(endpoints);
    crate::metrics::register(&endpoints);
    crate::http::register(endpoints, router);
    shared.finish(router)
}

fn state_settings(settings: &Settings) -> AgentSettings {
    let seed = fastrand::u64(..);
    let state = AgentSettings::new(seed, settings.info(), settings.ip.to_string());
    AgentSettings {
        shutdown_grace: settings.executor_shutdown_grace_period,
        registration_timeout: settings.executor_registration_timeout,
        reregistration_timeout: settings.executor_reregistration_timeout,
        executor_command: settings
            .launcher_dir
            .join("mesos-executor")
            .display()
            .to_string(),
        executor_arguments: vec![
            "mesos-executor".to_owned(),
            format!("--launcher_dir={}", settings.launcher_dir.display()),
        ],
        max_completed_executors: settings.max_completed_executors_per_framework,
        ..state
    }
}

/// Makes the sandboxes of recorded executors visible.
fn show(paths: &Paths, agent: &AgentId, recorded: &[Recorded], shared: &Shared) {
    for one in recorded {
        if let Some(RecordBody::Launch {
            framework: info,
            executor: executor_info,
            ..
        }) = one.records.first()
        {
            let guard = sandbox_guard(info, executor_info);
            let framework = one.framework();
            let executor = ExecutorId::from(&*executor_info.executor_id.value);
            let runs = paths.runs(agent, &framework, &executor);
            let (files, container) = (&shared.files, &one.container);
            attach(files, &runs, &framework, &executor, container, guard);
        }
    }
}

/// Brings records and containers together, framework by framework.
fn frameworks(
    recorded: Vec<Recorded>,
    found: &Recovered,
    resumable: &mut BTreeMap<ContainerId, Resumable>,
) -> Vec<RecoveredFramework> {
    let mut frameworks: Vec<(FrameworkId, RecoveredFramework)> = Vec::new();
    for one in recorded {
        let id = one.framework();
        let Some(RecordBody::Launch { framework, .. }) = one.records.first() else {
            continue;
        };
        let info = Wire(framework.0.clone());
        let executor = RecoveredExecutor {
            found: fate(&one.container, found),
            container: one.container.clone(),
            records: one.records,
        };
        let played = Resumable {
            played: one.played,
            groups: one.groups,
        };
        resumable.insert(one.container, played);
        match frameworks.iter_mut().find(|(known, _)| *known == id) {
            Some((_, framework)) => {
                // The newest launch knows the newest info.
                framework.info = info;
                framework.executors.push(executor);
            }
            None => frameworks.push((
                id,
                RecoveredFramework {
                    info,
                    executors: vec![executor],
                },
            )),
        }
    }
    frameworks
        .into_iter()
        .map(|(_, framework)| framework)
        .collect()
}

fn fate(container: &ContainerId, found: &Recovered) -> Found {
    if let Some(running) = found.running.iter().find(|one| one.id == *container) {
        return Found::Running { pid: running.pid };
    }
    match found.ended.iter().find(|(id, _)| id == container) {
        Some((_, termination)) if termination.exit != Exit::NeverStarted => Found::Ended,
        _ => Found::Missing,
    }
}
