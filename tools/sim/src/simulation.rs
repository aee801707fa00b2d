//! One run: a clock, a queue of what happens next, and everybody in the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;
use tepui_model::Rng;
use tepui_model::allocation::Proposal;
use tepui_model::id::ContainerId;
use tepui_model::resources::Resources;
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::link::LinkFrame;
use tepui_proto::v1::{executor, scheduler};
use tepui_proto::{Wire, convert};
use tepui_state_agent::ContainerEnd;
use tepui_state_master::{Entry as StoreEntry, Reply, StoreId, StreamKey};

use crate::agent::Agent;
use crate::allocator;
use crate::fault::{Chances, Fate};
use crate::link::{Link, Up};
use crate::master::{Master, Registry};
use crate::operations::Operations;
use crate::operator::Decisions;
use crate::oracle::Oracle;
use crate::process::Act;
use crate::record::{EffectHash, Entry, Recording};
use crate::scheduler::{self as framework, Down, Scheduler};

/// What a run is made of; everything else follows from the seed.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// How long faults happen, before everything is left to settle.
    pub faulty: Duration,
    /// The allocator.
    pub allocator: allocator::Kind,
    /// Numbers of the faults that happen; all without.
    pub only: Option<BTreeSet<u32>>,
    /// The registry confirms what it does not write. For seeing that a broken promise is found.
    pub careless: bool,
    /// Keep all events.
    pub record: bool,
}

impl Options {
    /// The usual run of a seed.
    pub fn new(seed: u64) -> Self {
        let allocator = if seed.is_multiple_of(4) {
            allocator::Kind::RoundRobin
        } else {
            allocator::Kind::Hierarchical
        };
        Self {
            seed,
            faulty: Duration::from_secs(120),
            allocator,
            only: None,
            careless: false,
            record: false,
        }
    }

    /// When every run begins.
    pub(crate) fn began(&self) -> Mono {
        Mono(1_000_000_000)
    }
}

/// How often things happened in a run: a promise that was never tried is not kept.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tried {
    /// Events of masters and agents, after each of which the states check themselves.
    pub events: u64,
    /// Commands and tasks that were started.
    pub starts: u64,
    /// How many of them were tasks of custom executors.
    pub in_processes: u64,
    /// Ends that schedulers acknowledged.
    pub ends: u64,
    /// Calls of operators that were answered, and what was decided found again by each later leader.
    pub decisions: u64,
    /// Agent processes that took over what an earlier one ran.
    pub recoveries: u64,
    /// Faults, by kind.
    pub faults: BTreeMap<String, u64>,
}

impl Tried {
    /// Adds up runs.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.starts += other.starts;
        self.in_processes += other.in_processes;
        self.ends += other.ends;
        self.decisions += other.decisions;
        self.recoveries += other.recoveries;
        for (kind, count) in &other.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
    }
}

/// What a run that kept all promises leaves.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Hash over all effects.
    pub hash: u64,
    /// What was tried.
    pub tried: Tried,
    /// All events, if asked for.
    pub recording: Option<Recording>,
}

/// A run that broke a promise.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Seed of the run.
    pub seed: u64,
    /// When it happened.
    pub at: Mono,
    /// Which promise, and how.
    pub message: String,
    /// Numbers of the faults that happened before.
    pub faults: Vec<u32>,
    /// All events up to then, if asked for.
    pub recording: Option<Recording>,
}

