//! What an agent's owner has to do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tepui_model::id::{ContainerId, ExecutorId, FrameworkId, TaskId, Uuid};
use tepui_model::resources::Resource;
use tepui_proto::link::{LinkFrame, SyncExecutor, SyncFramework, SyncTask};
use tepui_proto::v1::executor;
use tepui_proto::{Wire, v1};

use crate::ResourceRecord;

/// Something to do. Effects of a batch are performed in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub enum Effect {
    /// Write a record. When it fails, no `Launch` and no `ToMaster` that follows from the same event
    /// may be done, and the state hears [`crate::Event::CheckpointFailed`].
    Checkpoint(Record),
    /// Write down who the agent is, synced to the disk.
    CheckpointAgent {
        /// The id that the master gave.
        agent_id: String,
        /// The cluster that it belongs to.
        cluster_id: String,
        /// Highest leadership epoch seen.
        epoch: u64,
    },
    /// Write down what became of the agent's resources, synced to the disk. When it fails, nothing that follows from
    /// the same event may be done, and the state hears [`crate::Event::OperationFailed`].
    CheckpointResources {
        /// The operation that is done by this.
        operation: Option<Uuid>,
        /// What is written.
        record: ResourceRecord,
    },
    /// Make the directories of new volumes, empty and synced to the disk. When it fails, as above.
    MakeVolumes {
        /// The operation that wants them.
        operation: Uuid,
        /// The volumes.
        volumes: Vec<Resource>,
    },
    /// Remove the data of volumes, and of nothing else.
    RemoveVolumes {
        /// The volumes.
        volumes: Vec<Resource>,
    },
    /// Tell the master everything.
    Sync {
        /// In this session.
        session: u64,
        /// Frameworks with tasks or executors here.
        frameworks: Vec<Wire<SyncFramework>>,
        /// Custom and default executors.
        executors: Vec<Wire<SyncExecutor>>,
        /// Tasks that are not forgotten yet.
        tasks: Vec<Wire<SyncTask>>,
        /// Total resources.
        total: Vec<Wire<v1::Resource>>,
        /// Operations that are not acknowledged.
        operations: Vec<Wire<v1::Operation>>,
        /// Version of the total, 16 bytes.
        resource_version: Vec<u8>,
    },
    /// Send a frame to the master.
    ToMaster {
        /// In this session.
        session: u64,
        /// The frame.
        frame: Wire<LinkFrame>,
    },
    /// End the session: the master cannot be trusted or is not needed any more.
    CloseSession {
        /// Its number.
        session: u64,
        /// Why.
        reason: String,
    },
    /// Launch a container; answered by `Launched` or `LaunchFailed`, then `ContainerEnded`.
    Launch(Box<Launch>),
    /// Watch a container that an earlier process launched; answered by `ContainerEnded`.
    Watch {
        /// The container.
        container: ContainerId,
    },
    /// End a container at once; answered by `ContainerEnded` (or `LaunchFailed` during its launch).
    Destroy {
        /// The container.
        container: ContainerId,
    },
    /// Change what is set aside for a container.
    UpdateContainer {
        /// The container.
        container: ContainerId,
        /// All of it.
        resources: Vec<Wire<v1::Resource>>,
        /// What it may use beyond that, by resource name.
        limits: BTreeMap<String, f64>,
    },
    /// Begin to play the executor of a container.
    Play {
        /// The container.
        container: ContainerId,
        /// The framework.
        framework: FrameworkId,
        /// The executor.
        executor: ExecutorId,
        /// Seed of the machine.
        seed: u64,
        /// Set when an earlier process played it.
        resumed: Option<Resumed>,
    },
    /// Begin to play the default executor of a container, which launches containers inside of it.
    PlayGroups {
        /// The container.
        container: ContainerId,
        /// The framework.
        framework: FrameworkId,
        /// The executor.
        executor: ExecutorId,
        /// Seed of the machine.
        seed: u64,
        /// Its tasks, when an earlier process played it.
        resumed: Option<Vec<Resumed>>,
    },
    /// Tell an executor something.
    ToExecutor {
        /// Its container.
        container: ContainerId,
        /// What.
        event: Wire<executor::Event>,
    },
    /// End the stream of an executor with a process, after what was sent.
    CloseExecutor {
        /// Its container.
        container: ContainerId,
    },
    /// An executor is over for good: its records and its sandbox may go in time.
    Retire {
        /// The framework.
        framework: FrameworkId,
        /// The executor.
        executor: ExecutorId,
        /// Its container.
        container: ContainerId,
    },
    /// A framework has nothing left here.
    RetireFramework {
        /// The framework.
        framework: FrameworkId,
    },
    /// The agent process must end.
    Exit {
        /// Why.
        reason: String,
        /// Forget who the agent was: the next process registers as a new agent.
        forget: bool,
    },
}

/// A task that a played executor goes on with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resumed {
    /// Its task.
    pub task: Wire<v1::TaskInfo>,
    /// The newest recorded state of the task, a `TaskState`.
    pub state: i32,
}

/// A container to launch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The container.
    pub container: ContainerId,
    /// The framework's info.
    pub framework: Wire<v1::FrameworkInfo>,
    /// The executor, generated ones included.
    pub executor: Wire<v1::ExecutorInfo>,
    /// What kind of executor it is.
    pub kind: ExecutorKind,
    /// The task whose command the container runs, for a generated executor.
    pub task: Option<Wire<v1::TaskInfo>>,
    /// Who runs it.
    pub user: Option<String>,
    /// All that is set aside for it: the executor's own and its tasks'.
    pub resources: Vec<Wire<v1::Resource>>,
    /// What it may use beyond that, by resource name.
    pub limits: BTreeMap<String, f64>,
    /// It outlives the agent process.
    pub checkpoint: bool,
}

/// Kinds of executors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecutorKind {
    /// Of one command task, made by the agent and played in it.
    Generated,
    /// Of task groups, played in the agent.
    Default,
    /// A process of the framework's own on the executor API.
    Custom,
}

/// A record about one executor's container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The framework.
    pub framework: FrameworkId,
    /// The executor.
    pub executor: ExecutorId,
    /// Its container.
    pub container: ContainerId,
    /// What is recorded.
    pub body: RecordBody,
}

/// What is recorded. The first of a container is `Launch`, and starts its directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "lives for one step")]
pub enum RecordBody {
    /// The container is about to be launched.
    Launch {
        /// The framework's info.
        framework: Wire<v1::FrameworkInfo>,
        /// The executor.
        executor: Wire<v1::ExecutorInfo>,
        /// Its kind.
        kind: ExecutorKind,
    },
    /// The executor is to run a task. Before its launch record no task was accepted.
    Task(Wire<v1::TaskInfo>),
    /// A kill of a task was asked for, with the reason its updates will give.
    Kill {
        /// The task.
        task: TaskId,
        /// `TaskStatus.Reason`, as its number.
        reason: Option<i32>,
        /// Nanoseconds that the task has, where the kill says so.
        grace: Option<i64>,
    },
    /// A status update was made.
    Update(Wire<v1::TaskStatus>),
    /// A status update was acknowledged.
    Acknowledged {
        /// The task.
        task: TaskId,
        /// The update's uuid.
        uuid: Vec<u8>,
    },
    /// The executor is over, and nothing of it is to be told to anybody any more.
    Retired,
}
