//! Isolators `posix/cpu` and `posix/mem`: what the processes of a container use. Nothing is limited.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/posix.hpp`: the first process and all below it are added up, so
//! that what ended processes have used is forgotten.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use tepui_module_sdk::mesos::ResourceStatistics;
use tepui_module_sdk::prelude::*;

use crate::processes;

/// Which of the numbers an isolator tells.
pub trait Measure: Send + Sync + 'static {
    /// Name of the isolator.
    const NAME: &'static str;
    /// What it is for.
    const DESCRIPTION: &'static str;
    /// Adds its part of what processes use.
    fn tell(used: &processes::Usage, statistics: &mut ResourceStatistics);
}

/// Time of processors.
pub struct CpuTime;

impl Measure for CpuTime {
    const NAME: &'static str = "posix/cpu";
    const DESCRIPTION: &'static str = "accounts for processor time by the processes of a container";

    fn tell(used: &processes::Usage, statistics: &mut ResourceStatistics) {
        statistics.cpus_user_time_secs = Some(used.user.as_secs_f64());
        statistics.cpus_system_time_secs = Some(used.system.as_secs_f64());
    }
}

/// Memory in use.
pub struct ResidentMemory;

impl Measure for ResidentMemory {
    const NAME: &'static str = "posix/mem";
    const DESCRIPTION: &'static str = "accounts for memory by the processes of a container";

    fn tell(used: &processes::Usage, statistics: &mut ResourceStatistics) {
        statistics.mem_rss_bytes = Some(used.resident_bytes);
    }
}

/// Isolator `posix/cpu`.
pub type Cpu = Accounting<CpuTime>;
/// Isolator `posix/mem`.
pub type Mem = Accounting<ResidentMemory>;

/// See the module.
pub struct Accounting<M> {
    /// First process of each container.
    pids: Mutex<BTreeMap<ContainerId, u32>>,
    measure: PhantomData<M>,
}

impl<M: Measure> Module for Accounting<M> {
    type Config = NoConfig;
    const NAME: &'static str = M::NAME;
    const DESCRIPTION: &'static str = M::DESCRIPTION;

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self {
            pids: Mutex::default(),
            measure: PhantomData,
        })
    }
}

impl<M: Measure> Isolator for Accounting<M> {
    const STANDALONE: bool = true;
    const LIMITS: bool = false;

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        let started = running.into_iter().filter(|container| container.pid != 0);
        self.pids()
            .extend(started.map(|container| (container.id, container.pid)));
        Ok(())
    }

    async fn prepare(&self, _: Container) -> Result<LaunchPlan> {
        Ok(LaunchPlan::none())
    }

    async fn isolate(&self, id: &ContainerId, pid: u32) -> Result<()> {
        self.pids().insert(id.clone(), pid);
        Ok(())
    }

    async fn usage(&self, id: &ContainerId) -> Result<ResourceStatistics> {
        let mut statistics = ResourceStatistics::default();
        let pid = self.pids().get(id).copied();
        if let Some(pid) = pid {
            let used = blocking(move || processes::usage(pid)).await?;
            M::tell(&used, &mut statistics);
        }
        Ok(statistics)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        self.pids().remove(id);
        Ok(())
    }
}

impl<M> Accounting<M> {
    fn pids(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, u32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
