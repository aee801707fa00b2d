//! What a master is told at start.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tepui_model::resources::{Name, Quantities, Scalar};
use tepui_model::time::Wall;

/// Settings of the state. The names are those of Mesos' flags where there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Seeds ids, uuids, shuffles and hashers.
    pub seed: u64,
    /// Id of this master run, a uuid. Made from the seed if empty.
    pub master_id: String,
    /// `mesos.v1.MasterInfo` without its id, which the state fills in.
    pub master_info: Bytes,
    /// When the process started.
    pub started: Wall,
    /// `allocation_interval`.
    pub allocation_interval: Duration,
    /// Heartbeats of the schedulers' streams.
    pub heartbeat_interval: Duration,
    /// `agent_reregister_timeout`.
    pub agent_reregister_timeout: Duration,
    /// `agent_ping_timeout`: told to agents, kept by the link.
    pub agent_ping_timeout: Duration,
    /// `max_agent_ping_timeouts`.
    pub max_agent_ping_timeouts: u32,
    /// `offer_timeout`; none by default.
    pub offer_timeout: Option<Duration>,
    /// `max_completed_frameworks`.
    pub max_completed_frameworks: usize,
    /// `max_completed_tasks_per_framework`.
    pub max_completed_tasks_per_framework: usize,
    /// `max_unreachable_tasks_per_framework`.
    pub max_unreachable_tasks_per_framework: usize,
    /// Agents that may sync at one time.
    pub max_syncing_agents: usize,
    /// `min_allocatable_resources`: what an offer must hold, one of these.
    pub min_allocatable: Vec<Quantities>,
    /// How often in a second a framework may get back at once what it has returned.
    pub returns_per_second: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 0,
            master_id: String::new(),
            master_info: Bytes::new(),
            started: Wall::default(),
            allocation_interval: Duration::from_secs(1),
            heartbeat_interval: Duration::from_secs(15),
            agent_reregister_timeout: Duration::from_secs(600),
            agent_ping_timeout: Duration::from_secs(15),
            max_agent_ping_timeouts: 5,
            offer_timeout: None,
            max_completed_frameworks: 50,
            max_completed_tasks_per_framework: 1000,
            max_unreachable_tasks_per_framework: 1000,
            max_syncing_agents: 256,
            min_allocatable: vec![
                Quantities::from_iter([(Name::CPUS, Scalar(10))]),
                Quantities::from_iter([(Name::MEM, Scalar::units(32))]),
            ],
            returns_per_second: 100,
        }
    }
}
