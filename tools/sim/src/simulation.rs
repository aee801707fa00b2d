//! One run: a clock, a queue of what happens next, and everybody in the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use tepui_model::Rng;
use tepui_model::resources::Resources;
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::convert;

use crate::agent::Agent;
use crate::allocator;
use crate::fault::{Chances, Fate};
use crate::link::Link;
use crate::master::{Master, Registry};
use crate::operations::Operations;
use crate::operator::Decisions;
use crate::oracle::Oracle;
use crate::record::{EffectHash, Entry, Recording};
use crate::run::{Options, Tried};
use crate::scheduler::{self as framework, Scheduler};
use crate::step::Step;

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
    pub(crate) site: Site,
}

/// What sites have chosen otherwise than by default.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// Agents may come back otherwise than they were.
    pub(crate) reconfigures: bool,
    /// All agents are told of by one address, as behind a gateway.
    pub(crate) one_address: bool,
    /// How fast masters may give up agents.
    pub(crate) removal_limit: Option<(u32, Duration)>,
}

impl Site {
    /// Drawn by a generator of its own, so that what else a seed means stays as it was without.
    fn of(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed ^ 0x7369_7465);
        let mut chosen = |one_in: u64| options.generation > 1 && rng.below(one_in) == 0;
        let (reconfigures, one_address, limited) = (!chosen(4), chosen(4), chosen(2));
        let limit = (
            1 + rng.below(2) as u32,
            Duration::from_secs(5 + rng.below(25)),
        );
        Self {
            reconfigures: reconfigures && options.generation > 1,
            one_address,
            removal_limit: limited.then_some(limit),
        }
    }
}

impl Simulation {
    pub(crate) fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let chances = Chances::of(&mut rng);
        let agents = (0..1 + rng.below(3))
            .map(|_| {
                let cpus = 2.0 + rng.below(5) as f64;
                let text = format!("cpus:{cpus};mem:4096;disk:1024");
                let given = Resources::parse(&text, "*").expect("a text of ours");
                Agent::new(convert::to_proto(&given))
            })
            .collect();
        let site = Site::of(options);
        let mut decisions = Decisions::default();
        if site.one_address {
            decisions.replace_agents();
        }
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
            decisions,
            tried: Tried::default(),
            hash: EffectHash::default(),
            recording: options.record.then(|| Recording::new(options.seed)),
            oracle: Oracle::default(),
            operations: Operations::default(),
            site,
        }
    }

    pub(crate) fn tried(&self) -> Tried {
        let faults = self.fate.counts().iter();
        Tried {
            starts: u64::from(self.oracle.starts()),
            ends: self.oracle.ends(),
            decisions: self.decisions.answered(),
            operations: self.operations.done(),
            faults: faults
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
            ..self.tried.clone()
        }
    }

    pub(crate) fn live(&mut self, faulty: Duration) -> Result<(), String> {
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
        self.check_resources()
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

    /// Everybody knows how everything ended.
    fn is_settled(&mut self) -> bool {
        let Some(master) = &mut self.master else {
            return false;
        };
        let view = master.state.view();
        let agents: Vec<&str> = self.agents.iter().filter_map(Agent::id).collect();
        let over: Vec<usize> = (0..self.schedulers.len())
            .filter(|index| self.schedulers[*index].over)
            .collect();
        let clean = view
            .frameworks
            .iter()
            .all(|framework| framework.tasks.is_empty());
        (clean || !over.is_empty())
            && view.operations.is_empty()
            // Nothing is known of an agent before its first sync.
            && view.agents.iter().all(|row| !row.total.is_empty())
            && self.schedulers.iter().all(|scheduler| scheduler.is_settled(&agents))
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
            let view = master.state.view();
            for operation in view.operations.iter() {
                text += &format!("master has an operation {operation:?}; ");
            }
            for agent in &view.globals.recovered_agents {
                text += &format!("master waits for agent {}; ", agent.id);
            }
            for agent in view.agents.iter().filter(|row| row.total.is_empty()) {
                text += &format!("master knows nothing of agent {}; ", agent.id);
            }
            for framework in &view.frameworks {
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
