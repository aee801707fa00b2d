//! The allocator's thread.
//!
//! Facts and rounds arrive in the state's order; proposals go back as an event. An allocator that
//! fails loses what it knew: the state then tells everything anew, beginning with a reset.

use std::thread;
use std::time::{Duration, Instant};

use tepui_http::shared::{Counter, Metrics, Timer};
use tepui_model::allocation::{Fact, Proposal, Round};
use tepui_state_master::Event;

use crate::owner::Owner;
use crate::parts::Allocator;

/// What the outbox hands on: facts, and the round that is asked for after them.
pub(crate) struct Work {
    pub(crate) facts: Vec<Fact>,
    pub(crate) asked: Option<Asked>,
}

/// A round.
pub(crate) struct Asked {
    pub(crate) number: u64,
    pub(crate) round: Round,
    pub(crate) at: Instant,
}

/// How long measured rounds count.
const WINDOW: Duration = Duration::from_hours(1);

/// Wait after a failure; doubled with each that follows, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(10);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Starts the thread. It ends when the outbox does.
pub(crate) fn start(
    allocator: Box<dyn Allocator>,
    owner: Owner,
    metrics: &Metrics,
    work: crossbeam_channel::Receiver<Work>,
) -> std::io::Result<thread::JoinHandle<()>> {
    let mut allocation = Allocation {
        allocator,
        owner,
        runs: metrics.counter("allocator/mesos/allocation_runs"),
        run: metrics.timer("allocator/mesos/allocation_run", WINDOW),
        latency: metrics.timer("allocator/mesos/allocation_run_latency", WINDOW),
        // What comes before the first reset is part of the snapshot that follows it.
        wait: Some(FIRST_WAIT),
    };
    let run = move || work.into_iter().for_each(|item| allocation.take(item));
    thread::Builder::new()
        .name("allocator".to_owned())
        .spawn(run)
}

struct Allocation {
    allocator: Box<dyn Allocator>,
    owner: Owner,
    runs: Counter,
    /// How long rounds take.
    run: Timer,
    /// How long they wait before.
    latency: Timer,
    /// Set while the allocator knows nothing: what is told counts only from a reset on. Holds how
    /// long to wait before the next try.
    wait: Option<Duration>,
}

impl Allocation {
    fn take(&mut self, Work { facts, asked }: Work) {
        if !facts.is_empty() {
            self.tell(facts);
        }
        // A round is always answered: the state opens no other before.
        if let Some(asked) = asked {
            self.answer(&asked);
        }
    }

    fn tell(&mut self, facts: Vec<Fact>) {
        if self.wait.is_some() && !matches!(facts.first(), Some(Fact::Reset)) {
            return;
        }
        match self.allocator.apply(facts) {
            Ok(()) => self.wait = None,
            Err(error) => self.failed(&error),
        }
    }

    fn answer(&mut self, asked: &Asked) {
        self.latency.record(asked.at.elapsed());
        let answer = match self.wait {
            Some(_) => Ok(Vec::new()),
            None => self.allocate(&asked.round),
        };
        let (proposals, error) = match answer {
            Ok(proposals) => (proposals, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        self.owner.blocking_event(Event::Proposals {
            round: asked.number,
            proposals,
        });
        if let Some(error) = error {
            self.failed(&error);
        }
    }

    fn allocate(&mut self, round: &Round) -> Result<Vec<Proposal>, String> {
        let begin = Instant::now();
        let answer = self.allocator.allocate(round);
        self.run.record(begin.elapsed());
        self.runs.increment();
        answer
    }

    fn failed(&mut self, error: &str) {
        tracing::error!(%error, "the allocator failed; it is told everything again");
        let wait = self.wait.unwrap_or(FIRST_WAIT);
        thread::sleep(wait);
        self.wait = Some((wait * 2).min(LONGEST_WAIT));
        self.owner.blocking_event(Event::AllocatorRestarted);
    }
}
