//! Tasks and executors: rows, updates, acknowledgements, kills.
//!
//! Mirrors `Master::statusUpdate`, `Master::acknowledge`, `Master::kill`, `Master::updateTask` and
//! `Master::removeTask` of Mesos 1.11: resources are free at the first terminal *update*, the row stays
//! until that update is acknowledged.

use bytes::Bytes;
use prost::encoding;
use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::authorization::{Class, ClassKey};
use tepui_model::id::{AgentId, ExecutorId, FrameworkId, TaskId, Uuid};
use tepui_model::time::{Now, Wall};
use tepui_proto::Message as _;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::{self, Task, TaskState, TaskStatus, scheduler, task_status};
use tepui_view::{DoneRow, ExecutorRow, TaskRow, UpdateHead};

use crate::allocation::Back;
use crate::counts::Count;
use crate::effect::bytes_of;
use crate::event::SessionKey;
use crate::status::{self, MasterStatus};
use crate::{Effect, MasterState};

/// Field numbers of `Task`: what rows keep apart from the message.
const STATE_FIELD: u32 = 6;
const STATUSES_FIELD: u32 = 8;
const UPDATE_STATE_FIELD: u32 = 9;
const UPDATE_UUID_FIELD: u32 = 10;

/// Classes that a framework's tasks are looked for in first: most frameworks have one user and one role.
const TASK_CLASSES: usize = 4;

/// The bytes of a task without its state, which rows keep apart.
pub(crate) fn spec_of(task: &Task) -> Bytes {
    let mut spec = task.encode_to_vec();
    let mut rest = spec.as_slice();
    while !rest.is_empty() {
        let begin = spec.len() - rest.len();
        let (field, wire) = encoding::decode_key(&mut rest).expect("encoded here");
        encoding::skip_field(wire, field, &mut rest, Default::default()).expect("encoded here");
        if field == STATE_FIELD {
            let end = spec.len() - rest.len();
            spec.drain(begin..end);
            break;
        }
    }
    spec.into()
}

/// The encoded form of [`task_of`], put together from the parts of the row.
fn task_bytes(row: &TaskRow) -> Bytes {
    let statuses: usize = row.statuses.iter().map(|status| status.len() + 8).sum();
    let mut out = Vec::with_capacity(row.spec.len() + statuses + 32);
    let mut rest = &row.spec[..];
    let copy_to = |rest: &mut &[u8], out: &mut Vec<u8>, end: u32| {
        while !rest.is_empty() {
            let (before, mut after) = (*rest, *rest);
            let (field, wire) = encoding::decode_key(&mut after).expect("encoded here");
            if field >= end {
                return;
            }
            encoding::skip_field(wire, field, &mut after, Default::default())
                .expect("encoded here");
            out.extend_from_slice(&before[..before.len() - after.len()]);
            *rest = after;
        }
    };
    copy_to(&mut rest, &mut out, STATE_FIELD);
    encoding::int32::encode(STATE_FIELD, &row.state.into(), &mut out);
    copy_to(&mut rest, &mut out, STATUSES_FIELD);
    for status in &row.statuses {
        encoding::bytes::encode(STATUSES_FIELD, status, &mut out);
    }
    if let Some(update) = row.update {
        encoding::int32::encode(UPDATE_STATE_FIELD, &update.state.into(), &mut out);
        let uuid = update.uuid.as_bytes().to_vec();
        encoding::bytes::encode(UPDATE_UUID_FIELD, &uuid, &mut out);
    }
    out.extend_from_slice(rest);
    out.into()
}

/// The whole task of a row.
pub(crate) fn task_of(row: &TaskRow) -> Task {
    // The state is missing in the bytes; prost takes that for the enum's default.
    let mut task = Task::decode(row.spec.clone()).expect("encoded here");
    task.set_state(row.state);
    task.statuses = row
        .statuses
        .iter()
        .map(|bytes| TaskStatus::decode(bytes.clone()).expect("encoded here"))
        .collect();
    if let Some(update) = row.update {
        task.set_status_update_state(update.state);
        task.status_update_uuid = Some(update.uuid.as_bytes().to_vec().into());
    }
    task
}

