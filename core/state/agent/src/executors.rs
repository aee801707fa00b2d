//! What becomes of executors and their containers: from the launch to the end.

use std::time::Duration;

use tepui_model::id::{ContainerId, FrameworkId, TaskId};
use tepui_model::time::Now;
use tepui_proto::Wire;
use tepui_proto::link::ExecutorEnded;
use tepui_proto::link::link_frame::Body;
use tepui_proto::v1::executor::{Call, Event, call, event};
use tepui_proto::v1::task_status::{Reason, Source};
use tepui_proto::v1::{self, TaskState, TaskStatus};

use crate::rows::{ExecutorState, Task, is_terminal, new_task};
use crate::state::{AgentState, record};
use crate::updates::container_id;
use crate::{ContainerEnd, Effect, ExecutorKind, RecordBody};

impl AgentState {
    pub(crate) fn launched(
        &mut self,
        container: &ContainerId,
        pid: u32,
        effects: &mut Vec<Effect>,
    ) {
        let seed = self.rng.next_u64();
        let Some(framework) = self.framework_of(container) else {
            // Forgotten while it was being launched; its end was asked for then.
            return;
        };
        let id = framework.id.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        executor.pid = Some(pid);
        if executor.state == ExecutorState::Launching {
            executor.state = ExecutorState::Registering;
            effects.push(Effect::Play {
                container: container.clone(),
                framework: id,
                executor: executor.id.clone(),
                seed,
                resumed: None,
            });
        }
    }

    pub(crate) fn launch_failed(
        &mut self,
        container: &ContainerId,
        message: String,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
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
            let task = new_task(&info, &id, &agent, executor);
            executor.tasks.push(Task {
                info,
                task: Wire(task),
                kill_reason: None,
            });
        }
        let open = executor.tasks.iter().filter(|t| !is_terminal(t.state()));
        let open: Vec<TaskId> = open.map(|t| TaskId::from(&*t.info.task_id.value)).collect();
        for task in open {
            let mut status =
                self.agent_status(&task, Some(&executor_id), state, reason, message, now);
            status.limitation = limitation.cloned();
            self.update(container, status, now, effects);
        }
    }

    /// Marks the end of a container and settles what waited for it.
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
        executor.state = ExecutorState::Terminated;
        executor.shutdown_at = None;
        let status = end.status.unwrap_or_default();
        executor.end = Some(end);
        let told = (executor.kind != ExecutorKind::Generated).then(|| ExecutorEnded {
            framework_id: Some(v1::FrameworkId {
                value: id.to_string(),
            }),
            executor_id: Some(v1::ExecutorId {
                value: executor.id.to_string(),
            }),
            status,
        });
        if let Some(ended) = told {
            self.to_master(Body::ExecutorEnded(ended), effects);
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
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        let (state, reason, message, resources) = if let Some(limitation) = &end.limitation {
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
                stream.unrecorded = true;
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

    pub(crate) fn executor_call(
        &mut self,
        container: &ContainerId,
        call: Call,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match call.r#type() {
            call::Type::Subscribe => self.subscribed(container, effects),
            call::Type::Update => {
                if let Some(update) = call.update {
                    self.executor_update(container, update.status, now, effects);
                }
            }
            // Messages and heartbeats come with executors that have a process.
            call::Type::Message | call::Type::Heartbeat | call::Type::Unknown => {}
        }
    }

    /// The executor is there: tells it who it is, then what waits for it.
    fn subscribed(&mut self, container: &ContainerId, effects: &mut Vec<Effect>) {
        let agent = self.info();
        let agent_id = self.agent().to_owned();
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        let info = framework.info.0.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        if executor.state == ExecutorState::Registering {
            executor.state = ExecutorState::Running;
        }
        to_executor(container, event::Type::Subscribed, effects, |event| {
            event.subscribed = Some(event::Subscribed {
                executor_info: executor.info.0.clone(),
                framework_info: info,
                agent_info: agent,
                container_id: Some(container_id(container)),
            });
        });
        for (task, grace) in std::mem::take(&mut executor.kills) {
            let grace = grace.map(|nanoseconds| v1::DurationInfo { nanoseconds });
            let policy = grace.map(|grace| v1::KillPolicy {
                grace_period: Some(grace),
            });
            tell_kill(container, &task, policy, effects);
        }
        for task in std::mem::take(&mut executor.queued) {
            let row = new_task(&task, &id, &agent_id, executor);
            to_executor(container, event::Type::Launch, effects, |event| {
                event.launch = Some(event::Launch {
                    task: task.0.clone(),
                });
            });
            executor.tasks.push(Task {
                info: task,
                task: Wire(row),
                kill_reason: None,
            });
        }
    }

    fn executor_update(
        &mut self,
        container: &ContainerId,
        mut status: TaskStatus,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(uuid) = status.uuid.clone() else {
            return;
        };
        let task = TaskId::from(&*status.task_id.value);
        status.source = Some(Source::Executor.into());
        status.timestamp.get_or_insert(now.wall.as_secs_f64());
        let known = self.framework_of(container).is_some_and(|framework| {
            let stream = framework.streams.get(&task);
            stream.is_some_and(|s| s.pending.iter().any(|p| p.uuid.as_ref() == Some(&uuid)))
        });
        if !known {
            self.update(container, status, now, effects);
        }
        // After the record of the update: the executor may forget it now.
        to_executor(container, event::Type::Acknowledged, effects, |event| {
            event.acknowledged = Some(event::Acknowledged {
                task_id: v1::TaskId {
                    value: task.to_string(),
                },
                uuid,
            });
        });
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
            let message = "Killed before delivery to the executor";
            let reason = Reason::TaskKilledDuringLaunch;
            executor.state = ExecutorState::Terminating;
            self.end_tasks(
                &container,
                TaskState::TaskKilled,
                reason,
                message,
                None,
                now,
                effects,
            );
            effects.push(Effect::Destroy { container });
            return;
        };
        if is_terminal(row.state()) {
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
        if executor.state == ExecutorState::Registering {
            executor.kills.push((task.clone(), grace));
        } else {
            tell_kill(&container, task, policy, effects);
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
                to_executor(container, event::Type::Shutdown, effects, |_| {});
            }
            ExecutorState::Terminating | ExecutorState::Terminated => {}
        }
    }
}

fn tell_kill(
    container: &ContainerId,
    task: &TaskId,
    kill_policy: Option<v1::KillPolicy>,
    effects: &mut Vec<Effect>,
) {
    to_executor(container, event::Type::Kill, effects, |event| {
        event.kill = Some(event::Kill {
            task_id: v1::TaskId {
                value: task.to_string(),
            },
            kill_policy,
        });
    });
}

fn to_executor(
    container: &ContainerId,
    kind: event::Type,
    effects: &mut Vec<Effect>,
    fill: impl FnOnce(&mut Event),
) {
    let mut event = Event {
        r#type: Some(kind.into()),
        ..Event::default()
    };
    fill(&mut event);
    effects.push(Effect::ToExecutor {
        container: container.clone(),
        event: Wire(event),
    });
}
