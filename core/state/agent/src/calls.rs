//! The executor API: what executors call, and what they are told.
//!
//! Played executors and processes of frameworks come here alike. A process may lose its stream and
//! subscribe again, also with another agent process than the one that launched it; what it was not
//! told meanwhile waits for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tepui_model::id::{ContainerId, ExecutorId, FrameworkId, TaskId, Uuid};
use tepui_model::time::{self, Mono, Now};
use tepui_proto::Wire;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{ExecutorMessage, FrameworkMessage};
use tepui_proto::v1::executor::{Call, Event, call, event};
use tepui_proto::v1::task_status::{Reason, Source};
use tepui_proto::v1::{self, TaskState, TaskStatus};

use crate::rows::{Executor, ExecutorState, Task, Verdict};
use crate::state::{AgentSettings, AgentState};
use crate::updates::container_id;
use crate::{Effect, ExecutorKind};

/// Time between HEARTBEAT events.
const HEARTBEAT: Duration = Duration::from_mins(30);

/// Why a call of an executor is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The framework has nothing here.
    #[error("Framework cannot be found")]
    NoFramework,
    /// It has no such executor, or only one that is over.
    #[error("Executor cannot be found")]
    NoExecutor,
    /// It has to subscribe first.
    #[error("Executor is not subscribed")]
    NotSubscribed,
    /// It has to subscribe with this agent process first.
    #[error("Agent has not finished recovery")]
    Recovering,
}