impl MasterState {
    /// Visibility class of something that a framework runs in a role.
    pub(crate) fn class_of(
        &mut self,
        framework: FrameworkKey,
        user: Option<&str>,
        role: &str,
    ) -> ClassKey {
        let owner = &self.frameworks[&framework];
        let info = &owner.info;
        let user = user.unwrap_or(&info.user);
        let mut known = owner.task_classes.iter();
        if let Some((_, _, key)) = known.find(|(by, of, _)| by == user && of == role) {
            return *key;
        }
        let (user, role) = (user.to_owned(), role.to_owned());
        let class = Class {
            principal: info.principal.clone(),
            user: info.user.clone(),
            task_user: user.clone(),
            roles: vec![role.clone()],
        };
        let key = self.class_key(class);
        let owner = self.frameworks.get_mut(&framework).expect("just looked up");
        owner.task_classes.truncate(TASK_CLASSES - 1);
        owner.task_classes.push_front((user, role, key));
        key
    }

    /// Adds a task's row; its resources are taken unless it has ended.
    pub(crate) fn add_task(&mut self, row: TaskRow) {
        let agent = self
            .agent_runs
            .get_mut(&row.agent)
            .expect("agent of a task");
        agent.tasks.insert((row.framework, row.id.clone()));
        if !row.terminal {
            self.take(row.framework, row.agent, &row.resources);
        }
        let framework = self.touch(row.framework);
        framework.tasks.insert(row.id.clone(), row);
    }

    pub(crate) fn add_executor(&mut self, framework: FrameworkKey, row: ExecutorRow) {
        let agent = self
            .agent_runs
            .get_mut(&row.agent)
            .expect("agent of an executor");
        agent.executors.insert((framework, row.id.clone()));
        self.take(framework, row.agent, &row.resources);
        let framework = self.touch(framework);
        framework.executors.insert((row.agent, row.id.clone()), row);
    }

    /// Takes an executor off the books.
    pub(crate) fn remove_executor(
        &mut self,
        framework: FrameworkKey,
        agent: AgentKey,
        id: &ExecutorId,
        now: Now,
    ) {
        let owner = self.touch(framework);
        let Some(row) = owner.executors.remove(&(agent, id.clone())) else {
            return;
        };
        if let Some(run) = self.agent_runs.get_mut(&agent) {
            run.executors.remove(&(framework, id.clone()));
        }
        self.give_back(framework, agent, &row.resources);
        self.release(framework, agent, &row.resources, Back::Ended, now);
    }

    /// Records a status of a task that is known. The first terminal one frees its resources.
    pub(crate) fn set_task_status(
        &mut self,
        framework: FrameworkKey,
        id: &TaskId,
        latest: TaskState,
        status: &TaskStatus,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = self
            .frameworks
            .get_mut(&framework)
            .expect("caller found it");
        let Some(row) = owner.tasks.get_mut(id) else {
            return;
        };
        if !row.terminal {
            row.state = latest;
        }
        keep_status(row, status);
        let uuid = status.uuid.as_deref().and_then(Uuid::from_slice);
        let head = row.update.as_ref().map(|head| head.uuid);
        let again = uuid.is_some() && uuid == head;
        if let Some(uuid) = uuid {
            row.update = Some(UpdateHead {
                state: status.state(),
                uuid,
            });
        }
        let class = row.class;
        let state = row.state;
        if latest.is_terminal() && !row.terminal {
            row.terminal = true;
            let (agent, resources) = (row.agent, row.resources.clone());
            self.count_end(&self.frameworks[&framework], latest, status);
            self.give_back(framework, agent, &resources);
            self.release(framework, agent, &resources, Back::Ended, now);
        }
        // Mesos tells its subscribers of each status, also when the state is the same; not of one that the agent
        // sends again for want of an acknowledgement.
        if !again {
            effects.extend(self.operators_task_updated(framework, class, state, status));
        }
    }

