//! A simulated agent: the real agent state and the real executor, on a pretended disk and containers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tepui_executor::{CommandExecutor, Identity, Input, Output};
use tepui_model::id::{ContainerId, FrameworkId};
use tepui_model::time::Mono;
use tepui_proto::{Wire, convert, v1};
use tepui_state_agent::{
    AgentSettings, AgentState, ContainerEnd, Effect, Event, ExecutorKind, Found, RecordBody,
    RecoveredAgent, RecoveredExecutor, RecoveredFramework, ResourceRecord,
};

use crate::process::Process;
use crate::record::{Entry, Node};
use crate::simulation::{Simulation, Step};

/// What survives the agent process.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    identity: Option<(String, String, u64)>,
    records: BTreeMap<ContainerId, Vec<RecordBody>>,
    order: Vec<ContainerId>,
    executors: BTreeMap<ContainerId, tepui_executor::Record>,
    pub(crate) resources: ResourceRecord,
}

/// A pretended container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) task: String,
    /// The process of a custom executor.
    pub(crate) process: Option<Process>,
    /// Dies with the agent process.
    pub(crate) tied: bool,
    pub(crate) state: Run,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// Held at the gate.
    Launching,
    Running,
    Ended(i32),
}

/// One agent's machine.
pub(crate) struct Agent {
    pub(crate) run: u32,
    pub(crate) state: Option<AgentState>,
    pub(crate) disk: Disk,
    pub(crate) containers: BTreeMap<ContainerId, Container>,
    watched: BTreeSet<ContainerId>,
    executors: BTreeMap<ContainerId, CommandExecutor>,
    /// The session that it believes in.
    pub(crate) session: Option<u64>,
    pub(crate) resources: Vec<v1::Resource>,
    pub(crate) hellos: u64,
    pub(crate) tick_at: Option<Mono>,
    /// Until when it cannot reach the master.
    pub(crate) away_until: Mono,
    /// Until when nothing can be recorded.
    pub(crate) disk_full_until: Mono,
}

impl Agent {
    pub(crate) fn new(resources: Vec<v1::Resource>) -> Self {
        Self {
            run: 0,
            state: None,
            disk: Disk::default(),
            containers: BTreeMap::new(),
            watched: BTreeSet::new(),
            executors: BTreeMap::new(),
            session: None,
            resources,
            hellos: 0,
            tick_at: None,
            away_until: Mono(0),
            disk_full_until: Mono(0),
        }
    }

    /// Whether nothing of it is left to do.
    pub(crate) fn is_idle(&self) -> bool {
        let running =
            |container: &Container| matches!(container.state, Run::Running | Run::Launching);
        self.session.is_some()
            && !self.containers.values().any(running)
            && self.state.as_ref().is_some_and(|state| !state.has_state())
    }

    fn recovered(&self) -> RecoveredAgent {
        let mut frameworks: Vec<(FrameworkId, RecoveredFramework)> = Vec::new();
        for container in &self.disk.order {
            let Some(records) = self.disk.records.get(container) else {
                continue;
            };
            let Some(RecordBody::Launch { framework, .. }) = records.first() else {
                continue;
            };
            let id = framework.id.as_ref().map_or("", |id| id.value.as_str());
            let id = FrameworkId::from(id);
            let at = frameworks.iter().position(|(known, _)| *known == id);
            let at = at.unwrap_or_else(|| {
                let recovered = RecoveredFramework {
                    info: framework.clone(),
                    executors: Vec::new(),
                };
                frameworks.push((id, recovered));
                frameworks.len() - 1
            });
            let found = match self
                .containers
                .get(container)
                .map(|container| container.state)
            {
                Some(Run::Running) => Found::Running { pid: 7 },
                Some(Run::Ended(_)) => Found::Ended,
                Some(Run::Launching) | None => Found::Missing,
            };
            frameworks[at].1.executors.push(RecoveredExecutor {
                container: container.clone(),
                records: records.clone(),
                found,
            });
        }
        let (agent_id, cluster_id, epoch) = self.disk.identity.clone().unwrap_or_default();
        RecoveredAgent {
            agent_id: Some(agent_id).filter(|id| !id.is_empty()),
            cluster_id,
            epoch,
            frameworks: frameworks
                .into_iter()
                .map(|(_, framework)| framework)
                .collect(),
            total: convert::resources(&self.resources)
                .ok()
                .and_then(|given| given.with_made(&self.disk.resources.made).ok()),
            resources: self.disk.resources.clone(),
        }
    }
}

