//! Calls on containers inside of others and on standalone containers, which have no parent and belong to operators.
//!
//! Status codes and texts are those of Mesos, where it was recorded. Containers of executors are seen here too: they
//! can be waited for and signaled.

#![expect(
    clippy::result_large_err,
    reason = "a refusal is an answer like any other"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use tepui_containerizer::{Class, ContainerConfig, Error, LaunchError, Limits, Termination};
use tepui_http::authorize::Object;
use tepui_http::{Media, Response, StatusCode, Subject};
use tepui_model::authorization::Action;
use tepui_model::id::ContainerId;
use tepui_proto::v1::agent::{Call, Response as Answer, call, call::Type, response};
use tepui_proto::{Message as _, Wire, v1};
use tepui_state_agent::{Executor, Framework};

use super::see::executor_user;
use super::{Endpoints, see};
use crate::launching::{amounts, limits, secrets, to_run};
use crate::owner::Snapshot;
use crate::paths::Paths;

/// What is to be launched.
struct Wanted<'a> {
    id: ContainerId,
    command: Option<&'a v1::CommandInfo>,
    container: Option<&'a v1::ContainerInfo>,
    resources: &'a [v1::Resource],
    limits: BTreeMap<String, f64>,
}

/// Answers a call on a container.
#[expect(deprecated, reason = "deprecated calls are answered all the same")]
pub(super) async fn answer(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    call: &Call,
    media: Media,
) -> Result<Response, Response> {
    match call.r#type() {
        Type::LaunchNestedContainer => {
            let launch = call.launch_nested_container.clone().unwrap_or_default();
            let wanted = Wanted {
                id: ContainerId::from(&launch.container_id),
                command: launch.command.as_ref(),
                container: launch.container.as_ref(),
                resources: &[],
                limits: BTreeMap::new(),
            };
            launched(endpoints, subject, wanted).await
        }
        Type::LaunchContainer => {
            let launch = call.launch_container.clone().unwrap_or_default();
            let limits = launch.limits.iter();
            let wanted = Wanted {
                id: ContainerId::from(&launch.container_id),
                command: launch.command.as_ref(),
                container: launch.container.as_ref(),
                resources: &launch.resources,
                limits: limits
                    .map(|(name, limit)| (name.clone(), limit.value))
                    .collect(),
            };
            launched(endpoints, subject, wanted).await
        }
        Type::WaitNestedContainer => {
            let wait = call.wait_nested_container.clone().unwrap_or_default();
            let id = ContainerId::from(&wait.container_id);
            let answer = wait_for(endpoints, subject, &id, true).await?;
            Ok(Response::message(&answer, media))
        }
        Type::WaitContainer => {
            let wait = call.wait_container.clone().unwrap_or_default();
            let id = ContainerId::from(&wait.container_id);
            let answer = wait_for(endpoints, subject, &id, false).await?;
            Ok(Response::message(&answer, media))
        }
        Type::KillNestedContainer => {
            let kill = call.kill_nested_container.clone().unwrap_or_default();
            let id = ContainerId::from(&kill.container_id);
            kill_it(endpoints, subject, &id, kill.signal).await
        }
        Type::KillContainer => {
            let kill = call.kill_container.clone().unwrap_or_default();
            kill_it(
                endpoints,
                subject,
                &ContainerId::from(&kill.container_id),
                kill.signal,
            )
            .await
        }
        Type::RemoveNestedContainer => {
            let remove = call.remove_nested_container.clone().unwrap_or_default();
            let id = ContainerId::from(&remove.container_id);
            remove_it(endpoints, subject, &id).await
        }
        _ => {
            let remove = call.remove_container.clone().unwrap_or_default();
            remove_it(endpoints, subject, &ContainerId::from(&remove.container_id)).await
        }
    }
}

/// The executor that a container, or the outermost one around it, is of; none for those of operators.
pub(super) fn executor_of<'a>(
    snapshot: &'a Snapshot,
    id: &ContainerId,
) -> Option<(&'a Framework, &'a Executor)> {
    let mut executors = snapshot.frameworks.iter().flat_map(|framework| {
        let executors = framework.executors.iter();
        executors.map(move |executor| (framework, executor.as_ref()))
    });
    executors.find(|(_, executor)| executor.container == *id.root())
}

/// Refuses what somebody may not do to a container.
pub(super) async fn permit(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    id: &ContainerId,
    in_executor: Action,
    standalone: Action,
) -> Result<(), Response> {
    let snapshot = endpoints.snapshot().await?;
    match executor_of(&snapshot, id) {
        Some((framework, executor)) => {
            let user = executor_user(&framework.info, &executor.info);
            let object = see::object(user, &framework.info.encode_to_vec().into());
            endpoints.require_for(subject, in_executor, &object).await
        }
        None => endpoints.require(subject, standalone).await,
    }
}

