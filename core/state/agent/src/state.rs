//! The state: what it is made from, and which part takes which event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tepui_model::id::{AgentId, ContainerId, FrameworkId, TaskId};
use tepui_model::resources::Resources;
use tepui_model::rng::Rng;
use tepui_model::time::{Mono, Now};
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{LinkFrame, Unregister};
use tepui_proto::{Wire, convert, v1};

use crate::operations::Owned;
use crate::rows::{Executor, ExecutorState, Framework};
use crate::{Counts, Effect, Event, Record, RecordBody};

/// What an agent is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentSettings {
    /// Seed of all ids that the state makes.
    pub seed: u64,
    /// The agent's info; its id is set by the state.
    pub info: Wire<v1::AgentInfo>,
    /// Address that containers without a network of their own have.
    pub ip: String,
    /// What an executor is given to end, unless its info says otherwise.
    pub shutdown_grace: Duration,
    /// What an executor has to subscribe, once its container runs.
    pub registration_timeout: Duration,
    /// What an executor has to subscribe with an agent process that did not launch it.
    pub reregistration_timeout: Duration,
    /// What the command of generated executors is called.
    pub executor_command: String,
    /// Its arguments.
    pub executor_arguments: Vec<String>,
    /// Completed frameworks that are remembered.
    pub max_completed_frameworks: usize,
    /// Completed executors that are remembered, of each framework.
    pub max_completed_executors: usize,
    /// Completed tasks that are remembered, of each executor.
    pub max_completed_tasks: usize,
}

impl AgentSettings {
    /// Settings with the defaults of Mesos.
    #[must_use]
    pub fn new(seed: u64, info: v1::AgentInfo, ip: impl Into<String>) -> Self {
        Self {
            seed,
            info: Wire(info),
            ip: ip.into(),
            shutdown_grace: Duration::from_secs(5),
            registration_timeout: Duration::from_mins(1),
            reregistration_timeout: Duration::from_secs(2),
            executor_command: "mesos-executor".to_owned(),
            executor_arguments: vec!["mesos-executor".to_owned()],
            max_completed_frameworks: 50,
            max_completed_executors: 150,
            max_completed_tasks: 200,
        }
    }
}

/// The state of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentState {
    pub(crate) settings: AgentSettings,
    pub(crate) rng: Rng,
    pub(crate) agent_id: Option<AgentId>,
    pub(crate) cluster_id: String,
    pub(crate) epoch: u64,
    pub(crate) resource_version: Vec<u8>,
    pub(crate) owned: Owned,
    /// The session that the master listens on.
    pub(crate) session: Option<u64>,
    pub(crate) master: Option<Wire<v1::MasterInfo>>,
    pub(crate) recovered: bool,
    pub(crate) frameworks: Vec<Framework>,
    pub(crate) completed_frameworks: VecDeque<Arc<Framework>>,
    pub(crate) drain: Option<Wire<v1::DrainConfig>>,
    /// Set when the agent is to exit once its executors are gone.
    pub(crate) leaving: Option<Leaving>,
    pub(crate) counts: Counts,
}

/// Why the agent leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leaving {
    pub(crate) reason: String,
    /// Tell the master at the end.
    pub(crate) unregister: bool,
    /// `Exit` was said.
    pub(crate) said: bool,
}

impl AgentState {
    /// An agent that knows nothing yet: the first event is [`Event::Recovered`].
    #[must_use]
    pub fn new(settings: AgentSettings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let resource_version = rng.uuid().as_bytes().to_vec();
        // An agent is started with resources that were checked.
        let total = convert::resources(&settings.info.resources).unwrap_or_default();
        let ended = Vec::new();
        Self {
            owned: Owned {
                before: total.clone(),
                total,
                ended,
            },
            settings,
            rng,
            agent_id: None,
            cluster_id: String::new(),
            epoch: 0,
            resource_version,
            session: None,
            master: None,
            recovered: false,
            frameworks: Vec::new(),
            completed_frameworks: VecDeque::new(),
            drain: None,
            leaving: None,
            counts: Counts::default(),
        }
    }

