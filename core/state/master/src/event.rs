//! What happens to a master: plain data that can be recorded, replayed and hashed.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tepui_model::allocation::Proposal;
use tepui_model::authorization::ClassKey;
use tepui_model::id::{AgentId, Role};
use tepui_model::time::Wall;
use tepui_proto::v1::{self, maintenance, quota, scheduler};
use tepui_proto::{Wire, link};

/// Number of a call that waits for its [`Reply`](crate::Effect::Reply). Chosen by the caller, unique
/// while the call is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// A scheduler's event stream, numbered by the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StreamKey(pub u64);

/// A session of the agent link, numbered by the link: unique over all connections of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionKey(pub u64);

/// Number of a batch of the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(pub u64);

/// An entry of the registry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Such as `agents/<id>`.
    pub key: String,
    /// A `tepui.disk` message.
    pub value: Bytes,
}

/// A launch that the authorizer refused. The lane asks before it hands the call on; the state answers
/// for each task in its turn, so that the order of events stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Index in `Accept.operations`.
    pub operation: u32,
    /// Index in the operation's tasks; 0 for operations without tasks.
    pub task: u32,
    /// Text for the update.
    pub message: String,
}

/// Everything that can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// First event of a leader: what the registry holds. Nothing else is applied before it.
    Recovered {
        /// The cluster, made when the registry was created.
        cluster_id: String,
        /// This leader's epoch, already written.
        epoch: u64,
        /// All entries.
        entries: Vec<Entry>,
    },

    /// SUBSCRIBE of a scheduler, after the checks that need no state (type, ids in both places, stream id header absent).
    Subscribe {
        /// Answered with `OpenStream` or a `Reply`.
        call: CallId,
        /// Authenticated principal.
        principal: Option<String>,
        /// Type SUBSCRIBE.
        request: Wire<scheduler::Call>,
        /// Text of the authorizer's refusal, for the ERROR event.
        refused: Option<String>,
    },
    /// Any other call of a scheduler.
    SchedulerCall {
        /// Answered with a `Reply`.
        call: CallId,
        /// Authenticated principal.
        principal: Option<String>,
        /// The `Mesos-Stream-Id` header, as sent.
        stream_id: String,
        /// Valid by itself (required parts, uuid lengths).
        request: Wire<scheduler::Call>,
        /// What of an ACCEPT the authorizer refused.
        refused: Vec<Refused>,
    },
    /// A scheduler's connection ended, or it was too slow.
    StreamClosed {
        /// Its stream.
        stream: StreamKey,
    },

    /// First frame of an agent's session, authorized.
    AgentHello {
        /// Its session.
        session: SessionKey,
        /// Authenticated principal.
        principal: Option<String>,
        /// The frame.
        hello: Wire<link::Hello>,
    },
    /// All Sync frames of a session in one, up to SyncEnd.
    AgentSynced {
        /// Its session.
        session: SessionKey,
        /// The parts put together.
        sync: Wire<link::Sync>,
        /// Of the SyncEnd.
        resource_version: Bytes,
    },
    /// Status updates.
    AgentUpdates {
        /// From which session.
        session: SessionKey,
        /// In the agent's order.
        updates: Wire<link::Updates>,
    },
    /// State of an operation.
    AgentOperationUpdate {
        /// From which session.
        session: SessionKey,
        /// The frame.
        update: Wire<link::OperationUpdate>,
    },
    /// A custom or default executor is gone.
    AgentExecutorEnded {
        /// From which session.
        session: SessionKey,
        /// The frame.
        ended: Wire<link::ExecutorEnded>,
    },
    /// Data for a framework.
    AgentExecutorMessage {
        /// From which session.
        session: SessionKey,
        /// The frame.
        message: Wire<link::ExecutorMessage>,
    },
    /// The agent's totals changed.
    AgentResources {
        /// From which session.
        session: SessionKey,
        /// The frame.
        resources: Wire<link::AgentResources>,
    },
    /// The agent leaves for good.
    AgentUnregister {
        /// From which session.
        session: SessionKey,
    },
    /// The session's connection broke.
    AgentClosed {
        /// Which session.
        session: SessionKey,
    },
    /// The session missed its pings; its connection may still be open.
    AgentSilent {
        /// Which session.
        session: SessionKey,
    },

    /// Answer of the allocator to a round.
    Proposals {
        /// Number of the round.
        round: u64,
        /// In the allocator's order.
        proposals: Vec<Proposal>,
    },
    /// The allocator was started again and knows nothing: all facts are told anew.
    AllocatorRestarted,

    /// A batch is in the registry.
    Stored {
        /// Which batch.
        id: StoreId,
    },
    /// A batch could not be written: the leader must step down.
    StoreFailed {
        /// Which batch.
        id: StoreId,
        /// Why.
        message: String,
    },

    /// A call of an operator that changes something.
    Operator {
        /// Answered with a `Reply`.
        call: CallId,
        /// Authenticated principal.
        principal: Option<String>,
        /// What is asked.
        request: OperatorCall,
        /// Visibility class that the authorization rested on, where the call is about an object with one.
        /// If the object's class differs now, the reply is `Again`.
        class: Option<ClassKey>,
    },

    /// Which hosts may be offered from; none given: all. The file that says so was read for the first time, or has changed.
    Whitelist {
        /// Their names.
        hostnames: Option<BTreeSet<String>>,
    },
    /// An operator subscribes to events: from now on they are made.
    Watched,
    /// Nobody reads the events of operators any more.
    Unwatched {
        /// How many had subscribed when this was so. Somebody may have come since.
        watchers: u64,
    },

    /// A deadline of [`next_deadline`](crate::MasterState::next_deadline) has come.
    Tick,
}

