//! RECONCILE and RECONCILE_OPERATIONS: what the master knows, in the order of cases of Mesos.

use tepui_model::allocation::FrameworkKey;
use tepui_model::id::TaskId;
use tepui_model::time::Now;
use tepui_proto::Message as _;
use tepui_proto::v1::{self, OperationState, TaskState, TaskStatus, scheduler, task_status};
use tepui_view::TaskRow;

use crate::status::{self, MasterStatus};
use crate::{Effect, MasterState};

impl MasterState {
    /// No tasks named: all that are known. Otherwise each one that is named.
    pub(crate) fn reconcile(
        &mut self,
        framework: FrameworkKey,
        call: &scheduler::call::Reconcile,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if call.tasks.is_empty() {
            let owner = &self.frameworks[&framework];
            for row in owner.tasks.iter() {
                owner.send(status::update_event(self.latest(row, now)), effects);
            }
            return;
        }
        for task in &call.tasks {
            let id = TaskId::from(task.task_id.value.as_str());
            let agent = task.agent_id.as_ref().map(|id| id.value.as_str());
            self.reconcile_one(framework, &id, agent, now, effects);
        }
    }

    /// Answers for one task, or not at all while that cannot be known.
    pub(crate) fn reconcile_one(
        &self,
        framework: FrameworkKey,
        id: &TaskId,
        agent: Option<&str>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = &self.frameworks[&framework];
        if let Some(row) = owner.tasks.get(id) {
            owner.send(status::update_event(self.latest(row, now)), effects);
            return;
        }
        let unreachable = owner.unreachable.get(id);
        let agent = agent.or(unreachable.map(|row| row.agent.as_str()));
        let Some((state, message)) = self.unknown_task(agent) else {
            return;
        };
        let agent_id = agent.map(Into::into);
        let mut said = status::by_master(
            MasterStatus {
                task: id,
                state: owner.spoken(state),
                reason: task_status::Reason::Reconciliation,
                message: format!("Reconciliation: {message}"),
                agent: agent_id.as_ref(),
            },
            now,
        );
        if state == TaskState::TaskUnreachable
            && let Some(since) = agent.and_then(|agent| self.unreachable.get(agent))
        {
            said.unreachable_time = Some((*since).into());
        }
        owner.send(status::update_event(said), effects);
    }

    /// State of a task that is not known, by its agent. `None`: it may still turn up.
    fn unknown_task(&self, agent: Option<&str>) -> Option<(TaskState, &'static str)> {
        let Some(agent) = agent else {
            return self
                .recovered
                .is_empty()
                .then_some((TaskState::TaskUnknown, "Task is unknown"));
        };
        if self.recovered.contains_key(agent) || self.transitioning.contains(agent) {
            return None;
        }
        if let Some(key) = self.agent_ids.get(agent) {
            // It may have told only a part yet.
            return self.agent_runs[key]
                .known
                .then_some((TaskState::TaskGone, "Task is unknown to the agent"));
        }
        if self.unreachable.contains_key(agent) {
            return Some((TaskState::TaskUnreachable, "Task is unreachable"));
        }
        if self.gone.contains_key(agent) {
            return Some((TaskState::TaskGoneByOperator, "Task is gone"));
        }
        Some((TaskState::TaskUnknown, "Task is unknown"))
    }

    /// The last state that the framework was told.
    pub(crate) fn latest(&self, row: &TaskRow, now: Now) -> TaskStatus {
        let mut said = status::by_master(
            MasterStatus {
                task: &row.id,
                state: row.update.map_or(row.state, |update| update.state),
                reason: task_status::Reason::Reconciliation,
                message: "Reconciliation: Latest task state".into(),
                agent: self.agents.get(&row.agent).map(|agent| &agent.id),
            },
            now,
        );
        said.executor_id = status::executor_of(row);
        if let Some(last) = row
            .statuses
            .last()
            .and_then(|bytes| TaskStatus::decode(bytes.clone()).ok())
        {
            said.healthy = last.healthy;
            said.check_status = last.check_status;
            said.container_status = last.container_status;
        }
        said
    }

    /// No operations named: all that are known. Otherwise each one that is named.
    pub(crate) fn reconcile_operations(
        &self,
        framework: FrameworkKey,
        call: scheduler::call::ReconcileOperations,
        effects: &mut Vec<Effect>,
    ) {
        if call.operations.is_empty() {
            for status in self.known_operations(framework, None) {
                self.frameworks[&framework].send(operation_event(status), effects);
            }
        }
        for operation in call.operations {
            let known = self.known_operations(framework, Some(&operation.operation_id));
            if let Some(status) = known.into_iter().next() {
                self.frameworks[&framework].send(operation_event(status), effects);
                continue;
            }
            let agent = operation.agent_id.as_ref().map(|id| id.value.as_str());
            let (state, message) = match agent {
                None => (
                    OperationState::OperationUnknown,
                    "Operation is unknown and no 'agent_id' was provided",
                ),
                Some(agent)
                    if self.recovered.contains_key(agent) || self.transitioning.contains(agent) =>
                {
                    (
                        OperationState::OperationRecovering,
                        "Agent is recovered but has not re-registered",
                    )
                }
                Some(agent) if self.agent_ids.contains_key(agent) => {
                    (OperationState::OperationUnknown, "Operation is unknown")
                }
                Some(agent) if self.unreachable.contains_key(agent) => {
                    (OperationState::OperationUnreachable, "Agent is unreachable")
                }
                Some(agent) if self.gone.contains_key(agent) => {
                    (OperationState::OperationGoneByOperator, "Agent is gone")
                }
                Some(_) => (
                    OperationState::OperationUnknown,
                    "Both operation and agent are unknown",
                ),
            };
            let status = v1::OperationStatus {
                operation_id: Some(operation.operation_id),
                state: state as i32,
                message: Some(format!("Reconciliation: {message}")),
                agent_id: operation.agent_id,
                resource_provider_id: operation.resource_provider_id,
                ..Default::default()
            };
            self.frameworks[&framework].send(operation_event(status), effects);
        }
    }
}

/// UPDATE_OPERATION_STATUS.
pub(crate) fn operation_event(status: v1::OperationStatus) -> scheduler::Event {
    scheduler::Event {
        r#type: Some(scheduler::event::Type::UpdateOperationStatus as i32),
        update_operation_status: Some(scheduler::event::UpdateOperationStatus { status }),
        ..Default::default()
    }
}