    /// Moves a task's row to the history.
    pub(crate) fn remove_task(&mut self, framework: FrameworkKey, id: &TaskId, now: Now) {
        let Some(row) = self.take_row(framework, id, now) else {
            return;
        };
        let limit = self.settings.max_completed_tasks_per_framework;
        let done = self.done_row(&row, row.state, now.wall);
        self.touch(framework).completed.push(done, limit);
    }

    /// Takes a task's row out of the tables and its resources off the books.
    fn take_row(&mut self, framework: FrameworkKey, id: &TaskId, now: Now) -> Option<TaskRow> {
        let row = self.touch(framework).tasks.remove(id)?;
        let row = std::sync::Arc::unwrap_or_clone(row);
        if let Some(agent) = self.agent_runs.get_mut(&row.agent) {
            let key = (framework, id.clone());
            agent.tasks.remove(&key);
            agent.kills.remove(&key);
        }
        if !row.terminal {
            self.give_back(framework, row.agent, &row.resources);
            self.release(framework, row.agent, &row.resources, Back::Ended, now);
        }
        Some(row)
    }

    fn done_row(&self, row: &TaskRow, state: TaskState, ended: Wall) -> DoneRow {
        let agent = self.agents.get(&row.agent);
        DoneRow {
            id: row.id.clone(),
            agent: agent.map_or_else(|| AgentId::from(""), |agent| agent.id.clone()),
            class: row.class,
            state,
            ended,
            bytes: task_bytes(row),
        }
    }

    /// A task of an agent that is given up: it may come back, its resources are free.
    pub(crate) fn task_unreachable(
        &mut self,
        framework: FrameworkKey,
        id: &TaskId,
        since: Wall,
        message: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = &self.frameworks[&framework];
        let Some(row) = owner.tasks.get(id) else {
            return;
        };
        if row.terminal {
            // Its end was told; the acknowledgement can no more reach its agent.
            return self.remove_task(framework, id, now);
        }
        let state = owner.spoken(TaskState::TaskUnreachable);
        let mut status = status::by_master(
            MasterStatus {
                task: id,
                state,
                reason: task_status::Reason::AgentRemoved,
                message: message.to_owned(),
                agent: self.agents.get(&row.agent).map(|agent| &agent.id),
            },
            now,
        );
        status.executor_id = status::executor_of(row);
        status.unreachable_time = Some(since.into());
        owner.send(status::update_event(status.clone()), effects);
        self.set_task_status(framework, id, state, &status, now, effects);
        let Some(row) = self.take_row(framework, id, now) else {
            return;
        };
        let done = self.done_row(&row, state, now.wall);
        let limit = self.settings.max_unreachable_tasks_per_framework;
        let owner = self.touch(framework);
        owner.unreachable.insert(id.clone(), done);
        if owner.unreachable.len() > limit {
            let oldest = owner.unreachable.iter().next().map(|row| row.id.clone());
            owner.unreachable.remove(&oldest.expect("not empty"));
        }
    }

    /// Status updates of an agent: forwarded as they are, recorded, never answered by the master.
    pub(crate) fn agent_updates(
        &mut self,
        session: SessionKey,
        updates: link::Updates,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent_of(session) else {
            return;
        };
        if !self.agent_runs[&agent].synced {
            return;
        }
        for update in updates.updates {
            self.agent_update(agent, update, now, effects);
        }
    }

    fn agent_update(
        &mut self,
        agent: AgentKey,
        update: link::Update,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let latest = update.latest_state();
        let (Some(framework_id), Some(status)) = (update.framework_id, update.status) else {
            return;
        };
        let framework = self.framework_ids.get(framework_id.value.as_str()).copied();
        self.counts.add(Count::Update);
        let (good, bad) = (Count::ValidUpdate, Count::InvalidUpdate);
        self.counts.judge(framework.is_some(), good, bad);
        let Some(framework) = framework else {
            if self
                .removed_frameworks
                .contains(framework_id.value.as_str())
            {
                let framework_id = Some(framework_id);
                let body = Body::ShutdownFramework(link::ShutdownFramework { framework_id });
                self.to_agent(agent, body, effects);
            }
            return;
        };
        let id = TaskId::from(status.task_id.value.as_str());
        let owner = &self.frameworks[&framework];
        let here = owner.tasks.get(&id).is_some_and(|row| row.agent == agent);
        // What follows from the status comes after it.
        let mut after = Vec::new();
        if here {
            self.set_task_status(framework, &id, latest, &status, now, &mut after);
        }
        self.frameworks[&framework].send(status::update_event(status), effects);
        effects.append(&mut after);
        if !here {
            return;
        }
        if latest.is_terminal() {
            let run = self.agent_runs.get_mut(&agent).expect("known agent");
            run.kills.remove(&(framework, id));
        }
    }

