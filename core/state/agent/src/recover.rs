//! A new agent process takes over from records and from what was found of the containers.

use std::sync::Arc;

use tepui_model::id::{AgentId, ContainerId, ExecutorId, FrameworkId, TaskId};
use tepui_model::time::Now;
use tepui_proto::Wire;
use tepui_proto::v1;

use crate::event::{Found, RecoveredAgent, RecoveredExecutor};
use crate::operations::Ended;
use crate::rows::{Executor, ExecutorState, Framework, Stream, Task};
use crate::state::AgentState;
use crate::{ContainerEnd, Effect, ExecutorKind, RecordBody, Resumed};

/// One executor as its records tell it.
struct Replayed {
    executor: Executor,
    streams: Vec<(TaskId, Stream)>,
    retired: bool,
}

impl AgentState {
    pub(crate) fn recover(
        &mut self,
        recovered: RecoveredAgent,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.recovered = true;
        self.agent_id = recovered.agent_id.map(AgentId::from);
        self.cluster_id = recovered.cluster_id;
        self.epoch = recovered.epoch;
        if let Some(total) = recovered.total {
            self.owned.total = total;
        }
        if !recovered.resources.removed.is_empty() {
            let volumes = recovered.resources.removed;
            effects.push(Effect::RemoveVolumes { volumes });
        }
        // Those of an agent that is forgotten are nobody's.
        if self.agent_id.is_some() {
            let ended = recovered.resources.operations.into_iter();
            self.owned.ended = ended.map(Ended::new).collect();
        }
        for framework in recovered.frameworks {
            let id = FrameworkId::from(framework.info.id.as_ref().map_or("", |id| &id.value));
            self.frameworks
                .push(Framework::new(id.clone(), framework.info.0));
            let mut missing = Vec::new();
            for executor in framework.executors {
                missing.extend(self.recover_executor(&id, executor, now, effects));
            }
            // Only now: the last end of a framework ends the framework as well.
            for container in missing {
                let end = ContainerEnd {
                    never_started: true,
                    ..ContainerEnd::default()
                };
                self.container_ended(&container, end, now, effects);
            }
            // What is over, and frameworks that have nothing left, go to the history.
            self.settle(&id, effects);
        }
    }

