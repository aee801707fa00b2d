//! What becomes of executors and their containers: from the launch to the end.

use std::time::Duration;

use tepui_model::id::{ContainerId, ExecutorId, FrameworkId, TaskId};
use tepui_model::time::Now;
use tepui_proto::Wire;
use tepui_proto::link::ExecutorEnded;
use tepui_proto::link::link_frame::Body;
use tepui_proto::v1::executor::event;
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState};

use crate::calls::{tell_kill, to_executor};
use crate::rows::{ExecutorState, Task};
use crate::state::{AgentState, record};
use crate::{ContainerEnd, Effect, ExecutorKind, RecordBody};

/// What FAILURE says of an executor that has no wait status, as in Mesos.
pub(crate) const NO_STATUS: i32 = -1;

impl AgentState {
    pub(crate) fn launched(
        &mut self,
        container: &ContainerId,
        pid: u32,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let seed = self.rng.next_u64();
        let registration = self.settings.registration_timeout;
        let Some(framework) = self.framework_of(container) else {
            // Forgotten while it was being launched; its end was asked for then.
            return;
        };
        let id = framework.id.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        executor.pid = Some(pid);
        if executor.state != ExecutorState::Launching {
            // It subscribed before its launch was reported, or is not wanted any more.
            return;
        }
        executor.state = ExecutorState::Registering;
        let (container, executor_id) = (container.clone(), executor.id.clone());
        match executor.kind {
            ExecutorKind::Custom => executor.register_by = Some(now.mono + registration),
            ExecutorKind::Generated => effects.push(Effect::Play {
                container,
                framework: id,
                executor: executor_id,
                seed,
                resumed: None,
            }),
            ExecutorKind::Default => effects.push(Effect::PlayGroups {
                container,
                framework: id,
                executor: executor_id,
                seed,
                resumed: None,
            }),
        }
    }

    pub(crate) fn launch_failed(
        &mut self,
        container: &ContainerId,
        message: String,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.mark_over(container);
        let message = format!("Failed to launch container: {message}");
        let reason = Reason::ContainerLaunchFailed;
        self.end_tasks(
            container,
            TaskState::TaskFailed,
            reason,
            &message,
            None,
            now,
            effects,
        );
        self.counts.launch_errors += 1;
        self.terminated(container, ContainerEnd::default(), effects);
    }

    /// Gives every task in `container` that has not ended this end.
    #[expect(clippy::too_many_arguments, reason = "the parts of one status")]
    fn end_tasks(
        &mut self,
        container: &ContainerId,
        state: TaskState,
        reason: Reason,
        message: &str,
        limitation: Option<&v1::TaskResourceLimitation>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let agent = self.agent().to_owned();
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        let executor_id = executor.id.clone();
        // A task that was never told to its executor ends in its executor all the same.
        for info in std::mem::take(&mut executor.queued) {
            let task = Task::new(info, &id, &agent, executor);
            executor.tasks.push(task);
        }
        executor.groups.clear();
        let open = executor.tasks.iter().filter(|t| !t.state().is_terminal());
        let open: Vec<TaskId> = open.map(|t| TaskId::from(&*t.info.task_id.value)).collect();
        for task in open {
            let mut status =
                self.agent_status(&task, Some(&executor_id), state, reason, message, now);
            status.limitation = limitation.cloned();
            self.update(container, status, now, effects);
        }
    }

    /// The container is over: nothing is asked of it, and said of it, any more.
    fn mark_over(&mut self, container: &ContainerId) {
        let framework = self.framework_of(container);
        if let Some(executor) = framework.and_then(|f| f.executor_mut(container)) {
            executor.state = ExecutorState::Terminated;
            executor.connected = false;
            executor.register_by = None;
            executor.heartbeat_at = None;
            executor.shutdown_at = None;
        }
    }

    /// Notes the end of a container and settles what waited for it.
    fn terminated(
        &mut self,
        container: &ContainerId,
        end: ContainerEnd,
        effects: &mut Vec<Effect>,
    ) {
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        let status = end.status.unwrap_or(NO_STATUS);
        executor.end = Some(end);
        if executor.kind != ExecutorKind::Generated {
            let ended = executor_ended(&id, &executor.id, status);
            effects.push(Effect::CloseExecutor {
                container: container.clone(),
            });
            self.to_master(ended, effects);
        }
        self.counts.executors_terminated += 1;
        self.settle(&id, effects);
    }

    pub(crate) fn container_ended(
        &mut self,
        container: &ContainerId,
        end: ContainerEnd,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.mark_over(container);
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        let verdict = framework
            .executor(container)
            .and_then(|e| e.verdict.clone());
        let (state, reason, message, resources) = if let Some(verdict) = verdict {
            let reason = Reason::try_from(verdict.reason).unwrap_or(Reason::ExecutorTerminated);
            (TaskState::TaskFailed, reason, verdict.message, None)
        } else if let Some(limitation) = &end.limitation {
            let resources = limitation.resources.iter().map(|r| r.0.clone());
            let resources = v1::TaskResourceLimitation {
                resources: resources.collect(),
            };
            let reason = Reason::try_from(limitation.reason).unwrap_or(Reason::ContainerLimitation);
            let message = limitation.message.clone();
            (TaskState::TaskFailed, reason, message, Some(resources))
        } else if end.never_started {
            let message = "The agent was restarted before the task was started".to_owned();
            (self.dropped(&id), Reason::AgentRestarted, message, None)
        } else {
            let message = "Executor terminated".to_owned();
            (
                TaskState::TaskFailed,
                Reason::ExecutorTerminated,
                message,
                None,
            )
        };
        self.end_tasks(
            container,
            state,
            reason,
            &message,
            resources.as_ref(),
            now,
            effects,
        );
        self.terminated(container, end, effects);
    }