impl AgentState {
    /// The container of the executor that makes a call.
    ///
    /// # Errors
    ///
    /// When there is none that may make it, in the words of Mesos.
    pub fn caller(&self, call: &Call) -> Result<ContainerId, Refusal> {
        let framework = FrameworkId::from(&*call.framework_id.value);
        let framework = self.framework(&framework).ok_or(Refusal::NoFramework)?;
        let id = ExecutorId::from(&*call.executor_id.value);
        let executor = framework.custom(&id).ok_or(Refusal::NoExecutor)?;
        match call.r#type() {
            call::Type::Subscribe => {}
            _ if executor.is_new() && executor.recovered => return Err(Refusal::Recovering),
            _ if executor.is_new() => return Err(Refusal::NotSubscribed),
            _ => {}
        }
        Ok(executor.container.clone())
    }

    pub(crate) fn executor_call(
        &mut self,
        container: &ContainerId,
        call: Call,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match call.r#type() {
            call::Type::Subscribe => {
                let subscribe = call.subscribe.unwrap_or_default();
                self.subscribed(container, subscribe, now, effects);
            }
            call::Type::Update => {
                if let Some(update) = call.update {
                    self.executor_update(container, update.status, now, effects);
                }
            }
            call::Type::Message => {
                let message = call.message.unwrap_or_default();
                self.executor_message(container, message.data, effects);
            }
            // Heartbeats are answered by who takes calls.
            call::Type::Heartbeat | call::Type::Unknown => {}
        }
    }

    /// The executor is there: tells it who it is, then what waits for it.
    fn subscribed(
        &mut self,
        container: &ContainerId,
        subscribe: call::Subscribe,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let agent = self.info();
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let info = framework.info.0.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        executor.connected = true;
        let ending = matches!(
            executor.state,
            ExecutorState::Terminating | ExecutorState::Terminated
        );
        if executor.kind == ExecutorKind::Custom && ending {
            to_executor(executor, event::Type::Shutdown, effects, |_| {});
            return;
        }
        if executor.is_new() {
            executor.state = ExecutorState::Running;
        }
        executor.register_by = None;
        let executor_info = executor.info.0.clone();
        to_executor(executor, event::Type::Subscribed, effects, |event| {
            event.subscribed = Some(event::Subscribed {
                executor_info,
                framework_info: info,
                agent_info: agent,
                container_id: Some(container_id(container)),
            });
        });
        if executor.kind == ExecutorKind::Custom {
            executor.heartbeat_at = Some(now.mono + HEARTBEAT);
        }
        if executor.kind != ExecutorKind::Generated {
            self.reconcile_executor(container, subscribe, now, effects);
        }
        self.tell_waiting(container, effects);
    }

    /// Tells an executor what it could not be told before: kills, tasks, groups of tasks.
    pub(crate) fn tell_waiting(&mut self, container: &ContainerId, effects: &mut Vec<Effect>) {
        let agent = self.agent().to_owned();
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        let Some(executor) = framework.executor_mut(container) else {
            return;
        };
        for (task, grace) in std::mem::take(&mut executor.kills) {
            let grace = grace.map(|nanoseconds| v1::DurationInfo { nanoseconds });
            let policy = grace.map(|grace| v1::KillPolicy {
                grace_period: Some(grace),
            });
            tell_kill(executor, &task, policy, effects);
        }
        if !executor.queued.is_empty() {
            update_container(executor, effects);
        }
        let queued = std::mem::take(&mut executor.queued);
        let groups = std::mem::take(&mut executor.groups);
        let group_of = |task: &v1::TaskInfo| {
            let id = &*task.task_id.value;
            groups
                .iter()
                .position(|g| g.iter().any(|member| *member == *id))
        };
        let mut grouped: Vec<Vec<v1::TaskInfo>> = vec![Vec::new(); groups.len()];
        // Tasks are large, most executors have one, and a vector that grows by itself has room for four.
        executor.tasks.reserve_exact(queued.len());
        for info in queued {
            match group_of(&info) {
                Some(at) => grouped[at].push(info.0.clone()),
                None => to_executor(executor, event::Type::Launch, effects, |event| {
                    event.launch = Some(event::Launch {
                        task: info.0.clone(),
                    });
                }),
            }
            let task = Task::new(info, &id, &agent, executor);
            executor.tasks.push(task);
        }
        for tasks in grouped {
            to_executor(executor, event::Type::LaunchGroup, effects, |event| {
                event.launch_group = Some(event::LaunchGroup {
                    task_group: v1::TaskGroupInfo { tasks },
                });
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
        let Some(row) = self
            .framework_of(container)
            .and_then(|framework| framework.executor(container))
        else {
            return;
        };
        let again = row.task(&task).map(|row| {
            let uuid = Uuid::from_slice(&uuid);
            uuid.is_some_and(|uuid| row.updates.contains(&uuid))
        });
        match again {
            // It has ended and is forgotten, or never was: nobody waits for more of it.
            None => self.counts.invalid_updates += 1,
            Some(true) => {}
            Some(false) => self.update(container, status, now, effects),
        }
        let framework = self.framework_of(container);
        let Some(executor) = framework.and_then(|f| f.executor_mut(container)) else {
            return;
        };
        // After the record of the update: the executor may forget it now.
        to_executor(executor, event::Type::Acknowledged, effects, |event| {
            event.acknowledged = Some(event::Acknowledged {
                task_id: v1::TaskId {
                    value: task.to_string(),
                },
                uuid,
            });
        });
    }

    /// An executor is back: takes over what it has not been told is safe, and gives up what it was
    /// never told.
    fn reconcile_executor(
        &mut self,
        container: &ContainerId,
        subscribe: call::Subscribe,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for update in subscribe.unacknowledged_updates {
            self.executor_update(container, update.status, now, effects);
        }
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let id = framework.id.clone();
        let Some(executor) = framework.executor(container) else {
            return;
        };
        let name = executor.id.clone();
        let has = |id: &v1::TaskId| {
            let mut tasks = subscribe.unacknowledged_tasks.iter();
            tasks.any(|task| task.task_id == *id)
        };
        let lost = executor
            .tasks
            .iter()
            .filter(|task| task.state() == TaskState::TaskStaging && !has(&task.info.task_id));
        let lost: Vec<TaskId> = lost.map(|t| TaskId::from(&*t.info.task_id.value)).collect();
        for task in lost {
            let message = "Task launched during agent restart";
            let (state, reason) = (self.dropped(&id), Reason::AgentRestarted);
            let status = self.agent_status(&task, Some(&name), state, reason, message, now);
            self.update(container, status, now, effects);
        }
        // Whoever was given up must not be told of a kill.
        let framework = self.framework_of(container);
        if let Some(executor) = framework.and_then(|f| f.executor_mut(container)) {
            let tasks = &executor.tasks;
            executor.kills.retain(|(task, _)| {
                let row = tasks.iter().find(|t| *task == *t.info.task_id.value);
                row.is_some_and(|row| !row.state().is_terminal())
            });
        }
    }

    /// The stream of an executor is over; its container may well go on.
    pub(crate) fn executor_disconnected(&mut self, container: &ContainerId) {
        let framework = self.framework_of(container);
        if let Some(executor) = framework.and_then(|f| f.executor_mut(container)) {
            executor.connected = false;
            executor.heartbeat_at = None;
        }
    }

    /// Data for the framework.
    fn executor_message(
        &mut self,
        container: &ContainerId,
        data: Bytes,
        effects: &mut Vec<Effect>,
    ) {
        let Some(framework) = self.framework_of(container) else {
            return;
        };
        let framework_id = v1::FrameworkId {
            value: framework.id.to_string(),
        };
        let executor_id = framework.executor(container).map(|e| v1::ExecutorId {
            value: e.id.to_string(),
        });
        let message = ExecutorMessage {
            framework_id: Some(framework_id),
            executor_id,
            data,
        };
        self.counts.valid_messages += 1;
        self.to_master(Body::ExecutorMessage(message), effects);
    }

    /// Data for an executor; as in Mesos, it is lost when nobody reads it.
    pub(crate) fn framework_message(
        &mut self,
        message: FrameworkMessage,
        effects: &mut Vec<Effect>,
    ) {
        let framework =
            FrameworkId::from(message.framework_id.map_or(String::new(), |id| id.value));
        let executor = ExecutorId::from(message.executor_id.map_or(String::new(), |id| id.value));
        let row = self.framework(&framework).and_then(|f| f.named(&executor));
        let running = row.filter(|e| e.state == ExecutorState::Running && e.connected);
        let Some(executor) = running else {
            self.counts.invalid_messages += 1;
            return;
        };
        to_executor(executor, event::Type::Message, effects, |event| {
            event.message = Some(event::Message { data: message.data });
        });
        self.counts.valid_messages += 1;
    }

    /// What is due for executors: the ends of those that did not subscribe or end themselves in
    /// time, and heartbeats.
    pub(crate) fn executors_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let settings = &self.settings;
        for executor in self.frameworks.iter_mut().flat_map(|f| &mut f.executors) {
            let due = |at: Option<Mono>| at.is_some_and(|at| at <= now.mono);
            if due(executor.heartbeat_at) {
                let executor = Arc::make_mut(executor);
                executor.heartbeat_at = Some(now.mono + HEARTBEAT);
                to_executor(executor, event::Type::Heartbeat, effects, |_| {});
            }
            let silent = due(executor.register_by);
            if silent || due(executor.shutdown_at) {
                let executor = Arc::make_mut(executor);
                executor.shutdown_at = None;
                executor.register_by = None;
                if silent {
                    executor.verdict = Some(unregistered(settings, executor.recovered));
                    executor.state = ExecutorState::Terminating;
                }
                effects.push(Effect::Destroy {
                    container: executor.container.clone(),
                });
            }
        }
    }

    /// The resources of a container could not be changed: it is ended, as in Mesos.
    pub(crate) fn update_failed(
        &mut self,
        container: &ContainerId,
        message: &str,
        effects: &mut Vec<Effect>,
    ) {
        let framework = self.framework_of(container);
        let Some(executor) = framework.and_then(|f| f.executor_mut(container)) else {
            return;
        };
        if executor.end.is_some() {
            return;
        }
        executor.verdict.get_or_insert(Verdict {
            reason: Reason::ContainerUpdateFailed.into(),
            message: format!("Failed to update resources for container: {message}"),
        });
        executor.state = ExecutorState::Terminating;
        effects.push(Effect::Destroy {
            container: container.clone(),
        });
    }
}

/// What the tasks of an executor that has not subscribed in time are told.
fn unregistered(settings: &AgentSettings, recovered: bool) -> Verdict {
    let (reason, what, timeout) = if recovered {
        let timeout = settings.reregistration_timeout;
        (Reason::ExecutorReregistrationTimeout, "reregister", timeout)
    } else {
        let timeout = settings.registration_timeout;
        (Reason::ExecutorRegistrationTimeout, "register", timeout)
    };
    let timeout = time::text(timeout);
    Verdict {
        reason: reason.into(),
        message: format!("Executor did not {what} within {timeout}"),
    }
}

/// Tells of the resources that an executor has now. Those of generated ones never change.
pub(crate) fn update_container(executor: &Executor, effects: &mut Vec<Effect>) {
    if executor.kind != ExecutorKind::Generated && executor.state == ExecutorState::Running {
        effects.push(Effect::UpdateContainer {
            container: executor.container.clone(),
            resources: executor.resources().cloned().map(Wire).collect(),
            limits: executor.limits(),
        });
    }
}

pub(crate) fn tell_kill(
    executor: &Executor,
    task: &TaskId,
    kill_policy: Option<v1::KillPolicy>,
    effects: &mut Vec<Effect>,
) {
    to_executor(executor, event::Type::Kill, effects, |event| {
        event.kill = Some(event::Kill {
            task_id: v1::TaskId {
                value: task.to_string(),
            },
            kill_policy,
        });
    });
}

/// Sends an event to an executor that hears it; one that does not learns what it needs when it
/// subscribes again.
pub(crate) fn to_executor(
    executor: &Executor,
    kind: event::Type,
    effects: &mut Vec<Effect>,
    fill: impl FnOnce(&mut Event),
) {
    if !executor.connected {
        return;
    }
    let mut event = Event {
        r#type: Some(kind.into()),
        ..Event::default()
    };
    fill(&mut event);
    effects.push(Effect::ToExecutor {
        container: executor.container.clone(),
        event: Wire(event),
    });
}