    /// Takes an executor over. Its container, if nothing of it was found, has to be ended.
    fn recover_executor(
        &mut self,
        id: &FrameworkId,
        recovered: RecoveredExecutor,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<ContainerId> {
        let found = recovered.found.clone();
        let container = recovered.container.clone();
        let seed = self.rng.next_u64();
        let agent = self.agent().to_owned();
        let reregistration = self.settings.reregistration_timeout;
        let mut replayed = replay(id, &agent, recovered)?;
        let framework = self.framework_mut(id).expect("it was just pushed");
        if replayed.retired {
            replayed.executor.state = ExecutorState::Terminated;
            replayed.executor.end = Some(ContainerEnd::default());
            framework
                .completed_executors
                .push_back(Arc::new(replayed.executor));
            return None;
        }
        framework.streams.extend(replayed.streams);
        let resumed = replayed.executor.tasks.iter().map(|task| Resumed {
            task: task.info.clone(),
            state: task.task.state,
        });
        let mut resumed: Vec<Resumed> = resumed.collect();
        let executor = &mut replayed.executor;
        let name = executor.id.clone();
        if let Found::Running { pid } = found {
            executor.pid = Some(pid);
        }
        executor.recovered = true;
        let kind = executor.kind;
        let custom = kind == ExecutorKind::Custom;
        // Others may live without tasks: for more of them, or to come to a good end.
        let done = kind == ExecutorKind::Generated && executor.is_done();
        executor.state = if done {
            ExecutorState::Terminating
        } else {
            ExecutorState::Registering
        };
        if custom && matches!(found, Found::Running { .. }) {
            executor.register_by = Some(now.mono + reregistration);
        }
        framework.executors.push(Arc::new(replayed.executor));
        if found == Found::Missing {
            return Some(container);
        }
        if done {
            effects.push(Effect::Destroy {
                container: container.clone(),
            });
        } else if kind == ExecutorKind::Generated {
            effects.push(Effect::Play {
                container: container.clone(),
                framework: id.clone(),
                executor: name,
                seed,
                resumed: resumed.drain(..).next(),
            });
        } else if kind == ExecutorKind::Default {
            effects.push(Effect::PlayGroups {
                container: container.clone(),
                framework: id.clone(),
                executor: name,
                seed,
                resumed: Some(resumed),
            });
        }
        effects.push(Effect::Watch { container });
        None
    }
}

/// Folds an executor's records; `None` if there is not even its launch.
fn replay(id: &FrameworkId, agent: &str, recovered: RecoveredExecutor) -> Option<Replayed> {
    let mut records = recovered.records.into_iter();
    let RecordBody::Launch { executor, kind, .. } = records.next()? else {
        return None;
    };
    let name = ExecutorId::from(&*executor.executor_id.value);
    let key = (name.clone(), recovered.container.clone());
    let mut replayed = Replayed {
        executor: Executor::new(recovered.container, executor.0, kind, true),
        streams: Vec::new(),
        retired: false,
    };
    for record in records {
        replayed.step(id, agent, &key, record);
    }
    let executor = &mut replayed.executor;
    let ended = |task: &Task| task.state().is_terminal();
    let tasks = &executor.tasks;
    executor.kills.retain(|(task, _)| {
        let row = tasks.iter().find(|t| *task == *t.info.task_id.value);
        row.is_some_and(|row| !ended(row))
    });
    Some(replayed)
}

impl Replayed {
    fn step(
        &mut self,
        id: &FrameworkId,
        agent: &str,
        key: &(ExecutorId, tepui_model::id::ContainerId),
        record: RecordBody,
    ) {
        match record {
            RecordBody::Task(info) => {
                if self.executor.has_task(&TaskId::from(&*info.task_id.value)) {
                    return;
                }
                let task = Task::new(info, id, agent, &self.executor);
                self.executor.tasks.push(task);
            }
            RecordBody::Kill {
                task,
                reason,
                grace,
            } => {
                if let Some(row) = self.executor.task_mut(&task) {
                    row.kill_reason = row.kill_reason.or(reason);
                }
                self.executor.kills.push((task, grace));
            }
            RecordBody::Update(status) => {
                let task = TaskId::from(&*status.task_id.value);
                let row = self.executor.task_mut(&task);
                let ended = row.is_some_and(|row| row.state().is_terminal());
                if ended && !status.state().is_terminal() {
                    // Written again later, since the first time it failed.
                    return;
                }
                let at = self.streams.iter().position(|(t, _)| *t == task);
                let at = at.unwrap_or_else(|| {
                    self.streams
                        .push((task.clone(), Stream::new(Some(key.clone()))));
                    self.streams.len() - 1
                });
                let pending = &mut self.streams[at].1.pending;
                if pending.iter().any(|p| p.uuid == status.uuid) {
                    return;
                }
                if let Some(row) = self.executor.task_mut(&task)
                    && !row.state().is_terminal()
                {
                    row.observe(&status);
                    let pid = status
                        .container_status
                        .as_ref()
                        .and_then(|s| s.executor_pid);
                    self.executor.pid = self.executor.pid.or(pid);
                }
                self.streams[at].1.pending.push_back(status);
            }
            RecordBody::Acknowledged { task, uuid } => {
                let Some(at) = self.streams.iter().position(|(t, _)| *t == task) else {
                    return;
                };
                let pending = &mut self.streams[at].1.pending;
                let acknowledged = |p: &mut Wire<v1::TaskStatus>| p.uuid.as_deref() == Some(&*uuid);
                if pending.pop_front_if(acknowledged).is_some() && pending.is_empty() {
                    self.streams.remove(at);
                }
            }
            RecordBody::Retired => self.retired = true,
            // There is no second launch record.
            RecordBody::Launch { .. } => {}
        }
    }
}
