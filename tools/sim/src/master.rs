//! A simulated master: the real state and allocator, a registry that survives it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tepui_model::time::Mono;
use tepui_state_master::{
    CallId, Effect, Entry as StoreEntry, Event, MasterState, Settings, StoreId,
};

use crate::allocator::Allocator;
use crate::record::{Entry, Node};
use crate::scheduler::Down;
use crate::simulation::Simulation;
use crate::step::Step;

/// The leading master.
pub(crate) struct Master {
    pub(crate) run: u32,
    pub(crate) state: MasterState,
    allocator: Allocator,
    /// Whose call it is.
    pub(crate) calls: BTreeMap<CallId, usize>,
    tick_at: Option<Mono>,
}

/// What survives masters.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub(crate) epoch: u64,
    pub(crate) entries: BTreeMap<String, Bytes>,
    /// When the newest batch is written.
    written_at: Mono,
    careless: bool,
}

impl Registry {
    pub(crate) fn new(careless: bool) -> Self {
        Self {
            careless,
            ..Self::default()
        }
    }
}

impl Simulation {
    /// A new leader takes over.
    pub(crate) fn start_master(&mut self) -> Result<(), String> {
        self.registry.epoch += 1;
        self.master_runs += 1;
        let settings = Settings {
            seed: self.rng.next_u64(),
            agent_reregister_timeout: Duration::from_secs(60 + self.rng.below(540)),
            returns_per_second: 5,
            agent_removal_rate_limit: self.site.removal_limit,
            ..Settings::default()
        };
        let run = self.master_runs;
        self.master = Some(Master {
            run,
            state: MasterState::new(settings.clone()),
            allocator: Allocator::new(self.allocator),
            calls: BTreeMap::new(),
            tick_at: None,
        });
        self.record(|| Entry::Master(Node::Master(run), Box::new(settings)));
        let entries = self.registry.entries.iter();
        let entries = entries.map(|(key, value)| StoreEntry {
            key: key.clone(),
            value: value.clone(),
        });
        let event = Event::Recovered {
            cluster_id: "cluster".into(),
            epoch: self.registry.epoch,
            entries: entries.collect(),
        };
        self.master_event(event)?;
        if let Some(master) = self.master.as_mut().filter(|master| master.run == run) {
            self.decisions.check(&master.state.view())?;
        }
        self.check_disks()
    }

    /// The leader dies with everything in its memory.
    pub(crate) fn crash_master(&mut self) {
        self.master = None;
        self.decisions.unanswered();
        self.operations.unanswered();
        for index in 0..self.agents.len() {
            if let Some(session) = self.agents[index].link {
                self.break_link(session);
            }
        }
        for index in 0..self.schedulers.len() {
            self.lose_stream(index);
        }
        let wait = self.delay(500, 8_000);
        self.after(wait, Step::StartMaster);
    }

    /// Applies an event and performs its effects, with a crash between any two of them.
    pub(crate) fn master_event(&mut self, event: Event) -> Result<(), String> {
        let now = self.now;
        let Some(master) = &mut self.master else {
            return Ok(());
        };
        let node = Node::Master(master.run);
        let mut effects = Vec::new();
        let copy = self.recording.is_some().then(|| Box::new(event.clone()));
        master.state.apply(event, now, &mut effects);
        master
            .state
            .check()
            .map_err(|error| format!("R1: {error}"))?;
        self.tried.events += 1;
        self.hash.add(&effects);
        let hash = self.hash.value();
        if let Some(event) = copy {
            self.record(|| Entry::MasterEvent(node, now, event, hash));
        }
        for effect in effects {
            if self.strikes("masters killed", self.chances.master_crash) {
                self.crash_master();
                return Ok(());
            }
            self.perform_master(effect);
            if self.master.is_none() {
                return Ok(());
            }
        }
        self.arm_master();
        Ok(())
    }

    fn arm_master(&mut self) {
        let Some(master) = &mut self.master else {
            return;
        };
        let next = master.state.next_deadline();
        if let Some(at) = next
            && next != master.tick_at
        {
            master.tick_at = next;
            let run = master.run;
            let at = at.max(self.now.mono);
            self.at(at, Step::MasterTick { run });
        }
    }

