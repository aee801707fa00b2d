//! The ways in which agents leave, and what that means for their tasks.

use tepui_model::allocation::{AgentKey, Fact, FrameworkKey};
use tepui_model::id::{AgentId, TaskId};
use tepui_model::resources::Resources;
use tepui_model::time::{Now, Wall};
use tepui_proto::v1::{OperationState, TaskState, task_status};

use crate::counts::Count;
use crate::event::SessionKey;
use crate::registry::Pending;
use crate::status::{self, MasterStatus};
use crate::{Effect, MasterState, service};

impl MasterState {
    /// The agent asked to be removed: its tasks are over.
    pub(crate) fn agent_unregister(
        &mut self,
        session: SessionKey,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.agent_of(session) else {
            return;
        };
        self.counts.add(Count::AgentUnregister);
        self.sessions.remove(&session);
        self.session_ended(key, now, effects);
        effects.push(Effect::CloseAgent { session });
        let id = self.agent_runs[&key].id.clone();
        if self.transitioning.insert(id.clone()) {
            let deletes = vec![format!("agents/{id}"), service::key(&id)];
            self.store(Vec::new(), deletes, Pending::Removed { id }, effects);
        }
    }

    /// The registry has it: tell the frameworks, forget the agent, keep its tasks as unreachable.
    pub(crate) fn agent_unreachable(
        &mut self,
        id: &AgentId,
        since: Wall,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.agent_ids.get(id).copied() else {
            return;
        };
        let message = format!(
            "Agent {} is unreachable",
            self.agent_runs[&key].info.hostname
        );
        let tasks: Vec<_> = self.agent_runs[&key].tasks.iter().cloned().collect();
        for (framework, task) in tasks {
            self.task_unreachable(framework, &task, since, &message, now, effects);
        }
        let state = OperationState::OperationUnreachable;
        self.end_operations(key, state, &message, effects);
        self.forget_agent(key, now, effects);
    }

    /// The agent left: its tasks are gone.
    pub(crate) fn agent_removed(&mut self, id: &AgentId, now: Now, effects: &mut Vec<Effect>) {
        self.end_agent(
            id,
            TaskState::TaskGone,
            OperationState::OperationUnknown,
            task_status::Reason::AgentRemoved,
            "removed",
            now,
            effects,
        );
    }

    /// An operator said that the agent is gone.
    pub(crate) fn agent_gone(&mut self, id: &AgentId, now: Now, effects: &mut Vec<Effect>) {
        self.end_agent(
            id,
            TaskState::TaskGoneByOperator,
            OperationState::OperationGoneByOperator,
            task_status::Reason::AgentRemovedByOperator,
            "marked gone",
            now,
            effects,
        );
    }

    #[expect(clippy::too_many_arguments, reason = "one sentence of a status")]
    fn end_agent(
        &mut self,
        id: &AgentId,
        state: TaskState,
        operations: OperationState,
        reason: task_status::Reason,
        how: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.agent_ids.get(id).copied() else {
            return;
        };
        let message = format!("Agent {} {how}", self.agent_runs[&key].info.hostname);
        let tasks: Vec<_> = self.agent_runs[&key].tasks.iter().cloned().collect();
        for (framework, task) in tasks {
            let said = self.frameworks[&framework].spoken(state);
            self.end_task(
                framework,
                &task,
                said,
                reason,
                message.clone(),
                now,
                effects,
            );
        }
        self.end_operations(key, operations, &message, effects);
        self.forget_agent(key, now, effects);
    }

    /// Drops an agent whose tasks are dealt with.
    fn forget_agent(&mut self, key: AgentKey, now: Now, effects: &mut Vec<Effect>) {
        self.rescind_agent(key, now, effects);
        let executors: Vec<_> = self.agent_runs[&key].executors.iter().cloned().collect();
        for (framework, executor) in executors {
            self.remove_executor(framework, key, &executor, now);
        }
        let run = self.agent_runs.remove(&key).expect("caller found it");
        if let Some(session) = run.session {
            if run.synced {
                self.synced_count -= 1;
            }
            self.sessions.remove(&session);
            effects.push(Effect::CloseAgent { session });
        }
        self.forget_inverse_agent(key);
        self.set_total(key, Resources::new());
        self.agents.remove(&key);
        self.agent_ids.swap_remove(&run.id);
        self.leave_address(key, &run.address);
        self.allocation.forget_agent(key);
        self.allocation.tell(Fact::AgentRemoved(key));
        for framework in self.frameworks.values() {
            framework.send(status::failure_event(&run.id, None, None), effects);
        }
        effects.extend(self.operators_agent_removed(&run.id));
    }

    /// A task ends by the master's word: no acknowledgement is awaited.
    #[expect(clippy::too_many_arguments, reason = "one sentence of a status")]
    pub(crate) fn end_task(
        &mut self,
        framework: FrameworkKey,
        task: &TaskId,
        state: TaskState,
        reason: task_status::Reason,
        message: String,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = &self.frameworks[&framework];
        let row = owner.tasks.get(task);
        let executor = row.and_then(status::executor_of);
        let agent = row.map(|row| row.agent);
        let agent = agent
            .and_then(|key| self.agents.get(&key))
            .map(|row| &row.id);
        let mut status = status::by_master(
            MasterStatus {
                task,
                state,
                reason,
                message,
                agent,
            },
            now,
        );
        status.executor_id = executor;
        owner.send(status::update_event(status.clone()), effects);
        self.set_task_status(framework, task, state, &status, now, effects);
        self.remove_task(framework, task, now);
    }
}
