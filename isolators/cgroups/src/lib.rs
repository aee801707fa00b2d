//! Isolators `cgroups/*`: one instance for all of them, as in Mesos.
//!
//! A container has a cgroup `<hierarchy>/<cgroups_root>/<container id>` in each hierarchy of the subsystems in use. It
//! is made and limited before the container exists, and the container's first process puts itself there before
//! it runs anything. Nested containers are in the cgroup of the one around them, or have their own below it,
//! `<container id>/mesos/<nested id>`, where they do not share (`LinuxInfo.share_cgroups`). Nothing but these cgroups, and
//! the root of all of them, is ever touched.
//!
//! Where only the hierarchy of version 2 is mounted, that is one cgroup for all, with the processes in `leaf` below it.
//!
//! Values and files are those of Mesos: `src/slave/containerizer/mesos/isolators/cgroups/` and `cgroups2/`. The
//! subsystems (`cpu`, `mem`, ...) know files and values only; those of version 2 stand beside them (`cpu_v2`, `mem_v2`).

mod blkio;
mod config;
mod cpu;
mod cpu_v2;
mod devices;
mod gpu;
mod groups;
mod mem;
mod mem_v2;
mod net_cls;
mod perf_event;
mod seen;
mod subsystems;
mod unified;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tepui_isolators_linux::Hierarchies;
use tepui_module_sdk::mesos::{ContainerStatus, ResourceStatistics};
use tepui_module_sdk::prelude::*;

pub use config::Config;
use devices::Devices;
pub use devices::{Access, Allowed, Device, LinuxDevices, Node};
pub use gpu::{GpuConfig, NvidiaGpus};
use groups::{FREEZER, Groups};
use mem::Watched;
use subsystems::Subsystems;

/// See the crate.
pub struct Cgroups {
    config: Config,
    groups: Groups,
    subsystems: Subsystems,
    devices: Devices,
    net_classes: Option<net_cls::Handles>,
    perf: Option<perf_event::Perf>,
    /// Containers with cgroups of their own.
    containers: Mutex<BTreeMap<ContainerId, Arc<Watched>>>,
}

/// What a container asks for, at the launch or later.
struct Share {
    cpus: f64,
    cpus_limit: Option<f64>,
    revocable_cpus: bool,
    mem: f64,
    mem_limit: Option<f64>,
}

impl Module for Cgroups {
    type Config = Config;
    const NAME: &'static str = "cgroups";
    const ALIASES: &'static [&'static str] = &[
        "cgroups/all",
        "cgroups/blkio",
        "cgroups/cpu",
        "cgroups/cpuset",
        "cgroups/devices",
        "cgroups/hugetlb",
        "cgroups/mem",
        "cgroups/net_cls",
        "cgroups/net_prio",
        "cgroups/perf_event",
        "cgroups/pids",
    ];
    const DESCRIPTION: &'static str =
        "limits and accounts for CPU, memory, devices and more by cgroups";

    fn create(config: Config, context: Context) -> Result<Self> {
        config.validate()?;
        let hierarchies = Hierarchies::detect().map_err(|error| {
            Failure::unavailable(format!("the cgroup mounts cannot be read: {error}"))
        })?;
        let subsystems = Subsystems::selected(context.selected(), &hierarchies);
        let groups = Groups::find(&hierarchies, &subsystems, &config.cgroups_root)?;
        if groups.are_unified() && config.cgroups_limit_swap {
            return Err(Failure::invalid(
                "memory and swap cannot be limited together in version 2 of cgroups",
            )
            .setting("cgroups_limit_swap"));
        }
        let only_with = |subsystem: &str, setting: &str, is_set: bool| {
            if !is_set || subsystems.has(subsystem) {
                return Ok(());
            }
            Err(Failure::invalid(format!(
                "it means nothing without the isolator 'cgroups/{subsystem}'"
            ))
            .setting(setting))
        };
        let net_classes = net_cls::Handles::configured(&config)?;
        only_with(
            "net_cls",
            "cgroups_net_cls_primary_handle",
            net_classes.is_some(),
        )?;
        let perf = perf_event::Perf::configured(&config)?;
        only_with("perf_event", "perf_events", perf.is_some())?;
        Ok(Self {
            devices: Devices::new(&config.allowed_devices)?,
            net_classes,
            perf,
            config,
            groups,
            subsystems,
            containers: Mutex::default(),
        })
    }
}

