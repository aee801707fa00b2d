//! Tasks: what is wrong with one by itself, and what one asks for that is not there yet.

use tepui_model::id;
use tepui_model::resources::{Name, Resource, Resources, Scalar};
use tepui_proto::convert;
use tepui_proto::v1::{CommandInfo, ContainerInfo, ExecutorInfo, TaskInfo, container_info};

use super::{Checked, checks, executor};

/// All that can be wrong with a task without the state, in Mesos' order. `agent` is the agent of
/// the offer.
pub fn task(task: &TaskInfo, agent: &str) -> Checked {
    of_any(task, agent)?;
    if task.command.is_some() == task.executor.is_some() {
        return Err(
            "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
                .into(),
        );
    }
    task.executor.as_ref().map_or(Ok(()), executor::of_task)
}

/// The same for a task of a group, whose executor is the group's.
pub fn group_task(task: &TaskInfo, agent: &str) -> Checked {
    of_any(task, agent)?;
    if task.executor.is_some() {
        return Err("'TaskInfo.executor' must not be set".into());
    }
    let Some(container) = &task.container else {
        return Ok(());
    };
    if container.r#type() == container_info::Type::Docker {
        return Err("Docker ContainerInfo is not supported on the task".into());
    }
    if !container.network_infos.is_empty() {
        return Err("NetworkInfos must not be set on the task".into());
    }
    Ok(())
}

/// What is wrong with a task whoever executes it.
fn of_any(task: &TaskInfo, agent: &str) -> Checked {
    id::validate(&task.task_id.value).map_err(|error| error.to_string())?;
    if task.agent_id.value != agent {
        return Err(format!(
            "Task uses invalid agent {} while agent {agent} is expected",
            task.agent_id.value
        ));
    }
    let grace = task
        .kill_policy
        .as_ref()
        .and_then(|policy| policy.grace_period.as_ref());
    if grace.is_some_and(|grace| grace.nanoseconds < 0) {
        return Err("Task's 'kill_policy.grace_period' must be non-negative".into());
    }
    if task
        .max_completion_time
        .as_ref()
        .is_some_and(|time| time.nanoseconds < 0)
    {
        return Err("Task's `max_completion_time` must be non-negative".into());
    }
    if let Some(check) = &task.check {
        checks::check(check).map_err(|error| format!("Task uses invalid check: {error}"))?;
    }
    if let Some(check) = &task.health_check {
        checks::health_check(check)
            .map_err(|error| format!("Task uses invalid health check: {error}"))?;
    }
    let all = resources(task)?;
    limits(task, &all)?;
    if let Some(command) = &task.command {
        checks::command(command)?;
    }
    task.container.as_ref().map_or(Ok(()), container_info)
}

fn resources(task: &TaskInfo) -> Result<Resources, String> {
    if task.resources.is_empty() {
        return Err("Task uses no resources".into());
    }
    let all = convert::resources(&task.resources).map_err(|error| error.to_string())?;
    consistent(&all).map_err(|error| format!("Task uses invalid resources: {error}"))?;
    Ok(all)
}

/// What tasks and executors must keep to in the resources they use.
pub(super) fn consistent(all: &Resources) -> Checked {
    let whole = |amount: Scalar| amount.0 % 1000 == 0;
    let gpus = all.iter().filter(|r| *r.name() == Name::GPUS);
    if !gpus.filter_map(Resource::amount).all(whole) {
        return Err("The 'gpus' resource must be an unsigned integer".into());
    }
    let ids: Vec<&str> = all.iter().filter_map(persistence_id).collect();
    for (at, id) in ids.iter().enumerate() {
        if ids[..at].contains(id) {
            return Err(format!("Persistence ID '{id}' is not unique"));
        }
    }
    for resource in all.iter().filter(|r| r.is_revocable()) {
        let name = resource.name();
        if all
            .iter()
            .any(|other| !other.is_revocable() && other.name() == name)
        {
            return Err(format!(
                "Cannot use both revocable and non-revocable '{name}' at the same time"
            ));
        }
    }
    let mut roles = all.iter().filter_map(Resource::allocation_role);
    if let Some(first) = roles.next()
        && roles.any(|role| role != first)
    {
        return Err("The resources have multiple allocation roles".into());
    }
    let mut providers = all.iter().map(Resource::provider);
    if let Some(first) = providers.next()
        && providers.any(|provider| provider != first)
    {
        return Err("The resources are from multiple providers".into());
    }
    Ok(())
}

