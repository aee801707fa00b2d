//! Status updates: made once, recorded, sent in order, resent until acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use tepui_model::id::{ContainerId, ExecutorId, FrameworkId, TaskId};
use tepui_model::time::Now;
use tepui_proto::Wire;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{AckUpdate, Update, Updates};
use tepui_proto::v1::task_status::{Reason, Source};
use tepui_proto::v1::{self, TaskState, TaskStatus};

use crate::calls::update_container;
use crate::rows::{Executor, ExecutorState, Framework, RETRY_MAX, RETRY_MIN, Stream, Task};
use crate::state::{AgentState, record};
use crate::{Effect, ExecutorKind, Record, RecordBody};

impl AgentState {
    /// A status of `task` that the agent itself gives.
    pub(crate) fn agent_status(
        &mut self,
        task: &TaskId,
        executor: Option<&ExecutorId>,
        state: TaskState,
        reason: Reason,
        message: &str,
        now: Now,
    ) -> TaskStatus {
        TaskStatus {
            task_id: v1::TaskId {
                value: task.to_string(),
            },
            state: state.into(),
            message: Some(message.to_owned()),
            source: Some(Source::Agent.into()),
            reason: Some(reason.into()),
            agent_id: Some(v1::AgentId {
                value: self.agent().to_owned(),
            }),
            executor_id: executor.map(|id| v1::ExecutorId {
                value: id.to_string(),
            }),
            timestamp: Some(now.wall.as_secs_f64()),
            uuid: Some(Bytes::copy_from_slice(self.rng.uuid().as_bytes())),
            ..TaskStatus::default()
        }
    }

    /// Tells of a task that no executor has: nothing of it is recorded, as nothing of it ran.
    pub(crate) fn report_unknown(
        &mut self,
        framework: &FrameworkId,
        status: TaskStatus,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let task = TaskId::from(&*status.task_id.value);
        self.counts.update(&status);
        self.enqueue(framework, task, Wire(status), None, now, effects);
    }

    /// Takes over a status of a task in `container`: into its row, the records, and the stream.
    pub(crate) fn update(
        &mut self,
        container: &ContainerId,
        mut status: TaskStatus,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let agent = self.agent().to_owned();
        let ip = self.settings.ip.clone();
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let (id, terminating) = (framework.id.clone(), framework.terminating);
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        let task_id = TaskId::from(&*status.task_id.value);
        fill(&mut status, executor, &agent, &ip);
        let Some(task) = executor.task_mut(&task_id) else {
            return;
        };
        if task.state().is_terminal() {
            return;
        }
        let killed = matches!(
            status.state(),
            TaskState::TaskKilling | TaskState::TaskKilled
        );
        if killed && status.reason.is_none() {
            status.reason = task.kill_reason;
        }
        task.observe(&status);
        if status.state().is_terminal() {
            update_container(executor, effects);
        }
        let status = Wire(status);
        let recorded = executor
            .checkpoint
            .then(|| (executor.id.clone(), executor.container.clone()));
        if let Some(stream) = framework.streams.get_mut(&task_id) {
            record_again(&id, stream, effects);
        }
        if let Some((executor, container)) = recorded.clone() {
            effects.push(Effect::Checkpoint(Record {
                framework: id.clone(),
                executor,
                container,
                body: RecordBody::Update(status.clone()),
            }));
        }
        self.counts.update(&status);
        if !terminating {
            self.enqueue(&id, task_id, status, recorded, now, effects);
        }
    }

    /// Tells how far the pull is that tasks wait for. As with an answer to a reconciliation, nobody acknowledges that, so
    /// it is neither recorded nor sent again; the next one says more. The state that is told is the one known already.
    pub(crate) fn pulling(
        &mut self,
        container: &ContainerId,
        task: Option<&TaskId>,
        message: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let (agent, ip) = (self.agent().to_owned(), self.settings.ip.clone());
        let Some(framework) = self.framework_of(container).filter(|f| !f.terminating) else {
            return;
        };
        let id = framework.id.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        let staging = |task: &v1::TaskInfo| TaskStatus {
            task_id: task.task_id.clone(),
            state: TaskState::TaskStaging.into(),
            ..TaskStatus::default()
        };
        let waiting: Vec<TaskStatus> = match task {
            Some(task) => executor.task(task).into_iter().filter_map(waits).collect(),
            None => executor.queued.iter().map(|task| staging(task)).collect(),
        };
        let mut updates = Vec::new();
        for known in waiting {
            let latest_state = known.state;
            let mut status = TaskStatus {
                message: Some(message.to_owned()),
                source: Some(Source::Agent.into()),
                timestamp: Some(now.wall.as_secs_f64()),
                uuid: None,
                ..known
            };
            fill(&mut status, executor, &agent, &ip);
            if let Some(task) = executor.task_mut(&TaskId::from(&*status.task_id.value)) {
                task.observe(&status);
            }
            updates.push(Update {
                framework_id: Some(v1::FrameworkId {
                    value: id.to_string(),
                }),
                status: Some(status),
                latest_state,
            });
        }
        if !updates.is_empty() {
            self.to_master(Body::Updates(Updates { updates }), effects);
        }
    }

