//! What a master is told at start.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tepui_model::id::Role;
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
    /// `agent_removal_rate_limit`: so many agents may be given up in so long.
    pub agent_removal_rate_limit: Option<(u32, Duration)>,
    /// `recovery_agent_removal_limit`, as a share of 1.
    pub recovery_agent_removal_limit: f64,
    /// `registry_gc_interval`.
    pub registry_gc_interval: Duration,
    /// `registry_max_agent_age`.
    pub registry_max_agent_age: Duration,
    /// `registry_max_agent_count`.
    pub registry_max_agent_count: usize,
    /// `require_agent_domain`.
    pub require_agent_domain: bool,
    /// `roles`: the only ones that there are, beside `*`.
    pub roles: Option<BTreeSet<Role>>,
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
    /// `filter_gpu_resources`: agents with gpus are for frameworks that can use them.
    pub filter_gpu_resources: bool,
    /// `allocator_agent_recovery_factor`: the share of the agents in the registry that a new leader waits for before it
    /// offers anything, where quota has to be kept.
    pub allocator_agent_recovery_factor: f64,
    /// `allocator_recovery_timeout`: how long at most.
    pub allocator_recovery_timeout: Duration,
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
            agent_removal_rate_limit: None,
            recovery_agent_removal_limit: 1.0,
            registry_gc_interval: Duration::from_mins(15),
            registry_max_agent_age: Duration::from_hours(14 * 24),
            registry_max_agent_count: 102_400,
            require_agent_domain: false,
            roles: None,
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
            filter_gpu_resources: true,
            allocator_agent_recovery_factor: 0.8,
            allocator_recovery_timeout: Duration::from_mins(10),
            returns_per_second: 100,
        }
    }
}
