//! Subsystem `memory`. Mirrors `subsystems/memory.cpp`.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use tepui_isolators_linux::{Cgroup, EventFd, Pressure, show_bytes};
use tepui_module_sdk::mesos::{self, ResourceStatistics};
use tepui_module_sdk::prelude::*;

use crate::groups::{Groups, failure};
use crate::{Share, mem_v2};

const MEGABYTE: u64 = 1 << 20;
const MIN_MEMORY: u64 = 32 * MEGABYTE;

pub(crate) fn soft_limit(mem: f64) -> u64 {
    ((mem * MEGABYTE as f64) as u64).max(MIN_MEMORY)
}

/// None for no bound. A limit counts in whole megabytes, a request does not: so it is in Mesos.
pub(crate) fn hard_limit(mem: f64, limit: Option<f64>) -> Option<u64> {
    match limit {
        Some(limit) if limit.is_infinite() => None,
        Some(limit) => Some((limit as u64 * MEGABYTE).max(MIN_MEMORY)),
        None => Some(soft_limit(mem)),
    }
}

/// Sets the limits. The hard one is set the first time and later only raised: lowering it under what is in use
/// would kill the container.
pub(crate) fn limit(cgroup: &Cgroup, share: &Share, swap: bool, first: bool) -> Result<()> {
    let soft = soft_limit(share.mem);
    cgroup
        .write("memory.soft_limit_in_bytes", &soft.to_string())
        .map_err(failure)?;
    let hard = hard_limit(share.mem, share.mem_limit);
    let text = hard.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
    let memory = "memory.limit_in_bytes";
    let with_swap = "memory.memsw.limit_in_bytes";
    let raised = match hard {
        Some(hard) => hard > cgroup.read_u64(memory).map_err(failure)?,
        None => true,
    };
    // The kernel wants memory <= memory and swap at every moment.
    let files: &[&str] = match (first, raised, swap) {
        (true, _, true) => &[memory, with_swap],
        (false, true, true) => &[with_swap, memory],
        (true, _, false) | (false, true, false) => &[memory],
        (false, false, _) => &[],
    };
    for file in files {
        cgroup.write(file, &text).map_err(failure)?;
    }
    Ok(())
}

/// How readily the kernel kills a container that may use more than it asked for; none leaves it alone.
pub(crate) fn oom_score_adj(mem: f64, limit: Option<f64>) -> Option<i32> {
    let soft = soft_limit(mem);
    if hard_limit(mem, limit).is_some_and(|hard| hard <= soft) {
        return None;
    }
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let total = total.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024;
    Some(score(soft, total))
}

fn score(soft: u64, total: u64) -> i32 {
    1000 - i32::try_from(1000 * soft.min(total) / total.max(1)).unwrap_or(1000)
}

/// A container whose memory is watched.
pub(crate) enum Watched {
    /// There is no cgroup to watch.
    Not,
    /// By version 1.
    V1(Memory),
    /// By version 2.
    V2(mem_v2::Memory),
}

/// A container's memory by version 1.
pub(crate) struct Memory {
    cgroup: Cgroup,
    oom: EventFd,
    /// Counted from the first look at the container's usage on: each costs a descriptor and time at both ends of its life,
    /// and nobody may ever ask.
    pressure: OnceLock<Vec<(Pressure, EventFd, AtomicU64)>>,
}

impl Watched {
    /// Begins to count.
    pub(crate) fn new(groups: &Groups, id: &ContainerId) -> Result<Self> {
        let cgroup = groups.of("memory", id);
        if groups.are_unified() {
            mem_v2::Memory::new(cgroup).map(Self::V2)
        } else {
            Memory::new(cgroup).map(Self::V1)
        }
    }

    /// Waits until the container runs out of memory. Needs the runtime.
    pub(crate) async fn out_of_memory(&self) -> Limitation {
        let waited = match self {
            Self::Not => std::future::pending().await,
            Self::V1(memory) => memory.wait().await,
            Self::V2(memory) => memory.wait().await,
        };
        match waited {
            Ok(()) => self.limitation(),
            Err(error) => {
                warn!(%error, "out of memory is not noticed before the container has ended");
                std::future::pending().await
            }
        }
    }

    /// Whether the container ran out of memory, found by the kernel's count: it may have been killed so quickly
    /// that nobody noticed.
    pub(crate) fn was_out_of_memory(&self) -> Option<Limitation> {
        let was = match self {
            Self::Not => false,
            Self::V1(memory) => memory.was_out(),
            Self::V2(memory) => memory.has_killed(),
        };
        was.then(|| self.limitation())
    }

    fn limitation(&self) -> Limitation {
        match self {
            Self::Not => limitation(None, None, None),
            Self::V1(memory) => memory.limitation(),
            Self::V2(memory) => memory.limitation(),
        }
    }

    pub(crate) fn usage(&self, swap: bool, statistics: &mut ResourceStatistics) -> Result<()> {
        match self {
            Self::Not => Ok(()),
            Self::V1(memory) => memory.usage(swap, statistics),
            Self::V2(memory) => memory.usage(statistics),
        }
    }
}