    fn enqueue(
        &mut self,
        framework: &FrameworkId,
        task: TaskId,
        status: Wire<TaskStatus>,
        recorded: Option<(ExecutorId, ContainerId)>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(row) = self.framework_mut(framework) else {
            return;
        };
        let stream = row
            .streams
            .entry(task.clone())
            .or_insert_with(|| Stream::new(recorded));
        stream.pending.push_back(status);
        // Others are under way already, or wait for a master.
        if stream.pending.len() == 1 {
            self.send_head(framework, &task, now, effects);
        }
    }

    /// Sends the first update of a stream, if a master listens, and sets its timer.
    fn send_head(
        &mut self,
        framework: &FrameworkId,
        task: &TaskId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.session.is_none() {
            return;
        }
        let Some(row) = self.framework_mut(framework) else {
            return;
        };
        if let Some(update) = head(row, task, now, effects) {
            let updates = Updates {
                updates: vec![update],
            };
            self.to_master(Body::Updates(updates), effects);
        }
    }

    /// Sends what is under way of one framework, or of all, at once and with fresh timers.
    pub(crate) fn resend(
        &mut self,
        only: Option<&FrameworkId>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for framework in &mut self.frameworks {
            if only.is_none_or(|id| *id == framework.id) {
                for stream in framework.streams.values_mut() {
                    stream.interval = RETRY_MIN;
                    stream.retry_at = Some(now.mono);
                }
            }
        }
        self.resend_due(now, effects);
    }

    /// Sends again what has waited long enough.
    pub(crate) fn resend_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let mut updates = Vec::new();
        for framework in &mut self.frameworks {
            let due: Vec<TaskId> = framework
                .streams
                .iter()
                .filter(|(_, stream)| stream.retry_at.is_some_and(|at| at <= now.mono))
                .map(|(task, _)| task.clone())
                .collect();
            for task in due {
                updates.extend(head(framework, &task, now, effects));
            }
        }
        if !updates.is_empty() {
            self.to_master(Body::Updates(Updates { updates }), effects);
        }
    }

    /// A scheduler has an update.
    pub(crate) fn acknowledged(&mut self, ack: &AckUpdate, now: Now, effects: &mut Vec<Effect>) {
        let id = FrameworkId::from(ack.framework_id.as_ref().map_or("", |id| &id.value));
        let task = TaskId::from(ack.task_id.as_ref().map_or("", |id| &id.value));
        let Some(framework) = self.framework_mut(&id) else {
            return;
        };
        let Some(stream) = framework.streams.get_mut(&task) else {
            return;
        };
        let expected = stream.pending.front().and_then(|head| head.uuid.as_ref());
        if expected != Some(&ack.uuid) {
            // Of an update that was acknowledged before, or of another run of the task.
            return;
        }
        if let Some((executor, container)) = &stream.recorded {
            effects.push(Effect::Checkpoint(Record {
                framework: id.clone(),
                executor: executor.clone(),
                container: container.clone(),
                body: RecordBody::Acknowledged {
                    task: task.clone(),
                    uuid: ack.uuid.to_vec(),
                },
            }));
        }
        stream.pending.pop_front();
        if stream.pending.is_empty() {
            framework.streams.remove(&task);
        } else {
            stream.interval = RETRY_MIN;
            stream.unrecorded = stream.unrecorded.saturating_sub(1);
            self.send_head(&id, &task, now, effects);
        }
        self.settle(&id, effects);
    }

    /// Moves what is finished to the history: tasks whose end is acknowledged, executors that are
    /// over and have none left, a framework with neither executors nor updates.
    pub(crate) fn settle(&mut self, id: &FrameworkId, effects: &mut Vec<Effect>) {
        let settings = self.settings.clone();
        let Some(at) = self.frameworks.iter().position(|f| f.id == *id) else {
            return;
        };
        let framework = &mut self.frameworks[at];
        let told = framework.terminating;
        for executor in &mut framework.executors {
            let finished = |task: &crate::Task| {
                let id = &*task.info.task_id.value;
                let acknowledged = told || !framework.streams.contains_key(id);
                task.state().is_terminal() && acknowledged
            };
            if executor.tasks.iter().any(finished) {
                let executor = Arc::make_mut(executor);
                for task in executor.tasks.extract_if(.., |task| finished(task)) {
                    executor.completed_tasks.push_back(task.task);
                }
                let excess = executor
                    .completed_tasks
                    .len()
                    .saturating_sub(settings.max_completed_tasks);
                executor.completed_tasks.drain(..excess);
            }
        }
        let over =
            |e: &mut Arc<Executor>| e.end.is_some() && e.queued.is_empty() && e.tasks.is_empty();
        for executor in framework.executors.extract_if(.., over) {
            record(id, &executor, RecordBody::Retired, effects);
            effects.push(Effect::Retire {
                framework: id.clone(),
                executor: executor.id.clone(),
                container: executor.container.clone(),
            });
            framework.completed_executors.push_back(executor);
        }
        let excess = framework
            .completed_executors
            .len()
            .saturating_sub(settings.max_completed_executors);
        framework.completed_executors.drain(..excess);
        if framework.is_idle() {
            let framework = self.frameworks.remove(at);
            effects.push(Effect::RetireFramework {
                framework: framework.id.clone(),
            });
            self.completed_frameworks
                .retain(|old| old.id != framework.id);
            // One whose tasks were all refused has no history here.
            if !framework.completed_executors.is_empty() {
                self.completed_frameworks.push_back(Arc::new(framework));
            }
            let excess = self
                .completed_frameworks
                .len()
                .saturating_sub(settings.max_completed_frameworks);
            self.completed_frameworks.drain(..excess);
        }
    }
}

