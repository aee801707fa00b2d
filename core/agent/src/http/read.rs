//! From a snapshot to what answers are made of.

use futures::future::join_all;
use tepui_model::Resources;
use tepui_model::id::ContainerId;
use tepui_proto::v1::executor_info;
use tepui_proto::{Message as _, convert, v1};
use tepui_state_agent::{Executor, ExecutorKind, Framework, Task};
use tepui_view::encode::agent::{AgentExecutor, AgentFramework, AgentState};

use super::Endpoints;
use crate::owner::Snapshot;
use crate::paths::Paths;

/// One container for clients.
pub(crate) struct Seen {
    pub(crate) framework: String,
    pub(crate) executor: String,
    pub(crate) name: String,
    pub(crate) source: String,
    pub(crate) container: ContainerId,
    pub(crate) statistics: Option<v1::ResourceStatistics>,
    pub(crate) status: Option<v1::ContainerStatus>,
}

/// The containers of executors that are not over, with what they use.
pub(crate) async fn containers(endpoints: &Endpoints, snapshot: &Snapshot) -> Vec<Seen> {
    let live = snapshot.frameworks.iter().flat_map(|framework| {
        let live = framework.executors.iter().filter(|e| e.end.is_none());
        live.map(move |executor| (framework, executor))
    });
    let seen = live.map(|(framework, executor)| async move {
        let id = &executor.container;
        Seen {
            framework: framework.id.to_string(),
            executor: executor.id.to_string(),
            name: executor.info.name().to_owned(),
            source: source(&executor.info).to_owned(),
            container: id.clone(),
            statistics: endpoints.containers.usage(id).await.ok(),
            status: endpoints.containers.status(id).await.ok(),
        }
    });
    join_all(seen).await
}

fn source(info: &v1::ExecutorInfo) -> &str {
    info.source()
}

/// What `/state` is written from.
pub(crate) fn state(endpoints: &Endpoints, snapshot: &Snapshot) -> AgentState {
    let settings = &endpoints.settings;
    let id = snapshot.info.id.as_ref().map_or("", |id| &id.value);
    let paths = Paths::new(settings.work_dir.clone());
    let framework = |framework: &Framework| {
        let executor = |e: &std::sync::Arc<Executor>| view_executor(&paths, id, framework, e);
        AgentFramework {
            info: framework.info.0.clone(),
            executors: framework.executors.iter().map(executor).collect(),
            completed_executors: framework.completed_executors.iter().map(executor).collect(),
        }
    };
    let live = snapshot.frameworks.iter().flat_map(|f| &f.executors);
    let live = live.filter(|executor| executor.end.is_none());
    let mut allocated = Resources::new();
    for executor in live {
        allocated += executor_resources(executor);
    }
    AgentState {
        start_time: endpoints.started.as_secs_f64(),
        id: id.to_owned(),
        pid: format!("slave(1)@{}:{}", settings.ip, settings.port),
        hostname: settings.hostname.clone(),
        capabilities: settings
            .capabilities
            .iter()
            .map(|c| c.as_str_name().to_owned())
            .collect(),
        info: snapshot.info.encode_to_vec().into(),
        drain_config: None,
        drain_started: None,
        total: snapshot.resources.clone(),
        allocated,
        master_hostname: snapshot
            .master
            .as_ref()
            .map(|master| master.hostname().to_owned()),
        frameworks: snapshot
            .frameworks
            .iter()
            .filter(|f| shown(f))
            .map(framework)
            .collect(),
        completed_frameworks: snapshot.completed.iter().map(|f| framework(f)).collect(),
    }
}

/// A framework that was told of and has run nothing yet is not shown.
pub(crate) fn shown(framework: &Framework) -> bool {
    !framework.executors.is_empty() || !framework.completed_executors.is_empty()
}

pub(crate) fn executor_resources(executor: &Executor) -> Resources {
    let all: Vec<v1::Resource> = executor.resources().cloned().collect();
    // They were checked when the task was launched.
    convert::resources(&all).unwrap_or_default()
}

fn view_executor(
    paths: &Paths,
    agent: &str,
    framework: &Framework,
    executor: &Executor,
) -> AgentExecutor {
    let sandbox = paths.sandbox(
        &agent.into(),
        &framework.id,
        &executor.id,
        &executor.container,
    );
    let task = |task: &Task| task.task.encode_to_vec().into();
    AgentExecutor {
        id: executor.id.to_string(),
        name: executor.info.name().to_owned(),
        source: source(&executor.info).to_owned(),
        container: executor.container.to_string(),
        directory: sandbox.display().to_string(),
        resources: executor_resources(executor),
        labels: executor
            .info
            .labels
            .as_ref()
            .map(|labels| labels.encode_to_vec().into()),
        // Where a launch names no type, it is told from the command.
        kind: match executor.kind {
            ExecutorKind::Generated => None,
            ExecutorKind::Default => Some(executor_info::Type::Default),
            ExecutorKind::Custom => Some(executor_info::Type::Custom),
        },
        tasks: live_tasks(executor).map(task).collect(),
        queued: executor
            .queued
            .iter()
            .map(|info| info.encode_to_vec().into())
            .collect(),
        completed: ended_tasks(executor)
            .map(|task| task.encode_to_vec().into())
            .collect(),
    }
}

/// Tasks that have not ended.
pub(crate) fn live_tasks(executor: &Executor) -> impl Iterator<Item = &Task> {
    let tasks = executor.tasks.iter();
    tasks.filter(|task| !task.state().is_terminal())
}

/// Tasks that have ended and whose end is not acknowledged.
pub(crate) fn unacknowledged_tasks(executor: &Executor) -> impl Iterator<Item = &Task> {
    let tasks = executor.tasks.iter();
    tasks.filter(|task| task.state().is_terminal())
}

/// All tasks that have ended, oldest first.
fn ended_tasks(executor: &Executor) -> impl Iterator<Item = &v1::Task> {
    let completed = executor.completed_tasks.iter().map(|task| &task.0);
    completed.chain(unacknowledged_tasks(executor).map(|task| &task.task.0))
}

/// A task that waits for its executor, as `GET_TASKS` shows it.
pub(crate) fn queued_task(
    info: &v1::TaskInfo,
    framework: &Framework,
    executor: &Executor,
) -> v1::Task {
    let own = executor.kind != ExecutorKind::Generated;
    v1::Task {
        name: info.name.clone(),
        task_id: info.task_id.clone(),
        framework_id: v1::FrameworkId {
            value: framework.id.to_string(),
        },
        executor_id: own.then(|| v1::ExecutorId {
            value: executor.id.to_string(),
        }),
        agent_id: info.agent_id.clone(),
        state: v1::TaskState::TaskStaging.into(),
        resources: info.resources.clone(),
        labels: info.labels.clone(),
        discovery: info.discovery.clone(),
        container: info.container.clone(),
        kill_policy: info.kill_policy,
        ..v1::Task::default()
    }
}
