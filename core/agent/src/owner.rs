//! The owner thread: runs the agent's state and the executors that are played here, and hands
//! their effects on.
//!
//! It writes records itself (they are short and not synced), and never waits for anything else:
//! containers and the master are served by tasks that answer with events.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tepui_containerizer::Termination;
use tepui_executor::{
    CommandExecutor, DefaultExecutor, Finding, GroupInput, Identity, Input as ExecutorInput,
    ProbeId,
};
use tepui_http::shared::Files;
use tepui_http::{Media, StreamBody};
use tepui_link::{AgentSession, Synced};
use tepui_model::id::{AgentId, ContainerId, ExecutorId, FrameworkId, Uuid};
use tepui_model::resources::Resources;
use tepui_model::time::Mono;
use tepui_proto::disk::AgentRecord;
use tepui_proto::link::Hello;
use tepui_proto::v1;
use tepui_proto::v1::executor;
use tepui_state_agent::{AgentState, Counts, Effect, Event, Framework, Record, Refusal};
use tokio::sync::{mpsc, oneshot};

use crate::containers::Containers;
use crate::deadlines::Deadlines;
use crate::executors::Executors;
use crate::forgetting::Forgetting;
use crate::gc::Gc;
use crate::launching::end_of;
use crate::paths::{Paths, relink};
use crate::store::Store;
use crate::{Settings, clock, volumes};

/// What the owner is told.
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub(crate) enum Input {
    /// Something happened to the agent.
    Event(Event),
    /// A session was welcomed; its `Connected` follows.
    Session(u64, AgentSession),
    /// A container is over.
    Ended(ContainerId, Termination),
    /// An executor with a process calls. Answered with its stream when it subscribes.
    Executor(
        executor::Call,
        Media,
        oneshot::Sender<Result<Option<StreamBody>, Refusal>>,
    ),
    /// Nobody reads a stream any more.
    StreamOver(ContainerId, u64),
    /// A change of what a container has is done, or failed.
    Updated(ContainerId, Result<(), String>),
    /// A probe of a task that is played here has ended.
    Probed(ContainerId, ProbeId, Finding),
    /// What the next `Hello` says of the state.
    Hello(oneshot::Sender<Hello>),
    /// A reader wants to know everything.
    Read(oneshot::Sender<Snapshot>),
    /// Something happened to a container of a task in a default executor's.
    Child(ContainerId, GroupInput),
    /// Leave without ending anything.
    Stop,
}

/// What readers see: rows are shared with the state, which copies those that it changes.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) info: v1::AgentInfo,
    pub(crate) master: Option<v1::MasterInfo>,
    pub(crate) resources: Resources,
    pub(crate) operations: Vec<v1::Operation>,
    pub(crate) frameworks: Vec<Framework>,
    pub(crate) completed: Vec<Arc<Framework>>,
    pub(crate) counts: Counts,
    /// Records that an agent that is not strict went on without.
    pub(crate) recovery_errors: u64,
}

/// Why the agent ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was told to, and left everything as it was.
    Stopped,
    /// It is not wanted any more, or unregistered; its executors are gone.
    Left(String),
    /// It cannot go on.
    Failed(String),
}

/// The way to the owner.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    inputs: Sender<Box<Input>>,
}

impl Handle {
    /// Inputs are boxed because a bounded channel takes the room for all that may wait from the start.
    pub(crate) fn new(inputs: Sender<Box<Input>>) -> Self {
        Self { inputs }
    }

    /// Tells the owner; nothing happens once it is gone.
    pub(crate) fn tell(&self, input: Input) {
        let _ = self.inputs.send(Box::new(input));
    }

    /// Asks the owner; `None` once it is gone.
    pub(crate) async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.tell(input(answer));
        answered.await.ok()
    }
}

/// What an executor that an earlier process played goes on with: the one or the other.
#[derive(Debug, Default)]
pub(crate) struct Resumable {
    pub(crate) played: tepui_executor::Record,
    pub(crate) groups: tepui_executor::GroupRecord,
}