impl Isolator for Cgroups {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const NEEDS: &'static [&'static str] = &["root"];

    async fn recover(&self, running: Vec<Container>, orphans: Vec<ContainerId>) -> Result<()> {
        self.groups.create_roots()?;
        if self.has("devices") && self.groups.are_unified() {
            // What the kernel does not take stops the start, not the first container.
            self.devices.load()?;
        }
        if let Some(perf) = &self.perf {
            perf.start().await?;
        }
        for container in running {
            if container.config.share_cgroups {
                continue;
            }
            // A container of an earlier configuration may have no cgroups.
            if !self.groups.exist(&container.id) {
                warn!(container = %container.id, "has no cgroups: it is neither limited nor accounted for");
                continue;
            }
            if let Some(handles) = &self.net_classes {
                handles.recover(&container.id, &self.groups.of("net_cls", &container.id))?;
            }
            self.watch(&container.id)?;
        }
        for orphan in orphans {
            self.cleanup(&orphan).await?;
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let id = &container.id;
        let around = id.parent();
        let mut plan = LaunchPlan::none();
        if !container.config.share_cgroups {
            if around
                .as_ref()
                .is_some_and(|around| around.parent().is_some())
            {
                return Err(Failure::invalid(
                    "'linux_info.share_cgroups' can be false one level below an executor's container only",
                ));
            }
            let share = Share::of(&container);
            self.groups.create(id)?;
            self.apply(id, &share, true)?;
            if self.has("devices") && self.groups.are_unified() {
                self.devices.limit_unified(&self.groups.of("devices", id))?;
            } else if self.has("devices") {
                self.devices.limit(&self.groups.of("devices", id))?;
            }
            if let Some(handles) = &self.net_classes {
                handles.give(id, &self.groups.of("net_cls", id))?;
            }
            self.watch(id)?;
            // Not an executor, which is to outlive its tasks.
            if self.has("memory") && (container.config.command_task || around.is_some()) {
                plan.oom_score_adj = mem::oom_score_adj(share.mem, share.mem_limit);
            }
        }
        let home = self.home(id);
        let is_own = self.groups.are_unified() && home == *id;
        for (subsystem, cgroup) in self.groups.joined(&home) {
            let path = cgroup.path().to_string_lossy();
            plan = match is_own {
                true => plan.own_cgroup(path, subsystem),
                false => plan.cgroup(path, subsystem),
            };
        }
        if let Some(cgroup) = self.groups.create_frozen_by(id)? {
            plan = plan.own_cgroup(cgroup.path().to_string_lossy(), FREEZER);
        }
        if container.plan.rootfs.is_some() {
            plan = seen::mounts(plan, &self.groups, &home);
        }
        Ok(plan)
    }

    async fn update(&self, id: &ContainerId, update: Update) -> Result<()> {
        // Whoever shares the cgroups of another container has no part of its own in them.
        if !self.containers().contains_key(id) {
            return Ok(());
        }
        self.apply(id, &Share::updated(&update), false)
    }

    async fn limited(&self, id: &ContainerId) -> Limitation {
        let watched = self.containers().get(id).cloned();
        match watched {
            Some(watched) if self.has("memory") => watched.out_of_memory().await,
            _ => std::future::pending().await,
        }
    }

    async fn exceeded(&self, id: &ContainerId) -> Option<Limitation> {
        let watched = self.containers().get(id).cloned();
        watched
            .filter(|_| self.has("memory"))
            .and_then(|watched| watched.was_out_of_memory())
    }

    async fn usage(&self, id: &ContainerId) -> Result<ResourceStatistics> {
        let mut statistics = ResourceStatistics::default();
        let watched = self.containers().get(id).cloned();
        let Some(watched) = watched else {
            return Ok(statistics);
        };
        if self.has("cpu") {
            self.cpu_usage(id, &mut statistics)?;
        }
        if self.has("memory") {
            watched.usage(self.config.cgroups_limit_swap, &mut statistics)?;
        }
        if self.has("blkio") {
            let cgroup = self.groups.of("blkio", id);
            statistics.blkio_statistics = Some(match self.groups.are_unified() {
                true => blkio::usage_unified(&cgroup),
                false => blkio::usage(&cgroup),
            });
        }
        statistics.perf = self.perf.as_ref().and_then(|perf| perf.last(id));
        Ok(statistics)
    }

    /// A container that shares the cgroups of another has its class too.
    async fn status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        let mut status = ContainerStatus::default();
        let home = self.home(id);
        if self.has("net_cls") && self.containers().contains_key(&home) {
            status.cgroup_info = net_cls::status(&self.groups.of("net_cls", &home))?;
        }
        Ok(status)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        self.containers().remove(id);
        if let Some(perf) = &self.perf {
            perf.remove(id);
        }
        let destroyed = self
            .groups
            .destroy(id, self.config.cgroups_destroy_timeout())
            .await;
        // Not before the last process that has it is gone.
        if let (Some(handles), true) = (&self.net_classes, destroyed.is_ok()) {
            handles.take_back(id);
        }
        destroyed
    }
}

