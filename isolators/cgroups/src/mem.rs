//! Subsystem `memory`. Mirrors `subsystems/memory.cpp`.

use std::sync::atomic::{AtomicU64, Ordering};

use tepui_isolators_linux::{Cgroup, EventFd, Pressure, show_bytes};
use tepui_module_sdk::mesos::{self, ResourceStatistics};
use tepui_module_sdk::prelude::*;

use crate::Share;
use crate::groups::failure;

const MEGABYTE: u64 = 1 << 20;
const MIN_MEMORY: u64 = 32 * MEGABYTE;

fn soft_limit(mem: f64) -> u64 {
    ((mem * MEGABYTE as f64) as u64).max(MIN_MEMORY)
}

/// None for no bound. A limit counts in whole megabytes, a request does not: so it is in Mesos.
fn hard_limit(mem: f64, limit: Option<f64>) -> Option<u64> {
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
pub(crate) struct Watched {
    memory: Option<Memory>,
}

struct Memory {
    cgroup: Cgroup,
    oom: EventFd,
    pressure: Vec<(Pressure, EventFd, AtomicU64)>,
}

impl Watched {
    /// Begins to count. Without a cgroup there is nothing to watch.
    pub(crate) fn new(cgroup: Option<Cgroup>) -> Result<Self> {
        let memory = cgroup.map(Memory::new).transpose()?;
        Ok(Self { memory })
    }

    /// Waits until the container runs out of memory. Needs the runtime.
    pub(crate) async fn out_of_memory(&self) -> Limitation {
        let Some(memory) = &self.memory else {
            return std::future::pending().await;
        };
        match memory.wait().await {
            Ok(()) => memory.limitation(),
            Err(error) => {
                warn!(%error, "out of memory is not noticed before the container has ended");
                std::future::pending().await
            }
        }
    }

    /// Whether the container ran out of memory, found by the kernel's count: it may have been killed so quickly
    /// that nobody noticed.
    pub(crate) fn was_out_of_memory(&self) -> Option<Limitation> {
        let memory = self.memory.as_ref()?;
        let kills = memory
            .cgroup
            .read_table("memory.oom_control")
            .ok()?
            .get("oom_kill")
            .copied()
            .unwrap_or(0);
        (kills > 0 || memory.oom.take().unwrap_or(0) > 0).then(|| memory.limitation())
    }

    pub(crate) fn usage(&self, swap: bool, statistics: &mut ResourceStatistics) -> Result<()> {
        self.memory
            .as_ref()
            .map_or(Ok(()), |memory| memory.usage(swap, statistics))
    }
}

impl Memory {
    fn new(cgroup: Cgroup) -> Result<Self> {
        let oom = EventFd::on_oom(&cgroup).map_err(failure)?;
        let mut pressure = Vec::new();
        for level in [Pressure::Low, Pressure::Medium, Pressure::Critical] {
            match EventFd::on_pressure(&cgroup, level) {
                Ok(counter) => pressure.push((level, counter, AtomicU64::new(0))),
                // Only a statistic.
                Err(error) => debug!(%error, "memory pressure is not counted"),
            }
        }
        Ok(Self {
            cgroup,
            oom,
            pressure,
        })
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

    /// Mesos' words, from the numbers as they are now.
    fn limitation(&self) -> Limitation {
        let mut message = "Memory limit exceeded: ".to_owned();
        if let Ok(limit) = self.cgroup.read_u64("memory.limit_in_bytes") {
            message += &format!("Requested: {} ", show_bytes(limit));
        }
        let used = self.cgroup.read_u64("memory.max_usage_in_bytes").ok();
        if let Some(used) = used {
            message += &format!("Maximum Used: {}\n", show_bytes(used));
        }
        if let Ok(statistics) = self.cgroup.read("memory.stat") {
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

    fn usage(&self, swap: bool, statistics: &mut ResourceStatistics) -> Result<()> {
        let read = |file: &str| self.cgroup.read_u64(file);
        statistics.mem_total_bytes = Some(read("memory.usage_in_bytes").map_err(failure)?);
        if swap {
            statistics.mem_total_memsw_bytes =
                Some(read("memory.memsw.usage_in_bytes").map_err(failure)?);
        }
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
        for (level, counter, total) in &self.pressure {
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