impl Simulation {
    /// A new agent process.
    pub(crate) fn start_agent(&mut self, index: usize) -> Result<(), String> {
        let info = v1::AgentInfo {
            hostname: format!("host{index}"),
            port: Some(5051),
            resources: self.agents[index].resources.clone(),
            ..Default::default()
        };
        let settings = AgentSettings::new(self.rng.next_u64(), info, "10.0.0.1");
        let agent = &mut self.agents[index];
        agent.run += 1;
        agent.state = Some(AgentState::new(settings.clone()));
        let node = Node::Agent(index as u32, agent.run);
        let recovered = agent.recovered();
        self.record(|| Entry::Agent(node, Box::new(settings)));
        let runs = self.agents[index].run;
        self.agent_event(index, Event::Recovered(recovered))?;
        if self.agents[index].run == runs {
            self.all_taken_over(index)?;
        }
        let wait = self.delay(1, 500);
        self.after(
            wait,
            Step::Hello {
                agent: index,
                run: self.agents[index].run,
            },
        );
        Ok(())
    }

    /// What an earlier process left running has a watcher again.
    fn all_taken_over(&mut self, index: usize) -> Result<(), String> {
        let agent = &self.agents[index];
        for (id, container) in &agent.containers {
            if container.state == Run::Running && !agent.watched.contains(id) {
                return Err(format!(
                    "R5: agent {index} does not know its container {id}"
                ));
            }
        }
        self.tried.recoveries += u64::from(!agent.containers.is_empty());
        Ok(())
    }

    /// The machine starts anew: nothing runs any more, and the agent that comes knows that by the boot's id.
    pub(crate) fn reboot_agent(&mut self, index: usize) {
        if self.agents[index].state.is_some() {
            self.crash_agent(index);
        }
        let agent = &mut self.agents[index];
        agent.containers.clear();
        agent.disk.executors.clear();
        for records in agent.disk.records.values_mut() {
            records.push(RecordBody::Retired);
        }
    }

    /// The agent process is killed. What is not on the disk is gone; containers that are not tied live on.
    pub(crate) fn crash_agent(&mut self, index: usize) {
        let agent = &mut self.agents[index];
        agent.state = None;
        agent.watched.clear();
        agent.executors.clear();
        agent.tick_at = None;
        agent.run += 1;
        let records = &agent.disk.records;
        agent.containers.retain(|id, container| {
            !container.tied && records.contains_key(id) && container.state != Run::Launching
        });
        if let Some(session) = agent.session.take() {
            self.break_link(session);
        }
        self.processes_disconnected(index);
        let wait = self.delay(100, 5_000);
        self.after(wait, Step::StartAgent { agent: index });
    }

    /// Applies an event and performs its effects, with a crash between any two of them.
    pub(crate) fn agent_event(&mut self, index: usize, event: Event) -> Result<(), String> {
        let now = self.now;
        let agent = &mut self.agents[index];
        let node = Node::Agent(index as u32, agent.run);
        let Some(state) = &mut agent.state else {
            return Ok(());
        };
        let mut effects = Vec::new();
        let copy = self.recording.is_some().then(|| Box::new(event.clone()));
        state.apply(event, now, &mut effects);
        state
            .check()
            .map_err(|error| format!("agent {index}: {error}"))?;
        self.tried.events += 1;
        self.hash.add(&effects);
        let hash = self.hash.value();
        if let Some(event) = copy {
            self.record(|| Entry::AgentEvent(node, now, event, hash));
        }
        let mut unrecorded = false;
        for effect in effects {
            if self.strikes("agents killed", self.chances.agent_crash) {
                self.crash_agent(index);
                return Ok(());
            }
            if unrecorded && matches!(effect, Effect::Launch(_) | Effect::ToMaster { .. }) {
                continue;
            }
            if let Effect::Checkpoint(record) = &effect
                && self.disk_is_full(index)
            {
                unrecorded = true;
                let run = self.agents[index].run;
                let container = record.container.clone();
                let failed = Step::NotRecorded {
                    agent: index,
                    run,
                    container,
                };
                self.after(Duration::ZERO, failed);
                continue;
            }
            if let Effect::CheckpointResources { operation, .. } = &effect
                && self.disk_is_full(index)
            {
                let Some(operation) = *operation else {
                    continue;
                };
                // Nothing that follows is done.
                let message = "No space left on device".into();
                return self.agent_event(index, Event::OperationFailed { operation, message });
            }
            self.perform_agent(index, effect)?;
            if self.agents[index].state.is_none() {
                return Ok(());
            }
        }
        self.arm_agent(index);
        Ok(())
    }

