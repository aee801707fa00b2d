//! A simulated agent: the real agent state and the real executor, on a pretended disk and containers.

mod containers;
mod effects;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tepui_executor::{CommandExecutor, Input};
use tepui_model::Resources;
use tepui_model::id::{ContainerId, FrameworkId, Uuid};
use tepui_model::time::Mono;
use tepui_proto::{convert, v1};
use tepui_state_agent::{
    AgentSettings, AgentState, Effect, Event, Found, RecordBody, RecoveredAgent, RecoveredExecutor,
    RecoveredFramework, ResourceRecord,
};

use crate::process::Process;
use crate::record::{Entry, Node};
use crate::simulation::Simulation;
use crate::step::Step;

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
    /// The newest connection that it made.
    pub(crate) link: Option<u64>,
    /// The session that it believes in.
    pub(crate) session: Option<u64>,
    pub(crate) resources: Vec<v1::Resource>,
    pub(crate) hellos: u64,
    pub(crate) tick_at: Option<Mono>,
    /// Volumes whose data is there.
    pub(crate) volumes: BTreeSet<String>,
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
            link: None,
            session: None,
            resources,
            hellos: 0,
            tick_at: None,
            volumes: BTreeSet::new(),
            away_until: Mono(0),
            disk_full_until: Mono(0),
        }
    }

    /// The id it goes by, once it has one.
    pub(crate) fn id(&self) -> Option<&str> {
        let (id, ..) = self.disk.identity.as_ref()?;
        Some(id)
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
            self.check_disks()?;
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

    /// The next process of the agent has more to give, as `--reconfiguration_policy=additive` allows it.
    pub(crate) fn enlarge_agent(&mut self, index: usize) {
        if !self.site.reconfigures {
            return;
        }
        let agent = &mut self.agents[index];
        let more = Resources::parse("cpus:0.5;mem:128", "*").expect("a text of ours");
        let given = convert::resources(&agent.resources).expect("texts of ours");
        agent.resources = convert::to_proto(&(&given + &more));
        self.tried.reconfigured += 1;
    }

    /// After a reboot its settings do not allow its id: the agent that comes is a new one, on the old one's disk.
    pub(crate) fn forget_agent(&mut self, index: usize) {
        if self.site.reconfigures {
            self.agents[index].disk.identity = None;
            self.decisions.replace_agents();
            self.tried.reconfigured += 1;
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
            if self.disk_is_full(index)
                && let Some(operation) = writes_for(&effect)
            {
                let Some(operation) = operation else {
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
}

/// Whether an effect on resources needs space, and for which operation, if for one.
fn writes_for(effect: &Effect) -> Option<Option<Uuid>> {
    match effect {
        Effect::CheckpointResources { operation, .. } => Some(*operation),
        Effect::MakeVolumes { operation, .. } => Some(Some(*operation)),
        _ => None,
    }
}
