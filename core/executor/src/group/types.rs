//! What a [`super::DefaultExecutor`] is told, says and keeps.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tepui_model::time::Mono;
use tepui_proto::Wire;
use tepui_proto::v1::executor::{Call, Event};
use tepui_proto::v1::{self, TaskInfo};

use crate::Intent;
use crate::checks::{Finding, Probe, ProbeId};

/// What the machine is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub enum GroupInput {
    /// The agent says something, as on the event stream of the executor API.
    Event(Wire<Event>),
    /// A task's container runs.
    Launched {
        /// Its own name in the executor's container.
        child: String,
        /// Its first process, as the host numbers it.
        pid: u32,
    },
    /// A task's container could not be launched, or was not before the agent ended.
    LaunchFailed {
        /// Its own name in the executor's container.
        child: String,
        /// Why, for people.
        message: String,
    },
    /// A task's container is over.
    Ended {
        /// Its own name in the executor's container.
        child: String,
        /// How it ended.
        end: ChildEnd,
    },
    /// A probe of a task has ended.
    Probed {
        /// The container's own name in the executor's.
        child: String,
        /// Which.
        id: ProbeId,
        /// What it found.
        finding: Finding,
    },
    /// A deadline has passed.
    Tick,
}

/// How a task's container ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ChildEnd {
    /// Raw wait status of its command, where there is one.
    pub status: Option<i32>,
    /// It was ended with the container around it: the agent says what that means.
    pub with_executor: bool,
    /// The limit that it was ended for: reason, as its number, words and resources.
    pub limitation: Option<(i32, String, Vec<Wire<v1::Resource>>)>,
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub enum GroupOutput {
    /// A call to the agent, as on the executor API.
    Call(Wire<Call>),
    /// To be recorded before what follows it; replaces the record before.
    Record(GroupRecord),
    /// Launch a task's container; answered by `Launched` or `LaunchFailed`, then `Ended`.
    Launch {
        /// Its own name in the executor's container.
        child: String,
        /// The task.
        task: Wire<TaskInfo>,
    },
    /// Look for a container that an earlier agent process launched; answered in the same way.
    Find {
        /// Its own name in the executor's container.
        child: String,
    },
    /// End a task's command: SIGTERM now, SIGKILL after the grace period.
    Stop {
        /// The container's own name in the executor's.
        child: String,
        /// How long the command has.
        grace: Duration,
    },
    /// Look at a task; answered by [`GroupInput::Probed`].
    Probe {
        /// The container's own name in the executor's.
        child: String,
        /// What is looked at.
        probe: Probe,
    },
    /// All is done: the executor's container may end, and no task can be taken any more.
    Finish,
}

/// What must survive the agent process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The tasks that have not ended.
    pub tasks: Vec<TaskRecord>,
}

/// One task of a [`GroupRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The task.
    pub task: String,
    /// Its container's own name in the executor's.
    pub child: String,
    /// Number of the group that it came with.
    pub group: u64,
    /// When it runs out of time.
    pub deadline: Option<Mono>,
    /// Why it is being ended, once it is.
    pub intent: Option<Intent>,
}
