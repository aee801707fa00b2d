//! Random histories of one container: everything may fail, be asked or be killed between any two effects.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use tepui_model::time::{Mono, Now, Wall};
use tepui_state_container::{
    ContainerState, Effect, Event, Exit, Limitation, Mark, Supervisor, Termination,
};

const ISOLATORS: u32 = 3;
const STATUS: i32 = 7 << 8;

/// What may happen next, chosen by the generator.
#[derive(Clone, Debug)]
enum Choice {
    /// Perform the next effect; a record fails where this says so.
    Perform {
        fails: bool,
    },
    /// The step that is under way answers.
    Answer {
        fails: bool,
    },
    /// The command ends by itself.
    CommandEnds,
    /// The supervisor is killed from outside.
    SupervisorKilled,
    Signal,
    Stop(u64),
    Destroy,
    Limited,
    Update,
    Sleep(u64),
    /// The agent is killed and a new one recovers.
    Crash,
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        40 => prop::bool::weighted(0.02).prop_map(|fails| Choice::Perform { fails }),
        40 => prop::bool::weighted(0.04).prop_map(|fails| Choice::Answer { fails }),
        3 => Just(Choice::CommandEnds),
        1 => Just(Choice::SupervisorKilled),
        2 => Just(Choice::Signal),
        2 => (0_u64..50).prop_map(Choice::Stop),
        1 => Just(Choice::Destroy),
        1 => Just(Choice::Limited),
        2 => Just(Choice::Update),
        3 => (0_u64..60).prop_map(Choice::Sleep),
        4 => Just(Choice::Crash),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Absent,
    Held,
    Running,
    Gone(Exit),
}

