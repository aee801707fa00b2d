//! A simulated custom executor: a process in a container that subscribes, runs tasks, loses its stream
//! with the agent and comes back, is killed or exits at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tepui_model::id::ContainerId;
use tepui_model::time::Mono;
use tepui_proto::v1::executor::{Call, Event, call, event};
use tepui_proto::v1::{self, TaskState, TaskStatus, task_status};
use tepui_proto::{Wire, v1::TaskInfo};

use crate::agent::Run;
use crate::simulation::Simulation;
use crate::step::Step;

/// How long a process stays without a task.
const IDLE: Duration = Duration::from_secs(20);

/// What a process knows. It lives and dies with its container.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    framework: v1::FrameworkId,
    executor: v1::ExecutorId,
    /// The run of the agent that its stream is with.
    stream: Option<u32>,
    /// When the newest event arrives: they come in order.
    heard_at: Mono,
    /// Tasks that it was told of, until an update of theirs is acknowledged.
    tasks: BTreeMap<String, TaskInfo>,
    /// Updates that are not acknowledged, oldest first.
    updates: Vec<TaskStatus>,
    running: BTreeSet<String>,
}

/// What a process does of its own accord.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Subscribe,
    End { task: String, state: TaskState },
    ExitIdle,
}

impl Process {
    pub(crate) fn new(framework: v1::FrameworkId, executor: v1::ExecutorId) -> Self {
        Self {
            framework,
            executor,
            stream: None,
            heard_at: Mono(0),
            tasks: BTreeMap::new(),
            updates: Vec::new(),
            running: BTreeSet::new(),
        }
    }

    fn call(&self, kind: call::Type) -> Call {
        Call {
            framework_id: self.framework.clone(),
            executor_id: self.executor.clone(),
            r#type: Some(kind.into()),
            ..Call::default()
        }
    }
}

impl Simulation {
    /// The process of a container, while it lives.
    fn process(&mut self, agent: usize, id: &ContainerId) -> Option<&mut Process> {
        let container = self.agents[agent].containers.get_mut(id)?;
        let process = container.process.as_mut();
        process.filter(|_| container.state == Run::Running)
    }

    pub(crate) fn process_acts(
        &mut self,
        agent: usize,
        container: &ContainerId,
        act: Act,
    ) -> Result<(), String> {
        let Some(process) = self.process(agent, container) else {
            return Ok(());
        };
        match act {
            Act::Subscribe => self.process_subscribes(agent, container),
            Act::End { task, state } => {
                if process.running.remove(&task) {
                    self.process_updates(agent, container, &task, state);
                    self.later(agent, container, IDLE, Act::ExitIdle);
                }
                Ok(())
            }
            Act::ExitIdle if process.running.is_empty() && process.updates.is_empty() => {
                self.container_ends(agent, container.clone(), 0)
            }
            Act::ExitIdle if process.running.is_empty() => {
                self.later(agent, container, IDLE, Act::ExitIdle);
                Ok(())
            }
            // It looks again after the next end.
            Act::ExitIdle => Ok(()),
        }
    }

    fn later(&mut self, agent: usize, container: &ContainerId, wait: Duration, act: Act) {
        let container = container.clone();
        self.after(
            wait,
            Step::Process {
                agent,
                container,
                act,
            },
        );
    }

    /// It looks for its agent; what nobody takes is tried again.
    pub(crate) fn process_begins(&mut self, agent: usize, container: &ContainerId) {
        let wait = self.delay(10, 3_000);
        self.later(agent, container, wait, Act::Subscribe);
    }

    fn process_subscribes(&mut self, agent: usize, container: &ContainerId) -> Result<(), String> {
        let run = self.agents[agent].run;
        let Some(process) = self.process(agent, container) else {
            return Ok(());
        };
        if process.stream == Some(run) {
            return Ok(());
        }
        let mut call = process.call(call::Type::Subscribe);
        let updates = process.updates.iter();
        call.subscribe = Some(call::Subscribe {
            unacknowledged_tasks: process.tasks.values().cloned().collect(),
            unacknowledged_updates: updates
                .map(|status| call::Update {
                    status: status.clone(),
                })
                .collect(),
        });
        let state = self.agents[agent].state.as_ref();
        if state.is_none_or(|state| state.caller(&call).as_ref() != Ok(container)) {
            self.process_begins(agent, container);
            return Ok(());
        }
        let now = self.now.mono;
        if let Some(process) = self.process(agent, container) {
            process.stream = Some(run);
            process.heard_at = now;
        }
        self.later(agent, container, IDLE, Act::ExitIdle);
        let call = Wire(call);
        let container = container.clone();
        self.agent_event(
            agent,
            tepui_state_agent::Event::ExecutorCall { container, call },
        )
    }

