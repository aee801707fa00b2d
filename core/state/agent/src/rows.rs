//! Frameworks, executors, tasks and update streams of an agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tepui_model::id::{ContainerId, ExecutorId, FrameworkId, TaskId, Uuid};
use tepui_model::time::Mono;
use tepui_proto::v1::{self, TaskState, framework_info};
use tepui_proto::{Wire, v1::TaskStatus};

use crate::{ContainerEnd, ExecutorKind};

/// Time until an update is sent again, the first time.
pub(crate) const RETRY_MIN: Duration = Duration::from_secs(10);

/// Time between resends never exceeds this.
pub(crate) const RETRY_MAX: Duration = Duration::from_mins(10);

/// A framework with something on this agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Framework {
    /// Its id.
    pub id: FrameworkId,
    /// As the master told it last.
    pub info: Wire<v1::FrameworkInfo>,
    /// Executors that are not over, oldest first.
    pub executors: Vec<Arc<Executor>>,
    /// Executors that are, oldest first.
    pub completed_executors: VecDeque<Arc<Executor>>,
    /// Updates that are not acknowledged.
    pub streams: BTreeMap<TaskId, Stream>,
    /// It was shut down: no update of it is told any more.
    pub terminating: bool,
}

impl Framework {
    pub(crate) fn new(id: FrameworkId, info: v1::FrameworkInfo) -> Self {
        Self {
            id,
            info: Wire(info),
            executors: Vec::new(),
            completed_executors: VecDeque::new(),
            streams: BTreeMap::new(),
            terminating: false,
        }
    }

    /// Whether its containers and updates survive the agent.
    #[must_use]
    pub fn checkpoint(&self) -> bool {
        self.info.checkpoint()
    }

    /// Whether it understands the states that replaced `TASK_LOST`.
    #[must_use]
    pub fn partition_aware(&self) -> bool {
        self.info.capabilities.iter().any(|capability| {
            capability.r#type() == framework_info::capability::Type::PartitionAware
        })
    }

    pub(crate) fn executor(&self, container: &ContainerId) -> Option<&Executor> {
        let found = self.executors.iter().find(|e| e.container == *container);
        found.map(AsRef::as_ref)
    }

    pub(crate) fn executor_mut(&mut self, container: &ContainerId) -> Option<&mut Executor> {
        let found = self
            .executors
            .iter_mut()
            .find(|e| e.container == *container);
        found.map(Arc::make_mut)
    }

    /// The container of the executor that has a task that is not completed.
    pub(crate) fn container_of(&self, task: &TaskId) -> Option<ContainerId> {
        let found = self.executors.iter().rev().find(|e| e.has_task(task));
        found.map(|e| e.container.clone())
    }

    /// The executor of an id that a framework chose, custom or default, which is not over.
    pub(crate) fn named(&self, id: &ExecutorId) -> Option<&Executor> {
        let live = |e: &&Arc<Executor>| e.kind != ExecutorKind::Generated && e.end.is_none();
        let mut found = self.executors.iter().rev().filter(live);
        found.find(|e| e.id == *id).map(AsRef::as_ref)
    }

    /// The same, if it has a process of its own on the executor API.
    pub(crate) fn custom(&self, id: &ExecutorId) -> Option<&Executor> {
        self.named(id).filter(|e| e.kind == ExecutorKind::Custom)
    }

    /// Nothing is left that anybody waits for.
    pub(crate) fn is_idle(&self) -> bool {
        self.executors.is_empty() && self.streams.is_empty()
    }
}

/// Where an executor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorState {
    /// Its container is being launched.
    Launching,
    /// Its container runs, the executor has not subscribed.
    Registering,
    /// It has subscribed.
    Running,
    /// It is being ended.
    Terminating,
    /// Its container is over.
    Terminated,
}