/// The machine, and the world around it that survives it.
struct World {
    state: ContainerState,
    now: u64,
    // On disk and in the kernel.
    persisted: bool,
    marks: Vec<Mark>,
    process: Process,
    prepared: BTreeSet<u32>,
    starts: u32,
    terminations: Vec<Termination>,
    // Lost with the agent.
    effects: VecDeque<Effect>,
    step: Option<Effect>,
    /// The supervisor's end has been told to this agent process.
    told: bool,
    destroyed: bool,
    /// Updates that were asked for, and those that were made or refused.
    updates: (u64, Vec<u64>),
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: ContainerState::new(),
            now: 0,
            persisted: false,
            marks: Vec::new(),
            process: Process::Absent,
            prepared: BTreeSet::new(),
            starts: 0,
            terminations: Vec::new(),
            effects: VecDeque::new(),
            step: None,
            told: false,
            destroyed: false,
            updates: (0, Vec::new()),
        };
        world.apply(Event::Launch {
            isolators: ISOLATORS,
        });
        world
    }

    fn apply(&mut self, event: Event) {
        let mut effects = Vec::new();
        let now = Now {
            mono: Mono(self.now),
            wall: Wall(0),
        };
        self.state.apply(event, now, &mut effects);
        self.effects.extend(effects);
        self.state.check().unwrap();
    }

    fn perform(&mut self, fails: bool) {
        let Some(effect) = self.effects.pop_front() else {
            return;
        };
        match effect {
            Effect::Persist | Effect::Record(_) if fails => {
                // What follows in the batch is not performed.
                self.effects.clear();
                let mark = if let Effect::Record(mark) = effect {
                    Some(mark)
                } else {
                    None
                };
                self.apply(Event::RecordFailed {
                    mark,
                    message: "disk full".to_owned(),
                });
            }
            Effect::Persist => self.persisted = true,
            Effect::Record(mark) => self.marks.push(mark),
            Effect::Prepare { isolator } => {
                assert!(self.persisted, "prepared without a record");
                self.prepared.insert(isolator);
                self.begin(effect);
            }
            Effect::Start => {
                assert_eq!(self.process, Process::Absent, "a second supervisor");
                self.begin(effect);
            }
            // Given again when a record of the end fails, as a kill is: it may have been dropped with the record.
            Effect::EndNested if self.step == Some(Effect::EndNested) => {}
            Effect::EndNested => {
                self.give_up_fetch();
                self.begin(effect);
            }
            Effect::PrepareLogs | Effect::Isolate { .. } | Effect::Fetch => self.begin(effect),
            Effect::Open => {
                assert!(
                    self.marks.contains(&Mark::GateOpened),
                    "the gate opens without a record"
                );
                if self.process == Process::Held {
                    self.process = Process::Running;
                    self.starts += 1;
                }
                self.begin(effect);
            }
            Effect::Signal { .. } => {}
            Effect::Update { update } => {
                assert!(self.starts == 1, "updated before it runs");
                self.updates.1.push(update);
            }
            Effect::RefuseUpdate { update } => self.updates.1.push(update),
            Effect::Kill => {
                self.give_up_fetch();
                self.process = match self.process {
                    Process::Held => Process::Gone(Exit::NeverStarted),
                    Process::Running => Process::Gone(Exit::Status(9)),
                    gone => gone,
                };
            }
            Effect::Cleanup { .. } | Effect::CleanupLogs => {
                self.give_up_fetch();
                assert!(
                    !matches!(self.process, Process::Held | Process::Running),
                    "cleans up under a process"
                );
                self.begin(effect);
            }
            Effect::Launched { .. } => assert_eq!(self.starts, 1),
            Effect::Terminated(termination) => self.terminations.push(termination),
        }
    }

    /// A fetch ends with what made the container end, without an answer.
    fn give_up_fetch(&mut self) {
        if self.step == Some(Effect::Fetch) {
            self.step = None;
        }
    }

    fn begin(&mut self, effect: Effect) {
        assert!(
            self.step.is_none(),
            "two steps at once: {:?} and {effect:?}",
            self.step
        );
        self.step = Some(effect);
    }

    fn answer(&mut self, fails: bool) {
        // The effects of a batch are performed before anything is heard.
        if !self.effects.is_empty() {
            return;
        }
        if let Process::Gone(exit) = self.process
            && !self.told
            && self.step.as_ref() != Some(&Effect::Start)
        {
            self.told = true;
            self.apply(Event::Exited(exit));
            if matches!(self.step, Some(Effect::Open)) {
                self.step = None;
            }
            return;
        }
        let Some(step) = self.step.take() else { return };
        let message = "as told".to_owned();
        let event = match step {
            Effect::Cleanup { isolator } if fails => {
                self.prepared.remove(&isolator);
                Event::CleanupFailed { isolator, message }
            }
            Effect::Cleanup { isolator } => {
                self.prepared.remove(&isolator);
                Event::Cleaned {
                    isolator,
                    limitation: None,
                }
            }
            Effect::CleanupLogs => Event::LogsCleaned {
                failure: fails.then_some(message),
            },
            Effect::Prepare { .. }
            | Effect::Isolate { .. }
            | Effect::Fetch
            | Effect::Start
            | Effect::PrepareLogs
                if fails =>
            {
                Event::StepFailed { message }
            }
            Effect::Prepare { isolator } => Event::Prepared { isolator },
            Effect::Isolate { isolator } => Event::Isolated { isolator },
            Effect::PrepareLogs => Event::LogsPrepared,
            Effect::EndNested => Event::NestedEnded,
            Effect::Fetch => Event::Fetched,
            Effect::Start => {
                self.process = Process::Held;
                Event::Started { pid: 77 }
            }
            Effect::Open => Event::Opened,
            other => panic!("{other:?} is no step"),
        };
        self.apply(event);
    }

    /// The agent is killed; a supervisor at its gate ends by itself.
    fn crash(&mut self) {
        self.effects.clear();
        // A supervisor that was just begun ends as well: its connection is closed.
        self.step = None;
        if self.process == Process::Held {
            self.process = Process::Gone(Exit::NeverStarted);
        }
        self.state = ContainerState::new();
        // Whoever waits for an answer is gone as well.
        self.updates = (0, Vec::new());
        self.told = true;
        if !self.persisted {
            assert!(self.prepared.is_empty() && self.process == Process::Absent);
            // As if it had never been; the agent calls it missing.
            self.persisted = false;
            self.apply(Event::Destroy);
            return;
        }
        let supervisor = match self.process {
            Process::Running => {
                self.told = false;
                Supervisor::Alive {
                    pid: 77,
                    opened: true,
                }
            }
            Process::Gone(exit) => Supervisor::Exited(exit),
            Process::Absent | Process::Held => Supervisor::Exited(Exit::Vanished),
        };
        let marks = self.marks.clone();
        self.apply(Event::Recover {
            isolators: ISOLATORS,
            marks,
            supervisor,
        });
    }

    fn choose(&mut self, choice: &Choice) {
        match choice {
            Choice::Perform { fails } => self.perform(*fails),
            Choice::Answer { fails } => self.answer(*fails),
            Choice::CommandEnds if self.process == Process::Running => {
                self.process = Process::Gone(Exit::Status(STATUS));
            }
            Choice::SupervisorKilled
                if matches!(self.process, Process::Held | Process::Running) =>
            {
                self.process = Process::Gone(Exit::Vanished);
            }
            Choice::CommandEnds | Choice::SupervisorKilled => {}
            Choice::Crash => self.crash(),
            Choice::Sleep(nanos) => {
                self.now += nanos;
                if self.effects.is_empty()
                    && self
                        .state
                        .next_deadline()
                        .is_some_and(|deadline| deadline.0 <= self.now)
                {
                    self.apply(Event::Tick);
                }
            }
            // Requests are taken between batches, as answers are.
            _ if !self.effects.is_empty() => {}
            Choice::Signal => self.apply(Event::Signal { signal: 10 }),
            Choice::Stop(grace) => self.apply(Event::Stop {
                grace: std::time::Duration::from_nanos(*grace),
            }),
            Choice::Destroy => {
                self.destroyed = true;
                self.apply(Event::Destroy);
            }
            Choice::Limited => self.apply(Event::Limited(Limitation::default())),
            Choice::Update => {
                self.updates.0 += 1;
                let update = self.updates.0;
                self.apply(Event::Update { update });
            }
        }
    }

    /// Lets everything go its way to the end.
    fn finish(&mut self) {
        self.choose(&Choice::Destroy);
        for _ in 0..200 {
            while !self.effects.is_empty() {
                self.perform(false);
            }
            if self.state.is_ended() {
                return;
            }
            self.choose(&Choice::Destroy);
            if self.effects.is_empty() {
                self.answer(false);
            }
        }
        panic!("does not end: {:?}", self.state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_history_starts_twice_or_leaves_anything(choices in prop::collection::vec(choice(), 1..120)) {
        let mut world = World::new();
        for choice in &choices {
            world.choose(choice);
            prop_assert!(world.starts <= 1);
        }
        world.finish();
        prop_assert!(world.starts <= 1);
        prop_assert!(world.prepared.is_empty(), "not cleaned up: {:?}", world.prepared);
        prop_assert!(!matches!(world.process, Process::Held | Process::Running));
        let asked: Vec<u64> = (1..=world.updates.0).collect();
        prop_assert_eq!(&world.updates.1, &asked, "each update is answered once, in its turn");
        let last = world.terminations.last().expect("an end is told");
        // However often agents asked, the end is the same; all of it, once it is recorded.
        for termination in &world.terminations {
            prop_assert_eq!(termination.exit, last.exit);
            if world.persisted && world.marks.contains(&Mark::Terminated(termination.clone())) {
                prop_assert_eq!(termination, last);
            }
        }
        if world.starts == 0 {
            // A supervisor that is killed from outside says nothing; with the gate recorded the command may have run.
            let may_have_run = last.exit == Exit::Vanished && world.marks.contains(&Mark::GateOpened);
            prop_assert!(last.exit == Exit::NeverStarted || may_have_run);
        } else {
            prop_assert_ne!(last.exit, Exit::NeverStarted);
        }
    }

    /// A crash after each prefix of an undisturbed launch.
    #[test]
    fn an_undisturbed_launch_may_crash_anywhere(at in 0_usize..60, recrash in 0_usize..30) {
        let mut world = World::new();
        let step = |world: &mut World| if world.effects.is_empty() { world.answer(false) } else { world.perform(false) };
        for _ in 0..at {
            step(&mut world);
        }
        world.crash();
        for _ in 0..recrash {
            step(&mut world);
        }
        if world.persisted {
            world.crash();
        }
        let runs = world.process == Process::Running;
        world.finish();
        prop_assert!(world.prepared.is_empty());
        prop_assert!(world.starts <= 1);
        let last = world.terminations.last().expect("an end is told");
        prop_assert_eq!(last.exit, if runs { Exit::Status(9) } else { Exit::NeverStarted });
    }
}

#[test]
fn a_stop_outlives_the_agent() {
    let mut world = World::new();
    while !world.state.is_running() {
        world.answer(false);
        while !world.effects.is_empty() {
            world.perform(false);
        }
    }
    world.apply(Event::Stop {
        grace: std::time::Duration::from_nanos(50),
    });
    // Recorded, but the agent is killed before the signal is sent.
    world.perform(false);
    world.crash();
    assert_eq!(world.effects.front(), Some(&Effect::Signal { signal: 15 }));
    assert_eq!(world.state.next_deadline(), Some(Mono(50)));
    while !world.effects.is_empty() {
        world.perform(false);
    }
    // Sent and recorded: a second recovery does not send it again.
    world.crash();
    assert!(world.effects.is_empty());
    world.choose(&Choice::Sleep(50));
    assert_eq!(world.effects.front(), Some(&Effect::EndNested));
    world.finish();
    let termination = world.terminations.last().unwrap();
    assert!(termination.stopped);
    assert_eq!(termination.exit, Exit::Status(9));
}

#[test]
fn a_fetch_is_given_up_for_an_end() {
    let ends = [
        Event::Stop {
            grace: std::time::Duration::from_secs(60),
        },
        Event::Destroy,
        Event::Limited(Limitation::default()),
    ];
    for end in ends {
        let mut world = World::new();
        while world.step != Some(Effect::Fetch) {
            world.answer(false);
            while !world.effects.is_empty() {
                world.perform(false);
            }
        }
        world.apply(end);
        while !world.effects.is_empty() {
            world.perform(false);
        }
        assert_eq!(
            world.step,
            Some(Effect::EndNested),
            "no answer of the fetch is waited for"
        );
        world.finish();
        assert_eq!(world.process, Process::Gone(Exit::NeverStarted));
        assert_eq!(world.starts, 0);
    }
}

/// An executor may have asked for a task before its agent has heard that the gate is open.
#[test]
fn an_update_waits_for_the_command() {
    for ends in [false, true] {
        let mut world = World::new();
        while world.step != Some(Effect::Open) {
            world.answer(false);
            while !world.effects.is_empty() {
                world.perform(false);
            }
        }
        world.choose(&Choice::Update);
        assert!(world.effects.is_empty() && world.updates.1.is_empty());
        if ends {
            world.choose(&Choice::SupervisorKilled);
        }
        world.answer(false);
        let update = 1;
        let settled = match ends {
            false => Effect::Update { update },
            true => Effect::RefuseUpdate { update },
        };
        assert_eq!(world.effects.front(), Some(&settled));
        world.finish();
    }
}

#[test]
fn events_and_effects_are_plain_data() {
    let effects = vec![Effect::Record(Mark::Limited(Limitation {
        message: "x".to_owned(),
        ..Limitation::default()
    }))];
    let bytes = postcard::to_allocvec(&effects).unwrap();
    assert_eq!(
        postcard::from_bytes::<Vec<Effect>>(&bytes).unwrap(),
        effects
    );
}
