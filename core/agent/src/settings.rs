//! What an agent is started with.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tepui_model::{Attributes, Resources};
use tepui_proto::v1;

use crate::detector::{Configured, Detector};
use crate::reconfiguration::ReconfigurationPolicy;

/// Settings of an agent; flags have been parsed and defaults filled in.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Sandboxes and records.
    pub work_dir: PathBuf,
    /// Address that others reach the agent at.
    pub ip: IpAddr,
    /// Port that others reach the agent at.
    pub port: u16,
    /// Name that the agent gives itself.
    pub hostname: String,
    /// Finds the leading master.
    pub master: Arc<dyn Detector>,
    /// Everything that it offers.
    pub resources: Resources,
    /// What distinguishes it.
    pub attributes: Attributes,
    /// Where it stands.
    pub domain: Option<v1::DomainInfo>,
    /// What every executor's environment begins with.
    pub executor_environment: Vec<(String, String)>,
    /// Socket in the file system where the endpoints are as well; told to executors.
    pub domain_socket: Option<PathBuf>,
    /// What executors are given to end.
    pub executor_shutdown_grace_period: Duration,
    /// What an executor has to subscribe, once its container runs.
    pub executor_registration_timeout: Duration,
    /// What an executor has to subscribe with an agent process that did not launch it.
    pub executor_reregistration_timeout: Duration,
    /// Told to executors.
    pub recovery_timeout: Duration,
    /// Upper bound of the first wait before the agent registers; doubled with each attempt.
    pub registration_backoff_factor: Duration,
    /// Do not start when a record of an earlier process cannot be read; otherwise go on without it.
    pub strict: bool,
    /// End everything that an earlier process left, forget it, and exit.
    pub cleanup: bool,
    /// What may be otherwise than when the agent was given its id.
    pub reconfiguration_policy: ReconfigurationPolicy,
    /// How long sandboxes are kept on an empty disk.
    pub gc_delay: Duration,
    /// The share of the disk that is to stay free: the fuller the disk, the shorter sandboxes are kept.
    pub gc_disk_headroom: f64,
    /// Sandboxes of nested and standalone containers are not kept longer than those of executors.
    pub gc_non_executor_container_sandboxes: bool,
    /// Time between signs of life to who reads the output of a container.
    pub http_heartbeat_interval: Duration,
    /// How many groups there are for volumes that are shared, where they get some.
    pub volume_gids: Option<u64>,
    /// How often tasks that wait for an image tell how far its pull is; zero is never.
    pub image_pull_progress_interval: Duration,
    /// How often the disk's usage is looked at.
    pub disk_watch_interval: Duration,
    /// Ended executors that are remembered, of each framework.
    pub max_completed_executors_per_framework: usize,
    /// Where generated executors appear to be.
    pub launcher_dir: PathBuf,
    /// What it tells that it can do.
    pub capabilities: Vec<v1::agent_info::capability::Type>,
    /// Flags in effect, as `/flags` shows them.
    pub flags: Vec<(String, String)>,
    /// What the agent says of itself beside its state.
    pub log_dir: Option<String>,
    /// File that something else logs to.
    pub external_log_file: Option<String>,
}

impl Settings {
    /// Settings with the defaults of Mesos, and a master at `host:port`.
    #[must_use]
    pub fn new(work_dir: PathBuf, master: String) -> Self {
        Self {
            work_dir,
            ip: IpAddr::from([127, 0, 0, 1]),
            port: 5051,
            hostname: "localhost".to_owned(),
            master: Arc::new(Configured(master)),
            resources: Resources::new(),
            attributes: Attributes::default(),
            domain: None,
            executor_environment: Vec::new(),
            domain_socket: None,
            executor_shutdown_grace_period: Duration::from_secs(5),
            executor_registration_timeout: Duration::from_mins(1),
            executor_reregistration_timeout: Duration::from_secs(2),
            recovery_timeout: Duration::from_mins(15),
            registration_backoff_factor: Duration::from_secs(1),
            strict: true,
            cleanup: false,
            reconfiguration_policy: ReconfigurationPolicy::Equal,
            gc_delay: Duration::from_hours(7 * 24),
            gc_disk_headroom: 0.1,
            gc_non_executor_container_sandboxes: false,
            http_heartbeat_interval: Duration::from_secs(30),
            volume_gids: None,
            image_pull_progress_interval: Duration::from_secs(10),
            disk_watch_interval: Duration::from_mins(1),
            max_completed_executors_per_framework: 150,
            launcher_dir: "/usr/libexec/mesos".into(),
            capabilities: CAPABILITIES.to_vec(),
            flags: Vec::new(),
            log_dir: None,
            external_log_file: None,
        }
    }

    pub(crate) fn info(&self) -> v1::AgentInfo {
        v1::AgentInfo {
            hostname: self.hostname.clone(),
            port: Some(self.port.into()),
            resources: tepui_proto::convert::to_proto(&self.resources),
            attributes: self.attributes.0.iter().map(Into::into).collect(),
            domain: self.domain.clone(),
            ..v1::AgentInfo::default()
        }
    }

    pub(crate) fn capabilities(&self) -> Vec<v1::agent_info::Capability> {
        let capability = |kind: &v1::agent_info::capability::Type| v1::agent_info::Capability {
            r#type: Some((*kind).into()),
        };
        self.capabilities.iter().map(capability).collect()
    }
}

/// Capabilities that this agent has, in the order of their numbers. RESOURCE_PROVIDER is told because Mesos' agents
/// always do; there are no providers.
pub const CAPABILITIES: [v1::agent_info::capability::Type; 8] = {
    use v1::agent_info::capability::Type;
    [
        Type::MultiRole,
        Type::HierarchicalRole,
        Type::ReservationRefinement,
        Type::ResourceProvider,
        Type::ResizeVolume,
        Type::AgentOperationFeedback,
        Type::AgentDraining,
        Type::TaskResourceLimits,
    ]
};
