//! The machine itself.

use serde::{Deserialize, Serialize};
use tepui_model::time::{Mono, Now};

use crate::types::{Effect, Event, Exit, Limitation, Mark, Supervisor, Termination};

const SIGTERM: i32 = 15;

/// The launch, watch and end of one container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContainerState {
    phase: Phase,
    isolators: u32,
    /// How many isolators were asked to prepare, and so have to clean up.
    prepared: u32,
    pid: Option<u32>,
    /// Whether a supervisor may run that has not been seen to end.
    supervised: bool,
    gate_recorded: bool,
    /// Nothing is nested in it any more, and nothing will be.
    nested_ended: bool,
    exit: Option<Exit>,
    stop: Option<Stop>,
    destroyed: bool,
    limitation: Option<Limitation>,
    launch_failure: Option<String>,
    cleanup_failures: Vec<String>,
    /// Updates that wait until the command runs, oldest first.
    updates: Vec<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    New,
    Preparing(u32),
    PreparingLogs,
    Starting,
    Isolating(u32),
    Fetching,
    Opening,
    Running,
    /// What is nested in it is ended first.
    EndingNested,
    /// The supervisor was told to kill everything and has not ended yet.
    Killing,
    Cleaning(u32),
    CleaningLogs,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stop {
    deadline: Mono,
}

impl Default for ContainerState {
    fn default() -> Self {
        Self::new()
    }
}

impl ContainerState {
    /// A container of which nothing is known yet; its first event is a launch or a recovery.
    pub fn new() -> Self {
        Self {
            phase: Phase::New,
            isolators: 0,
            prepared: 0,
            pid: None,
            supervised: false,
            gate_recorded: false,
            nested_ended: false,
            exit: None,
            stop: None,
            destroyed: false,
            limitation: None,
            launch_failure: None,
            cleanup_failures: Vec::new(),
            updates: Vec::new(),
        }
    }