impl Cgroups {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Watched>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The container whose cgroups a container is in: itself, or the nearest around it that has some.
    fn home(&self, id: &ContainerId) -> ContainerId {
        let containers = self.containers();
        let mut home = id.clone();
        while !containers.contains_key(&home) {
            match home.parent() {
                Some(around) => home = around,
                None => break,
            }
        }
        home
    }

    fn has(&self, subsystem: &str) -> bool {
        self.subsystems.has(subsystem)
    }

    fn apply(&self, id: &ContainerId, share: &Share, first: bool) -> Result<()> {
        let unified = self.groups.are_unified();
        if self.has("cpu") && unified {
            cpu_v2::limit(&self.groups.of("cpu", id), share, &self.config)?;
        } else if self.has("cpu") {
            cpu::limit(&self.groups, id, share, &self.config)?;
        }
        if self.has("memory") && unified {
            mem_v2::limit(&self.groups.of("memory", id), share, first)?;
        } else if self.has("memory") {
            mem::limit(
                &self.groups.of("memory", id),
                share,
                self.config.cgroups_limit_swap,
                first,
            )?;
        }
        Ok(())
    }

    fn cpu_usage(&self, id: &ContainerId, statistics: &mut ResourceStatistics) -> Result<()> {
        if !self.groups.are_unified() {
            return cpu::usage(&self.groups, id, &self.config, statistics);
        }
        if self.config.cgroups_cpu_enable_pids_and_tids_count {
            for (_, leaf) in self.groups.joined(id) {
                cpu_v2::count(&leaf, statistics)?;
            }
        }
        cpu_v2::usage(&self.groups.of("cpu", id), statistics)
    }

    fn watch(&self, id: &ContainerId) -> Result<()> {
        let watched = if self.has("memory") {
            Watched::new(&self.groups, id)?
        } else {
            Watched::Not
        };
        self.containers().insert(id.clone(), Arc::new(watched));
        if let Some(perf) = &self.perf {
            perf.add(id, self.groups.name(id).to_string_lossy().into_owned());
        }
        Ok(())
    }
}

impl Share {
    fn of(container: &Container) -> Self {
        Self {
            cpus: container.requested("cpus"),
            cpus_limit: container.limit("cpus"),
            revocable_cpus: has_revocable_cpus(&container.resources),
            mem: container.requested("mem"),
            mem_limit: container.limit("mem"),
        }
    }

    fn updated(update: &Update) -> Self {
        Self {
            cpus: update.requested("cpus"),
            cpus_limit: update.limit("cpus"),
            revocable_cpus: has_revocable_cpus(&update.resources),
            mem: update.requested("mem"),
            mem_limit: update.limit("mem"),
        }
    }
}

fn has_revocable_cpus(resources: &[mesos::Resource]) -> bool {
    resources
        .iter()
        .any(|resource| resource.name == "cpus" && resource.revocable.is_some())
}