    /// ACKNOWLEDGE: goes to the agent; that of a terminal update ends the row.
    pub(crate) fn acknowledge(
        &mut self,
        framework: FrameworkKey,
        call: scheduler::call::Acknowledge,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        // The agent resends to whoever asks later; an acknowledgement that cannot be passed on is dropped.
        let agent = self.agent_ids.get(call.agent_id.value.as_str()).copied();
        let agent = agent.filter(|agent| self.agent_runs[agent].synced);
        let (good, bad) = (Count::ValidAcknowledge, Count::InvalidAcknowledge);
        self.counts.judge(agent.is_some(), good, bad);
        let Some(agent) = agent else { return };
        let id = TaskId::from(call.task_id.value.as_str());
        let owner = &self.frameworks[&framework];
        let framework_id = owner.proto_id();
        let head = owner
            .tasks
            .get(&id)
            .filter(|row| row.agent == agent)
            .and_then(|row| row.update);
        if let Some(head) = head
            && head.state.is_terminal()
            && head.uuid.as_bytes().as_slice() == &call.uuid[..]
        {
            self.remove_task(framework, &id, now);
        }
        let body = Body::AckUpdate(link::AckUpdate {
            framework_id: Some(framework_id),
            task_id: Some(call.task_id),
            uuid: call.uuid,
        });
        self.to_agent(agent, body, effects);
    }

    /// KILL: remembered until the task ends, and sent again after each sync.
    pub(crate) fn kill(
        &mut self,
        framework: FrameworkKey,
        call: scheduler::call::Kill,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let id = TaskId::from(call.task_id.value.as_str());
        let Some(row) = self.frameworks[&framework].tasks.get(&id) else {
            let agent = call.agent_id.as_ref().map(|id| id.value.as_str());
            return self.reconcile_one(framework, &id, agent, now, effects);
        };
        let agent = row.agent;
        let other = call.agent_id.as_ref().is_some_and(|wanted| {
            self.agents
                .get(&agent)
                .is_some_and(|row| row.id != wanted.value.as_str())
        });
        if row.terminal || other {
            return;
        }
        let run = self.agent_runs.get_mut(&agent).expect("agent of a task");
        run.kills.insert((framework, id.clone()), call.kill_policy);
        self.send_kill(framework, agent, &id, call.kill_policy, effects);
    }

    pub(crate) fn send_kill(
        &self,
        framework: FrameworkKey,
        agent: AgentKey,
        id: &TaskId,
        kill_policy: Option<v1::KillPolicy>,
        effects: &mut Vec<Effect>,
    ) {
        let body = Body::Kill(link::Kill {
            framework_id: Some(self.frameworks[&framework].proto_id()),
            task_id: Some(v1::TaskId {
                value: id.to_string(),
            }),
            kill_policy,
            reason: None,
        });
        self.to_agent(agent, body, effects);
    }

    /// An executor that the master lists, or a generated one, is gone.
    pub(crate) fn executor_ended(
        &mut self,
        session: SessionKey,
        ended: link::ExecutorEnded,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent_of(session) else {
            return;
        };
        let (Some(framework_id), Some(executor_id)) = (ended.framework_id, ended.executor_id)
        else {
            return;
        };
        let Some(framework) = self.framework_ids.get(framework_id.value.as_str()).copied() else {
            return;
        };
        self.counts.add(Count::ExecutorEnded);
        let id = ExecutorId::from(executor_id.value.as_str());
        let owner = &self.frameworks[&framework];
        if !owner.executors.contains(&(agent, id.clone())) {
            return;
        }
        let agent_id = &self.agent_runs[&agent].id;
        let event = status::failure_event(agent_id, Some(executor_id), Some(ended.status));
        owner.send(event, effects);
        self.remove_executor(framework, agent, &id, now);
    }