/// One run of an executor: it has one container, and the container no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Executor {
    /// Its id.
    pub id: ExecutorId,
    /// Its container.
    pub container: ContainerId,
    /// What clients see of it, also where the agent made it up.
    pub info: Wire<v1::ExecutorInfo>,
    /// Its kind.
    pub kind: ExecutorKind,
    /// Where it is.
    pub state: ExecutorState,
    /// Its container's first process.
    pub pid: Option<u32>,
    /// It hears events: it is subscribed, and its stream is open.
    pub connected: bool,
    /// Kills it could not be told of yet, with their grace in nanoseconds.
    pub kills: Vec<(TaskId, Option<i64>)>,
    /// Tasks it has not been told of, in order.
    pub queued: Vec<Wire<v1::TaskInfo>>,
    /// Which of them are to be told together, as groups.
    pub groups: Vec<Vec<TaskId>>,
    /// Tasks it has been told of, in order, until their terminal update is acknowledged.
    pub tasks: Vec<Task>,
    /// Tasks whose terminal update is acknowledged, oldest first.
    pub completed_tasks: VecDeque<Wire<v1::Task>>,
    /// How its container ended.
    pub end: Option<ContainerEnd>,
    /// It is recorded, and its container survives the agent.
    pub checkpoint: bool,
    /// An earlier agent process launched it, and it has not subscribed with this one.
    pub recovered: bool,
    /// When it must have subscribed.
    pub register_by: Option<Mono>,
    /// When it is sent the next HEARTBEAT.
    pub heartbeat_at: Option<Mono>,
    /// When its container is destroyed, once it was told to end.
    pub shutdown_at: Option<Mono>,
    /// Why the agent ended it: what its tasks are told when its container is over.
    pub verdict: Option<Verdict>,
}

/// What the tasks of an executor that the agent ends are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// `TaskStatus.Reason`, as its number.
    pub reason: i32,
    /// For people.
    pub message: String,
}

impl Executor {
    /// One that is about to be launched.
    pub(crate) fn new(
        container: ContainerId,
        info: v1::ExecutorInfo,
        kind: ExecutorKind,
        checkpoint: bool,
    ) -> Self {
        Self {
            id: ExecutorId::from(&*info.executor_id.value),
            container,
            info: Wire(info),
            kind,
            state: ExecutorState::Launching,
            pid: None,
            connected: false,
            kills: Vec::new(),
            queued: Vec::new(),
            groups: Vec::new(),
            tasks: Vec::new(),
            completed_tasks: VecDeque::new(),
            end: None,
            checkpoint,
            recovered: false,
            register_by: None,
            heartbeat_at: None,
            shutdown_at: None,
            verdict: None,
        }
    }

    /// It was never heard of: nothing of its tasks can have begun.
    pub(crate) fn is_new(&self) -> bool {
        matches!(
            self.state,
            ExecutorState::Launching | ExecutorState::Registering
        )
    }

    /// What its container may use beyond what is set aside, by resource name: where a task has a
    /// limit, the sum of all limits, with what is set aside for what has none.
    pub fn limits(&self) -> BTreeMap<String, f64> {
        let queued = self.queued.iter();
        let live = self.tasks.iter().filter(|task| !task.state().is_terminal());
        let tasks: Vec<&v1::TaskInfo> = queued
            .map(|task| &task.0)
            .chain(live.map(|task| &task.info.0))
            .collect();
        let named: BTreeSet<&String> = tasks.iter().flat_map(|task| task.limits.keys()).collect();
        let limit = |name: &String| {
            let of_tasks = tasks.iter().map(|task| match task.limits.get(name) {
                Some(limit) => limit.value,
                None => amount(&task.resources, name),
            });
            (
                name.clone(),
                of_tasks.sum::<f64>() + amount(&self.info.resources, name),
            )
        };
        named.into_iter().map(limit).collect()
    }

    /// What is set aside for it: its own resources and those of its tasks that have not ended.
    pub fn resources(&self) -> impl Iterator<Item = &v1::Resource> {
        let queued = self.queued.iter().flat_map(|task| &task.resources);
        let live = self.tasks.iter().filter(|task| !task.state().is_terminal());
        let live = live.flat_map(|task| &task.task.resources);
        self.info.resources.iter().chain(queued).chain(live)
    }

    /// Every task has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.queued.is_empty() && self.tasks.iter().all(|task| task.state().is_terminal())
    }

    /// Every task but these has ended.
    pub(crate) fn is_done_but(&self, tasks: &[TaskId]) -> bool {
        let among = |task: &Task| tasks.iter().any(|id| *id == *task.info.task_id.value);
        let mut others = self.tasks.iter().filter(|task| !among(task));
        self.queued.is_empty() && others.all(|task| task.state().is_terminal())
    }

    pub(crate) fn has_task(&self, id: &TaskId) -> bool {
        self.queued.iter().any(|task| *id == *task.task_id.value) || self.task(id).is_some()
    }

    pub(crate) fn task(&self, id: &TaskId) -> Option<&Task> {
        self.tasks
            .iter()
            .find(|task| *id == *task.info.task_id.value)
    }

    pub(crate) fn task_mut(&mut self, id: &TaskId) -> Option<&mut Task> {
        self.tasks
            .iter_mut()
            .find(|task| *id == *task.info.task_id.value)
    }
}

