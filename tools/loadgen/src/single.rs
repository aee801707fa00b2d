//! Measurements of a small cluster: `tepui local` with one real agent.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tepui_http::SchedulerClient;
use tepui_proto::v1::{self, TaskState, scheduler};

use crate::calls::Calls;
use crate::cluster::{self, Cluster};
use crate::framework::{launch, mib, offers, quantiles, subscribe, wait_state};

/// P6.
pub(crate) async fn memory(tasks: usize) -> Result<()> {
    let cluster = Cluster::start(&[])?;
    // Idle: the first batch of allocations has passed.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for name in ["tepui-master", "tepui-agent"] {
        for pid in cluster.processes(name) {
            let memory = cluster::memory(pid)?;
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
    let mut framework = subscribe(&cluster.master, "memory").await?;
    let mut came = Vec::new();
    // With the first come code and threads, which those that follow find there.
    for batch in ["first", "next"] {
        let (before, inits) = (cluster::memory(agent)?, pss_of_inits());
        if came.is_empty() {
            came = offers(&mut framework).await?;
        }
        let offer = came.pop().context("no offer")?;
        let ids: Vec<String> = (0..tasks).map(|n| format!("{batch}{n}")).collect();
        launch(&framework, &offer, &ids, "exec sleep 1000", 0.005, 4.0).await?;
        came = wait_state(&mut framework, tasks, TaskState::TaskRunning).await?;
        let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / tasks as f64;
        println!(
            "the {batch} {tasks} tasks: {:.0} KiB a task in supervisor and first process, {:.0} KiB in the agent",
            each(inits, pss_of_inits()),
            each(before.pss, cluster::memory(agent)?.pss)
        );
    }
    Ok(framework.bare(scheduler::call::Type::Teardown).await?)
}

/// Proportional memory of supervisors, first processes and launchers, in KiB. They outlive the agent, so they are not its
/// children; those of other clusters on this machine are counted too.
fn pss_of_inits() -> u64 {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let inits = pids.filter(|pid| {
        // Executed from a sealed memfd, whose name the link keeps.
        std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|exe| exe.to_string_lossy().contains("tepui-init"))
    });
    inits
        .filter_map(|pid| Some(cluster::memory(pid).ok()?.pss))
        .sum()
}

/// P7, with one real agent or with fake ones: a cycle ends when all that was declined is offered again,
/// to the other framework or, as far as the master lets it, to the same.
pub(crate) async fn turnaround(cycles: usize, agents: Option<usize>) -> Result<()> {
    let cluster = match agents {
        None => Cluster::start(&[])?,
        Some(agents) => Cluster::large(agents, 4, &[])?,
    };
    let agents = agents.unwrap_or(1);
    let mut one = subscribe(&cluster.master, "one").await?;
    let mut held = offers_of(&mut one, agents).await?;
    let mut two = subscribe(&cluster.master, "two").await?;
    let (mut calls, mut others_calls) = (Calls::open(&one).await?, Calls::open(&two).await?);
    let mut others = Vec::new();
    let mut times = Vec::with_capacity(cycles);
    for _ in 0..cycles {
        let declined = held.len();
        let begun = Instant::now();
        calls.decline(std::mem::take(&mut held));
        calls.send().await?;
        let mut again = 0;
        while again < declined {
            tokio::select! {
                offers = offers(&mut one) => { let offers = offers?; again += offers.len(); held.extend(offers); }
                offers = offers(&mut two) => { let offers = offers?; again += offers.len(); others.extend(offers); }
            }
        }
        times.push(begun.elapsed());
        std::mem::swap(&mut one, &mut two);
        std::mem::swap(&mut calls, &mut others_calls);
        std::mem::swap(&mut held, &mut others);
    }
    println!(
        "DECLINE until OFFERS at another framework, {agents} agents, {cycles} cycles: {}",
        quantiles(&mut times)
    );
    two.bare(scheduler::call::Type::Teardown).await?;
    held.extend(offers_of(&mut one, others.len()).await?);
    let begun = Instant::now();
    for _ in 0..cycles {
        calls.decline(held);
        calls.add(scheduler::call::Type::Revive, scheduler::Call::default());
        calls.send().await?;
        held = offers_of(&mut one, agents).await?;
    }
    let rate = cycles as f64 / begun.elapsed().as_secs_f64();
    println!("DECLINE + REVIVE until OFFERS at the same framework: {rate:.0} cycles/s");
    Ok(one.bare(scheduler::call::Type::Teardown).await?)
}

/// The next offers of so many agents.
async fn offers_of(framework: &mut SchedulerClient, agents: usize) -> Result<Vec<v1::Offer>> {
    let mut held = Vec::new();
    while held.len() < agents {
        held.extend(offers(framework).await?);
    }
    Ok(held)
}

/// P8.
pub(crate) async fn start(runs: usize) -> Result<()> {
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
