//! Measurements of a master with many agents, which are fake.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use prost::Message;
use tepui_http::{Client, SchedulerClient};
use tepui_proto::v1::{self, TaskState, master, scheduler};

use crate::Size;
use crate::calls::Calls;
use crate::cluster::{Cluster, memory, processor_time};
use crate::framework::{mib, quantiles, subscribe, tasks};
use crate::http::{fetch, get, post_protobuf};
use crate::reading::Reading;

/// How often each question is asked.
const RUNS: usize = 5;

/// Tasks that are launched and not yet running, before more are launched.
const LAUNCHING: usize = 4096;

/// How long tasks may stay away.
const PATIENCE: Duration = Duration::from_secs(30);

/// After how long new agents have nothing more to do.
const SETTLED: Duration = Duration::from_secs(5);

/// How long idle agents are watched: two of their pings.
const IDLE: Duration = Duration::from_secs(30);

/// How long pollers ask.
const POLLING: Duration = Duration::from_secs(20);

/// P3, P3b, P5 and P9.
pub(crate) async fn state(size: Size, pollers: usize) -> Result<()> {
    let (cluster, mut framework) = filled(size).await?;
    let address = &cluster.master;
    let call = master::Call {
        r#type: Some(master::call::Type::GetState.into()),
        ..Default::default()
    };
    let questions = [
        ("/master/state", get("/master/state")),
        (
            "GET_STATE protobuf",
            post_protobuf("/api/v1", &call.encode_to_vec()),
        ),
    ];
    for (name, request) in &questions {
        let used = processor_time(cluster.master_pid())?;
        let (mut first, mut last, mut bytes) = (Vec::new(), Vec::new(), 0);
        for _ in 0..RUNS {
            let arrival = fetch(address, request).await?;
            first.push(arrival.first);
            last.push(arrival.last);
            bytes = arrival.bytes;
        }
        println!(
            "{name}, {} MiB; first byte: {}",
            bytes >> 20,
            quantiles(&mut first)
        );
        println!("{name}; last byte: {}", quantiles(&mut last));
        let used = processor_time(cluster.master_pid())? - used;
        println!(
            "{name}: {:.0} ms of the master's processor time an answer",
            used.as_secs_f64() * 1000.0 / RUNS as f64
        );
    }
    println!(
        "calls alone: {}",
        quantiles(&mut latencies(&mut framework).await?)
    );
    let polled = polled(address, pollers, latencies(&mut framework)).await?;
    let (mut times, answers) = (polled.0?, polled.1);
    println!(
        "calls beside {pollers} pollers ({answers} answers): {}",
        quantiles(&mut times)
    );
    Ok(framework.bare(scheduler::call::Type::Teardown).await?)
}

/// P10: what agents cost that are only there. The first seconds do not count.
pub(crate) async fn idle(agents: usize, per_connection: usize) -> Result<()> {
    let cluster = Cluster::large(agents, per_connection, &[])?;
    tokio::time::sleep(SETTLED).await;
    let (begun, used) = (Instant::now(), processor_time(cluster.master_pid())?);
    tokio::time::sleep(IDLE).await;
    let used = processor_time(cluster.master_pid())? - used;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{agents} idle agents: {:.2} us of the master's processor time a second an agent",
        used.as_secs_f64() * 1e6 / seconds / agents.max(1) as f64
    );
    Ok(())
}

/// P1 and P9.
pub(crate) async fn failover(size: Size) -> Result<()> {
    let (mut cluster, framework) = filled(Size {
        finished: 0,
        ..size
    })
    .await?;
    let tasks = size.agents * size.running;
    let started = cluster.replace_master()?;
    cluster.wait_agents()?;
    let back = started.elapsed().as_secs_f64();
    // The last sync may still be on its way; metrics are told twice a second.
    let client = Client::new(&cluster.master)?;
    let patience = Instant::now();
    loop {
        let seen = client.get("/metrics/snapshot").await?;
        let seen: serde_json::Value = serde_json::from_slice(&seen.body)?;
        let running = seen["master/tasks_running"].as_f64().unwrap_or(0.0);
        if running == tasks as f64 {
            break;
        }
        let waited = patience.elapsed();
        ensure!(waited < PATIENCE, "{running} of {tasks} tasks are running");
    }
    println!(
        "{} agents with {tasks} tasks: all admitted after {back:.2} s, all tasks seen after {:.2} s, \
         {:.2} s of the master's processor time, {:.1} MiB",
        size.agents,
        started.elapsed().as_secs_f64(),
        processor_time(cluster.master_pid())?.as_secs_f64(),
        mib(memory(cluster.master_pid())?.rss)
    );
    drop(framework);
    Ok(())
}