/// What the owner works with.
pub(crate) struct Owner {
    pub(crate) state: AgentState,
    pub(crate) store: Store,
    pub(crate) paths: Paths,
    pub(crate) settings: Arc<Settings>,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) files: Files,
    pub(crate) gc: Gc,
    pub(crate) forgetting: Forgetting,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) handle: Handle,
    pub(crate) ended: mpsc::Sender<Ended>,
    /// Boxed: each is some kilobytes, and a map has room for twice of what is in it.
    pub(crate) played: BTreeMap<ContainerId, Box<CommandExecutor>>,
    /// Default executors, played too.
    pub(crate) groups: BTreeMap<ContainerId, DefaultExecutor>,
    /// Of all that are played.
    pub(crate) deadlines: Deadlines,
    /// Executors with processes of their own.
    pub(crate) executors: Executors,
    /// Records of executors that an earlier process played.
    pub(crate) resumable: BTreeMap<ContainerId, Resumable>,
    pub(crate) session: Option<(u64, AgentSession)>,
    pub(crate) events: VecDeque<Event>,
    /// Ends that came before the executor that is played was told of its task.
    pub(crate) over: bool,
}

impl Owner {
    /// Runs until the agent stops or leaves.
    pub(crate) fn run(mut self, inputs: &Receiver<Box<Input>>) {
        self.work();
        while !self.over {
            let input = match self.wait() {
                Some(wait) => inputs.recv_timeout(wait),
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match input.map(|input| *input) {
                Ok(Input::Stop) => {
                    let _ = self.ended.try_send(Ended::Stopped);
                    return;
                }
                Ok(input) => self.input(input),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.work();
        }
    }

    /// Time until the next deadline.
    fn wait(&self) -> Option<Duration> {
        let all = self.deadlines.next().into_iter();
        let next: Option<Mono> = all.chain(self.state.next_deadline()).min();
        next.map(|at| at.since(clock::now().mono))
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.events.push_back(Event::Tick);
        for container in self.deadlines.due(now.mono) {
            // It is one of the two.
            self.play(&container, ExecutorInput::Tick);
            self.play_groups(&container, GroupInput::Tick);
        }
    }

    fn input(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if let Event::Disconnected { session } = &event
                    && self.session.as_ref().is_some_and(|(s, _)| s == session)
                {
                    self.session = None;
                }
                self.events.push_back(event);
            }
            Input::Session(number, session) => self.session = Some((number, session)),
            Input::Ended(container, termination) => self.container_over(container, termination),
            Input::Executor(call, media, answer) => self.executor_call(call, media, answer),
            Input::StreamOver(container, number) => {
                if self.executors.over(&container, number) {
                    self.events
                        .push_back(Event::ExecutorDisconnected { container });
                }
            }
            Input::Updated(container, result) => {
                if let Err(message) = result {
                    tracing::warn!(%container, %message, "resources not changed");
                    let container = container.clone();
                    self.events
                        .push_back(Event::UpdateFailed { container, message });
                }
                let (next, held) = self.executors.updated(&container);
                for event in held {
                    self.tell_executor(&container, event);
                }
                self.start_update(container, next);
            }
            Input::Child(container, input) => self.play_groups(&container, input),
            Input::Probed(container, id, finding) => {
                self.play(&container, ExecutorInput::Probed(id, finding));
            }
            Input::Hello(answer) => {
                // Whoever asked may be gone.
                let _ = answer.send(self.hello());
            }
            Input::Read(answer) => {
                let _ = answer.send(self.snapshot());
            }
            Input::Stop => self.over = true,
        }
    }

    fn hello(&self) -> Hello {
        let (cluster_id, epoch_seen) = self.state.leadership();
        Hello {
            info: Some(self.state.info()),
            resource_version: self.state.resource_version().to_vec().into(),
            cluster_id: cluster_id.to_owned(),
            epoch_seen,
            has_state: self.state.has_state(),
            ..Hello::default()
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            info: self.state.info(),
            master: self.state.master().cloned(),
            resources: self.state.resources().clone(),
            operations: self.state.operations().cloned().collect(),
            frameworks: self.state.frameworks().to_vec(),
            completed: self.state.completed_frameworks().cloned().collect(),
            counts: self.state.counts().clone(),
            recovery_errors: self.store.recovery_errors(),
        }
    }