/// How much of a scalar there is.
fn amount(resources: &[v1::Resource], name: &str) -> f64 {
    let named = resources.iter().filter(|resource| resource.name == name);
    named.filter_map(|r| Some(r.scalar.as_ref()?.value)).sum()
}

/// A task that its executor has been told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// What was asked for.
    pub info: Wire<v1::TaskInfo>,
    /// What clients see: newest state and one status for each state it was in.
    pub task: Wire<v1::Task>,
    /// Why it is being killed: a `TaskStatus.Reason` that its updates will give.
    pub kill_reason: Option<i32>,
    /// The updates that came: executors may send one again.
    pub updates: BTreeSet<Uuid>,
}

impl Task {
    /// One that its executor is being told of.
    pub(crate) fn new(
        info: Wire<v1::TaskInfo>,
        framework: &FrameworkId,
        agent: &str,
        executor: &Executor,
    ) -> Self {
        let task = new_task(&info, framework, agent, executor);
        Self {
            info,
            task: Wire(task),
            kill_reason: None,
            updates: BTreeSet::new(),
        }
    }

    /// Its newest state.
    #[must_use]
    pub fn state(&self) -> TaskState {
        self.task.state()
    }

    /// Takes over a new status, as `updateTask` of Mesos' agent does: the newest of each state stays,
    /// without its data.
    pub(crate) fn observe(&mut self, status: &TaskStatus) {
        self.updates.extend(Uuid::from_slice(status.uuid()));
        self.task.state = status.state;
        if self
            .task
            .statuses
            .last()
            .is_some_and(|last| last.state == status.state)
        {
            self.task.statuses.pop();
        }
        self.task.statuses.push(TaskStatus {
            data: None,
            ..status.clone()
        });
    }
}

/// Updates of one task that are not acknowledged, oldest first. Only the first is under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// The updates; never empty.
    pub pending: VecDeque<Wire<TaskStatus>>,
    /// The executor whose records hold them, if they are recorded.
    pub recorded: Option<(ExecutorId, ContainerId)>,
    /// So many of the first may not be recorded, since a write failed; they must be before anything else is.
    pub unrecorded: usize,
    /// When the first is sent again; none while no master listens.
    pub retry_at: Option<Mono>,
    /// Time between resends.
    pub interval: Duration,
}

impl Stream {
    pub(crate) fn new(recorded: Option<(ExecutorId, ContainerId)>) -> Self {
        Self {
            pending: VecDeque::new(),
            recorded,
            unrecorded: 0,
            retry_at: None,
            interval: RETRY_MIN,
        }
    }
}

/// The entry of a task that was just told to its executor.
pub(crate) fn new_task(
    info: &v1::TaskInfo,
    framework: &FrameworkId,
    agent: &str,
    executor: &Executor,
) -> v1::Task {
    v1::Task {
        name: info.name.clone(),
        task_id: info.task_id.clone(),
        framework_id: v1::FrameworkId {
            value: framework.to_string(),
        },
        // Generated executors are not told outside of the agent.
        executor_id: (executor.kind != ExecutorKind::Generated).then(|| v1::ExecutorId {
            value: executor.id.to_string(),
        }),
        agent_id: v1::AgentId {
            value: agent.to_owned(),
        },
        state: TaskState::TaskStaging.into(),
        resources: info.resources.clone(),
        labels: info.labels.clone(),
        discovery: info.discovery.clone(),
        container: info.container.clone(),
        health_check: info.health_check.clone(),
        kill_policy: info.kill_policy,
        user: task_user(info),
        limits: info.limits.clone(),
        ..v1::Task::default()
    }
}

/// `Task.user` is set where the command or the executor names one.
fn task_user(info: &v1::TaskInfo) -> Option<String> {
    let command = info.command.as_ref();
    let executor = info
        .executor
        .as_ref()
        .and_then(|executor| executor.command.as_ref());
    command
        .or(executor)
        .and_then(|command| command.user.clone())
}