/// The answer to a launch is a status without a body.
async fn launched(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    wanted: Wanted<'_>,
) -> Result<Response, Response> {
    let config = prepare(endpoints, subject, wanted, Action::LaunchNestedContainer).await?;
    let id = config.id.clone();
    match endpoints.containers.launch(config).await {
        Ok(_) => {
            endpoints.gc.schedule_after(&endpoints.containers, id);
            Ok(Response::empty(StatusCode::OK))
        }
        Err(LaunchError::Exists(_)) => Ok(Response::accepted()),
        Err(error) => Err(not_launched(endpoints, &id, &error)),
    }
}

/// Nothing of a container that did not start is kept.
pub(super) fn not_launched(
    endpoints: &Endpoints,
    id: &ContainerId,
    error: &LaunchError,
) -> Response {
    tracing::info!(container = %id, %error, "not launched");
    // One that was refused was never there.
    let _ = endpoints.containers.forget(id);
    Response::bad_request(error.to_string())
}

/// A container runs a command, or what its image says. Mesos starts one without either, which then fails.
pub(super) fn runs_something(
    command: &v1::CommandInfo,
    container: Option<&v1::ContainerInfo>,
) -> Result<(), Response> {
    let image = container.and_then(|container| container.mesos.as_ref()?.image.as_ref());
    if command.value.is_none() && image.is_none() {
        return Err(Response::bad_request(
            "Expecting 'command.value' to be present",
        ));
    }
    Ok(())
}

/// Whether somebody may launch a container, and what it is made of.
async fn prepare(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    wanted: Wanted<'_>,
    in_executor: Action,
) -> Result<ContainerConfig, Response> {
    let command = wanted.command.cloned().unwrap_or_default();
    let snapshot = endpoints.snapshot().await?;
    let owner = executor_of(&snapshot, &wanted.id);
    match owner {
        Some((framework, executor)) => {
            let object = Object {
                value: command.user.clone(),
                executor_info: executor.info.encode_to_vec().into(),
                framework_info: framework.info.encode_to_vec().into(),
                command_info: command.encode_to_vec().into(),
                ..Object::default()
            };
            endpoints.require_for(subject, in_executor, &object).await?;
        }
        None => {
            endpoints
                .require(subject, Action::LaunchStandaloneContainer)
                .await?
        }
    }
    runs_something(&command, wanted.container)?;
    let linux = wanted.container.and_then(|info| info.linux_info.as_ref());
    let bad = |message: String| Response::bad_request(message);
    let wires: Vec<_> = wanted.resources.iter().cloned().map(Wire).collect();
    let sandbox = sandbox(endpoints, &wanted.id)?;
    Ok(ContainerConfig {
        stdin: false,
        class: match wanted.id.parent {
            Some(_) => Class::Task,
            None => Class::Standalone,
        },
        user: command.user.clone(),
        environment: environment(endpoints, &command, &sandbox),
        secrets: secrets(&command),
        uris: command.uris.clone(),
        sandbox,
        resources: amounts(&wires).map_err(bad)?,
        limits: if wanted.limits.is_empty() {
            Limits::new()
        } else {
            limits(&wanted.limits)
        },
        container: wanted.container.cloned(),
        share_cgroups: linux.is_none_or(|linux| linux.share_cgroups()),
        is_command_task: false,
        checkpoint: owner.is_none_or(|(_, executor)| executor.checkpoint),
        id: wanted.id,
        command: Some(to_run(&command)),
    })
}

fn sandbox(endpoints: &Endpoints, id: &ContainerId) -> Result<PathBuf, Response> {
    let Some(parent) = &id.parent else {
        let paths = Paths::new(endpoints.settings.work_dir.clone());
        return Ok(paths.standalone().join(&*id.value));
    };
    let around = endpoints.containers.sandbox(parent);
    let around = around.map_err(|_| {
        let text = format!("Parent container {parent} does not exist");
        Response::bad_request(text)
    })?;
    Ok(around.path().join("containers").join(&*id.value))
}

fn environment(
    endpoints: &Endpoints,
    command: &v1::CommandInfo,
    sandbox: &std::path::Path,
) -> Vec<(String, String)> {
    let mut all = endpoints.settings.executor_environment.clone();
    all.push(("MESOS_SANDBOX".to_owned(), sandbox.display().to_string()));
    all.extend(crate::environment::plain(command));
    all
}

/// How a container ended, once it has.
#[expect(deprecated, reason = "deprecated calls are answered all the same")]
async fn wait_for(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    id: &ContainerId,
    is_nested_call: bool,
) -> Result<Answer, Response> {
    let (nested, standalone) = (Action::WaitNestedContainer, Action::WaitStandaloneContainer);
    permit(endpoints, subject, id, nested, standalone).await?;
    let ended = endpoints.containers.wait(id).await;
    let ended = ended.map_err(|_| unknown(id))?;
    let (state, reason, message, limitation) = limit_of(&ended);
    let mut answer = Answer::default();
    if is_nested_call {
        answer.r#type = Some(response::Type::WaitNestedContainer.into());
        answer.wait_nested_container = Some(response::WaitNestedContainer {
            exit_status: ended.status(),
            state,
            reason,
            limitation,
            message,
        });
    } else {
        answer.r#type = Some(response::Type::WaitContainer.into());
        answer.wait_container = Some(response::WaitContainer {
            exit_status: ended.status(),
            state,
            reason,
            limitation,
            message,
        });
    }
    Ok(answer)
}