impl Failure {
    /// Which promise was broken: the first word of the message.
    pub fn promise(&self) -> &str {
        self.message.split(':').next().unwrap_or_default()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}, {}: {}\nrun it again: cargo run -p tepui-sim -- --seed {} --record FILE",
            self.seed, self.at, self.message, self.seed
        )
    }
}

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Step {
    StartMaster,
    MasterTick {
        run: u32,
    },
    Proposals {
        run: u32,
        round: u64,
        proposals: Vec<Proposal>,
    },
    Written {
        run: u32,
        id: StoreId,
        puts: Vec<StoreEntry>,
        deletes: Vec<String>,
    },
    StartAgent {
        agent: usize,
    },
    AgentTick {
        agent: usize,
        run: u32,
    },
    Hello {
        agent: usize,
        run: u32,
    },
    Up {
        session: u64,
        message: Up,
    },
    Down {
        session: u64,
        frame: Box<LinkFrame>,
    },
    ClosedByMaster {
        session: u64,
    },
    LostByMaster {
        session: u64,
        silent: bool,
    },
    LostByAgent {
        session: u64,
    },
    GateOpens {
        agent: usize,
        run: u32,
        container: ContainerId,
    },
    ContainerEnds {
        agent: usize,
        container: ContainerId,
        status: i32,
    },
    Reaped {
        agent: usize,
        run: u32,
        container: ContainerId,
    },
    Ended {
        agent: usize,
        run: u32,
        container: ContainerId,
        end: ContainerEnd,
    },
    NotRecorded {
        agent: usize,
        run: u32,
        container: ContainerId,
    },
    ExecutorCall {
        agent: usize,
        run: u32,
        container: ContainerId,
        call: Box<Wire<executor::Call>>,
    },
    Process {
        agent: usize,
        container: ContainerId,
        act: Act,
    },
    ToProcess {
        agent: usize,
        run: u32,
        container: ContainerId,
        event: Box<executor::Event>,
    },
    Subscribe {
        scheduler: usize,
    },
    StreamGone {
        run: u32,
        stream: StreamKey,
    },
    Scheduled {
        scheduler: usize,
        connection: u64,
        what: Down,
    },
    SchedulerActs {
        scheduler: usize,
    },
    Call {
        scheduler: usize,
        stream_id: String,
        call: Box<scheduler::Call>,
    },
    Reply {
        scheduler: usize,
        reply: Reply,
    },
    Fault,
}

/// Everybody, and what happens next.
pub(crate) struct Simulation {
    pub(crate) rng: Rng,
    pub(crate) now: Now,
    queue: BTreeMap<(Mono, u64), Step>,
    queued: u64,
    pub(crate) faulty: bool,
    pub(crate) chances: Chances,
    pub(crate) fate: Fate,
    pub(crate) allocator: allocator::Kind,
    pub(crate) master: Option<Master>,
    pub(crate) master_runs: u32,
    pub(crate) registry: Registry,
    pub(crate) agents: Vec<Agent>,
    pub(crate) schedulers: Vec<Scheduler>,
    pub(crate) links: BTreeMap<u64, Link>,
    pub(crate) sessions: u64,
    pub(crate) calls: u64,
    pub(crate) decisions: Decisions,
    pub(crate) tried: Tried,
    pub(crate) hash: EffectHash,
    pub(crate) recording: Option<Recording>,
    pub(crate) oracle: Oracle,
    pub(crate) operations: Operations,
}

/// Runs a seed to its end. The error says which promise was broken, and when.
pub fn run(options: &Options) -> Result<Outcome, Box<Failure>> {
    let mut simulation = Simulation::new(options);
    // A panic in a state is a broken promise like others: the seed has to be named.
    let life = AssertUnwindSafe(|| simulation.live(options.faulty));
    let result = catch_unwind(life).unwrap_or_else(|_| Err("panicked, see above".into()));
    match result {
        Ok(()) => Ok(Outcome {
            hash: simulation.hash.value(),
            tried: simulation.tried(),
            recording: simulation.recording,
        }),
        Err(message) => Err(Box::new(Failure {
            seed: options.seed,
            at: simulation.now.mono,
            message,
            faults: simulation.fate.happened().to_vec(),
            recording: simulation.recording,
        })),
    }
}

