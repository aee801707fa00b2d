//! Tasks: what is wrong with one by itself, and what one asks for that is not there yet.

use tepui_model::id;
use tepui_model::resources::{Name, Resource, Resources, Scalar};
use tepui_proto::v1::{CommandInfo, ContainerInfo, ExecutorInfo, TaskInfo, container_info};
use tepui_proto::{convert, validate};

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
    task.executor.as_ref().map_or(Ok(()), executor::of_task)?;
    if !shares_cgroups(task.container.as_ref()) {
        return Err("Only tasks in a task group may have 'share_cgroups' set to 'false'".into());
    }
    Ok(())
}

/// Whether a container is in the cgroups of the one around it, which is so unless it says otherwise.
pub(super) fn shares_cgroups(container: Option<&ContainerInfo>) -> bool {
    let linux = container.and_then(|container| container.linux_info.as_ref());
    linux.is_none_or(|linux| linux.share_cgroups())
}

/// The same for a task of a group, whose executor is the group's.
pub fn group_task(task: &TaskInfo, agent: &str) -> Checked {
    of_any(task, agent)?;
    if task.executor.is_some() {
        return Err("'TaskInfo.executor' must not be set".into());
    }
    let container = task.container.as_ref();
    if container.is_some_and(|container| container.r#type() == container_info::Type::Docker) {
        return Err("Docker ContainerInfo is not supported on the task".into());
    }
    if !task.limits.is_empty() && shares_cgroups(container) {
        return Err(
            "Resource limits may only be set for tasks within a task group when the \
             'share_cgroups' field is set to 'false'."
                .into(),
        );
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
    parts(task.command.as_ref(), task.container.as_ref(), "Task")?;
    limits(task, &all)
}

fn resources(task: &TaskInfo) -> Result<Resources, String> {
    if task.resources.is_empty() {
        return Err("Task uses no resources".into());
    }
    let all = convert::resources(&task.resources).map_err(|error| error.to_string())?;
    consistent(&all, "Task")?;
    Ok(all)
}

/// The command and the container of a task or an executor, as `whose` says.
pub(super) fn parts(
    command: Option<&CommandInfo>,
    container: Option<&ContainerInfo>,
    whose: &str,
) -> Checked {
    command.map_or(Ok(()), |command| {
        validate::command(command)
            .map_err(|error| format!("{whose}'s `CommandInfo` is invalid: {error}"))
    })?;
    container.map_or(Ok(()), |container| {
        validate::container(container)
            .map_err(|error| format!("{whose}'s `ContainerInfo` is invalid: {error}"))
    })
}

/// What tasks and executors, as `whose` says, must keep to in the resources they use.
pub(super) fn consistent(all: &Resources, whose: &str) -> Checked {
    let invalid = |what: &str| Err(format!("{whose} uses invalid resources: {what}"));
    let whole = |amount: Scalar| amount.0 % 1000 == 0;
    let gpus = all.iter().filter(|r| *r.name() == Name::GPUS);
    if !gpus.filter_map(Resource::amount).all(whole) {
        return invalid("Invalid 'gpus' resource: The 'gpus' resource must be an unsigned integer");
    }
    let ids: Vec<&str> = all.iter().filter_map(persistence_id).collect();
    for (at, id) in ids.iter().enumerate() {
        if ids[..at].contains(id) {
            return Err(format!(
                "{whose} uses duplicate persistence ID: Persistence ID '{id}' is not unique"
            ));
        }
    }
    let mut roles = all.iter().filter_map(Resource::allocation_role);
    if let Some(first) = roles.next()
        && let Some(other) = roles.find(|role| *role != first)
    {
        return Err(format!(
            "Invalid {} resources: The resources have multiple allocation roles ('{other}' and \
             '{first}') but only one allocation role is allowed",
            whose.to_lowercase()
        ));
    }
    for resource in all.iter().filter(|r| r.is_revocable()) {
        let name = resource.name();
        let mut others = all.iter().filter(|other| !other.is_revocable());
        if others.any(|other| other.name() == name) {
            return Err(format!(
                "{whose} mixes revocable and non-revocable resources: Cannot use both revocable \
                 and non-revocable '{name}' at the same time"
            ));
        }
    }
    let mut providers = all.iter().map(Resource::provider);
    if let Some(first) = providers.next()
        && providers.any(|provider| provider != first)
    {
        return invalid("The resources are from multiple providers");
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
        let (said, named, request) = match name.as_str() {
            "cpus" => ("cpu", "CPU", all.cpus()),
            "mem" => ("memory", "memory", all.mem()),
            _ => {
                return Err("Only cpus and mem may be included in a task's resource limits".into());
            }
        };
        if request.is_zero() {
            return Err(format!(
                "When a {named} limit is specified, a {named} request must also be specified"
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
