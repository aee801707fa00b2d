//! What happens to an agent.

use serde::{Deserialize, Serialize};
use tepui_model::id::{ContainerId, TaskId, Uuid};
use tepui_model::resources::Resources;
use tepui_proto::link::{LinkFrame, Welcome};
use tepui_proto::v1::executor::Call;
use tepui_proto::{Wire, v1};

use crate::{RecordBody, ResourceRecord};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub enum Event {
    /// The first event: what an earlier process recorded, and what became of its containers.
    Recovered(RecoveredAgent),
    /// The master took a session. Answered by [`crate::Effect::Sync`].
    Connected {
        /// Number of the session; newer ones are greater.
        session: u64,
        /// What the master said.
        welcome: Wire<Welcome>,
    },
    /// A session is over.
    Disconnected {
        /// Its number.
        session: u64,
    },
    /// The master wants something done.
    FromMaster {
        /// In which session; any but the newest is ignored.
        session: u64,
        /// What.
        frame: Wire<LinkFrame>,
    },
    /// A container's command was started.
    Launched {
        /// The container.
        container: ContainerId,
        /// Its first process, as the host numbers it.
        pid: u32,
    },
    /// A container that is being launched waits for the pull of an image.
    Pulling {
        /// The container of the executor.
        container: ContainerId,
        /// The task of a group whose container waits; without it, all tasks that the executor was not told of do.
        task: Option<TaskId>,
        /// What is pulled and how far that is, for people.
        message: String,
    },
    /// A container could not be launched; nothing of it is left.
    LaunchFailed {
        /// The container.
        container: ContainerId,
        /// Why, for people.
        message: String,
    },
    /// An executor calls, whether it is played or on a socket.
    ExecutorCall {
        /// Its container.
        container: ContainerId,
        /// The call.
        call: Wire<Call>,
    },
    /// The stream of an executor with a process is over: it hears nothing until it subscribes again.
    ExecutorDisconnected {
        /// Its container.
        container: ContainerId,
    },
    /// A played executor is done: its container ends, and no task can be given to it any more.
    ExecutorFinished {
        /// Its container.
        container: ContainerId,
    },
    /// What is set aside for a container could not be changed.
    UpdateFailed {
        /// The container.
        container: ContainerId,
        /// Why, for people.
        message: String,
    },
    /// A container is over and cleaned up. What a played executor made of it came before.
    ContainerEnded {
        /// The container.
        container: ContainerId,
        /// How it ended.
        end: ContainerEnd,
    },
    /// A record could not be written; what depends on it was not done, see
    /// [`crate::Effect::Checkpoint`].
    CheckpointFailed {
        /// Of which container.
        container: ContainerId,
        /// What the system said.
        message: String,
    },
    /// What an operation needs could not be made or written: it is not done, see
    /// [`crate::Effect::CheckpointResources`].
    OperationFailed {
        /// Which.
        operation: Uuid,
        /// What the system said.
        message: String,
    },
    /// The master says that the agent was marked gone, or will not have it: all ends at once.
    Gone {
        /// What it said.
        reason: String,
    },
    /// The agent is to end all executors, unregister and exit.
    Unregister,
    /// A deadline has passed.
    Tick,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerEnd {
    /// Raw wait status of its command, where there is one.
    pub status: Option<i32>,
    /// The command was never started.
    pub never_started: bool,
    /// The limit that it was ended for.
    pub limitation: Option<Limitation>,
}

/// A limit that a container exceeded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limitation {
    /// `TaskStatus.Reason`, as its number.
    pub reason: i32,
    /// What was exceeded and by how much.
    pub message: String,
    /// The resources that were exceeded.
    pub resources: Vec<Wire<v1::Resource>>,
}

/// What an agent process finds when it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecoveredAgent {
    /// The id the master gave, if it ever did.
    pub agent_id: Option<String>,
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// Highest leadership epoch seen.
    pub epoch: u64,
    /// Frameworks with recorded executors.
    pub frameworks: Vec<RecoveredFramework>,
    /// All that the agent has now, with what operations made of it; `None`: what it was given.
    pub total: Option<Resources>,
    /// What was recorded of resources.
    pub resources: ResourceRecord,
}

/// A recorded framework.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecoveredFramework {
    /// Its info, id included.
    pub info: Wire<v1::FrameworkInfo>,
    /// Its executors, oldest first.
    pub executors: Vec<RecoveredExecutor>,
}

/// A recorded executor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecoveredExecutor {
    /// Its container.
    pub container: ContainerId,
    /// The launch record and the intact part of the log, in order.
    pub records: Vec<RecordBody>,
    /// What became of the container.
    pub found: Found,
}

/// What became of a container while no agent watched.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Found {
    /// It runs.
    Running {
        /// Its first process.
        pid: u32,
    },
    /// It is over; `ContainerEnded` follows.
    Ended,
    /// Its launch never got so far that anything ran.
    Missing,
}