    pub(crate) fn master_tick(&mut self, run: u32) -> Result<(), String> {
        let Some(master) = self.master.as_mut().filter(|master| master.run == run) else {
            return Ok(());
        };
        master.tick_at = None;
        if master
            .state
            .next_deadline()
            .is_some_and(|at| at <= self.now.mono)
        {
            return self.master_event(Event::Tick);
        }
        self.arm_master();
        Ok(())
    }

    fn perform_master(&mut self, effect: Effect) {
        let wait = self.delay(0, 20);
        let Some(master) = &mut self.master else {
            return;
        };
        let run = master.run;
        match effect {
            Effect::Reply { call, reply } => {
                if let Some(scheduler) = master.calls.remove(&call) {
                    self.after(wait, Step::Reply { scheduler, reply });
                } else {
                    self.decisions.answer(call, &reply);
                    self.operations.answer(call, &reply);
                }
            }
            Effect::OpenStream {
                call,
                stream,
                stream_id,
                ..
            } => {
                if let Some(scheduler) = master.calls.remove(&call) {
                    self.open_stream(scheduler, run, stream, stream_id.to_string());
                }
            }
            Effect::ToScheduler { stream, event } => {
                self.tell_scheduler(run, stream, Down::Event(Box::new(event.0)));
            }
            Effect::Offers { stream, offers } => {
                self.tell_scheduler(run, stream, Down::Event(Box::new(offers.event())));
            }
            Effect::CloseStream { stream } => self.tell_scheduler(run, stream, Down::Close),
            Effect::ToAgent { session, frame } => self.send_down(session.0, frame.0),
            Effect::CloseAgent { session } => self.close_down(session.0),
            Effect::Facts(facts) => master.allocator.apply(&facts),
            Effect::Allocate { number, round } => {
                let proposals = master.allocator.allocate(&round);
                self.after(
                    wait,
                    Step::Proposals {
                        run,
                        round: number,
                        proposals,
                    },
                );
            }
            Effect::Store { id, puts, deletes } => {
                let slow = self.strikes("slow writes", self.chances.slow_disk);
                let wait = if slow { self.delay(100, 5_000) } else { wait };
                // Batches are written in order.
                let at = self.registry.written_at.max(self.now.mono + wait);
                self.registry.written_at = at;
                self.at(
                    at,
                    Step::Written {
                        run,
                        id,
                        puts,
                        deletes,
                    },
                );
            }
            Effect::ToOperators { .. } => {}
            Effect::StepDown { .. } => self.crash_master(),
        }
    }

    /// A batch reached the registry; those of an older leader are refused there.
    pub(crate) fn written(
        &mut self,
        run: u32,
        id: StoreId,
        puts: Vec<StoreEntry>,
        deletes: Vec<String>,
    ) -> Result<(), String> {
        if self.master_runs != run {
            return Ok(());
        }
        if self.strikes("full disks", self.chances.full_disk) {
            let message = "No space left on device".into();
            return self.master_event(Event::StoreFailed { id, message });
        }
        if self.registry.careless {
            return self.master_event(Event::Stored { id });
        }
        for key in deletes {
            self.registry.entries.remove(&key);
        }
        for entry in puts {
            self.registry.entries.insert(entry.key, entry.value);
        }
        self.master_event(Event::Stored { id })
    }

    /// A call reaches the master, if one leads.
    pub(crate) fn call_master(
        &mut self,
        scheduler: usize,
        make: impl FnOnce(CallId) -> Event,
    ) -> Result<bool, String> {
        self.calls += 1;
        let call = CallId(self.calls);
        let Some(master) = &mut self.master else {
            return Ok(false);
        };
        master.calls.insert(call, scheduler);
        self.master_event(make(call))?;
        Ok(true)
    }

    /// Time between two looks at whether everything has settled.
    pub(crate) const LOOK: Duration = Duration::from_secs(5);
}