impl Simulation {
    fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let chances = Chances::of(&mut rng);
        let agents = (0..1 + rng.below(3))
            .map(|_| {
                let cpus = 2.0 + rng.below(5) as f64;
                Agent::new(convert::to_proto(&Resources::cpus_mem(cpus, 4096.0)))
            })
            .collect();
        let busy = (options.faulty.as_secs() / 120).max(1) as u32;
        let schedulers = (0..1 + rng.below(3))
            .map(|index| {
                let failover = if rng.below(6) == 0 { 5 } else { 7 * 24 * 3600 };
                let info = framework::info(
                    index as usize,
                    rng.below(4) > 0,
                    rng.below(3) > 0,
                    Duration::from_secs(failover),
                );
                Scheduler::new(info, busy * (5 + rng.below(12) as u32))
            })
            .collect();
        Self {
            rng,
            now: Now {
                mono: options.began(),
                wall: Wall(1_800_000_000_000_000_000),
            },
            queue: BTreeMap::new(),
            queued: 0,
            faulty: true,
            chances,
            fate: Fate::new(options.seed, options.only.clone()),
            allocator: options.allocator,
            master: None,
            master_runs: 0,
            registry: Registry::new(options.careless),
            agents,
            schedulers,
            links: BTreeMap::new(),
            sessions: 0,
            calls: 0,
            decisions: Decisions::default(),
            tried: Tried::default(),
            hash: EffectHash::default(),
            recording: options.record.then(|| Recording::new(options.seed)),
            oracle: Oracle::default(),
            operations: Operations::default(),
        }
    }

    fn tried(&self) -> Tried {
        let faults = self.fate.counts().iter();
        Tried {
            starts: u64::from(self.oracle.starts()),
            ends: self.oracle.ends(),
            decisions: self.decisions.answered(),
            faults: faults
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
            ..self.tried.clone()
        }
    }

    fn live(&mut self, faulty: Duration) -> Result<(), String> {
        self.after(Duration::ZERO, Step::StartMaster);
        for agent in 0..self.agents.len() {
            let wait = self.delay(0, 2_000);
            self.after(wait, Step::StartAgent { agent });
        }
        for scheduler in 0..self.schedulers.len() {
            let wait = self.delay(0, 5_000);
            self.after(wait, Step::Subscribe { scheduler });
            self.after(wait, Step::SchedulerActs { scheduler });
        }
        self.after(Duration::from_secs(1), Step::Fault);
        self.until(self.now.mono + faulty)?;
        self.faulty = false;
        let end = self.now.mono + Duration::from_secs(3600);
        while !self.is_settled() {
            if self.now.mono >= end {
                return Err(format!(
                    "R2: not settled an hour after the last fault: {}",
                    self.rest()
                ));
            }
            self.clear_away()?;
            self.until(self.now.mono + Self::LOOK)?;
        }
        self.check_operations()
    }

    fn until(&mut self, end: Mono) -> Result<(), String> {
        while let Some(entry) = self.queue.first_entry() {
            let at = entry.key().0;
            if at > end {
                break;
            }
            let step = entry.remove();
            self.now = self.now + at.since(self.now.mono);
            self.step(step)?;
        }
        self.now = self.now + end.since(self.now.mono);
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::StartMaster => self.start_master(),
            Step::MasterTick { run } => self.master_tick(run),
            Step::Proposals {
                run,
                round,
                proposals,
            } => {
                if self.master.as_ref().is_some_and(|master| master.run == run) {
                    let event = tepui_state_master::Event::Proposals { round, proposals };
                    return self.master_event(event);
                }
                Ok(())
            }
            Step::Written {
                run,
                id,
                puts,
                deletes,
            } => self.written(run, id, puts, deletes),
            Step::StartAgent { agent } => self.start_agent(agent),
            Step::AgentTick { agent, run } if self.runs(agent, run) => self.agent_tick(agent),
            Step::Hello { agent, run } if self.runs(agent, run) => {
                self.say_hello(agent);
                Ok(())
            }
            Step::Up { session, message } => self.arrived_up(session, message),
            Step::Down { session, frame } => self.arrived_down(session, *frame),
            Step::ClosedByMaster { session } => self.closed_by_master(session),
            Step::LostByMaster { session, silent } => self.lost_by_master(session, silent),
            Step::LostByAgent { session } => self.lost_by_agent(session),
            Step::GateOpens {
                agent,
                run,
                container,
            } if self.runs(agent, run) => self.gate_opens(agent, container),
            Step::ContainerEnds {
                agent,
                container,
                status,
            } => self.container_ends(agent, container, status),
            Step::Reaped {
                agent,
                run,
                container,
            } if self.runs(agent, run) => self.reaped(agent, container),
            Step::Ended {
                agent,
                run,
                container,
                end,
            } if self.runs(agent, run) => self.agent_event(
                agent,
                tepui_state_agent::Event::ContainerEnded { container, end },
            ),
            Step::NotRecorded {
                agent,
                run,
                container,
            } if self.runs(agent, run) => {
                let message = "No space left on device".into();
                self.agent_event(
                    agent,
                    tepui_state_agent::Event::CheckpointFailed { container, message },
                )
            }
            Step::ExecutorCall {
                agent,
                run,
                container,
                call,
            } if self.runs(agent, run) => {
                let call = *call;
                self.agent_event(
                    agent,
                    tepui_state_agent::Event::ExecutorCall { container, call },
                )
            }
            Step::Process {
                agent,
                container,
                act,
            } => self.process_acts(agent, &container, act),
            Step::ToProcess {
                agent,
                run,
                container,
                event,
            } => self.process_hears(agent, run, &container, *event),
            Step::Subscribe { scheduler } => self.subscribe(scheduler),
            Step::StreamGone { run, stream } => self.stream_gone(run, stream),
            Step::Scheduled {
                scheduler,
                connection,
                what,
            } => self.scheduled(scheduler, connection, what),
            Step::SchedulerActs { scheduler } => {
                self.scheduler_acts(scheduler);
                Ok(())
            }
            Step::Call {
                scheduler,
                stream_id,
                call,
            } => self.called(scheduler, stream_id, *call),
            Step::Reply { scheduler, reply } => self.replied(scheduler, &reply),
            Step::Fault => self.fault(),
            // Of a process that is not there any more.
            Step::AgentTick { .. }
            | Step::Hello { .. }
            | Step::GateOpens { .. }
            | Step::Reaped { .. }
            | Step::Ended { .. }
            | Step::NotRecorded { .. }
            | Step::ExecutorCall { .. } => Ok(()),
        }
    }

    fn runs(&self, agent: usize, run: u32) -> bool {
        self.agents[agent].run == run && self.agents[agent].state.is_some()
    }

    /// Everybody knows how everything ended.
    fn is_settled(&mut self) -> bool {
        let Some(master) = &mut self.master else {
            return false;
        };
        let view = master.state.view();
        let over: Vec<usize> = (0..self.schedulers.len())
            .filter(|index| self.schedulers[*index].over)
            .collect();
        let clean = view
            .frameworks
            .iter()
            .all(|framework| framework.tasks.is_empty());
        (clean || !over.is_empty())
            && self.schedulers.iter().all(Scheduler::is_settled)
            && self.agents.iter().all(Agent::is_idle)
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        for (index, scheduler) in self.schedulers.iter().enumerate() {
            text += &format!(
                "framework {index} (over: {}): {:?}; ",
                scheduler.over,
                scheduler.open_tasks()
            );
        }
        for (index, agent) in self.agents.iter().enumerate() {
            text += &format!(
                "agent {index} idle: {}, session {:?}; ",
                agent.is_idle(),
                agent.session
            );
        }
        if let Some(master) = &mut self.master {
            for framework in &master.state.view().frameworks {
                for task in framework.tasks.iter() {
                    text += &format!("master has {} {}; ", task.id, task.state.as_str_name());
                }
            }
        }
        text
    }

    /// Puts something into the queue; what was put in first happens first.
    pub(crate) fn at(&mut self, at: Mono, step: Step) {
        self.queued += 1;
        self.queue.insert((at, self.queued), step);
    }

    pub(crate) fn after(&mut self, wait: Duration, step: Step) {
        self.at(self.now.mono + wait, step);
    }

    /// A random time in milliseconds.
    pub(crate) fn delay(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from * 1000 + self.rng.below((to - from) * 1000))
    }

    pub(crate) fn record(&mut self, entry: impl FnOnce() -> Entry) {
        if let Some(recording) = &mut self.recording {
            recording.entries.push(entry());
        }
    }
}
