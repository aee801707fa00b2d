//! What an agent tells of itself as metrics: Mesos' names and meanings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tepui_http::shared::Sample;
use tepui_model::Resources;
use tepui_proto::v1::TaskState;
use tepui_state_agent::{Executor, ExecutorState};

use crate::clock;
use crate::http::{Endpoints, read};
use crate::owner::Snapshot;

/// Counters of what there is nothing of here. They are told because tools ask for them by name.
const ZERO_COUNTERS: [&str; 4] = [
    // Binds are of a container's mount namespace, and go with it.
    "containerizer/mesos/provisioner/bind/remove_rootfs_errors",
    "resource_provider_manager/events/disconnect",
    "resource_provider_manager/events/subscribe",
    "slave/executors_preempted",
];

/// The same of gauges.
const ZERO_GAUGES: [&str; 1] = ["resource_provider_manager/subscribed"];

/// Ends that agents count.
const ENDS: [(TaskState, &str); 5] = [
    (TaskState::TaskFailed, "slave/tasks_failed"),
    (TaskState::TaskFinished, "slave/tasks_finished"),
    (TaskState::TaskGone, "slave/tasks_gone"),
    (TaskState::TaskKilled, "slave/tasks_killed"),
    (TaskState::TaskLost, "slave/tasks_lost"),
];

/// Adds the metrics of an agent.
pub(crate) fn register(endpoints: &Arc<Endpoints>) {
    let this = Arc::downgrade(endpoints);
    endpoints.shared.metrics.source(move || {
        let endpoints = this.upgrade();
        async move {
            let Some(endpoints) = endpoints else {
                return Vec::new();
            };
            match endpoints.snapshot().await {
                Ok(snapshot) => samples(&endpoints, &snapshot),
                // It has ended.
                Err(_) => Vec::new(),
            }
        }
    });
}

fn samples(endpoints: &Endpoints, snapshot: &Snapshot) -> Vec<Sample> {
    let mut samples = Vec::new();
    samples.extend(ZERO_COUNTERS.map(|name| Sample::counter(name, 0)));
    samples.extend(ZERO_GAUGES.map(|name| Sample::gauge(name, 0.0)));
    samples.extend(endpoints.gc.samples());
    let counts = &snapshot.counts;
    samples.extend(ENDS.map(|(state, name)| Sample::counter(name, counts.ended_in(state))));
    samples.extend([
        Sample::counter("slave/valid_status_updates", counts.valid_updates),
        Sample::counter("slave/invalid_status_updates", counts.invalid_updates),
        Sample::counter("slave/valid_framework_messages", counts.valid_messages),
        Sample::counter("slave/invalid_framework_messages", counts.invalid_messages),
        Sample::counter("slave/executors_terminated", counts.executors_terminated),
        Sample::counter("slave/container_launch_errors", counts.launch_errors),
        Sample::counter("slave/recovery_errors", snapshot.recovery_errors),
    ]);
    let containers = endpoints.containers.counts();
    let mesos = |what: &str| format!("containerizer/mesos/{what}");
    samples.extend([
        Sample::counter(mesos("container_destroy_errors"), containers.destroy_errors),
        Sample::counter(
            mesos("provisioner/remove_container_errors"),
            containers.provisioner_errors,
        ),
    ]);
    let with_root = containers
        .with_root
        .map(|count| Sample::gauge(mesos("filesystem/containers_new_rootfs"), count as f64));
    samples.extend(with_root);
    let fetches = containers.fetches;
    let fetched = |what: &str| format!("containerizer/fetcher/{what}");
    samples.extend([
        Sample::counter(fetched("task_fetches_succeeded"), fetches.succeeded),
        Sample::counter(fetched("task_fetches_failed"), fetches.failed),
        Sample::gauge(
            fetched("cache_size_total_bytes"),
            fetches.cache_total as f64,
        ),
        Sample::gauge(fetched("cache_size_used_bytes"), fetches.cache_used as f64),
    ]);
    let uptime = clock::now().wall.0 - endpoints.started.0;
    let registered = f64::from(u8::from(snapshot.master.is_some()));
    let frameworks = snapshot.frameworks.iter().filter(|one| read::shown(one));
    samples.extend([
        Sample::gauge("slave/uptime_secs", uptime.max(0) as f64 / 1e9),
        Sample::gauge("slave/registered", registered),
        Sample::gauge("slave/frameworks_active", frameworks.count() as f64),
    ]);
    let executors = snapshot.frameworks.iter().flat_map(|one| &one.executors);
    let live: Vec<&Executor> = executors
        .map(AsRef::as_ref)
        .filter(|one| one.end.is_none())
        .collect();
    of_executors(&live, &mut samples);
    of_tasks(&live, &mut samples);
    let mut used = Resources::new();
    for executor in live {
        used += read::executor_resources(executor);
    }
    resources(&snapshot.resources, &used, &mut samples);
    let settings = &endpoints.settings;
    let gids = settings
        .volume_gids
        .map(|total| volume_gids(total, &settings.work_dir));
    samples.extend(gids.into_iter().flatten());
    samples
}

