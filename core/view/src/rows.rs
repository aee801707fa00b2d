//! What the tables hold: one row per agent, framework, task, executor, offer.
//!
//! A row keeps the few fields that are decided on or counted, and canonical protobuf bytes for the
//! rest; it never keeps a decoded message tree. Together a row's fields hold everything that the v0
//! `/state` family and the v1 GET calls print about the object.

use bytes::Bytes;
use smallvec::SmallVec;
use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::authorization::ClassKey;
use tepui_model::id::{AgentId, ExecutorId, FrameworkId, OfferId, OperationId, Role, TaskId, Uuid};
use tepui_model::resources::Resources;
use tepui_model::time::Wall;
use tepui_proto::v1::{OperationState, TaskState, offer};

/// An agent that is known to the master: connected or not, but not unreachable or gone.
#[derive(Clone, Debug)]
pub struct AgentRow {
    /// Short key, used by the other rows.
    pub key: AgentKey,
    /// `<master id>-S<n>`.
    pub id: AgentId,
    /// Who may see it.
    pub class: ClassKey,
    /// `mesos.v1.AgentInfo`, with its id.
    pub info: Bytes,
    /// From the info: what the offers and `/slaves` repeat.
    pub hostname: String,
    /// Port of the agent's HTTP endpoints.
    pub port: u16,
    /// `slave(1)@ip:port`.
    pub pid: String,
    /// Release of the agent.
    pub version: String,
    /// Names of its capabilities, in the agent's order (`MULTI_ROLE`, ..).
    pub capabilities: Vec<String>,
    /// Its session is synced and it may get offers.
    pub active: bool,
    /// An operator took it out of service.
    pub deactivated: bool,
    /// Its session is open.
    pub connected: bool,
    /// When it was admitted first.
    pub registered: Wall,
    /// When it came back last.
    pub reregistered: Option<Wall>,
    /// Everything it has, reservations and volumes included.
    pub total: Resources,
    /// What tasks and executors have, in allocated form (each resource names its role).
    pub used: Resources,
    /// What open offers hold, in allocated form.
    pub offered: Resources,
    /// Uuid of the newest resource version.
    pub resource_version: Bytes,
    /// `mesos.v1.DrainInfo` while it drains.
    pub drain: Option<Bytes>,
    /// When the drain began.
    pub drain_started: Option<Wall>,
}

/// An agent that the registry lists and that has not come back since the failover.
#[derive(Clone, Debug)]
pub struct RecoveredAgentRow {
    /// Its id.
    pub id: AgentId,
    /// `mesos.v1.AgentInfo` as the registry has it.
    pub info: Bytes,
}

/// A framework, known or completed.
#[derive(Clone, Debug)]
pub struct FrameworkRow {
    /// Short key, used by the other rows.
    pub key: FrameworkKey,
    /// `<master id>-<4 digits>`, or the id that the framework brought.
    pub id: FrameworkId,
    /// Who may see it.
    pub class: ClassKey,
    /// `mesos.v1.FrameworkInfo`, with its id.
    pub info: Bytes,
    /// Connected and not deactivated: gets offers.
    pub active: bool,
    /// A scheduler is connected.
    pub connected: bool,
    /// Known only from agents since the failover.
    pub recovered: bool,
    /// When it subscribed first.
    pub registered: Wall,
    /// When it subscribed again last.
    pub reregistered: Option<Wall>,
    /// When it was removed or disconnected.
    pub unregistered: Option<Wall>,
    /// Roles it is subscribed to.
    pub roles: Vec<Role>,
    /// Roles for which it wants no offers now.
    pub suppressed: Vec<Role>,
    /// `mesos.v1.scheduler.OfferConstraints`, when it gave any.
    pub constraints: Option<Bytes>,
    /// What its tasks and executors have, in allocated form.
    pub used: Resources,
    /// What its open offers hold, in allocated form.
    pub offered: Resources,
}

/// The uuid-carrying head of a task's update stream: the last update that was forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateHead {
    /// State in that update (`status_update_state`).
    pub state: TaskState,
    /// Its uuid (`status_update_uuid`).
    pub uuid: Uuid,
}

/// A task that is not completed.
#[derive(Clone, Debug)]
pub struct TaskRow {
    /// Its id, unique in its framework.
    pub id: TaskId,
    /// Its framework.
    pub framework: FrameworkKey,
    /// The agent it was launched on.
    pub agent: AgentKey,
    /// Custom or default executor; `None` for a command task.
    pub executor: Option<ExecutorId>,
    /// Who may see it.
    pub class: ClassKey,
    /// Newest state that the agent has told (`Task.state`).
    pub state: TaskState,
    /// What it uses, in allocated form.
    pub resources: Resources,
    /// `mesos.v1.Task` with all that does not change: no state, statuses, or status_update fields.
    pub spec: Bytes,
    /// `mesos.v1.TaskStatus` without data, at most one per state, oldest first.
    pub statuses: SmallVec<[Bytes; 3]>,
    /// Last update that was forwarded.
    pub update: Option<UpdateHead>,
    /// A terminal update was received: its resources are free, the acknowledgement is awaited.
    pub terminal: bool,
}

/// A task that ended, or whose agent is unreachable: only its bytes are kept.
#[derive(Clone, Debug)]
pub struct DoneRow {
    /// Its id.
    pub id: TaskId,
    /// The agent it ran on, for the counters of `/state-summary`.
    pub agent: AgentId,
    /// Who may see it.
    pub class: ClassKey,
    /// Its last state.
    pub state: TaskState,
    /// When it was moved here.
    pub ended: Wall,
    /// Complete `mesos.v1.Task`.
    pub bytes: Bytes,
}

/// A custom or default executor (generated ones are not listed by masters).
#[derive(Clone, Debug)]
pub struct ExecutorRow {
    /// Its id, unique in its framework and agent.
    pub id: ExecutorId,
    /// Where it runs.
    pub agent: AgentKey,
    /// The agent's id as text, as the endpoints print it.
    pub agent_id: AgentId,
    /// Who may see it.
    pub class: ClassKey,
    /// `mesos.v1.ExecutorInfo`.
    pub info: Bytes,
    /// What it uses itself, in allocated form.
    pub resources: Resources,
}

/// An open offer.
#[derive(Clone, Debug)]
pub struct OfferRow {
    /// `<master id>-O<n>`.
    pub id: OfferId,
    /// To whom.
    pub framework: FrameworkKey,
    /// Of which agent.
    pub agent: AgentKey,
    /// For which role.
    pub role: Role,
    /// What is offered, in allocated form.
    pub resources: Resources,
    /// `mesos.v1.Offer` as it was sent.
    pub bytes: Bytes,
}

/// An operation on resources that is under way, or whose end its framework has not acknowledged.
#[derive(Clone, Debug)]
pub struct OperationRow {
    /// Given by the master that sent it.
    pub uuid: Uuid,
    /// Its framework's id for it, if that wants to hear of it.
    pub id: Option<OperationId>,
    /// Who asked for it; `None`: an operator.
    pub framework: Option<FrameworkId>,
    /// Where it is performed.
    pub agent: AgentKey,
    /// What it does.
    pub kind: offer::operation::Type,
    /// Its newest state.
    pub state: OperationState,
    /// Roles that its resources are reserved or allocated to.
    pub roles: Vec<Role>,
    /// Complete `mesos.v1.Operation`.
    pub bytes: Bytes,
}