    /// The first process, as the host numbers it, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.pid.filter(|_| self.supervised)
    }

    /// Whether the command has started and nobody has begun to end the container.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether the container is over and cleaned up.
    pub fn is_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// When to send [`Event::Tick`].
    pub fn next_deadline(&self) -> Option<Mono> {
        match self.phase {
            Phase::Running => self.stop.map(|stop| stop.deadline),
            _ => None,
        }
    }

    /// Takes one event and appends what has to be done.
    pub fn apply(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        let before = effects.len();
        self.take(event, now, effects);
        self.settle_updates(before, effects);
    }

    fn take(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        match event {
            Event::Launch { isolators } => self.launch(isolators, effects),
            Event::Recover {
                isolators,
                marks,
                supervisor,
            } => self.recover(isolators, marks, supervisor, effects),
            Event::Prepared { isolator } => self.step_done(Phase::Preparing(isolator), effects),
            Event::LogsPrepared => self.step_done(Phase::PreparingLogs, effects),
            Event::Started { pid } => {
                if self.phase == Phase::Starting {
                    self.pid = Some(pid);
                    self.supervised = self.exit.is_none();
                }
                self.step_done(Phase::Starting, effects);
            }
            Event::Isolated { isolator } => self.step_done(Phase::Isolating(isolator), effects),
            Event::Fetched => self.step_done(Phase::Fetching, effects),
            Event::Opened => self.step_done(Phase::Opening, effects),
            Event::StepFailed { message } => self.step_failed(message, effects),
            Event::RecordFailed { mark, message } => self.record_failed(mark, message, effects),
            Event::Signal { signal } => {
                if self.phase == Phase::Running {
                    effects.push(Effect::Signal { signal });
                }
            }
            Event::Stop { grace } => self.stop(now.mono + grace, effects),
            Event::Destroy => self.destroy(effects),
            Event::Limited(limitation) => self.limited(limitation, effects),
            Event::Update { update } => self.updates.push(update),
            Event::NestedEnded => {
                if self.phase == Phase::EndingNested {
                    self.nested_ended = true;
                    self.end(effects);
                }
            }
            Event::Exited(exit) => self.exited(exit, effects),
            Event::Cleaned {
                isolator,
                limitation,
            } => {
                if self.phase == Phase::Cleaning(isolator) {
                    if self.limitation.is_none() && !self.destroyed {
                        self.limitation = limitation;
                    }
                    self.clean_next(isolator, effects);
                }
            }
            Event::CleanupFailed { isolator, message } => {
                if self.phase == Phase::Cleaning(isolator) {
                    self.cleanup_failures.push(message);
                    self.clean_next(isolator, effects);
                }
            }
            Event::LogsCleaned { failure } => {
                if self.phase == Phase::CleaningLogs {
                    self.cleanup_failures.extend(failure);
                    self.over(effects);
                }
            }
            Event::Tick => {
                if self
                    .next_deadline()
                    .is_some_and(|deadline| deadline <= now.mono)
                {
                    self.kill(effects);
                }
            }
        }
    }

    /// What must hold after every event.
    ///
    /// # Errors
    ///
    /// Says which invariant is broken.
    pub fn check(&self) -> Result<(), String> {
        if matches!(self.phase, Phase::Opening | Phase::Running) && !self.gate_recorded {
            return Err("the gate is opened without a record".to_owned());
        }
        if self.phase == Phase::Ended && self.supervised {
            return Err("ended with a supervisor that may run".to_owned());
        }
        if self.is_cleaning() && self.supervised {
            return Err("cleans up under a supervisor that may run".to_owned());
        }
        if matches!(self.phase, Phase::Killing | Phase::Cleaning(_)) && !self.nested_ended {
            return Err("ends before what is nested in it".to_owned());
        }
        if !self.updates.is_empty() && !self.is_launching() {
            return Err("updates wait for nothing".to_owned());
        }
        if self.phase == Phase::Running && (self.destroyed || self.limitation.is_some()) {
            return Err("runs on although it is to end".to_owned());
        }
        Ok(())
    }

    fn launch(&mut self, isolators: u32, effects: &mut Vec<Effect>) {
        if self.phase != Phase::New {
            return;
        }
        self.isolators = isolators;
        effects.push(Effect::Persist);
        self.prepare_from(0, effects);
    }

    fn prepare_from(&mut self, isolator: u32, effects: &mut Vec<Effect>) {
        if isolator < self.isolators {
            self.phase = Phase::Preparing(isolator);
            self.prepared = isolator + 1;
            effects.push(Effect::Prepare { isolator });
        } else {
            self.phase = Phase::PreparingLogs;
            effects.push(Effect::PrepareLogs);
        }
    }

    fn isolate_from(&mut self, isolator: u32, effects: &mut Vec<Effect>) {
        if isolator < self.isolators {
            self.phase = Phase::Isolating(isolator);
            effects.push(Effect::Isolate { isolator });
        } else {
            self.phase = Phase::Fetching;
            effects.push(Effect::Fetch);
        }
    }

    /// The step under way was `step` and has succeeded; answers to anything else are late and change nothing.
    fn step_done(&mut self, step: Phase, effects: &mut Vec<Effect>) {
        if self.phase != step {
            return;
        }
        if step == Phase::Opening {
            self.opened(effects);
            return;
        }
        if self.is_ending() || self.exit.is_some() {
            self.end(effects);
            return;
        }
        match step {
            Phase::Preparing(isolator) => self.prepare_from(isolator + 1, effects),
            Phase::PreparingLogs => {
                self.phase = Phase::Starting;
                effects.push(Effect::Start);
            }
            Phase::Starting => self.isolate_from(0, effects),
            Phase::Isolating(isolator) => self.isolate_from(isolator + 1, effects),
            Phase::Fetching => {
                self.phase = Phase::Opening;
                self.gate_recorded = true;
                effects.push(Effect::Record(Mark::GateOpened));
                effects.push(Effect::Open);
            }
            Phase::New
            | Phase::Opening
            | Phase::Running
            | Phase::EndingNested
            | Phase::Killing
            | Phase::Cleaning(_)
            | Phase::CleaningLogs
            | Phase::Ended => {}
        }
    }

    /// The command runs. What was asked while the gate was on its way is done now.
    fn opened(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Running;
        if let Some(pid) = self.pid {
            effects.push(Effect::Launched { pid });
        }
        if self.destroyed || self.limitation.is_some() {
            self.kill(effects);
        } else if self.stop.is_some() {
            effects.push(Effect::Signal { signal: SIGTERM });
            effects.push(Effect::Record(Mark::Stopped));
        }
    }

    /// Updates wait for the command to run; a container that ends takes none. They go before what else the event
    /// gave, at `at`: a record that fails drops what is behind it.
    fn settle_updates(&mut self, at: usize, effects: &mut Vec<Effect>) {
        if self.updates.is_empty() || self.is_launching() {
            return;
        }
        let runs = self.is_running();
        let settled = self.updates.drain(..).map(|update| match runs {
            true => Effect::Update { update },
            false => Effect::RefuseUpdate { update },
        });
        effects.splice(at..at, settled);
    }

    fn step_failed(&mut self, message: String, effects: &mut Vec<Effect>) {
        if !self.is_launching() {
            return;
        }
        self.launch_failed(message.clone());
        effects.push(Effect::Record(Mark::LaunchFailed { message }));
        self.end(effects);
    }

    fn launch_failed(&mut self, message: String) {
        self.launch_failure.get_or_insert(message);
    }

    /// The effects behind the failed record were dropped, so the ones that must not depend on it are given again.
    fn record_failed(&mut self, mark: Option<Mark>, message: String, effects: &mut Vec<Effect>) {
        match mark {
            None => {
                // Nothing was asked to prepare.
                self.prepared = 0;
                self.launch_failed(message);
                self.end(effects);
            }
            Some(Mark::GateOpened) => {
                self.gate_recorded = false;
                self.launch_failed(message);
                self.end(effects);
            }
            Some(Mark::Stopping { .. }) if self.phase == Phase::Running => {
                effects.push(Effect::Signal { signal: SIGTERM });
            }
            Some(Mark::Destroying | Mark::Limited(_))
                if matches!(self.phase, Phase::EndingNested | Phase::Killing) =>
            {
                self.kill(effects);
            }
            Some(Mark::LaunchFailed { .. }) => self.end(effects),
            Some(Mark::Terminated(termination)) => effects.push(Effect::Terminated(termination)),
            Some(Mark::Stopping { .. } | Mark::Stopped | Mark::Destroying | Mark::Limited(_)) => {}
        }
    }

    fn stop(&mut self, deadline: Mono, effects: &mut Vec<Effect>) {
        let earlier = self.stop.is_none_or(|stop| deadline < stop.deadline);
        match self.phase {
            Phase::Running if earlier => {
                let first = self.stop.is_none();
                self.stop = Some(Stop { deadline });
                effects.push(Effect::Record(Mark::Stopping { deadline }));
                if first {
                    effects.push(Effect::Signal { signal: SIGTERM });
                    effects.push(Effect::Record(Mark::Stopped));
                }
            }
            Phase::Opening if earlier => {
                self.stop = Some(Stop { deadline });
                effects.push(Effect::Record(Mark::Stopping { deadline }));
            }
            // Nothing runs yet, and a fetch can take hours.
            Phase::Fetching if earlier => {
                self.stop = Some(Stop { deadline });
                self.end(effects);
            }
            // Nothing runs yet: the launch ends at its next step.
            Phase::Preparing(_) | Phase::PreparingLogs | Phase::Starting | Phase::Isolating(_)
                if earlier =>
            {
                self.stop = Some(Stop { deadline });
            }
            _ => {}
        }
    }

    fn destroy(&mut self, effects: &mut Vec<Effect>) {
        if self.destroyed || self.is_cleaning() || self.phase == Phase::Ended {
            return;
        }
        self.destroyed = true;
        match self.phase {
            Phase::New => {
                self.exit = Some(Exit::NeverStarted);
                self.end(effects);
            }
            Phase::Running => {
                effects.push(Effect::Record(Mark::Destroying));
                self.kill(effects);
            }
            Phase::Fetching => {
                effects.push(Effect::Record(Mark::Destroying));
                self.end(effects);
            }
            _ => effects.push(Effect::Record(Mark::Destroying)),
        }
    }

    fn limited(&mut self, limitation: Limitation, effects: &mut Vec<Effect>) {
        if self.limitation.is_some()
            || self.destroyed
            || matches!(self.phase, Phase::New | Phase::Ended)
        {
            return;
        }
        self.limitation = Some(limitation.clone());
        effects.push(Effect::Record(Mark::Limited(limitation)));
        match self.phase {
            Phase::Running => self.kill(effects),
            Phase::Fetching => self.end(effects),
            _ => {}
        }
    }

    fn exited(&mut self, exit: Exit, effects: &mut Vec<Effect>) {
        if self.exit.is_some()
            || self.is_cleaning()
            || matches!(self.phase, Phase::New | Phase::Ended)
        {
            return;
        }
        self.exit = Some(exit);
        self.supervised = false;
        match self.phase {
            // The isolator's call is still under way; its answer goes on from here.
            Phase::Isolating(_) | Phase::Starting => {}
            Phase::Fetching | Phase::Opening | Phase::Running | Phase::Killing => {
                self.end(effects);
            }
            // Goes on once what is nested in it has ended.
            Phase::EndingNested => {}
            Phase::New
            | Phase::Preparing(_)
            | Phase::PreparingLogs
            | Phase::Cleaning(_)
            | Phase::CleaningLogs
            | Phase::Ended => {}
        }
    }

    /// Kills everything, from the inside out, and waits for the supervisor's end.
    fn kill(&mut self, effects: &mut Vec<Effect>) {
        if self.nested_ended {
            self.phase = Phase::Killing;
            effects.push(Effect::Kill);
        } else {
            self.phase = Phase::EndingNested;
            effects.push(Effect::EndNested);
        }
    }

    /// Goes on with ending, from wherever the launch or the run was left.
    fn end(&mut self, effects: &mut Vec<Effect>) {
        if self.supervised || !self.nested_ended {
            self.kill(effects);
            return;
        }
        if !self.gate_recorded {
            self.exit = Some(Exit::NeverStarted);
        }
        let exit = *self.exit.get_or_insert(Exit::NeverStarted);
        if exit == Exit::NeverStarted && !self.is_ending() && !self.is_recovered() {
            self.launch_failed("the supervisor ended before the command was started".to_owned());
        }
        self.clean_next(self.prepared, effects);
    }

    /// Cleans up the isolator below `above`, or the logs when there is none.
    fn clean_next(&mut self, above: u32, effects: &mut Vec<Effect>) {
        if let Some(isolator) = above.checked_sub(1) {
            self.phase = Phase::Cleaning(isolator);
            effects.push(Effect::Cleanup { isolator });
            return;
        }
        self.phase = Phase::CleaningLogs;
        effects.push(Effect::CleanupLogs);
    }

    fn over(&mut self, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        let termination = self.termination();
        effects.push(Effect::Record(Mark::Terminated(termination.clone())));
        effects.push(Effect::Terminated(termination));
    }

    fn termination(&self) -> Termination {
        Termination {
            exit: self.exit.unwrap_or(Exit::NeverStarted),
            limitation: self.limitation.clone(),
            stopped: self.stop.is_some(),
            destroyed: self.destroyed,
            launch_failure: self.launch_failure.clone(),
            cleanup_failures: self.cleanup_failures.clone(),
        }
    }

    fn is_cleaning(&self) -> bool {
        matches!(self.phase, Phase::Cleaning(_) | Phase::CleaningLogs)
    }

    fn is_launching(&self) -> bool {
        matches!(
            self.phase,
            Phase::Preparing(_)
                | Phase::PreparingLogs
                | Phase::Starting
                | Phase::Isolating(_)
                | Phase::Fetching
                | Phase::Opening
        )
    }

    fn is_ending(&self) -> bool {
        self.destroyed
            || self.limitation.is_some()
            || self.stop.is_some()
            || self.launch_failure.is_some()
    }

    /// Whether this machine began with a recovery: it never gave a Start, so there is no pid unless one was found.
    fn is_recovered(&self) -> bool {
        self.phase == Phase::New
    }

    fn recover(
        &mut self,
        isolators: u32,
        marks: Vec<Mark>,
        supervisor: Supervisor,
        effects: &mut Vec<Effect>,
    ) {
        if self.phase != Phase::New {
            return;
        }
        self.isolators = isolators;
        // Whichever were asked to prepare: cleanup takes unknown containers.
        self.prepared = isolators;
        let mut stopped = false;
        for mark in marks {
            match mark {
                Mark::GateOpened => self.gate_recorded = true,
                Mark::Stopping { deadline } => self.stop = Some(Stop { deadline }),
                Mark::Stopped => stopped = true,
                Mark::Destroying => self.destroyed = true,
                Mark::Limited(limitation) => self.limitation = Some(limitation),
                Mark::LaunchFailed { message } => self.launch_failed(message),
                Mark::Terminated(termination) => {
                    self.phase = Phase::Ended;
                    self.exit = Some(termination.exit);
                    effects.push(Effect::Terminated(termination));
                    return;
                }
            }
        }
        match supervisor {
            Supervisor::Alive { pid, opened } => {
                self.pid = Some(pid);
                self.supervised = true;
                let ending =
                    self.destroyed || self.limitation.is_some() || self.launch_failure.is_some();
                if !(self.gate_recorded && opened) || ending {
                    self.kill(effects);
                    return;
                }
                self.phase = Phase::Running;
                if self.stop.is_some() && !stopped {
                    effects.push(Effect::Signal { signal: SIGTERM });
                    effects.push(Effect::Record(Mark::Stopped));
                }
            }
            Supervisor::Exited(exit) => {
                self.exit = Some(exit);
                self.end(effects);
            }
        }
    }
}
