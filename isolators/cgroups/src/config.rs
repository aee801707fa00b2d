//! Settings, named as Mesos' flags.

use tepui_module_sdk::prelude::*;

use crate::devices::Allowed;

/// Settings of all `cgroups/*` isolators.
#[config]
#[derive(Debug, Clone)]
pub struct Config {
    /// Cgroup below which the containers' own are, relative to each hierarchy.
    #[serde(default = "mesos")]
    pub cgroups_root: String,
    /// Limit CPU to what a container asked for, instead of sharing what is left by weight.
    #[serde(default)]
    pub cgroups_enable_cfs: bool,
    /// Limit memory and swap together, instead of memory alone.
    #[serde(default)]
    pub cgroups_limit_swap: bool,
    /// Give revocable CPU a hundredth of the weight of other CPU.
    #[serde(default = "yes")]
    pub revocable_cpu_low_priority: bool,
    /// Count processes and threads in each container's statistics.
    #[serde(default)]
    pub cgroups_cpu_enable_pids_and_tids_count: bool,
    /// Devices that all containers may use besides the usual ones.
    #[serde(default)]
    pub allowed_devices: Allowed,
    /// Primary handle of the network classes of containers, 16 bits such as `0x0012`; without it they have none.
    #[serde(default)]
    pub cgroups_net_cls_primary_handle: Option<String>,
    /// First and last secondary handle, `0x0001,0xffff` unless given; each container takes one.
    #[serde(default)]
    pub cgroups_net_cls_secondary_handles: Option<String>,
    /// Events of `perf` to count in each container, separated by commas.
    #[serde(default)]
    pub perf_events: Option<String>,
    /// Seconds from the beginning of one sample of these events to that of the next.
    #[serde(default = "minute")]
    pub perf_interval_secs: u64,
    /// Seconds that a sample takes.
    #[serde(default = "ten_seconds")]
    pub perf_duration_secs: u64,
    /// Seconds to wait for the last processes of a cgroup that is removed.
    #[serde(default = "minute")]
    pub cgroups_destroy_timeout_secs: u64,
}

fn mesos() -> String {
    "mesos".to_owned()
}

fn yes() -> bool {
    true
}

fn minute() -> u64 {
    60
}

fn ten_seconds() -> u64 {
    10
}

impl Config {
    /// The root is a relative path that stays below the hierarchy.
    pub(crate) fn validate(&self) -> Result<()> {
        let root = self.cgroups_root.trim_matches('/');
        let parts = std::path::Path::new(root).components();
        let mut plain = parts.map(|part| matches!(part, std::path::Component::Normal(_)));
        if root.is_empty() || !plain.all(|plain| plain) {
            return Err(Failure::invalid(format!(
                "'{}' is not the name of a cgroup",
                self.cgroups_root
            ))
            .setting("cgroups_root"));
        }
        Ok(())
    }

    pub(crate) fn cgroups_destroy_timeout(&self) -> Duration {
        Duration::from_secs(self.cgroups_destroy_timeout_secs)
    }
}