/// Calls of operators that change something. What can be said of one alone was checked before
/// ([`validate`](crate::validate)).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum OperatorCall {
    /// End a framework. `/teardown` and TEARDOWN.
    Teardown {
        /// Its id.
        framework_id: String,
    },
    /// UPDATE_WEIGHTS.
    UpdateWeights {
        /// New weights.
        weights: Vec<Wire<v1::WeightInfo>>,
    },
    /// UPDATE_QUOTA.
    UpdateQuota {
        /// New quotas.
        configs: Vec<Wire<quota::QuotaConfig>>,
        /// Do not check against what there is.
        force: bool,
    },
    /// SET_QUOTA: the old way, which is refused for a role that has one.
    SetQuota {
        /// The role and its guarantee, which is its limit too.
        request: Wire<quota::QuotaRequest>,
    },
    /// REMOVE_QUOTA.
    RemoveQuota {
        /// Of which role.
        role: Role,
    },
    /// UPDATE_MAINTENANCE_SCHEDULE.
    UpdateMaintenance {
        /// The whole new schedule.
        schedule: Wire<maintenance::Schedule>,
    },
    /// START_MAINTENANCE: the machines go down.
    StartMaintenance {
        /// Which.
        machines: Vec<Wire<v1::MachineId>>,
    },
    /// STOP_MAINTENANCE: the machines are up again.
    StopMaintenance {
        /// Which.
        machines: Vec<Wire<v1::MachineId>>,
    },
    /// An operation on an agent's resources: RESERVE_RESOURCES to SHRINK_VOLUME. Answered when the agent has made it
    /// durable, or with 503 when it has not in time.
    Operate {
        /// The agent's id.
        agent_id: AgentId,
        /// The operation, without an id.
        operation: Box<Wire<v1::offer::Operation>>,
    },
    /// DEACTIVATE_AGENT: nothing of it is offered.
    Deactivate {
        /// Its id.
        agent_id: AgentId,
    },
    /// REACTIVATE_AGENT.
    Reactivate {
        /// Its id.
        agent_id: AgentId,
    },
    /// DRAIN_AGENT: its tasks are killed.
    Drain {
        /// Its id.
        agent_id: AgentId,
        /// With which grace, and whether it is gone afterwards.
        config: Wire<v1::DrainConfig>,
    },
    /// MARK_AGENT_GONE.
    MarkGone {
        /// Its id.
        agent_id: AgentId,
        /// When the operator asked.
        at: Wall,
    },
}