/// A cluster with all its tasks, and their framework.
async fn filled(size: Size) -> Result<(Cluster, SchedulerClient)> {
    let completed = size.agents * size.finished;
    let keep = format!("--max_completed_tasks_per_framework={}", completed.max(1));
    let begun = Instant::now();
    let cluster = Cluster::large(size.agents, size.per_connection, &[&keep])?;
    println!(
        "{} agents registered after {:.2} s",
        size.agents,
        begun.elapsed().as_secs_f64()
    );
    let empty = memory(cluster.master_pid())?.rss;
    let (begun, used) = (Instant::now(), processor_time(cluster.master_pid())?);
    let framework = subscribe(&cluster.master, "load").await?;
    let framework = fill(framework, size).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let used = processor_time(cluster.master_pid())? - used;
    let all = completed + size.agents * size.running;
    let full = memory(cluster.master_pid())?.rss;
    println!(
        "{all} tasks launched, {completed} of them finished, in {seconds:.1} s: {:.0} tasks/s, \
         {:.0} us of the master's processor time a task",
        all as f64 / seconds,
        used.as_secs_f64() * 1e6 / all.max(1) as f64
    );
    println!(
        "master: {:.1} MiB with agents only, {:.1} MiB with tasks, {:.2} KiB a task",
        mib(empty),
        mib(full),
        (full - empty.min(full)) as f64 / all.max(1) as f64
    );
    Ok((cluster, framework))
}

/// Launches what each agent is to have, and waits until it has it.
async fn fill(framework: SchedulerClient, size: Size) -> Result<SchedulerClient> {
    let per_agent = size.running + size.finished;
    let (mut agents, mut running, mut finished) = (0, 0, 0);
    let all = size.agents * per_agent;
    let mut offers = VecDeque::new();
    let mut calls = Calls::open(&framework).await?;
    let mut reading = Reading::of(framework);
    while running < all || finished < size.agents * size.finished {
        for event in reading.next().await? {
            offers.extend(event.offers.into_iter().flat_map(|offers| offers.offers));
            let Some(update) = event.update else { continue };
            match update.status.state() {
                TaskState::TaskRunning => running += 1,
                TaskState::TaskFinished => finished += 1,
                other => bail!("{}: {}", other.as_str_name(), update.status.message()),
            }
            calls.acknowledge(update.status);
        }
        while agents * per_agent < running + LAUNCHING
            && let Some(offer) = offers.pop_front()
        {
            let (f, r) = (format!("f{agents}-"), format!("r{agents}-"));
            let mut wanted = tasks(&offer, &f, "true", size.finished, size.labels);
            wanted.extend(tasks(&offer, &r, "run", size.running, size.labels));
            calls.launch(offer.id, wanted);
            agents += 1;
        }
        calls.send().await?;
    }
    reading.end().await
}

/// How long the master takes to answer RECONCILE of one task with its UPDATE: through HTTP, the
/// framework's lane and the owner, and back on the stream.
async fn latencies(framework: &mut SchedulerClient) -> Result<Vec<Duration>> {
    let task_id = v1::TaskId {
        value: "r0-0".to_owned(),
    };
    let reconcile = scheduler::Call {
        reconcile: Some(scheduler::call::Reconcile {
            tasks: vec![scheduler::call::reconcile::Task {
                task_id,
                agent_id: None,
            }],
        }),
        ..Default::default()
    };
    let mut times = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < POLLING {
        let asked = Instant::now();
        let kind = scheduler::call::Type::Reconcile;
        framework.call(kind, reconcile.clone()).await?;
        while framework.next().await?.update.is_none() {}
        times.push(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(times)
}

/// Does some work while others read the whole state again and again; how many answers they got. They
/// have a thread of their own, so that what is measured is the master's work and not theirs.
async fn polled<T>(
    address: &str,
    pollers: usize,
    work: impl Future<Output = T>,
) -> Result<(T, usize)> {
    let stop = Arc::new(AtomicBool::new(false));
    let (address, stopped) = (address.to_owned(), Arc::clone(&stop));
    let poll = async move || {
        let mut answers = 0;
        while !stopped.load(Ordering::Relaxed) {
            fetch(&address, &get("/master/state")).await?;
            answers += 1;
        }
        anyhow::Ok(answers)
    };
    let polling = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let all = (0..pollers).map(|_| poll());
        runtime.block_on(try_join_all(all))
    });
    let done = work.await;
    stop.store(true, Ordering::Relaxed);
    let answers: Vec<usize> = polling.await.context("the pollers")??;
    Ok((done, answers.iter().sum()))
}