    /// Asks for a step at the next deadline of the agent and its executors.
    fn arm_agent(&mut self, index: usize) {
        let agent = &mut self.agents[index];
        let own = agent.state.as_ref().and_then(AgentState::next_deadline);
        let executors = agent
            .executors
            .values()
            .filter_map(CommandExecutor::next_deadline);
        let next = own.into_iter().chain(executors).min();
        if let Some(at) = next
            && next != agent.tick_at
        {
            agent.tick_at = next;
            let at = at.max(self.now.mono);
            let run = agent.run;
            self.at(at, Step::AgentTick { agent: index, run });
        }
    }

    pub(crate) fn agent_tick(&mut self, index: usize) -> Result<(), String> {
        self.agents[index].tick_at = None;
        let due: Vec<ContainerId> = self.agents[index]
            .executors
            .iter()
            .filter(|(_, executor)| {
                executor
                    .next_deadline()
                    .is_some_and(|at| at <= self.now.mono)
            })
            .map(|(container, _)| container.clone())
            .collect();
        for container in due {
            self.tell_executor(index, &container, Input::Tick)?;
        }
        self.agent_event(index, Event::Tick)
    }

    fn perform_agent(&mut self, index: usize, effect: Effect) -> Result<(), String> {
        let full = self.disk_is_full(index);
        let agent = &mut self.agents[index];
        match effect {
            Effect::Checkpoint(record) => {
                let disk = &mut agent.disk;
                if matches!(record.body, RecordBody::Launch { .. }) {
                    disk.order.push(record.container.clone());
                }
                disk.records
                    .entry(record.container)
                    .or_default()
                    .push(record.body);
            }
            Effect::CheckpointResources { record, .. } => agent.disk.resources = record,
            // Their data is not looked at.
            Effect::MakeVolumes { .. } | Effect::RemoveVolumes { .. } => {}
            // An agent that cannot write down who it is ends.
            Effect::CheckpointAgent { .. } if full => self.crash_agent(index),
            Effect::CheckpointAgent {
                agent_id,
                cluster_id,
                epoch,
            } => agent.disk.identity = Some((agent_id, cluster_id, epoch)),
            Effect::Sync {
                session,
                frameworks,
                executors,
                tasks,
                total,
                operations,
                resource_version,
            } => {
                let sync = tepui_proto::link::Sync {
                    frameworks: frameworks.into_iter().map(|wire| wire.0).collect(),
                    executors: executors.into_iter().map(|wire| wire.0).collect(),
                    tasks: tasks.into_iter().map(|wire| wire.0).collect(),
                    total: total.into_iter().map(|wire| wire.0).collect(),
                    operations: operations.into_iter().map(|wire| wire.0).collect(),
                };
                self.agent_sync(session, sync, resource_version.into());
            }
            Effect::ToMaster { session, frame } => self.agent_frame(session, frame.0),
            // The agent hears of it as of every other end, and connects again.
            Effect::CloseSession { session, .. } => self.break_link(session),
            Effect::Launch(launch) => self.launch_container(index, *launch),
            Effect::Watch { container } => {
                agent.watched.insert(container.clone());
                if let Some(Run::Ended(_)) = agent.containers.get(&container).map(|c| c.state) {
                    let run = agent.run;
                    self.after(
                        Duration::ZERO,
                        Step::Reaped {
                            agent: index,
                            run,
                            container,
                        },
                    );
                }
            }
            Effect::Destroy { container } => {
                let wait = self.delay(1, 200);
                self.after(
                    wait,
                    Step::ContainerEnds {
                        agent: index,
                        container,
                        status: 9,
                    },
                );
            }
            Effect::Play {
                container,
                framework,
                executor,
                seed,
                resumed,
            } => {
                let identity = Identity {
                    framework,
                    executor,
                };
                let mut outputs = Vec::new();
                let machine = match resumed {
                    None => CommandExecutor::start(identity, seed, &mut outputs),
                    Some(resumed) => CommandExecutor::resume(
                        identity,
                        seed,
                        agent
                            .disk
                            .executors
                            .get(&container)
                            .cloned()
                            .unwrap_or_default(),
                        resumed.task.0,
                        v1::TaskState::try_from(resumed.state).unwrap_or_default(),
                        &mut outputs,
                    ),
                };
                agent.executors.insert(container.clone(), machine);
                self.executor_outputs(index, &container, outputs);
            }
            Effect::PlayGroups { .. } => {
                unreachable!("frameworks of the simulator launch no groups")
            }
            Effect::ToExecutor { container, event } => {
                if agent.executors.contains_key(&container) {
                    self.tell_executor(index, &container, Input::Event(event))?;
                } else {
                    self.tell_process(index, container, event.0);
                }
            }
            Effect::CloseExecutor { container } => self.process_closed(index, &container),
            Effect::Retire { container, .. } => {
                agent.containers.remove(&container);
                agent.executors.remove(&container);
                agent.watched.remove(&container);
                agent.disk.records.remove(&container);
                agent.disk.executors.remove(&container);
                agent.disk.order.retain(|known| *known != container);
            }
            Effect::UpdateContainer { .. } | Effect::RetireFramework { .. } => {}
            Effect::Exit { forget, .. } => {
                if forget {
                    // What is reserved stays so for the agent that registers next.
                    agent.disk = Disk {
                        resources: std::mem::take(&mut agent.disk.resources),
                        ..Disk::default()
                    };
                }
                self.crash_agent(index);
            }
        }
        Ok(())
    }