type Limit = (
    Option<i32>,
    Option<i32>,
    Option<String>,
    Option<v1::TaskResourceLimitation>,
);

/// State, reason, message and resources of a container that went beyond a limit.
fn limit_of(ended: &Termination) -> Limit {
    let Some(limitation) = &ended.limitation else {
        return (None, None, None, None);
    };
    let resources = limitation.resources.iter().map(|r| r.0.clone());
    let resources = v1::TaskResourceLimitation {
        resources: resources.collect(),
    };
    (
        Some(v1::TaskState::TaskFailed.into()),
        Some(limitation.reason),
        Some(limitation.message.clone()),
        Some(resources),
    )
}

pub(super) fn unknown(id: &ContainerId) -> Response {
    let text = format!("Container {id} cannot be found");
    Response::text(StatusCode::NOT_FOUND, text)
}

async fn kill_it(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    id: &ContainerId,
    signal: Option<i32>,
) -> Result<Response, Response> {
    let (nested, standalone) = (Action::KillNestedContainer, Action::KillStandaloneContainer);
    permit(endpoints, subject, id, nested, standalone).await?;
    const SIGKILL: i32 = 9;
    let listed = endpoints.containers.list();
    let runs = listed.iter().any(|one| one.id == *id && !one.over);
    if runs
        && endpoints
            .containers
            .kill(id, signal.unwrap_or(SIGKILL))
            .is_ok()
    {
        return Ok(Response::empty(StatusCode::OK));
    }
    let text = format!("Container '{id}' cannot be found (or is already killed)");
    Err(Response::text(StatusCode::NOT_FOUND, text))
}

/// Removes what a container that is over has left, its sandbox included.
async fn remove_it(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    id: &ContainerId,
) -> Result<Response, Response> {
    let (nested, standalone) = (
        Action::RemoveNestedContainer,
        Action::RemoveStandaloneContainer,
    );
    permit(endpoints, subject, id, nested, standalone).await?;
    let failed = |text: String| Response::text(StatusCode::INTERNAL_SERVER_ERROR, text);
    let containers = endpoints.containers.list();
    if !containers.iter().any(|one| one.id == *id.root()) {
        return Err(failed("Unknown root container".to_owned()));
    }
    let snapshot = endpoints.snapshot().await?;
    if id.parent.is_none() && executor_of(&snapshot, id).is_some() {
        return Err(failed(format!("Container {id} is an executor's")));
    }
    let Ok(sandbox) = endpoints.containers.sandbox(id) else {
        return Ok(Response::empty(StatusCode::OK));
    };
    match endpoints.containers.forget(id) {
        Err(Error::NotOver(_)) => {
            return Err(failed("Container has not terminated yet".to_owned()));
        }
        Err(Error::Unknown(_)) | Ok(()) => {}
        Err(error) => return Err(failed(error.to_string())),
    }
    let removed = tokio::task::spawn_blocking(move || sandbox.remove()).await;
    if let Ok(Err(error)) = removed {
        return Err(failed(format!("Failed to remove the sandbox: {error}")));
    }
    Ok(Response::empty(StatusCode::OK))
}

/// Nested and standalone containers that run, as far as they are asked for and may be seen.
pub(super) async fn list(
    endpoints: &Endpoints,
    subject: Option<&Subject>,
    seen: &Snapshot,
    asked: call::GetContainers,
) -> Vec<response::get_containers::Container> {
    let standalone = asked.show_standalone()
        && endpoints
            .require(subject, Action::ViewStandaloneContainer)
            .await
            .is_ok();
    let roots: BTreeMap<ContainerId, Class> = endpoints
        .containers
        .list()
        .iter()
        .filter(|one| one.id.parent.is_none())
        .map(|one| (one.id.clone(), one.class))
        .collect();
    let mut shown = Vec::new();
    for one in endpoints.containers.list().iter().filter(|one| !one.over) {
        let is_nested = one.id.parent.is_some();
        let is_operators = roots.get(one.id.root()) == Some(&Class::Standalone);
        let is_seen = match is_operators {
            true => standalone && (!is_nested || asked.show_nested()),
            false => is_nested && asked.show_nested() && executor_of(seen, &one.id).is_some(),
        };
        if !is_seen {
            continue;
        }
        let usage = endpoints.containers.usage(&one.id).await;
        let status = endpoints.containers.status(&one.id).await;
        shown.push(response::get_containers::Container {
            // Without those around it, which the status names.
            container_id: v1::ContainerId {
                value: one.id.value.to_string(),
                parent: None,
            },
            container_status: status.ok(),
            resource_statistics: usage.ok(),
            ..response::get_containers::Container::default()
        });
    }
    shown
}
