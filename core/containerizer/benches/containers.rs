//! Launches and destroys many containers and prints what each costs: `cargo bench -p tepui-containerizer`.
//!
//! `TEPUI_BENCH_CONTAINERS` (200) containers at once, `TEPUI_BENCH_AT_ONCE` (16) launches under way. As root on
//! cgroups v1 with cgroups/cpu, cgroups/mem and namespaces/pid, else without isolators. `TEPUI_INIT` names the
//! program to measure, which should be the static one.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use common::kernel;
use futures::{StreamExt, TryStreamExt, stream};
use tepui_containerizer::{Command, ContainerConfig, Containerizer, leaks};
use tepui_model::id::ContainerId;

fn main() {
    let number = |name: &str, default: usize| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (containers, at_once) = (
        number("TEPUI_BENCH_CONTAINERS", 200),
        number("TEPUI_BENCH_AT_ONCE", 16),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(containers, at_once));
}

async fn run(containers: usize, at_once: usize) {
    let at = tempfile::tempdir().expect("a directory");
    let settings = common::settings(at.path());
    let root = kernel::available().then(|| kernel::Root::new("bench"));
    let isolators = root
        .as_ref()
        .map(|root| kernel::isolators(&root.0, serde_json::json!({})))
        .unwrap_or_default();
    println!(
        "init: {}, isolators: {}",
        settings.init.display(),
        isolators.len()
    );
    let containerizer = Containerizer::new(settings, isolators).expect("a containerizer");
    containerizer
        .recover(BTreeSet::new())
        .await
        .expect("nothing to recover");

    let configs: Vec<ContainerConfig> = (0..containers)
        .map(|number| {
            let mut config = common::shell(at.path(), &format!("c{number}"), "");
            config.command = Some(Command {
                shell: false,
                value: "/bin/sleep".to_owned(),
                arguments: vec!["sleep".to_owned(), "1000".to_owned()],
            });
            config
        })
        .collect();
    let ids: Vec<ContainerId> = configs.iter().map(|config| config.id.clone()).collect();

    let started = Instant::now();
    let launch = |config: ContainerConfig| {
        let containerizer = containerizer.clone();
        async move {
            let started = Instant::now();
            let launched = containerizer.launch(config).await?;
            Ok::<_, tepui_containerizer::LaunchError>((started.elapsed(), launched.pid))
        }
    };
    let launched: Vec<(Duration, u32)> = stream::iter(configs)
        .map(launch)
        .buffer_unordered(at_once)
        .try_collect()
        .await
        .expect("launched");
    report(
        "launch",
        started.elapsed(),
        launched.iter().map(|(took, _)| *took).collect(),
    );

    let pss: u64 = launched.iter().map(|(_, pid)| pss_of_init(*pid)).sum();
    println!(
        "memory: {} KiB PSS a container (supervisor and first process)",
        pss / containers as u64
    );

    let started = Instant::now();
    let destroy = |id: ContainerId| {
        let containerizer = containerizer.clone();
        async move {
            let started = Instant::now();
            containerizer.destroy(&id).await.expect("destroyed");
            containerizer.forget(&id).expect("forgotten");
            started.elapsed()
        }
    };
    let destroyed: Vec<Duration> = stream::iter(ids)
        .map(destroy)
        .buffer_unordered(at_once)
        .collect()
        .await;
    report("destroy", started.elapsed(), destroyed);
    let left = leaks::find(at.path(), root.as_ref().map(|root| root.0.as_str()), &[]);
    assert!(left.is_empty(), "{left:?}");
}

fn report(what: &str, total: Duration, mut each: Vec<Duration>) {
    each.sort_unstable();
    let at = |share: f64| each[((each.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} containers in {total:.2?}, {:.2?} each; one takes p50 {:.2?}, p99 {:.2?}",
        each.len(),
        total / u32::try_from(each.len()).unwrap_or(1),
        at(0.5),
        at(0.99)
    );
}

/// Kilobytes of the first process and of its supervisor.
fn pss_of_init(first: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{first}/stat")).unwrap_or_default();
    let parent = stat
        .rsplit_once(')')
        .and_then(|(_, fields)| fields.split_ascii_whitespace().nth(1));
    let of = |pid: &str| {
        let rollup = fs::read_to_string(PathBuf::from("/proc").join(pid).join("smaps_rollup"))
            .unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .unwrap_or(0)
    };
    of(&first.to_string()) + parent.map(of).unwrap_or(0)
}
