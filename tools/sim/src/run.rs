//! Runs of seeds: what one is made of, and what comes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use serde::Serialize;
use tepui_model::time::Mono;

use crate::allocator;
use crate::record::Recording;
use crate::simulation::Simulation;

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
    /// Which kinds of faults there are: a seed means the same for ever only among those that it was found with.
    pub generation: u32,
}

/// The newest generation of faults: 1 had no agents that come back otherwise than they were, no limits to how fast
/// agents are removed, and an address for each agent.
pub(crate) const GENERATION: u32 = 2;

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
            generation: GENERATION,
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
    /// Operations on resources that frameworks and operators were told are done.
    pub operations: u64,
    /// Agent processes that took over what an earlier one ran.
    pub recoveries: u64,
    /// Agents that came back with more resources, or as new ones.
    pub reconfigured: u64,
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
        self.operations += other.operations;
        self.recoveries += other.recoveries;
        self.reconfigured += other.reconfigured;
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
