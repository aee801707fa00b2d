//! One consistent picture of the cluster, as readers get it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use tepui_model::allocation::{AgentKey, FrameworkKey, Quota};
use tepui_model::authorization::{Class, ClassKey};
use tepui_model::id::{AgentId, Role};
use tepui_model::time::Wall;
use tepui_proto::v1::allocator::InverseOfferStatus;
use tepui_proto::v1::{MachineId, maintenance};

use crate::rows::{
    AgentRow, DoneRow, ExecutorRow, FrameworkRow, OfferRow, OperationRow, RecoveredAgentRow,
    TaskRow,
};
use crate::table::Rows;

/// Snapshot of a master's state. Cheap to clone; nothing in it changes.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Number of the last event that is contained: a reader waits for a view at least as new as the
    /// last event that was applied when it arrived.
    pub version: u64,
    /// Known agents, oldest first.
    pub agents: Rows<AgentRow>,
    /// Known frameworks, oldest first.
    pub frameworks: Vec<Arc<FrameworkView>>,
    /// Completed frameworks, oldest first.
    pub completed_frameworks: Vec<Arc<FrameworkView>>,
    /// Open offers, oldest first.
    pub offers: Rows<OfferRow>,
    /// Operations that are not acknowledged, oldest first.
    pub operations: Rows<OperationRow>,
    /// Visibility classes of all rows.
    pub classes: Arc<Classes>,
    /// What belongs to no table.
    pub globals: Arc<Globals>,
}

/// A framework with everything that is its own.
#[derive(Clone, Debug)]
pub struct FrameworkView {
    /// The framework itself.
    pub row: FrameworkRow,
    /// Its tasks that have not ended.
    pub tasks: Rows<TaskRow>,
    /// Its tasks on unreachable agents.
    pub unreachable: Rows<DoneRow>,
    /// Its ended tasks, oldest first, as far as the limit allows.
    pub completed: Rows<DoneRow>,
    /// Its custom and default executors.
    pub executors: Rows<ExecutorRow>,
}

/// The interned visibility classes.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    /// Indexed by `ClassKey`.
    pub list: Vec<Arc<Class>>,
}

impl Classes {
    /// The class behind a row's key.
    pub fn get(&self, key: ClassKey) -> Option<&Class> {
        self.list.get(key.0 as usize).map(Arc::as_ref)
    }
}

/// What belongs to no table.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// Id of this master run: a uuid.
    pub master_id: String,
    /// `mesos.v1.MasterInfo`.
    pub master_info: Bytes,
    /// When the process started.
    pub started: Wall,
    /// When it became leader.
    pub elected: Option<Wall>,
    /// Registered agents that have not come back since the failover.
    pub recovered_agents: Vec<RecoveredAgentRow>,
    /// Agents marked unreachable, with the time.
    pub unreachable_agents: Vec<(AgentId, Wall)>,
    /// Agents that an operator marked gone, with the time.
    pub gone_agents: Vec<(AgentId, Wall)>,
    /// Agents that an operator took out of service, known or not back yet.
    pub deactivated_agents: BTreeSet<AgentId>,
    /// Weights that operators gave to roles, by role.
    pub weights: Vec<(Role, f64)>,
    /// Quota of roles, in the order in which they are listed.
    pub quotas: Vec<(Role, Quota)>,
    /// When which machines are not there.
    pub maintenance: Maintenance,
}

/// The maintenance of machines.
#[derive(Clone, Debug, Default)]
pub struct Maintenance {
    /// Machines of the schedule that are not down are draining.
    pub schedule: maintenance::Schedule,
    /// Machines that are down.
    pub down: Vec<MachineId>,
    /// What frameworks are asked: `mesos.v1.InverseOffer`s, oldest first.
    pub inverse_offers: BTreeMap<FrameworkKey, Vec<Bytes>>,
    /// What frameworks answered when they were asked, by host name in lower case and address.
    pub answers: BTreeMap<(String, String), Vec<InverseOfferStatus>>,
}

impl Maintenance {
    /// What frameworks say to the maintenance of a machine.
    #[must_use]
    pub fn answers_of(&self, machine: &MachineId) -> &[InverseOfferStatus] {
        let key = (machine.hostname().to_lowercase(), machine.ip().to_owned());
        self.answers.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Whether the machine is down, by the name that it has in the schedule.
    #[must_use]
    pub fn is_down(&self, machine: &MachineId) -> bool {
        let same = |other: &MachineId| {
            other.ip() == machine.ip() && other.hostname().eq_ignore_ascii_case(machine.hostname())
        };
        self.down.iter().any(same)
    }
}

impl View {
    /// The agent behind a row's key. Linear: encoders that need many build an index once.
    pub fn agent(&self, key: AgentKey) -> Option<&AgentRow> {
        self.agents.iter().find(|agent| agent.key == key)
    }

    /// The framework behind a row's key.
    pub fn framework(&self, key: FrameworkKey) -> Option<&Arc<FrameworkView>> {
        self.frameworks
            .iter()
            .find(|framework| framework.row.key == key)
    }
}
