//! What the measuring frameworks do, and how times are told.

use std::time::Duration;

use anyhow::{Result, bail};
use tepui_http::scheduler_client::command_task;
use tepui_http::{Client, SchedulerClient};
use tepui_proto::v1::{self, TaskState};

/// Subscribes a framework of role `*`.
pub(crate) async fn subscribe(master: &str, name: &str) -> Result<SchedulerClient> {
    let info = v1::FrameworkInfo {
        user: "root".to_owned(),
        name: name.to_owned(),
        ..Default::default()
    };
    Ok(SchedulerClient::subscribe(&Client::new(master)?, info).await?)
}

/// The next offers; other events are passed over.
pub(crate) async fn offers(framework: &mut SchedulerClient) -> Result<Vec<v1::Offer>> {
    loop {
        if let Some(offers) = framework.next().await?.offers {
            return Ok(offers.offers);
        }
    }
}

/// Declines with a filter of 0 seconds.
pub(crate) async fn decline(framework: &SchedulerClient, offers: Vec<v1::Offer>) -> Result<()> {
    Ok(framework
        .decline(offers.into_iter().map(|offer| offer.id).collect(), 0.0)
        .await?)
}

/// Launches command tasks on an offer.
pub(crate) async fn launch(
    framework: &SchedulerClient,
    offer: &v1::Offer,
    ids: &[String],
    command: &str,
    cpus: f64,
    mem: f64,
) -> Result<()> {
    let tasks = ids.iter().map(|id| command_task(id, command, cpus, mem));
    launch_tasks(framework, offer, tasks).await
}

/// Launches tasks on an offer's agent.
pub(crate) async fn launch_tasks(
    framework: &SchedulerClient,
    offer: &v1::Offer,
    tasks: impl Iterator<Item = v1::TaskInfo>,
) -> Result<()> {
    let there = |task| v1::TaskInfo {
        agent_id: offer.agent_id.clone(),
        ..task
    };
    Ok(framework
        .launch(offer.id.clone(), tasks.map(there).collect(), 0.0)
        .await?)
}

/// Takes events until as many tasks have reached a state; every update is acknowledged. Answers the offers that came
/// meanwhile, which nobody has accepted or declined.
pub(crate) async fn wait_state(
    framework: &mut SchedulerClient,
    count: usize,
    state: TaskState,
) -> Result<Vec<v1::Offer>> {
    let (mut reached, mut came) = (0, Vec::new());
    while reached < count {
        let event = framework.next().await?;
        came.extend(event.offers.into_iter().flat_map(|offers| offers.offers));
        let Some(update) = event.update else {
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
    Ok(came)
}

/// MiB of KiB.
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// Median, 90th and 99th percentile and the longest.
pub(crate) fn quantiles(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    format!(
        "median {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    )
}

/// Tasks for an offer's agent, each of hardly anything, with labels of a usual size.
pub(crate) fn tasks(
    offer: &v1::Offer,
    prefix: &str,
    command: &str,
    count: usize,
    labels: usize,
) -> Vec<v1::TaskInfo> {
    let label = |n| v1::Label {
        key: format!("label-{n}"),
        value: Some(format!("value-of-label-{n}")),
    };
    let labels = v1::Labels {
        labels: (0..labels).map(label).collect(),
    };
    let task = |n| v1::TaskInfo {
        agent_id: offer.agent_id.clone(),
        labels: Some(labels.clone()),
        ..command_task(&format!("{prefix}{n}"), command, 0.1, 32.0)
    };
    (0..count).map(task).collect()
}