    /// A record of a container could not be written: a launch is given up, an update that was made
    /// is recorded and sent again later.
    pub(crate) fn checkpoint_failed(
        &mut self,
        container: &ContainerId,
        message: &str,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        for stream in framework.streams.values_mut() {
            if stream
                .recorded
                .as_ref()
                .is_some_and(|(_, c)| c == container)
            {
                stream.unrecorded = stream.pending.len();
            }
        }
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        if executor.state != ExecutorState::Launching || executor.queued.is_empty() {
            return;
        }
        // The launch itself came after the record, so nothing runs and nothing will.
        executor.checkpoint = false;
        self.mark_over(container);
        let message = format!("Failed to checkpoint: {message}");
        let state = self.dropped(&id);
        self.end_tasks(
            container,
            state,
            Reason::GcError,
            &message,
            None,
            now,
            effects,
        );
        self.terminated(container, ContainerEnd::default(), effects);
    }

    /// Ends a task: at its executor, or before it gets there.
    pub(crate) fn kill(
        &mut self,
        id: &FrameworkId,
        task: &TaskId,
        policy: Option<v1::KillPolicy>,
        reason: Option<i32>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(framework) = self.framework_mut(id) else {
            return;
        };
        let Some(container) = framework.container_of(task) else {
            if framework.terminating || framework.streams.contains_key(task) {
                return;
            }
            let state = self.dropped(id);
            let message = "Cannot find executor";
            let reason = Reason::ExecutorTerminated;
            let status = self.agent_status(task, None, state, reason, message, now);
            return self.report_unknown(id, status, now, effects);
        };
        let executor = framework.executor_mut(&container).expect("it has the task");
        let Some(row) = executor.task_mut(task) else {
            return self.kill_queued(id, &container, task, now, effects);
        };
        if row.state().is_terminal() {
            return;
        }
        row.kill_reason = row.kill_reason.or(reason);
        let grace = policy.and_then(|policy| policy.grace_period);
        let grace = grace.map(|grace| grace.nanoseconds);
        let body = RecordBody::Kill {
            task: task.clone(),
            reason,
            grace,
        };
        record(id, executor, body, effects);
        if executor.connected {
            tell_kill(executor, task, policy, effects);
        } else {
            executor.kills.push((task.clone(), grace));
        }
    }

    /// Ends a task that its executor has not been told of, with its group if it has one. An
    /// executor that has not subscribed and is left without tasks is not needed any more.
    fn kill_queued(
        &mut self,
        id: &FrameworkId,
        container: &ContainerId,
        task: &TaskId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let agent = self.agent().to_owned();
        let framework = self.framework_mut(id);
        let Some(executor) = framework.and_then(|f| f.executor_mut(container)) else {
            return;
        };
        let name = executor.id.clone();
        let group = executor.groups.iter().position(|g| g.contains(task));
        let members = match group {
            Some(at) => executor.groups.remove(at),
            None => vec![task.clone()],
        };
        let belongs = |info: &mut Wire<v1::TaskInfo>| {
            members.iter().any(|member| *member == *info.task_id.value)
        };
        let dropped: Vec<_> = executor.queued.extract_if(.., belongs).collect();
        for info in dropped {
            let row = Task::new(info, id, &agent, executor);
            executor.tasks.push(row);
        }
        let unneeded = executor.is_new() && executor.is_done_but(&members);
        for member in &members {
            let reason = Reason::TaskKilledDuringLaunch;
            let message = "Killed before delivery to the executor";
            let state = TaskState::TaskKilled;
            let status = self.agent_status(member, Some(&name), state, reason, message, now);
            self.update(container, status, now, effects);
        }
        if unneeded {
            self.shutdown_executor(id, container, now, effects);
        }
    }

    /// Ends a framework: gracefully what runs, at once what has not begun.
    pub(crate) fn shutdown_framework(
        &mut self,
        id: &FrameworkId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(framework) = self.framework_mut(id) else {
            return;
        };
        if framework.terminating {
            return;
        }
        framework.terminating = true;
        framework.streams.clear();
        let executors = framework.executors.iter();
        let containers: Vec<ContainerId> = executors.map(|e| e.container.clone()).collect();
        for container in containers {
            self.shutdown_executor(id, &container, now, effects);
        }
        self.settle(id, effects);
    }

    pub(crate) fn shutdown_executor(
        &mut self,
        id: &FrameworkId,
        container: &ContainerId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let default = self.settings.shutdown_grace;
        let framework = self.framework_mut(id);
        let Some(executor) = framework.and_then(|f| f.executor_mut(container)) else {
            return;
        };
        match executor.state {
            ExecutorState::Launching | ExecutorState::Registering => {
                effects.push(Effect::Destroy {
                    container: container.clone(),
                });
                executor.state = ExecutorState::Terminating;
            }
            ExecutorState::Running => {
                let own = executor.info.shutdown_grace_period.as_ref();
                let own = own.map(|d| Duration::from_nanos(d.nanoseconds.max(0).unsigned_abs()));
                executor.shutdown_at = Some(now.mono + own.unwrap_or(default));
                executor.state = ExecutorState::Terminating;
                to_executor(executor, event::Type::Shutdown, effects, |_| {});
            }
            ExecutorState::Terminating | ExecutorState::Terminated => {}
        }
    }
}

/// The master frees what the executor has, and tells the framework.
pub(crate) fn executor_ended(framework: &FrameworkId, executor: &ExecutorId, status: i32) -> Body {
    Body::ExecutorEnded(ExecutorEnded {
        framework_id: Some(v1::FrameworkId {
            value: framework.to_string(),
        }),
        executor_id: Some(v1::ExecutorId {
            value: executor.to_string(),
        }),
        status,
    })
}