/// The first update of a stream, ready to be sent; sets the stream's timer.
fn head(
    framework: &mut Framework,
    task: &TaskId,
    now: Now,
    effects: &mut Vec<Effect>,
) -> Option<Update> {
    let stream = framework.streams.get_mut(task)?;
    let status = stream.pending.front()?.clone();
    let interval = stream.interval;
    stream.retry_at = Some(now.mono + interval);
    stream.interval = (interval * 2).min(RETRY_MAX);
    record_again(&framework.id, stream, effects);
    let container = framework.container_of(task);
    let row = container.and_then(|container| framework.executor_mut(&container));
    let mut latest = status.state();
    if let Some(row) = row.and_then(|executor| executor.task_mut(task)) {
        row.task.status_update_state = Some(status.state);
        row.task.status_update_uuid = status.uuid.clone();
        latest = row.state();
    }
    Some(Update {
        framework_id: Some(v1::FrameworkId {
            value: framework.id.to_string(),
        }),
        status: Some(status.0),
        latest_state: latest.into(),
    })
}

/// The newest status of a group's task whose container can still be waiting for an image.
fn waits(task: &Task) -> Option<TaskStatus> {
    let starts = task.state() == TaskState::TaskStarting;
    task.task.statuses.last().filter(|_| starts).cloned()
}

/// Records the updates of a stream of which that may have failed.
fn record_again(framework: &FrameworkId, stream: &mut Stream, effects: &mut Vec<Effect>) {
    let number = std::mem::take(&mut stream.unrecorded);
    let Some((executor, container)) = &stream.recorded else {
        return;
    };
    for status in stream.pending.iter().take(number) {
        effects.push(Effect::Checkpoint(Record {
            framework: framework.clone(),
            executor: executor.clone(),
            container: container.clone(),
            body: RecordBody::Update(status.clone()),
        }));
    }
}

/// What every update of an executor's task carries, whoever made it.
fn fill(status: &mut TaskStatus, executor: &Executor, agent: &str, ip: &str) {
    status.agent_id = Some(v1::AgentId {
        value: agent.to_owned(),
    });
    status.executor_id = Some(v1::ExecutorId {
        value: executor.id.to_string(),
    });
    if executor.state == ExecutorState::Terminated && status.source() == Source::Agent {
        // There is no container any more that has a status.
        return;
    }
    let container = status.container_status.get_or_insert_default();
    let is_named = container.container_id.is_some();
    if is_named && executor.kind == ExecutorKind::Default && container.executor_pid.is_none() {
        // Of a task's own container no more is told than its executor knows: it does not run.
        return;
    }
    if container.container_id.is_none() {
        container.container_id = Some(container_id(&executor.container));
    }
    if container.network_infos.is_empty() {
        container.network_infos.push(v1::NetworkInfo {
            ip_addresses: vec![v1::network_info::IpAddress {
                protocol: Some(v1::network_info::Protocol::IPv4.into()),
                ip_address: Some(ip.to_owned()),
            }],
            ..v1::NetworkInfo::default()
        });
    }
    if container.executor_pid.is_none() {
        container.executor_pid = executor.pid;
    }
}

/// A container's id as messages have it.
pub(crate) fn container_id(id: &ContainerId) -> v1::ContainerId {
    v1::ContainerId {
        value: id.value.to_string(),
        parent: id
            .parent
            .as_deref()
            .map(|parent| Box::new(container_id(parent))),
    }
}