impl Memory {
    fn new(cgroup: Cgroup) -> Result<Self> {
        let oom = EventFd::on_oom(&cgroup).map_err(failure)?;
        Ok(Self {
            cgroup,
            oom,
            pressure: OnceLock::new(),
        })
    }

    fn count_pressure(&self) -> Vec<(Pressure, EventFd, AtomicU64)> {
        let mut counters = Vec::new();
        for level in [Pressure::Low, Pressure::Medium, Pressure::Critical] {
            match EventFd::on_pressure(&self.cgroup, level) {
                Ok(counter) => counters.push((level, counter, AtomicU64::new(0))),
                // Only a statistic.
                Err(error) => debug!(%error, "memory pressure is not counted"),
            }
        }
        counters
    }

    fn was_out(&self) -> bool {
        let control = self.cgroup.read_table("memory.oom_control");
        let control = control.unwrap_or_default();
        control.get("oom_kill").is_some_and(|kills| *kills > 0) || self.oom.take().unwrap_or(0) > 0
    }

    async fn wait(&self) -> std::io::Result<()> {
        loop {
            self.oom.wait().await?;
            // The kernel signals the removal of the cgroup as well.
            if self.cgroup.exists() {
                return Ok(());
            }
        }
    }

    fn limitation(&self) -> Limitation {
        let limit = self.cgroup.read_u64("memory.limit_in_bytes");
        let used = self.cgroup.read_u64("memory.max_usage_in_bytes").ok();
        let limit = limit.ok().map(show_bytes);
        limitation(limit, used, self.cgroup.read("memory.stat").ok())
    }

    fn usage(&self, swap: bool, statistics: &mut ResourceStatistics) -> Result<()> {
        let read = |file: &str| self.cgroup.read_u64(file);
        statistics.mem_total_bytes = Some(read("memory.usage_in_bytes").map_err(failure)?);
        if swap {
            statistics.mem_total_memsw_bytes =
                Some(read("memory.memsw.usage_in_bytes").map_err(failure)?);
        }
        // Kernels may be built, or started, without these.
        statistics.mem_kmem_usage_bytes = read("memory.kmem.usage_in_bytes").ok();
        statistics.mem_kmem_tcp_usage_bytes = read("memory.kmem.tcp.usage_in_bytes").ok();
        let table = self.cgroup.read_table("memory.stat").map_err(failure)?;
        let number = |name: &str| table.get(name).copied();
        // The older names of both are still sent.
        statistics.mem_file_bytes = number("total_cache");
        statistics.mem_cache_bytes = number("total_cache");
        statistics.mem_anon_bytes = number("total_rss");
        statistics.mem_rss_bytes = number("total_rss");
        statistics.mem_mapped_file_bytes = number("total_mapped_file");
        statistics.mem_swap_bytes = number("total_swap");
        statistics.mem_unevictable_bytes = number("total_unevictable");
        for (level, counter, total) in self.pressure.get_or_init(|| self.count_pressure()) {
            let now = counter.take().unwrap_or(0);
            let total = Some(total.fetch_add(now, Ordering::Relaxed) + now);
            match level {
                Pressure::Low => statistics.mem_low_pressure_counter = total,
                Pressure::Medium => statistics.mem_medium_pressure_counter = total,
                Pressure::Critical => statistics.mem_critical_pressure_counter = total,
            }
        }
        Ok(())
    }
}

/// Mesos' words for a container that ran out of memory, from what could be read.
pub(crate) fn limitation(
    limit: Option<String>,
    used: Option<u64>,
    statistics: Option<String>,
) -> Limitation {
    let mut message = "Memory limit exceeded: ".to_owned();
    if let Some(limit) = limit {
        message += &format!("Requested: {limit} ");
    }
    if let Some(used) = used {
        message += &format!("Maximum Used: {}\n", show_bytes(used));
    }
    if let Some(statistics) = statistics {
        message += &format!("\nMEMORY STATISTICS: \n{statistics}\n");
    }
    let mut limitation = Limitation::memory(message);
    limitation.resources.push(mesos::Resource {
        name: "mem".to_owned(),
        r#type: mesos::value::Type::Scalar.into(),
        scalar: Some(mesos::value::Scalar {
            value: used.unwrap_or(0) as f64 / MEGABYTE as f64,
        }),
        ..Default::default()
    });
    limitation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_mesos() {
        assert_eq!(
            [0.0, 16.0, 32.5, 64.0].map(soft_limit),
            [32 << 20, 32 << 20, 34078720, 64 << 20]
        );
        assert_eq!(hard_limit(48.0, None), Some(48 << 20));
        assert_eq!(hard_limit(48.0, Some(64.9)), Some(64 << 20));
        assert_eq!(hard_limit(48.0, Some(1.0)), Some(32 << 20));
        assert_eq!(hard_limit(48.0, Some(f64::INFINITY)), None);
    }

    #[test]
    fn who_may_use_more_is_killed_first() {
        assert_eq!(oom_score_adj(48.0, None), None);
        assert!(
            oom_score_adj(48.0, Some(f64::INFINITY))
                .is_some_and(|score| (900..=1000).contains(&score))
        );
        assert_eq!((score(1, 4), score(4, 4), score(8, 4)), (750, 0, 0));
    }
}