    /// Takes an event; what is to be done goes to `effects`, in order.
    pub fn apply(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        match event {
            Event::Recovered(recovered) => self.recover(recovered, now, effects),
            Event::Connected { session, welcome } => {
                self.connected(session, welcome.0, now, effects);
            }
            Event::Disconnected { session } => self.disconnected(session, effects),
            Event::FromMaster { session, frame } => {
                if self.session == Some(session) {
                    self.told(frame.0, now, effects);
                }
            }
            Event::Launched { container, pid } => self.launched(&container, pid, now, effects),
            Event::Pulling {
                container,
                task,
                message,
            } => self.pulling(&container, task.as_ref(), &message, now, effects),
            Event::LaunchFailed { container, message } => {
                self.launch_failed(&container, message, now, effects);
            }
            Event::ExecutorCall { container, call } => {
                self.executor_call(&container, call.0, now, effects);
            }
            Event::ExecutorDisconnected { container } => self.executor_disconnected(&container),
            Event::ExecutorFinished { container } => {
                let framework = self.framework_of(&container);
                if let Some(executor) = framework.and_then(|f| f.executor_mut(&container)) {
                    executor.state = ExecutorState::Terminating;
                }
            }
            Event::UpdateFailed { container, message } => {
                self.update_failed(&container, &message, effects);
            }
            Event::ContainerEnded { container, end } => {
                self.container_ended(&container, end, now, effects);
            }
            Event::CheckpointFailed { container, message } => {
                self.checkpoint_failed(&container, &message, now, effects);
            }
            Event::OperationFailed { operation, message } => {
                self.operation_failed(operation, message, now, effects);
            }
            Event::Gone { reason } => self.shut_down(reason, effects),
            Event::Unregister => self.unregister(now, effects),
            Event::Tick => self.tick(now, effects),
        }
        self.leave_when_empty(effects);
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let operations = self.owned.ended.iter().filter_map(|one| one.retry_at);
        let frameworks = self.frameworks.iter();
        frameworks
            .flat_map(|framework| {
                let streams = framework.streams.values().filter_map(|s| s.retry_at);
                let executors = framework.executors.iter();
                let executors = executors
                    .flat_map(|e| [e.shutdown_at, e.register_by, e.heartbeat_at])
                    .flatten();
                streams.chain(executors)
            })
            .chain(operations)
            .min()
    }

    fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.resend_due(now, effects);
        self.operations_due(now, effects);
        self.executors_due(now, effects);
    }

    fn unregister(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.leaving.get_or_insert(Leaving {
            reason: "unregistered".to_owned(),
            unregister: true,
            said: false,
        });
        let ids: Vec<FrameworkId> = self.frameworks.iter().map(|f| f.id.clone()).collect();
        for id in ids {
            self.shutdown_framework(&id, now, effects);
        }
    }

    fn leave_when_empty(&mut self, effects: &mut Vec<Effect>) {
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if leaving.said || self.frameworks.iter().any(|f| !f.executors.is_empty()) {
            return;
        }
        leaving.said = true;
        let leaving = leaving.clone();
        if leaving.unregister {
            self.to_master(Body::Unregister(Unregister {}), effects);
        }
        effects.push(Effect::Exit {
            reason: leaving.reason,
            forget: true,
        });
    }

    /// Sends a frame if a master listens.
    pub(crate) fn to_master(&self, body: Body, effects: &mut Vec<Effect>) {
        if let Some(session) = self.session {
            effects.push(Effect::ToMaster {
                session,
                frame: Wire(LinkFrame {
                    session: 0,
                    must_understand: false,
                    body: Some(body),
                }),
            });
        }
    }

    pub(crate) fn framework(&self, id: &FrameworkId) -> Option<&Framework> {
        self.frameworks.iter().find(|f| f.id == *id)
    }

    pub(crate) fn framework_mut(&mut self, id: &FrameworkId) -> Option<&mut Framework> {
        self.frameworks.iter_mut().find(|f| f.id == *id)
    }

    /// The framework that owns a container which is not completed.
    pub(crate) fn framework_of(&mut self, container: &ContainerId) -> Option<&mut Framework> {
        self.frameworks
            .iter_mut()
            .find(|framework| framework.executor(container).is_some())
    }

    pub(crate) fn agent(&self) -> &str {
        self.agent_id.as_ref().map_or("", |id| id.as_str())
    }

    /// The agent's info with the id it has now.
    #[must_use]
    pub fn info(&self) -> v1::AgentInfo {
        v1::AgentInfo {
            id: self.agent_id.as_ref().map(|id| v1::AgentId {
                value: id.to_string(),
            }),
            ..self.settings.info.0.clone()
        }
    }

    /// The id that the master gave.
    #[must_use]
    pub fn agent_id(&self) -> Option<&AgentId> {
        self.agent_id.as_ref()
    }

    /// Cluster that the agent belongs to, and the highest epoch seen.
    #[must_use]
    pub fn leadership(&self) -> (&str, u64) {
        (&self.cluster_id, self.epoch)
    }

    /// Version of the agent's resources, 16 bytes.
    #[must_use]
    pub fn resource_version(&self) -> &[u8] {
        &self.resource_version
    }

    /// All that the agent has, reservations and volumes included.
    #[must_use]
    pub fn resources(&self) -> &Resources {
        &self.owned.total
    }

    /// Operations that ended here and are not acknowledged, oldest first.
    pub fn operations(&self) -> impl Iterator<Item = &v1::Operation> {
        self.owned.ended.iter().map(|one| &one.message.0)
    }

    /// The master that listens, if one does.
    #[must_use]
    pub fn master(&self) -> Option<&v1::MasterInfo> {
        self.session.and(self.master.as_deref())
    }

    /// Whether [`Event::Recovered`] was applied.
    #[must_use]
    pub fn is_recovered(&self) -> bool {
        self.recovered
    }

    /// What happened so far, in numbers.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Frameworks with something here, oldest first.
    #[must_use]
    pub fn frameworks(&self) -> &[Framework] {
        &self.frameworks
    }

    /// Frameworks that had, oldest first.
    pub fn completed_frameworks(&self) -> impl Iterator<Item = &Arc<Framework>> {
        self.completed_frameworks.iter()
    }

    /// Whether there is anything to tell a master.
    #[must_use]
    pub fn has_state(&self) -> bool {
        !self.frameworks.is_empty() || !self.owned.ended.is_empty()
    }

    /// What must always hold; the error names what does not.
    pub fn check(&self) -> Result<(), String> {
        for framework in &self.frameworks {
            check_framework(framework, self.session.is_some())
                .map_err(|error| format!("framework {}: {error}", framework.id))?;
            let limit = self.settings.max_completed_executors;
            if framework.completed_executors.len() > limit {
                return Err(format!("framework {}: too long a history", framework.id));
            }
        }
        for one in &self.owned.ended {
            if self.session.is_some() != one.retry_at.is_some() {
                return Err("an operation has a wrong timer".to_owned());
            }
        }
        if self.completed_frameworks.len() > self.settings.max_completed_frameworks {
            return Err("too many completed frameworks".to_owned());
        }
        Ok(())
    }
}

fn check_framework(framework: &Framework, connected: bool) -> Result<(), String> {
    let mut seen: Vec<&str> = Vec::new();
    for executor in &framework.executors {
        let queued = executor.queued.iter().map(|task| &*task.task_id.value);
        let tasks = executor.tasks.iter().map(|task| &*task.info.task_id.value);
        for id in queued.chain(tasks) {
            if seen.contains(&id) {
                return Err(format!("task {id} is there twice"));
            }
            seen.push(id);
        }
        if executor.end.is_some() && !executor.is_done() {
            return Err(format!("executor {} ended before its tasks", executor.id));
        }
        for task in &executor.tasks {
            let id = TaskId::from(&*task.info.task_id.value);
            let told = framework.terminating || framework.streams.contains_key(&id);
            if task.state().is_terminal() && !told {
                return Err(format!("end of task {id} is not told"));
            }
        }
    }
    for (task, stream) in &framework.streams {
        if stream.pending.is_empty() {
            return Err(format!("stream of task {task} is empty"));
        }
        if connected != stream.retry_at.is_some() {
            return Err(format!("stream of task {task} has a wrong timer"));
        }
    }
    if framework.terminating && !framework.streams.is_empty() {
        return Err("updates after its shutdown".to_owned());
    }
    Ok(())
}

/// A record about `executor`, if it is recorded at all.
pub(crate) fn record(
    framework: &FrameworkId,
    executor: &Executor,
    body: RecordBody,
    effects: &mut Vec<Effect>,
) {
    if executor.checkpoint {
        effects.push(Effect::Checkpoint(Record {
            framework: framework.clone(),
            executor: executor.id.clone(),
            container: executor.container.clone(),
            body,
        }));
    }
}