fn persistence_id(resource: &Resource) -> Option<&str> {
    let disk = resource.disk()?;
    disk.persistence
        .as_ref()
        .map(|persistence| &*persistence.id)
}

fn limits(task: &TaskInfo, all: &Resources) -> Checked {
    for (name, limit) in &task.limits {
        let (said, request) = match name.as_str() {
            "cpus" => ("cpu", all.cpus()),
            "mem" => ("memory", all.mem()),
            other => {
                return Err(format!(
                    "Limits can only be set for 'cpus' and 'mem', not for '{other}'"
                ));
            }
        };
        if request.is_zero() {
            return Err(format!(
                "A {said} limit may only be set along with a {said} request"
            ));
        }
        // Infinity is a limit; what is not a number is below all.
        if limit.value.is_nan() || Scalar::from_f64(limit.value) < request {
            return Err(format!(
                "The {said} limit must be greater than or equal to the {said} request"
            ));
        }
    }
    Ok(())
}

fn container_info(container: &ContainerInfo) -> Checked {
    match container.r#type() {
        container_info::Type::Docker if container.docker.is_none() => {
            Err("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo".into())
        }
        _ => Ok(()),
    }
}

/// The first thing that a valid task asks for and that is not there yet: it is refused rather than
/// run without it.
pub fn unsupported(task: &TaskInfo) -> Checked {
    let found = unsupported_field(task);
    found.map_or(Ok(()), |field| {
        Err(format!("Task uses '{field}', which is not supported yet"))
    })
}

fn unsupported_field(task: &TaskInfo) -> Option<&'static str> {
    if task.executor.is_some() {
        // What else it asks for is its executor's business.
        return None;
    }
    let of_command = task
        .command
        .as_ref()
        .and_then(|command| in_command(command, task.container.as_ref()));
    of_command.or_else(|| task.container.as_ref().and_then(in_container))
}

/// The same for an executor.
pub fn unsupported_executor(info: &ExecutorInfo) -> Checked {
    let of_command = info
        .command
        .as_ref()
        .and_then(|command| in_command(command, info.container.as_ref()));
    let field = of_command.or_else(|| info.container.as_ref().and_then(in_container));
    field.map_or(Ok(()), |field| {
        Err(format!(
            "Executor uses '{field}', which is not supported yet"
        ))
    })
}

fn in_command(command: &CommandInfo, container: Option<&ContainerInfo>) -> Option<&'static str> {
    let image = container.and_then(|c| c.mesos.as_ref()?.image.as_ref());
    let mut variables = command.environment.iter().flat_map(|e| &e.variables);
    if variables.any(|v| v.secret.as_ref().is_some_and(|s| s.reference.is_some())) {
        Some("command.environment.variables.secret.reference")
    } else if command.value.is_none() && image.is_none() {
        // An image says what to run. Mesos starts such a task also without one, whose executor then dies.
        Some("command without a value")
    } else {
        None
    }
}

fn in_container(container: &ContainerInfo) -> Option<&'static str> {
    let docker = container.docker.is_some() || container.r#type() == container_info::Type::Docker;
    let fields = [
        (docker, "container.docker"),
        (container.hostname.is_some(), "container.hostname"),
        (
            !container.network_infos.is_empty(),
            "container.network_infos",
        ),
    ];
    let found = fields.iter().find(|(asked, _)| *asked);
    found.map(|(_, field)| *field)
}