    /// MESSAGE from an executor.
    pub(crate) fn executor_message(
        &mut self,
        session: SessionKey,
        message: link::ExecutorMessage,
        effects: &mut Vec<Effect>,
    ) {
        let Some(agent) = self.agent_of(session) else {
            return;
        };
        let (Some(framework_id), Some(executor_id)) = (message.framework_id, message.executor_id)
        else {
            return;
        };
        let id = FrameworkId::from(framework_id.value);
        let framework = self.framework_ids.get(&id);
        self.counts.add(Count::FromExecutor);
        let (good, bad) = (Count::ValidFromExecutor, Count::InvalidFromExecutor);
        self.counts.judge(framework.is_some(), good, bad);
        let Some(framework) = framework else { return };
        let event = scheduler::Event {
            r#type: Some(scheduler::event::Type::Message as i32),
            message: Some(scheduler::event::Message {
                agent_id: v1::AgentId {
                    value: self.agent_runs[&agent].id.to_string(),
                },
                executor_id,
                data: message.data,
            }),
            ..Default::default()
        };
        self.frameworks[framework].send(event, effects);
    }
}

/// Keeps at most one status per state, the newest, without data: it may be large, and Mesos drops it too.
fn keep_status(row: &mut TaskRow, status: &TaskStatus) {
    let bytes = if status.data.is_some() {
        bytes_of(&TaskStatus {
            data: None,
            ..status.clone()
        })
    } else {
        bytes_of(status)
    };
    let mut states = row.statuses.iter().map(|kept| state_of(kept));
    let same = states.position(|state| state == Some(status.state));
    if let Some(at) = same {
        row.statuses.remove(at);
    }
    row.statuses.push(bytes);
}

/// The state in the bytes of a status, without decoding the rest.
fn state_of(mut status: &[u8]) -> Option<i32> {
    const STATE: u32 = 2;
    let mut state = None;
    while !status.is_empty() {
        let (field, wire) = encoding::decode_key(&mut status).ok()?;
        if field == STATE {
            let value = state.insert(0);
            encoding::int32::merge(wire, value, &mut status, Default::default()).ok()?;
        } else {
            encoding::skip_field(wire, field, &mut status, Default::default()).ok()?;
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_put_together_as_it_would_be_encoded() {
        let value = |value: &str| v1::TaskId {
            value: value.into(),
        };
        let task = Task {
            name: "name".into(),
            task_id: value("id"),
            agent_id: v1::AgentId {
                value: "agent".into(),
            },
            resources: vec![v1::Resource::default(); 2],
            labels: Some(v1::Labels::default()),
            user: Some("user".into()),
            ..Task::default()
        };
        let mut row = TaskRow {
            id: "id".into(),
            framework: FrameworkKey(0),
            agent: AgentKey(0),
            executor: None,
            class: ClassKey(0),
            state: TaskState::TaskStaging,
            resources: Default::default(),
            spec: spec_of(&task),
            statuses: Default::default(),
            update: None,
            terminal: false,
        };
        assert_eq!(task_bytes(&row), task_of(&row).encode_to_vec());
        let status = TaskStatus {
            task_id: value("id"),
            state: TaskState::TaskFinished.into(),
            ..TaskStatus::default()
        };
        row.state = TaskState::TaskFinished;
        row.statuses = vec![bytes_of(&status); 2].into();
        row.update = Some(UpdateHead {
            state: TaskState::TaskFinished,
            uuid: Uuid::from_slice(&[7; 16]).expect("16 bytes"),
        });
        assert_eq!(task_bytes(&row), task_of(&row).encode_to_vec());
    }
}
