//! What breaks, and when. Every fault of a run has a number, so that a failing run can be tried again with fewer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tepui_model::Rng;
use tepui_model::time::{Mono, Wall};

use crate::simulation::Simulation;

/// Chances in a million, at each opportunity. A third of all runs lacks each kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chances {
    /// Before each effect of an agent.
    pub(crate) agent_crash: u64,
    /// Before each effect of a master.
    pub(crate) master_crash: u64,
    /// At each launch.
    pub(crate) launch_failure: u64,
    /// At each message or call under way: it is held up, and with it what comes after.
    pub(crate) delay: u64,
    /// At each call of a scheduler.
    pub(crate) loss: u64,
    /// At each call of a scheduler or an executor.
    pub(crate) duplicate: u64,
    /// At each batch of the registry.
    pub(crate) slow_disk: u64,
    /// At each batch of the registry.
    pub(crate) full_disk: u64,
}

impl Chances {
    pub(crate) fn of(rng: &mut Rng) -> Self {
        let mut chance = |most: u64| {
            if rng.below(3) == 0 {
                0
            } else {
                rng.below(most)
            }
        };
        Self {
            agent_crash: chance(10_000),
            master_crash: chance(1_000),
            launch_failure: chance(100_000),
            delay: chance(5_000),
            loss: chance(20_000),
            duplicate: chance(50_000),
            slow_disk: chance(100_000),
            full_disk: chance(3_000),
        }
    }
}

/// Decides what breaks. It has a generator of its own: leaving a fault out does not change what is drawn for others.
#[derive(Debug)]
pub(crate) struct Fate {
    rng: Rng,
    /// Numbers of the faults that happen; all without.
    only: Option<BTreeSet<u32>>,
    next: u32,
    happened: Vec<u32>,
    counts: BTreeMap<&'static str, u64>,
}

impl Fate {
    pub(crate) fn new(seed: u64, only: Option<BTreeSet<u32>>) -> Self {
        Self {
            rng: Rng::new(seed ^ 0x6661_7465),
            only,
            next: 0,
            happened: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Whether the next fault, which was drawn, is one of those that happen.
    fn happens(&mut self, what: &'static str) -> bool {
        let number = self.next;
        self.next += 1;
        let happens = self.only.as_ref().is_none_or(|only| only.contains(&number));
        if happens {
            self.happened.push(number);
            *self.counts.entry(what).or_default() += 1;
        }
        happens
    }

    /// Numbers of the faults that happened.
    pub(crate) fn happened(&self) -> &[u32] {
        &self.happened
    }

    /// How many faults of each kind happened.
    pub(crate) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }
}

/// What breaks by itself, beside the faults at messages and effects.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Cut,
    Hang,
    Stream,
    AgentCrash,
    MasterCrash,
    Partition,
    Reboot,
    Clock,
    FullDisk,
    Operator,
}

impl Kind {
    /// As often as they are listed.
    const ALL: [Self; 28] = {
        use Kind::*;
        [
            Cut,
            Cut,
            Cut,
            Cut,
            Cut,
            Cut,
            Hang,
            Hang,
            Stream,
            Stream,
            Stream,
            AgentCrash,
            AgentCrash,
            AgentCrash,
            MasterCrash,
            Partition,
            Partition,
            Reboot,
            Clock,
            FullDisk,
            Operator,
            Operator,
            Operator,
            Operator,
            Operator,
            Operator,
            Operator,
            Operator,
        ]
    };

    fn name(self) -> &'static str {
        match self {
            Self::Cut => "connections cut",
            Self::Hang => "connections silent",
            Self::Stream => "scheduler streams cut",
            Self::AgentCrash => "agents killed",
            Self::MasterCrash => "masters killed",
            Self::Partition => "partitions",
            Self::Reboot => "reboots",
            Self::Clock => "wall clock jumps",
            Self::FullDisk => "full disks",
            Self::Operator => "operator calls",
        }
    }
}

impl Simulation {
    /// Whether misfortune happens now.
    pub(crate) fn strikes(&mut self, what: &'static str, per_million: u64) -> bool {
        self.faulty
            && per_million > 0
            && self.fate.rng.below(1_000_000) < per_million
            && self.fate.happens(what)
    }

    /// How long what is under way is held up, most often not at all.
    pub(crate) fn held_up(&mut self) -> Duration {
        if self.strikes("messages held up", self.chances.delay) {
            self.delay(500, 10_000)
        } else {
            Duration::ZERO
        }
    }

    /// Something breaks.
    pub(crate) fn fault(&mut self) -> Result<(), String> {
        if !self.faulty {
            return Ok(());
        }
        let wait = Duration::from_millis(500 + self.fate.rng.below(9_500));
        self.after(wait, crate::step::Step::Fault);
        let kind = Kind::ALL[self.fate.rng.below(Kind::ALL.len() as u64) as usize];
        let agent = self.fate.rng.below(self.agents.len() as u64) as usize;
        let scheduler = self.fate.rng.below(self.schedulers.len() as u64) as usize;
        let amount = self.fate.rng.below(1_000_000);
        if !self.fate.happens(kind.name()) {
            return Ok(());
        }
        let session = self.agents[agent].session;
        let seconds = Duration::from_secs(5 + amount % 200);
        match kind {
            Kind::Cut => session.into_iter().for_each(|one| self.break_link(one)),
            Kind::Hang => session.into_iter().for_each(|one| self.hang_link(one)),
            Kind::Stream => self.lose_stream(scheduler),
            Kind::AgentCrash if self.agents[agent].state.is_some() => {
                if amount.is_multiple_of(3) {
                    self.enlarge_agent(agent);
                }
                self.crash_agent(agent);
            }
            Kind::AgentCrash => {}
            Kind::MasterCrash if self.master.is_some() => self.crash_master(),
            Kind::MasterCrash => {}
            Kind::Partition => self.partition(agent, scheduler, seconds),
            Kind::Reboot => {
                self.reboot_agent(agent);
                if amount.is_multiple_of(3) {
                    self.forget_agent(agent);
                }
            }
            Kind::Clock => self.jump(amount),
            Kind::FullDisk => self.agents[agent].disk_full_until = self.now.mono + seconds,
            Kind::Operator => return self.operator_acts(),
        }
        Ok(())
    }

    /// An agent and a scheduler are on the other side for a while; connections that are open fall silent.
    fn partition(&mut self, agent: usize, scheduler: usize, wait: Duration) {
        let until = self.now.mono + wait;
        self.agents[agent].away_until = until;
        if let Some(session) = self.agents[agent].session {
            self.hang_link(session);
        }
        self.schedulers[scheduler].away_until = until;
        self.lose_stream(scheduler);
    }

    /// The wall clock is set, up to a day forth or back; no promise may depend on it.
    fn jump(&mut self, amount: u64) {
        let day = 24 * 3600 * 1_000_000_000_i64;
        let by =
            (amount as i64 * (day / 1_000_000)) * if amount.is_multiple_of(2) { 1 } else { -1 };
        self.now.wall = Wall(self.now.wall.0 + by);
    }

    /// Whether an agent can write records now.
    pub(crate) fn disk_is_full(&self, agent: usize) -> bool {
        self.faulty && self.now.mono < self.agents[agent].disk_full_until
    }

    /// Whether somebody on the other side of a partition cannot reach the master.
    pub(crate) fn is_away(&self, until: Mono) -> bool {
        self.faulty && self.now.mono < until
    }
}
