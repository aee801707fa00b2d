//! Controller `memory` of version 2. Mirrors `controllers/memory.cpp`.

use tepui_isolators_linux::{Cgroup, FileWatch, show_bytes};
use tepui_module_sdk::mesos::ResourceStatistics;
use tepui_module_sdk::prelude::*;

use crate::Share;
use crate::groups::failure;
use crate::mem::{hard_limit, limitation, soft_limit};

const MAX: &str = "memory.max";
const EVENTS: &str = "memory.events";
const OWN_EVENTS: &str = "memory.events.local";

/// Sets the limits; as in version 1 the hard one is set the first time and later only raised.
pub(crate) fn limit(cgroup: &Cgroup, share: &Share, first: bool) -> Result<()> {
    let soft = soft_limit(share.mem).to_string();
    cgroup.write("memory.low", &soft).map_err(failure)?;
    let hard = hard_limit(share.mem, share.mem_limit);
    // Not a number: there is no limit to raise.
    let now = cgroup.read_u64(MAX).ok();
    let is_raised = match (hard, now) {
        (None, _) => true,
        (Some(hard), Some(now)) => hard > now,
        (Some(_), None) => false,
    };
    if first || is_raised {
        let text = hard.map_or_else(|| "max".to_owned(), |bytes| bytes.to_string());
        cgroup.write(MAX, &text).map_err(failure)?;
    }
    Ok(())
}

/// A container whose memory is watched.
pub(crate) struct Memory {
    cgroup: Cgroup,
    events: FileWatch,
}

impl Memory {
    pub(crate) fn new(cgroup: Cgroup) -> Result<Self> {
        let events = FileWatch::new(cgroup.path().join(EVENTS)).map_err(|error| {
            let path = cgroup.path().display();
            Failure::unavailable(format!("'{path}/{EVENTS}' cannot be watched: {error}"))
        })?;
        Ok(Self { cgroup, events })
    }

    /// Waits until the kernel has killed something of the container for want of memory.
    pub(crate) async fn wait(&self) -> std::io::Result<()> {
        loop {
            if self.has_killed() {
                return Ok(());
            }
            self.events.changed().await?;
        }
    }

    /// A kill is counted all the way up, so it is told apart by whose limit was reached: of what is nested, or of this.
    pub(crate) fn has_killed(&self) -> bool {
        let count = |file: &str, name: &str| {
            let events = self.cgroup.read_table(file).ok()?;
            events.get(name).copied()
        };
        // Linux counts the latter apart since 5.2.
        count(EVENTS, "oom_kill").is_some_and(|kills| kills > 0)
            && count(OWN_EVENTS, "oom").is_none_or(|reached| reached > 0)
    }

    /// The words of version 1, from the numbers as they are now.
    pub(crate) fn limitation(&self) -> Limitation {
        let peak = self.cgroup.read_u64("memory.peak");
        let used = peak
            .or_else(|_| self.cgroup.read_u64("memory.current"))
            .ok();
        let limit = self.cgroup.read_u64(MAX).ok().map(show_bytes);
        limitation(limit, used, self.cgroup.read("memory.stat").ok())
    }

    pub(crate) fn usage(&self, statistics: &mut ResourceStatistics) -> Result<()> {
        let current = self.cgroup.read_u64("memory.current").map_err(failure)?;
        statistics.mem_total_bytes = Some(current);
        // There is none where swap is not accounted for.
        let swap = self.cgroup.read_u64("memory.swap.current").ok();
        statistics.mem_swap_bytes = swap;
        statistics.mem_total_memsw_bytes = swap.map(|swap| current + swap);
        let table = self.cgroup.read_table("memory.stat").map_err(failure)?;
        let number = |name: &str| table.get(name).copied();
        // The older names of both are still sent.
        statistics.mem_file_bytes = number("file");
        statistics.mem_cache_bytes = number("file");
        statistics.mem_anon_bytes = number("anon");
        statistics.mem_rss_bytes = number("anon");
        statistics.mem_mapped_file_bytes = number("file_mapped");
        statistics.mem_unevictable_bytes = number("unevictable");
        // Linux counts the first since 5.18; Mesos tells neither of version 2.
        statistics.mem_kmem_usage_bytes = number("kernel");
        statistics.mem_kmem_tcp_usage_bytes = number("sock");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(mem: f64, mem_limit: Option<f64>) -> Share {
        Share {
            cpus: 0.0,
            cpus_limit: None,
            revocable_cpus: false,
            mem,
            mem_limit,
        }
    }

    /// Numbers written here have eight digits: files of the kernel are replaced, these are overwritten.
    fn cgroup() -> (tempfile::TempDir, Cgroup) {
        let at = tempfile::tempdir().unwrap();
        for (file, text) in [
            (MAX, "max\n"),
            ("memory.low", "0\n"),
            (EVENTS, "low 0\noom 0\noom_kill 0\n"),
            ("memory.current", "4096\n"),
            ("memory.swap.current", "512\n"),
            (
                "memory.stat",
                "anon 7\nfile 8\nfile_mapped 9\nunevictable 10\n",
            ),
        ] {
            std::fs::write(at.path().join(file), text).unwrap();
        }
        let cgroup = Cgroup::at(at.path());
        (at, cgroup)
    }

    #[test]
    fn a_hard_limit_is_set_at_first_and_later_only_raised() {
        let (_at, cgroup) = cgroup();
        let set = |mem, mem_limit, first| {
            limit(&cgroup, &share(mem, mem_limit), first).unwrap();
            cgroup.read("memory.low").unwrap()
        };
        let megabytes = |n: u64| (n << 20).to_string();
        let hard = || cgroup.read(MAX).unwrap().trim().to_owned();
        assert_eq!(set(48.0, None, true), megabytes(48));
        assert_eq!(hard(), megabytes(48));
        assert_eq!(set(40.0, None, false), megabytes(40));
        assert_eq!(hard(), megabytes(48));
        set(40.0, Some(64.0), false);
        assert_eq!(hard(), megabytes(64));
    }

    #[tokio::test]
    async fn a_kill_by_the_kernel_is_noticed() {
        let (at, cgroup) = cgroup();
        let memory = Memory::new(cgroup).unwrap();
        let mut statistics = ResourceStatistics::default();
        memory.usage(&mut statistics).unwrap();
        assert_eq!(
            (
                statistics.mem_total_bytes(),
                statistics.mem_total_memsw_bytes(),
                statistics.mem_rss_bytes(),
                statistics.mem_cache_bytes()
            ),
            (4096, 4608, 7, 8)
        );
        let waiting = memory.wait();
        tokio::pin!(waiting);
        assert!(futures_poll_once(waiting.as_mut()).await.is_none());
        std::fs::write(at.path().join(EVENTS), "low 0\noom 1\noom_kill 1\n").unwrap();
        waiting.await.unwrap();
        std::fs::write(at.path().join(MAX), (32 << 20).to_string()).unwrap();
        std::fs::write(at.path().join("memory.peak"), (33 << 20).to_string()).unwrap();
        let limitation = memory.limitation();
        assert_eq!(
            limitation.message,
            "Memory limit exceeded: Requested: 32MB Maximum Used: 33MB\n\nMEMORY STATISTICS: \n\
             anon 7\nfile 8\nfile_mapped 9\nunevictable 10\n\n"
        );
        assert_eq!(limitation.resources[0].scalar.as_ref().unwrap().value, 33.0);
    }

    /// The future's answer, if it has one at once.
    async fn futures_poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        tokio::select! {
            biased;
            answer = future => Some(answer),
            () = std::future::ready(()) => None,
        }
    }
}
