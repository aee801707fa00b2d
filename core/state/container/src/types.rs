//! Events, effects and records of one container.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tepui_model::time::Mono;
use tepui_proto::{Wire, v1};

/// What the containerizer tells the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// Launch the container with this number of isolators.
    Launch {
        /// How many isolators take part.
        isolators: u32,
    },
    /// The agent process is new: this is what was recorded and what was found.
    Recover {
        /// How many isolators take part, as recorded at the launch.
        isolators: u32,
        /// The intact part of the event log.
        marks: Vec<Mark>,
        /// What became of the supervisor.
        supervisor: Supervisor,
    },
    /// An isolator has prepared.
    Prepared {
        /// Its number.
        isolator: u32,
    },
    /// Standard output and error are ready.
    LogsPrepared,
    /// The supervisor holds the first process at the gate.
    Started {
        /// The first process, as the host numbers it.
        pid: u32,
    },
    /// An isolator has isolated the first process.
    Isolated {
        /// Its number.
        isolator: u32,
    },
    /// What the command needs is in the sandbox.
    Fetched,
    /// The supervisor has opened the gate.
    Opened,
    /// The step that was under way failed.
    StepFailed {
        /// What failed, for people.
        message: String,
    },
    /// A [`Effect::Persist`] or [`Effect::Record`] failed; the effects after it in its batch were not performed.
    RecordFailed {
        /// What was to be recorded; none for the launch record.
        mark: Option<Mark>,
        /// What failed, for people.
        message: String,
    },
    /// Send a signal to all processes of the command.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// End the command: SIGTERM now, SIGKILL after the grace period. A later stop can only shorten it.
    Stop {
        /// How long the command has to end.
        grace: Duration,
    },
    /// End the container at once, whatever it is doing.
    Destroy,
    /// An isolator says that the container is beyond a limit.
    Limited(Limitation),
    /// What is set aside for the container is to change.
    Update {
        /// Its number, for the answer.
        update: u64,
    },
    /// No container is nested in this one any more, and none will be.
    NestedEnded,
    /// The supervisor is gone.
    Exited(Exit),
    /// An isolator has cleaned up.
    Cleaned {
        /// Its number.
        isolator: u32,
        /// A limit that the container was found to have exceeded when its traces were removed.
        limitation: Option<Limitation>,
    },
    /// An isolator could not clean up.
    CleanupFailed {
        /// Its number.
        isolator: u32,
        /// What failed, for people.
        message: String,
    },
    /// Nothing works on the output any more.
    LogsCleaned {
        /// What could not be cleaned up, for people.
        failure: Option<String>,
    },
    /// A deadline has passed.
    Tick,
}

/// What the containerizer has to do, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Write the launch record. When it fails nothing after it in the batch may be done.
    Persist,
    /// Append to the event log. When it fails nothing after it in the batch may be done.
    Record(Mark),
    /// Call an isolator's prepare.
    Prepare {
        /// Its number.
        isolator: u32,
    },
    /// Make the sandbox, and ready where standard output and error go.
    PrepareLogs,
    /// Start the supervisor, which holds the first process at the gate.
    Start,
    /// Call an isolator's isolate.
    Isolate {
        /// Its number.
        isolator: u32,
    },
    /// Bring what the command asks for into the sandbox. Given up by [`Effect::EndNested`],
    /// [`Effect::Kill`] and [`Effect::Cleanup`].
    Fetch,
    /// Let the first process start the command.
    Open,
    /// Send a signal to all processes of the command.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// Tell the isolators of an update. It does not hold up what follows; cleanup waits for it.
    Update {
        /// Its number.
        update: u64,
    },
    /// Answer an update: the container ends.
    RefuseUpdate {
        /// Its number.
        update: u64,
    },
    /// End all containers that are nested in this one, and let none begin; answered by [`Event::NestedEnded`].
    EndNested,
    /// Kill everything in the container; answered by [`Event::Exited`].
    Kill,
    /// Call an isolator's cleanup.
    Cleanup {
        /// Its number.
        isolator: u32,
    },
    /// Have the logger forget the container; answered by [`Event::LogsCleaned`]. It follows all other cleanups.
    CleanupLogs,
    /// The command runs. Not repeated after a recovery.
    Launched {
        /// The first process, as the host numbers it.
        pid: u32,
    },
    /// The container is over and has left no traces but its records.
    Terminated(Termination),
}

/// A record in the event log. Each is written before what it names is done, or after what it names has happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Mark {
    /// The gate is about to be opened: the command may run.
    GateOpened,
    /// The command is asked to end.
    Stopping {
        /// When it is killed, on the machine's clock, which goes on when the agent restarts.
        deadline: Mono,
    },
    /// SIGTERM was sent.
    Stopped,
    /// The container is destroyed.
    Destroying,
    /// It went beyond a limit.
    Limited(Limitation),
    /// The launch failed.
    LaunchFailed {
        /// What failed, for people.
        message: String,
    },
    /// It is over.
    Terminated(Termination),
}

/// What a new agent process finds of a container's supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Supervisor {
    /// It runs and was adopted.
    Alive {
        /// The first process, as the host numbers it.
        pid: u32,
        /// Whether its gate is open.
        opened: bool,
    },
    /// It does not run (any more).
    Exited(Exit),
}

/// What the supervisor left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The command ended with this raw wait status.
    Status(i32),
    /// The gate was never opened.
    NeverStarted,
    /// The supervisor left no word: it was killed from outside, or the machine was started anew.
    Vanished,
}

/// A limit that a container exceeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limitation {
    /// `TaskStatus.Reason`, as its number.
    pub reason: i32,
    /// What was exceeded and by how much, for people.
    pub message: String,
    /// The resources that were exceeded.
    pub resources: Vec<Wire<v1::Resource>>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Termination {
    /// What the supervisor left behind.
    pub exit: Exit,
    /// The limit for which it was ended.
    pub limitation: Option<Limitation>,
    /// Whether it was asked to stop before it ended.
    pub stopped: bool,
    /// Whether it was destroyed on request, or as an orphan.
    pub destroyed: bool,
    /// What made the launch fail.
    pub launch_failure: Option<String>,
    /// What could not be cleaned up.
    pub cleanup_failures: Vec<String>,
}

impl Termination {
    /// The raw wait status of the command, where there is one.
    pub fn status(&self) -> Option<i32> {
        match self.exit {
            Exit::Status(status) => Some(status),
            Exit::NeverStarted | Exit::Vanished => None,
        }
    }
}