    fn launch_container(&mut self, index: usize, launch: tepui_state_agent::Launch) {
        let task = launch
            .task
            .map_or_else(String::new, |task| task.task_id.value.clone());
        let process = (launch.kind == ExecutorKind::Custom).then(|| {
            let framework = launch.framework.id.clone().unwrap_or_default();
            Process::new(framework, launch.executor.executor_id.clone())
        });
        let container = Container {
            task,
            process,
            tied: !launch.checkpoint,
            state: Run::Launching,
        };
        let agent = &mut self.agents[index];
        agent.containers.insert(launch.container.clone(), container);
        agent.watched.insert(launch.container.clone());
        let run = agent.run;
        let wait = self.delay(5, 300);
        self.after(
            wait,
            Step::GateOpens {
                agent: index,
                run,
                container: launch.container,
            },
        );
    }

    /// The command starts, or cannot.
    pub(crate) fn gate_opens(&mut self, index: usize, id: ContainerId) -> Result<(), String> {
        let fails = self.strikes("launches failed", self.chances.launch_failure);
        let lasts = self.delay(10, 40_000);
        let agent = &mut self.agents[index];
        let Some(container) = agent.containers.get_mut(&id) else {
            return Ok(());
        };
        if container.state != Run::Launching {
            return Ok(());
        }
        if fails {
            agent.containers.remove(&id);
            let message = "it was not meant to be".into();
            return self.agent_event(
                index,
                Event::LaunchFailed {
                    container: id,
                    message,
                },
            );
        }
        container.state = Run::Running;
        let task = container.task.clone();
        let custom = container.process.is_some();
        if custom {
            self.process_begins(index, &id);
        } else {
            self.oracle.started(&task)?;
        }
        // A process ends by itself when it is idle, some earlier.
        let status = if self.rng.below(4) == 0 { 256 } else { 0 };
        if !custom || status != 0 {
            self.after(
                lasts,
                Step::ContainerEnds {
                    agent: index,
                    container: id.clone(),
                    status,
                },
            );
        }
        self.agent_event(
            index,
            Event::Launched {
                container: id,
                pid: 7,
            },
        )
    }

    /// A command is over, whether its agent is there or not.
    pub(crate) fn container_ends(
        &mut self,
        index: usize,
        id: ContainerId,
        status: i32,
    ) -> Result<(), String> {
        let agent = &mut self.agents[index];
        let Some(container) = agent.containers.get_mut(&id) else {
            return Ok(());
        };
        match container.state {
            Run::Ended(_) => return Ok(()),
            Run::Launching => {
                agent.containers.remove(&id);
                let message = "destroyed".into();
                return self.agent_event(
                    index,
                    Event::LaunchFailed {
                        container: id,
                        message,
                    },
                );
            }
            Run::Running => container.state = Run::Ended(status),
        }
        self.reaped(index, id)
    }

