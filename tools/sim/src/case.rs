//! A failing seed with as few faults as needed, in a form that is kept and tried for ever.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{AllocatorKind, Failure, Options, run};

/// Runs that minimizing may take.
const RUNS: u32 = 300;

/// A run that broke a promise once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What was wrong, in the words of a person; empty until somebody knows.
    pub cause: String,
    /// What the simulator said.
    pub found: String,
    /// Seed of the run.
    pub seed: u64,
    /// Virtual milliseconds with faults.
    pub faulty_ms: u64,
    /// The allocator.
    pub allocator: AllocatorKind,
    /// Numbers of the faults that are needed.
    pub faults: BTreeSet<u32>,
    /// The generation of faults that the numbers belong to.
    #[serde(default = "first_generation")]
    pub generation: u32,
}

fn first_generation() -> u32 {
    1
}

impl Case {
    /// How the case is run again.
    pub fn options(&self) -> Options {
        Options {
            faulty: Duration::from_millis(self.faulty_ms),
            allocator: self.allocator,
            only: Some(self.faults.clone()),
            generation: self.generation,
            ..Options::new(self.seed)
        }
    }

    /// Reads a kept file.
    pub fn from_json(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// Text for a file.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("cases are plain data");
        text.push('\n');
        text
    }

    /// The smallest set of faults that was found to break the same promise: what is left out in turn is half of them,
    /// a quarter, and at last each alone.
    pub fn minimized(options: &Options, failure: &Failure) -> Self {
        let mut search = Search {
            options: options.clone(),
            failure: failure.clone(),
            runs: 0,
        };
        // Nothing that came after it can be its cause.
        let began = Options::new(0).began();
        search.options.faulty = search.options.faulty.min(failure.at.since(began));
        if !search.fails(failure.faults.iter().copied().collect()) {
            search.options.faulty = options.faulty;
        }
        let mut size = search.failure.faults.len().div_ceil(2);
        while size > 0 {
            let mut from = 0;
            while from < search.failure.faults.len() {
                let mut fewer = search.failure.faults.clone();
                fewer.drain(from..(from + size).min(fewer.len()));
                if !search.fails(fewer.into_iter().collect()) {
                    from += size;
                }
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
        Self {
            cause: String::new(),
            found: search.failure.message.clone(),
            seed: options.seed,
            faulty_ms: search.options.faulty.as_millis() as u64,
            allocator: options.allocator,
            faults: search.failure.faults.iter().copied().collect(),
            generation: options.generation,
        }
    }
}

struct Search {
    options: Options,
    failure: Failure,
    runs: u32,
}

impl Search {
    /// Whether these faults alone break the same promise; if so they are what is searched on.
    fn fails(&mut self, only: BTreeSet<u32>) -> bool {
        if self.runs == RUNS {
            return false;
        }
        self.runs += 1;
        self.options.only = Some(only);
        match run(&self.options) {
            Err(failure) if failure.promise() == self.failure.promise() => {
                self.failure = *failure;
                true
            }
            _ => false,
        }
    }
}
