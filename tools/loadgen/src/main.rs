//! Measures a real cluster over its real protocols. Each command prints what it did and the figures;
//! docs/PERFORMANCE.md keeps them.

mod cluster;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use tepui_http::scheduler_client::command_task;
use tepui_http::{Client, SchedulerClient};
use tepui_proto::v1::{self, TaskState, scheduler};

use crate::cluster::{Cluster, memory};

#[derive(Parser)]
#[command(
    name = "tepui-loadgen",
    about = "Measures a Tepui cluster",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// P6: memory of an idle master, an idle agent, and of each running command task
    Memory {
        /// How many tasks to run at once
        #[arg(long, default_value_t = 100)]
        tasks: usize,
    },
    /// P7: from DECLINE with a filter of 0 until the next offers
    Turnaround {
        /// How many declines
        #[arg(long, default_value_t = 2000)]
        cycles: usize,
    },
    /// P8: from the start of `tepui local` until the first offer and the first running task
    Start {
        /// How many starts
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Measurement::Memory { tasks } => measure_memory(tasks).await,
        Measurement::Turnaround { cycles } => measure_turnaround(cycles).await,
        Measurement::Start { runs } => measure_start(runs).await,
    }
}

async fn measure_memory(tasks: usize) -> Result<()> {
    let cluster = Cluster::start(&[])?;
    // Idle: the first batch of allocations has passed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for name in ["tepui-master", "tepui-agent"] {
        for pid in cluster.processes(name) {
            let memory = memory(pid)?;
            println!(
                "{name} idle: {:.1} MiB resident, {:.1} MiB proportional",
                mib(memory.rss),
                mib(memory.pss)
            );
        }
    }
    let agent = *cluster
        .processes("tepui-agent")
        .first()
        .context("no agent")?;
    let before = memory(agent)?;
    let mut framework = subscribe(&cluster.master, "memory").await?;
    let offer = offers(&mut framework).await?.pop().context("no offer")?;
    let ids: Vec<String> = (0..tasks).map(|n| format!("m{n}")).collect();
    launch(&framework, &offer, &ids, "exec sleep 1000", 0.01, 4.0).await?;
    wait_state(&mut framework, tasks, TaskState::TaskRunning).await?;
    let inits: Vec<u64> = init_processes()
        .into_iter()
        .filter_map(|pid| Some(memory(pid).ok()?.pss))
        .collect();
    let after = memory(agent)?;
    let per_task = inits.iter().sum::<u64>() as f64 / tasks as f64;
    let in_agent = after.pss.saturating_sub(before.pss) as f64 / tasks as f64;
    println!(
        "{tasks} tasks: {per_task:.0} KiB a task in supervisor and first process, {in_agent:.0} KiB in the agent"
    );
    Ok(framework.bare(scheduler::call::Type::Teardown).await?)
}

/// Supervisors and first processes. They outlive the agent, so they are not its children; those of
/// other clusters on this machine are counted too.
fn init_processes() -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        // Executed from a sealed memfd, whose name the link keeps.
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.to_string_lossy().contains("tepui-init"))
    })
    .collect()
}

async fn measure_turnaround(cycles: usize) -> Result<()> {
    let cluster = Cluster::start(&[])?;
    let mut one = subscribe(&cluster.master, "one").await?;
    let mut held = offers(&mut one).await?;
    let mut two = subscribe(&cluster.master, "two").await?;
    let mut times = Vec::with_capacity(cycles);
    for _ in 0..cycles {
        let begun = Instant::now();
        decline(&one, held).await?;
        held = offers(&mut two).await?;
        times.push(begun.elapsed());
        std::mem::swap(&mut one, &mut two);
    }
    println!(
        "DECLINE until OFFERS at another framework, one agent, {cycles} cycles: {}",
        quantiles(&mut times)
    );
    two.bare(scheduler::call::Type::Teardown).await?;
    let begun = Instant::now();
    for _ in 0..cycles {
        decline(&one, held).await?;
        one.bare(scheduler::call::Type::Revive).await?;
        held = offers(&mut one).await?;
    }
    let rate = cycles as f64 / begun.elapsed().as_secs_f64();
    println!("DECLINE + REVIVE until OFFERS at the same framework: {rate:.0} cycles/s");
    Ok(one.bare(scheduler::call::Type::Teardown).await?)
}

async fn measure_start(runs: usize) -> Result<()> {
    let (mut ready, mut offered, mut running) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let cluster = Cluster::start(&[])?;
        ready.push(cluster.started.elapsed());
        let mut framework = subscribe(&cluster.master, "start").await?;
        let offer = offers(&mut framework).await?.pop().context("no offer")?;
        offered.push(cluster.started.elapsed());
        launch(
            &framework,
            &offer,
            &["first".to_owned()],
            "sleep 100",
            0.1,
            32.0,
        )
        .await?;
        wait_state(&mut framework, 1, TaskState::TaskRunning).await?;
        running.push(cluster.started.elapsed());
        framework.bare(scheduler::call::Type::Teardown).await?;
    }
    println!("{runs} starts; until ready: {}", quantiles(&mut ready));
    println!("until the first offer: {}", quantiles(&mut offered));
    println!("until the first task runs: {}", quantiles(&mut running));
    Ok(())
}

async fn subscribe(master: &str, name: &str) -> Result<SchedulerClient> {
    let info = v1::FrameworkInfo {
        user: "root".to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    Ok(SchedulerClient::subscribe(&Client::new(master)?, info).await?)
}

/// The next offers; other events are passed over.
async fn offers(framework: &mut SchedulerClient) -> Result<Vec<v1::Offer>> {
    loop {
        if let Some(offers) = framework.next().await?.offers {
            return Ok(offers.offers);
        }
    }
}

async fn decline(framework: &SchedulerClient, offers: Vec<v1::Offer>) -> Result<()> {
    Ok(framework
        .decline(offers.into_iter().map(|offer| offer.id).collect(), 0.0)
        .await?)
}

async fn launch(
    framework: &SchedulerClient,
    offer: &v1::Offer,
    ids: &[String],
    command: &str,
    cpus: f64,
    mem: f64,
) -> Result<()> {
    let task = |id: &String| v1::TaskInfo {
        agent_id: offer.agent_id.clone(),
        ..command_task(id, command, cpus, mem)
    };
    Ok(framework
        .launch(offer.id.clone(), ids.iter().map(task).collect(), 0.0)
        .await?)
}

/// Takes events until as many tasks have reached a state; every update is acknowledged.
async fn wait_state(framework: &mut SchedulerClient, count: usize, state: TaskState) -> Result<()> {
    let mut reached = 0;
    while reached < count {
        let Some(update) = framework.next().await?.update else {
            continue;
        };
        let status = update.status;
        if status.state() == state {
            reached += 1;
        } else if matches!(
            status.state(),
            TaskState::TaskFailed | TaskState::TaskError | TaskState::TaskLost
        ) {
            bail!(
                "{}: {} {}",
                status.task_id.value,
                status.state().as_str_name(),
                status.message()
            );
        }
        framework.acknowledge(&status).await?;
    }
    Ok(())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    format!(
        "median {:.2} ms, p90 {:.2} ms, max {:.2} ms",
        at(0.5),
        at(0.9),
        at(1.0)
    )
}
