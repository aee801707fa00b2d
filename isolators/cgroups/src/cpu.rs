//! Subsystems `cpu` and `cpuacct`. Mirrors `subsystems/cpu.cpp` and `cpuacct.cpp`.

use tepui_module_sdk::mesos::ResourceStatistics;
use tepui_module_sdk::prelude::*;

use crate::groups::{Groups, failure};
use crate::{Config, Share};

const SHARES_PER_CPU: f64 = 1024.0;
const SHARES_PER_REVOCABLE_CPU: f64 = 10.0;
const MIN_SHARES: u64 = 2;
const PERIOD_US: f64 = 100_000.0;
const MIN_QUOTA_US: i64 = 1000;

/// `cpu.shares`.
fn shares(cpus: f64, low_priority: bool) -> u64 {
    let each = if low_priority {
        SHARES_PER_REVOCABLE_CPU
    } else {
        SHARES_PER_CPU
    };
    ((each * cpus) as u64).max(MIN_SHARES)
}

/// `cpu.cfs_quota_us`.
fn quota(cpus: f64) -> i64 {
    if cpus.is_infinite() {
        -1
    } else {
        ((PERIOD_US * cpus) as i64).max(MIN_QUOTA_US)
    }
}

pub(crate) fn limit(
    groups: &Groups,
    id: &ContainerId,
    share: &Share,
    config: &Config,
) -> Result<()> {
    let cgroup = groups.of("cpu", id);
    let low_priority = share.revocable_cpus && config.revocable_cpu_low_priority;
    cgroup
        .write("cpu.shares", &shares(share.cpus, low_priority).to_string())
        .map_err(failure)?;
    if config.cgroups_enable_cfs || share.cpus_limit.is_some() {
        cgroup
            .write("cpu.cfs_period_us", &PERIOD_US.to_string())
            .map_err(failure)?;
        let quota = quota(share.cpus_limit.unwrap_or(share.cpus));
        cgroup
            .write("cpu.cfs_quota_us", &quota.to_string())
            .map_err(failure)?;
    }
    Ok(())
}

pub(crate) fn usage(
    groups: &Groups,
    id: &ContainerId,
    config: &Config,
    statistics: &mut ResourceStatistics,
) -> Result<()> {
    let accounting = groups.of("cpuacct", id);
    let times = accounting.read_table("cpuacct.stat").map_err(failure)?;
    let seconds = |name: &str| {
        times
            .get(name)
            .map(|ticks| *ticks as f64 / TICKS_PER_SECOND)
    };
    statistics.cpus_user_time_secs = seconds("user");
    statistics.cpus_system_time_secs = seconds("system");
    if config.cgroups_cpu_enable_pids_and_tids_count {
        let count = |file: &str| {
            accounting
                .read(file)
                .map(|text| text.lines().count() as u32)
                .map_err(failure)
        };
        statistics.processes = Some(count("cgroup.procs")?);
        statistics.threads = Some(count("tasks")?);
    }
    if config.cgroups_enable_cfs {
        let throttled = groups
            .of("cpu", id)
            .read_table("cpu.stat")
            .map_err(failure)?;
        let number = |name: &str| throttled.get(name).copied();
        statistics.cpus_nr_periods = number("nr_periods").map(|periods| periods as u32);
        statistics.cpus_nr_throttled = number("nr_throttled").map(|periods| periods as u32);
        statistics.cpus_throttled_time_secs =
            number("throttled_time").map(|nanos| nanos as f64 / 1e9);
    }
    Ok(())
}

/// The unit of `cpuacct.stat`, USER_HZ: 100 on every architecture that this runs on.
const TICKS_PER_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_mesos() {
        assert_eq!(
            [0.0, 0.001, 0.1, 1.0, 2.5].map(|cpus| shares(cpus, false)),
            [2, 2, 102, 1024, 2560]
        );
        assert_eq!([0.1, 1.0].map(|cpus| shares(cpus, true)), [2, 10]);
        assert_eq!(
            [0.0, 0.001, 0.5, 2.0, f64::INFINITY].map(quota),
            [1000, 1000, 50_000, 200_000, -1]
        );
    }
}