    /// The agent sees that a container it watches is over.
    pub(crate) fn reaped(&mut self, index: usize, id: ContainerId) -> Result<(), String> {
        let agent = &mut self.agents[index];
        let Some(Run::Ended(status)) = agent.containers.get(&id).map(|container| container.state)
        else {
            return Ok(());
        };
        if agent.state.is_none() || !agent.watched.remove(&id) {
            return Ok(());
        }
        let run = agent.run;
        let status = Some(status);
        let ended = Input::Ended {
            status,
            limited: false,
        };
        self.tell_executor(index, &id, ended)?;
        // The executor's word comes before the agent's own.
        let end = ContainerEnd {
            status,
            ..Default::default()
        };
        self.after(
            Duration::ZERO,
            Step::Ended {
                agent: index,
                run,
                container: id,
                end,
            },
        );
        Ok(())
    }

    fn tell_executor(
        &mut self,
        index: usize,
        id: &ContainerId,
        input: Input,
    ) -> Result<(), String> {
        let now = self.now;
        let mut outputs = Vec::new();
        if let Some(executor) = self.agents[index].executors.get_mut(id) {
            executor.apply(input, now, &mut outputs);
        }
        self.executor_outputs(index, id, outputs);
        Ok(())
    }

    fn executor_outputs(&mut self, index: usize, id: &ContainerId, outputs: Vec<Output>) {
        let run = self.agents[index].run;
        for output in outputs {
            match output {
                Output::Call(call) => self.after(
                    Duration::ZERO,
                    Step::ExecutorCall {
                        agent: index,
                        run,
                        container: id.clone(),
                        call: Box::new(call),
                    },
                ),
                // Simulated tasks have no checks.
                Output::Probe(_) => {}
                Output::Record(_) if self.disk_is_full(index) => {}
                Output::Record(record) => {
                    self.agents[index].disk.executors.insert(id.clone(), record);
                }
                Output::Stop { grace } => {
                    // Most commands end on SIGTERM; stubborn ones are killed after the grace period.
                    let (wait, status) = match self.rng.below(4) {
                        0 => (grace, 9),
                        _ => (self.delay(1, 100), 15),
                    };
                    self.after(
                        wait,
                        Step::ContainerEnds {
                            agent: index,
                            container: id.clone(),
                            status,
                        },
                    );
                }
            }
        }
    }

    /// First frame of a new session, if the agent has none.
    pub(crate) fn hello(&self, index: usize) -> Option<tepui_proto::link::Hello> {
        let agent = &self.agents[index];
        let state = agent.state.as_ref()?;
        let (cluster_id, epoch_seen) = state.leadership();
        Some(tepui_proto::link::Hello {
            protocol: Some(tepui_proto::link::ProtocolRange { min: 1, max: 1 }),
            version: "1.11.0".into(),
            info: Some(state.info()),
            run_number: agent.hellos,
            address: format!("10.0.0.{index}:5051"),
            resource_version: bytes::Bytes::copy_from_slice(state.resource_version()),
            cluster_id: cluster_id.to_owned(),
            epoch_seen,
            has_state: state.has_state(),
            capabilities: capabilities(),
            ..Default::default()
        })
    }

    /// What the master said in a session.
    pub(crate) fn agent_told(
        &mut self,
        index: usize,
        session: u64,
        frame: tepui_proto::link::LinkFrame,
    ) -> Result<(), String> {
        use tepui_proto::link::link_frame::Body;
        use tepui_proto::link::refuse::Code;
        match frame.body {
            Some(Body::Welcome(welcome)) => {
                self.agents[index].session = Some(session);
                self.agent_event(
                    index,
                    Event::Connected {
                        session,
                        welcome: Wire(welcome),
                    },
                )
            }
            Some(Body::Refuse(refuse)) => {
                let run = self.agents[index].run;
                if refuse.code() == Code::Gone {
                    return self.agent_event(
                        index,
                        Event::Gone {
                            reason: refuse.reason,
                        },
                    );
                }
                let wait = Duration::from_millis(u64::from(refuse.retry_ms).max(100));
                self.after(wait, Step::Hello { agent: index, run });
                Ok(())
            }
            _ => {
                let frame = Wire(frame);
                self.agent_event(index, Event::FromMaster { session, frame })
            }
        }
    }
}

/// What agents of this release can do.
fn capabilities() -> Vec<v1::agent_info::Capability> {
    use v1::agent_info::capability::Type;
    [
        Type::MultiRole,
        Type::HierarchicalRole,
        Type::ReservationRefinement,
    ]
    .into_iter()
    .map(|kind| v1::agent_info::Capability {
        r#type: Some(kind as i32),
    })
    .collect()
}