    /// Its stream with an earlier run of the agent is broken.
    pub(crate) fn processes_disconnected(&mut self, agent: usize) {
        let containers = self.agents[agent].containers.iter();
        let processes = containers.filter(|(_, container)| container.process.is_some());
        let all: Vec<ContainerId> = processes.map(|(id, _)| id.clone()).collect();
        for container in all {
            if let Some(process) = self.process(agent, &container) {
                process.stream = None;
                self.process_begins(agent, &container);
            }
        }
    }

    /// The agent closes a stream.
    pub(crate) fn process_closed(&mut self, agent: usize, container: &ContainerId) {
        if let Some(process) = self.process(agent, container) {
            process.stream = None;
        }
    }

    /// The agent says something. Whether a process hears it depends on when the agent dies.
    pub(crate) fn tell_process(&mut self, agent: usize, container: ContainerId, event: Event) {
        let wait = self.delay(0, 20);
        let now = self.now.mono;
        let run = self.agents[agent].run;
        let Some(process) = self.process(agent, &container) else {
            return;
        };
        let at = process.heard_at.max(now + wait);
        process.heard_at = at;
        let event = Box::new(event);
        self.at(
            at,
            Step::ToProcess {
                agent,
                run,
                container,
                event,
            },
        );
    }

    pub(crate) fn process_hears(
        &mut self,
        agent: usize,
        run: u32,
        container: &ContainerId,
        event: Event,
    ) -> Result<(), String> {
        let Some(process) = self.process(agent, container) else {
            return Ok(());
        };
        if process.stream != Some(run) {
            return Ok(());
        }
        match event.r#type() {
            event::Type::Launch => {
                let task = event.launch.unwrap_or_default().task;
                self.process_runs(agent, container, task)?;
            }
            event::Type::LaunchGroup => {
                let group = event.launch_group.unwrap_or_default().task_group;
                for task in group.tasks {
                    self.process_runs(agent, container, task)?;
                }
            }
            event::Type::Acknowledged => {
                let acknowledged = event.acknowledged.unwrap_or_default();
                let uuid = Some(&acknowledged.uuid);
                process
                    .updates
                    .retain(|update| update.uuid.as_ref() != uuid);
                process.tasks.remove(&acknowledged.task_id.value);
            }
            event::Type::Kill => {
                let task = event.kill.unwrap_or_default().task_id.value;
                let wait = self.delay(1, 200);
                let state = TaskState::TaskKilled;
                self.later(agent, container, wait, Act::End { task, state });
            }
            event::Type::Shutdown => {
                // Some do not end in time.
                let wait = self.delay(1, 8_000);
                let container = container.clone();
                let status = 0;
                self.after(
                    wait,
                    Step::ContainerEnds {
                        agent,
                        container,
                        status,
                    },
                );
            }
            _ => {}
        }
        Ok(())
    }

    fn process_runs(
        &mut self,
        agent: usize,
        container: &ContainerId,
        info: TaskInfo,
    ) -> Result<(), String> {
        let task = info.task_id.value.clone();
        self.oracle.started(&task)?;
        self.tried.in_processes += 1;
        if let Some(process) = self.process(agent, container) {
            process.tasks.insert(task.clone(), info);
            process.running.insert(task.clone());
        }
        self.process_updates(agent, container, &task, TaskState::TaskRunning);
        let wait = self.delay(10, 40_000);
        let state = match self.rng.below(4) {
            0 => TaskState::TaskFailed,
            _ => TaskState::TaskFinished,
        };
        self.later(agent, container, wait, Act::End { task, state });
        Ok(())
    }

    fn process_updates(
        &mut self,
        agent: usize,
        container: &ContainerId,
        task: &str,
        state: TaskState,
    ) {
        let uuid = Bytes::copy_from_slice(self.rng.uuid().as_bytes());
        let timestamp = Some(self.now.wall.as_secs_f64());
        let run = self.agents[agent].run;
        let Some(process) = self.process(agent, container) else {
            return;
        };
        let status = TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state.into(),
            source: Some(task_status::Source::Executor.into()),
            uuid: Some(uuid),
            timestamp,
            ..TaskStatus::default()
        };
        process.updates.push(status.clone());
        if process.stream != Some(run) {
            // It is told when the process subscribes again.
            return;
        }
        let mut call = process.call(call::Type::Update);
        call.update = Some(call::Update { status });
        // An answer that was lost makes it call again.
        let again = self.strikes("calls repeated", self.chances.duplicate);
        for _ in 0..1 + u32::from(again) {
            self.after(
                Duration::ZERO,
                Step::ExecutorCall {
                    agent,
                    run,
                    container: container.clone(),
                    call: Box::new(Wire(call.clone())),
                },
            );
        }
    }
}