    /// Applies events until there is none, each with all its effects.
    fn work(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let mut effects = Vec::new();
            self.state.apply(event, clock::now(), &mut effects);
            debug_assert_eq!(self.state.check(), Ok(()));
            let mut unrecorded = false;
            for effect in effects {
                let needs_record = depends_on_record(&effect);
                if unrecorded && needs_record {
                    continue;
                }
                unrecorded |= !self.perform(effect);
            }
        }
    }

    /// Performs an effect; false if it is a record that was not written.
    fn perform(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Checkpoint(record) => return self.checkpoint(&record),
            Effect::CheckpointResources { operation, record } => {
                let written = self.store.set_resources(&record);
                let written = written.map_err(|error| crate::chain(&error));
                return self.done_for(operation, written);
            }
            Effect::MakeVolumes { operation, volumes } => {
                let mut each = volumes.iter();
                let made = each.try_for_each(|v| volumes::make(self.paths.work_dir(), v));
                let made = made.map_err(|error| crate::chain(&error));
                return self.done_for(Some(operation), made);
            }
            Effect::RemoveVolumes { volumes } => {
                for volume in &volumes {
                    if let Err(error) = volumes::remove(self.paths.work_dir(), volume) {
                        tracing::error!(%volume, error = %crate::chain(&error), "data of the volume not removed");
                    }
                }
            }
            Effect::CheckpointAgent {
                agent_id,
                cluster_id,
                epoch,
            } => self.checkpoint_agent(agent_id, cluster_id, epoch),
            Effect::Sync {
                session,
                frameworks,
                executors,
                tasks,
                total,
                operations,
                resource_version,
            } => {
                let all = Synced {
                    frameworks: frameworks.into_iter().map(|f| f.0).collect(),
                    executors: executors.into_iter().map(|e| e.0).collect(),
                    tasks: tasks.into_iter().map(|t| t.0).collect(),
                    total: total.into_iter().map(|r| r.0).collect(),
                    operations: operations.into_iter().map(|o| o.0).collect(),
                    resource_version: resource_version.into(),
                };
                self.with_session(session, |s| s.sync(all));
            }
            Effect::ToMaster { session, frame } => {
                if let Some(body) = frame.0.body {
                    self.with_session(session, |s| s.send(body));
                }
            }
            Effect::CloseSession { session, reason } => {
                tracing::error!(%reason, "the master's session is refused");
                self.with_session(session, |s| {
                    s.close(reason);
                    Ok(())
                });
            }
            Effect::Launch(launch) => self.launch(*launch),
            Effect::Watch { container } => self.watch(container),
            Effect::Destroy { container } => self.destroy(container),
            Effect::UpdateContainer {
                container,
                resources,
                limits,
            } => {
                let next = self.executors.update(&container, resources, limits);
                self.start_update(container, next);
            }
            Effect::Play {
                container,
                framework,
                executor,
                seed,
                resumed,
            } => self.begin(container, framework, executor, seed, resumed),
            Effect::PlayGroups {
                container,
                framework,
                executor,
                seed,
                resumed,
            } => {
                let identity = Identity {
                    framework,
                    executor,
                };
                self.begin_groups(container, identity, seed, resumed);
            }
            Effect::ToExecutor { container, event } => {
                if let Some(event) = self.executors.hold(&container, event) {
                    self.tell_executor(&container, event);
                }
            }
            Effect::CloseExecutor { container } => self.executors.close(&container),
            Effect::Retire {
                framework,
                executor,
                container,
            } => {
                self.collect(&framework, &executor, &container);
                self.played.remove(&container);
                self.groups.remove(&container);
                self.deadlines.set(&container, None);
                self.executors.forget(&container);
                self.forgetting.forget(container);
            }
            Effect::RetireFramework { framework } => {
                if let Some(agent) = self.state.agent_id() {
                    self.gc.schedule(self.paths.framework(agent, &framework));
                }
                tracing::info!(%framework, "nothing of the framework is left here");
            }
            Effect::Exit { reason, forget } => self.leave(reason, forget),
        }
        true
    }

    /// Says to the state at once, before anything else happens, what of an operation could not be done.
    fn done_for(&mut self, operation: Option<Uuid>, done: Result<(), String>) -> bool {
        let Err(message) = done else {
            return true;
        };
        tracing::error!(error = %message, "resources not recorded");
        if let Some(operation) = operation {
            self.events
                .push_front(Event::OperationFailed { operation, message });
        }
        operation.is_none()
    }

    /// The executor's sandbox goes in time, and what is around it if it does not come again.
    fn collect(&self, framework: &FrameworkId, executor: &ExecutorId, container: &ContainerId) {
        let Some(agent) = self.state.agent_id() else {
            return;
        };
        let runs = self.paths.runs(agent, framework, executor);
        self.gc.schedule(runs.join(&*container.value));
        self.gc.schedule(parent(&runs));
    }

    /// What is around a sandbox that is about to be made stays.
    pub(crate) fn keep(&self, agent: &AgentId, framework: &FrameworkId, runs: &Path) {
        self.gc.unschedule(&self.paths.framework(agent, framework));
        self.gc.unschedule(&parent(runs));
    }

    fn with_session(
        &self,
        number: u64,
        send: impl FnOnce(&AgentSession) -> Result<(), tepui_link::SendError>,
    ) {
        if let Some((current, session)) = &self.session
            && *current == number
            && let Err(error) = send(session)
        {
            // Its end is reported as an event, and the next Sync repairs what was lost.
            tracing::debug!(%error, "not sent to the master");
        }
    }

    fn checkpoint(&mut self, record: &Record) -> bool {
        let Err(error) = self.store.record(&record.container, &record.body) else {
            return true;
        };
        let message = crate::chain(&error);
        tracing::error!(container = %record.container, error = %message, "not recorded");
        self.events.push_back(Event::CheckpointFailed {
            container: record.container.clone(),
            message,
        });
        false
    }

    fn checkpoint_agent(&mut self, agent_id: String, cluster_id: String, epoch: u64) {
        let id = AgentId::from(&*agent_id);
        let record = AgentRecord {
            agent_id,
            cluster_id,
            epoch,
            info: Some(self.settings.info()),
            ..AgentRecord::default()
        };
        if let Err(error) = self.store.set_agent(record) {
            self.fail(&format!(
                "the agent's id is not recorded: {}",
                crate::chain(&error)
            ));
            return;
        }
        let slaves = self.paths.slaves();
        let linked = std::fs::create_dir_all(slaves.join(id.as_str()))
            .and_then(|()| relink(id.as_str().as_ref(), &slaves.join("latest")));
        if let Err(error) = linked {
            tracing::warn!(%error, "slaves/latest not set");
        }
    }

    fn container_over(&mut self, container: ContainerId, termination: Termination) {
        tracing::info!(%container, exit = ?termination.exit, "container is over");
        for failure in &termination.cleanup_failures {
            tracing::error!(%container, %failure, "container not cleaned up");
        }
        let end = end_of(&termination);
        let input = ExecutorInput::Ended {
            status: end.status,
            limited: end.limitation.is_some() || end.never_started,
        };
        self.play(&container, input);
        self.events
            .push_back(Event::ContainerEnded { container, end });
    }

    fn leave(&mut self, reason: String, forget: bool) {
        if forget && let Err(error) = self.store.forget_agent() {
            tracing::error!(error = %crate::chain(&error), "the agent's id is not forgotten");
        }
        self.over = true;
        // A second end changes nothing.
        let _ = self.ended.try_send(Ended::Left(reason));
    }

    fn fail(&mut self, reason: &str) {
        tracing::error!(%reason, "the agent cannot go on");
        self.over = true;
        let _ = self.ended.try_send(Ended::Failed(reason.to_owned()));
    }
}

/// Whether an effect may be done only if what was recorded before it in the same event is there.
fn depends_on_record(effect: &Effect) -> bool {
    matches!(
        effect,
        Effect::Launch(_)
            | Effect::ToMaster { .. }
            | Effect::CheckpointResources { .. }
            | Effect::RemoveVolumes { .. }
    )
}

/// The executor's directory, which holds its runs.
fn parent(runs: &Path) -> PathBuf {
    runs.parent().unwrap_or(runs).to_owned()
}