/// Groups for shared volumes, as the isolators have written them down: a line for each after that of the version, with
/// the group and the volume. A volume that is gone needs none.
fn volume_gids(total: u64, work_dir: &Path) -> [Sample; 2] {
    let file = work_dir.join("meta/volume_gid_manager/volume_gids");
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let volumes = text.lines().skip(1).filter_map(|line| line.split_once(' '));
    let used = volumes
        .filter(|(_, volume)| Path::new(volume).exists())
        .count();
    let free = total.saturating_sub(used as u64);
    let gauge = |name: &str, value: u64| {
        Sample::gauge(
            format!("volume_gid_manager/volume_gids_{name}"),
            value as f64,
        )
    };
    [gauge("total", total), gauge("free", free)]
}

fn of_executors(live: &[&Executor], samples: &mut Vec<Sample>) {
    let count = |states: &[ExecutorState]| {
        let those = live.iter().filter(|one| states.contains(&one.state));
        those.count() as f64
    };
    let registering = [ExecutorState::Launching, ExecutorState::Registering];
    samples.extend([
        Sample::gauge("slave/executors_registering", count(&registering)),
        Sample::gauge("slave/executors_running", count(&[ExecutorState::Running])),
        Sample::gauge(
            "slave/executors_terminating",
            count(&[ExecutorState::Terminating]),
        ),
    ]);
}

fn of_tasks(live: &[&Executor], samples: &mut Vec<Sample>) {
    let mut states: BTreeMap<TaskState, usize> = BTreeMap::new();
    for executor in live {
        *states.entry(TaskState::TaskStaging).or_default() += executor.queued.len();
        for task in read::live_tasks(executor) {
            *states.entry(task.state()).or_default() += 1;
        }
    }
    let gauges = [
        (TaskState::TaskStaging, "slave/tasks_staging"),
        (TaskState::TaskStarting, "slave/tasks_starting"),
        (TaskState::TaskRunning, "slave/tasks_running"),
        (TaskState::TaskKilling, "slave/tasks_killing"),
    ];
    samples.extend(gauges.map(|(state, name)| {
        let n = states.get(&state).copied().unwrap_or_default();
        Sample::gauge(name, n as f64)
    }));
}

fn resources(total: &Resources, used: &Resources, samples: &mut Vec<Sample>) {
    let kinds = [
        ("", total.non_revocable(), used.non_revocable()),
        ("revocable_", total.revocable(), used.revocable()),
    ];
    for name in ["cpus", "disk", "gpus", "mem"] {
        for (kind, total, used) in &kinds {
            let of = |resources: &Resources| resources.scalar(&name.into()).to_f64();
            let (total, used) = (of(total), of(used));
            let percent = if total > 0.0 { used / total } else { 0.0 };
            for (suffix, value) in [("total", total), ("used", used), ("percent", percent)] {
                samples.push(Sample::gauge(format!("slave/{name}_{kind}{suffix}"), value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_volumes_that_are_gone_are_free() {
        let at = tempfile::tempdir().expect("a directory");
        let gauges = || volume_gids(3, at.path()).map(|sample| sample.value);
        assert_eq!(gauges(), [3.0, 3.0]);
        let meta = at.path().join("meta/volume_gid_manager");
        std::fs::create_dir_all(&meta).expect("a directory");
        let here = at.path().display();
        let text = format!("1\n10000 {here}/meta\n10001 {here}/gone\n");
        std::fs::write(meta.join("volume_gids"), text).expect("a file");
        assert_eq!(gauges(), [3.0, 2.0]);
    }
}
