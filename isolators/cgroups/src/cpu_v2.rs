//! Controller `cpu` of version 2. Mirrors `controllers/cpu.cpp`.

use tepui_isolators_linux::Cgroup;
use tepui_module_sdk::mesos::ResourceStatistics;
use tepui_module_sdk::prelude::*;

use crate::groups::failure;
use crate::{Config, Share};

const WEIGHT_PER_CPU: f64 = 100.0;
const WEIGHT_PER_REVOCABLE_CPU: f64 = 1.0;
/// What the kernel takes.
const WEIGHTS: (u64, u64) = (1, 10_000);
const PERIOD_US: f64 = 100_000.0;
const MIN_QUOTA_US: u64 = 1000;

/// `cpu.weight`.
fn weight(cpus: f64, low_priority: bool) -> u64 {
    let each = if low_priority {
        WEIGHT_PER_REVOCABLE_CPU
    } else {
        WEIGHT_PER_CPU
    };
    ((each * cpus) as u64).clamp(WEIGHTS.0, WEIGHTS.1)
}

/// `cpu.max`; without a limit the container may use all that is left.
fn max(limit: Option<f64>) -> String {
    match limit.filter(|limit| limit.is_finite()) {
        Some(cpus) => {
            let quota = ((PERIOD_US * cpus) as u64).max(MIN_QUOTA_US);
            format!("{quota} {PERIOD_US}")
        }
        None => format!("max {PERIOD_US}"),
    }
}

pub(crate) fn limit(cgroup: &Cgroup, share: &Share, config: &Config) -> Result<()> {
    let low_priority = share.revocable_cpus && config.revocable_cpu_low_priority;
    let weight = weight(share.cpus, low_priority).to_string();
    cgroup.write("cpu.weight", &weight).map_err(failure)?;
    let request = config.cgroups_enable_cfs.then_some(share.cpus);
    cgroup
        .write("cpu.max", &max(share.cpus_limit.or(request)))
        .map_err(failure)
}

/// Times are counted with or without the controller; what concerns limits only with it.
pub(crate) fn usage(cgroup: &Cgroup, statistics: &mut ResourceStatistics) -> Result<()> {
    let table = cgroup.read_table("cpu.stat").map_err(failure)?;
    let number = |name: &str| table.get(name).copied();
    let seconds = |name: &str| number(name).map(|micros| micros as f64 / 1e6);
    statistics.cpus_user_time_secs = seconds("user_usec");
    statistics.cpus_system_time_secs = seconds("system_usec");
    statistics.cpus_nr_periods = number("nr_periods").map(|periods| periods as u32);
    statistics.cpus_nr_throttled = number("nr_throttled").map(|periods| periods as u32);
    statistics.cpus_throttled_time_secs = seconds("throttled_usec");
    Ok(())
}

/// How many processes and threads are in the cgroup where a container's are.
pub(crate) fn count(leaf: &Cgroup, statistics: &mut ResourceStatistics) -> Result<()> {
    let count = |file: &str| {
        let text = leaf.read(file).map_err(failure)?;
        Ok::<_, Failure>(text.lines().count() as u32)
    };
    statistics.processes = Some(count("cgroup.procs")?);
    statistics.threads = Some(count("cgroup.threads")?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_mesos() {
        assert_eq!(
            [0.0, 0.5, 2.5, 1000.0].map(|cpus| weight(cpus, false)),
            [1, 50, 250, 10_000]
        );
        assert_eq!([0.5, 3.0].map(|cpus| weight(cpus, true)), [1, 3]);
        assert_eq!(
            [None, Some(f64::INFINITY), Some(0.5), Some(0.001)].map(max),
            ["max 100000", "max 100000", "50000 100000", "1000 100000"]
        );
    }

    #[test]
    fn limits_and_usage_are_files_of_the_cgroup() {
        let at = tempfile::tempdir().unwrap();
        let cgroup = Cgroup::at(at.path());
        for file in ["cpu.weight", "cpu.max"] {
            std::fs::write(at.path().join(file), "").unwrap();
        }
        let mut config: Config = serde_json::from_str("{}").unwrap();
        config.cgroups_enable_cfs = true;
        let share = Share {
            cpus: 1.5,
            cpus_limit: None,
            revocable_cpus: false,
            mem: 0.0,
            mem_limit: None,
        };
        limit(&cgroup, &share, &config).unwrap();
        assert_eq!(cgroup.read("cpu.weight").unwrap(), "150");
        assert_eq!(cgroup.read("cpu.max").unwrap(), "150000 100000");
        let stat = "usage_usec 9\nuser_usec 1500000\nsystem_usec 250000\nnr_periods 4\nnr_throttled 3\n\
                    throttled_usec 2000000\n";
        std::fs::write(at.path().join("cpu.stat"), stat).unwrap();
        let mut statistics = ResourceStatistics::default();
        usage(&cgroup, &mut statistics).unwrap();
        assert_eq!(
            (
                statistics.cpus_user_time_secs(),
                statistics.cpus_system_time_secs()
            ),
            (1.5, 0.25)
        );
        assert_eq!(
            (statistics.cpus_nr_periods(), statistics.cpus_nr_throttled()),
            (4, 3)
        );
        assert_eq!(statistics.cpus_throttled_time_secs(), 2.0);
    }
}
