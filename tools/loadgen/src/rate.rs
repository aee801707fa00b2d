//! P5b: how many real tasks one real agent runs in a second.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tepui_http::scheduler_client::command_task;
use tepui_proto::v1::{self, TaskState, scheduler};

use crate::cluster::{Cluster, processor_time_of_all};
use crate::framework::{decline, launch_tasks, quantiles, subscribe};

/// Tasks of one ACCEPT.
const BATCH: usize = 100;
/// What each sets aside, with some processors.
const MEM: f64 = 4.0;

/// Runs `/bin/true` so often, through master and agent, each update acknowledged; then what of it the kernel does.
pub(crate) async fn rate(tasks: usize, shell: bool, cpus: f64) -> Result<()> {
    let cluster = Cluster::start(&[])?;
    let daemons = ["tepui-master", "tepui-agent"].map(|name| (name, cluster.processes(name)));
    let used = || -> Result<Vec<Duration>> {
        let of =
            |(_, pids): &(_, Vec<u32>)| pids.iter().map(|pid| processor_time_of_all(*pid)).sum();
        daemons.iter().map(of).collect()
    };
    let mut framework = subscribe(&cluster.master, "rate").await?;
    let (mut left, mut finished) = (tasks, 0);
    let mut begun: Vec<Option<Instant>> = vec![None; tasks];
    let mut times = Vec::with_capacity(tasks);
    let (start, before) = (Instant::now(), used()?);
    while finished < tasks {
        let event = framework.next().await?;
        for offer in event.offers.into_iter().flat_map(|offers| offers.offers) {
            let count = left
                .min(BATCH)
                .min(room(&offer, "cpus", cpus))
                .min(room(&offer, "mem", MEM));
            if count == 0 {
                decline(&framework, vec![offer]).await?;
                continue;
            }
            let first = tasks - left;
            let ids: Vec<String> = (first..first + count).map(|n| n.to_string()).collect();
            begun[first..first + count].fill(Some(Instant::now()));
            let tasks = ids.iter().map(|id| task(id, shell, cpus));
            launch_tasks(&framework, &offer, tasks).await?;
            left -= count;
        }
        let Some(update) = event.update else { continue };
        let status = update.status;
        match status.state() {
            TaskState::TaskFinished => {
                finished += 1;
                let number: usize = status.task_id.value.parse().context("an id of ours")?;
                times.extend(begun[number].map(|begun| begun.elapsed()));
            }
            TaskState::TaskStarting | TaskState::TaskRunning => {}
            other => bail!(
                "{}: {} {}",
                status.task_id.value,
                other.as_str_name(),
                status.message()
            ),
        }
        framework.acknowledge(&status).await?;
    }
    let took = start.elapsed();
    let per_second = |took: Duration| tasks as f64 / took.as_secs_f64();
    println!(
        "{tasks} tasks of {} in {took:.2?}: {:.0} tasks/s",
        if shell {
            "`sh -c /bin/true`"
        } else {
            "/bin/true"
        },
        per_second(took)
    );
    println!("ACCEPT until TASK_FINISHED: {}", quantiles(&mut times));
    for ((name, _), (before, after)) in daemons.iter().zip(before.into_iter().zip(used()?)) {
        let each = (after - before).as_secs_f64() * 1000.0 / tasks as f64;
        println!("{name}: {each:.2} ms of processor time a task, with what it has started");
    }
    framework.bare(scheduler::call::Type::Teardown).await?;
    let took = tokio::task::spawn_blocking(move || floor(tasks)).await??;
    println!(
        "a bare loop that starts /bin/true in two cgroups of its own: {:.0} a second",
        per_second(took)
    );
    Ok(())
}

fn task(id: &str, shell: bool, cpus: f64) -> v1::TaskInfo {
    let mut task = command_task(id, "/bin/true", cpus, MEM);
    if let Some(command) = &mut task.command {
        command.shell = Some(shell);
        command.arguments = vec!["true".to_owned()];
    }
    task
}

/// How often an offer has this amount of a resource.
fn room(offer: &v1::Offer, name: &str, each: f64) -> usize {
    let named = offer
        .resources
        .iter()
        .filter(|resource| resource.name == name);
    let amounts = named.filter_map(|resource| Some(resource.scalar.as_ref()?.value));
    (amounts.sum::<f64>() / each) as usize
}

/// The steps that no agent can do without, one task after the other.
fn floor(tasks: usize) -> Result<Duration> {
    let own = format!("tepui-loadgen-{}", std::process::id());
    let hierarchies = ["cpu", "memory"].map(|name| Path::new("/sys/fs/cgroup").join(name));
    let hierarchies = hierarchies
        .iter()
        .filter(|path| path.join("tasks").exists());
    let roots: Vec<PathBuf> = hierarchies.map(|path| path.join(&own)).collect();
    let each = |place: &PathBuf| place.join("task");
    for root in &roots {
        std::fs::create_dir(root).with_context(|| format!("cannot make {}", root.display()))?;
    }
    let begun = Instant::now();
    for _ in 0..tasks {
        for group in roots.iter().map(each) {
            std::fs::create_dir(group)?;
        }
        let mut task = Command::new("/bin/true").spawn()?;
        for group in roots.iter().map(each) {
            std::fs::write(group.join("tasks"), task.id().to_string())
                // It may be over already.
                .or_else(|error| {
                    if error.raw_os_error() == Some(3) {
                        Ok(())
                    } else {
                        Err(error)
                    }
                })?;
        }
        if !task.wait()?.success() {
            bail!("a bare task failed");
        }
        for group in roots.iter().map(each) {
            std::fs::remove_dir(group)?;
        }
    }
    let took = begun.elapsed();
    for root in &roots {
        std::fs::remove_dir(root)?;
    }
    Ok(took)
}
