//! What is wrong with a call of the operator API by itself: its type, the part that it needs, and the containers that
//! it names or describes. Order and texts are those of Mesos (`slave/validation.cpp`).

#![expect(
    clippy::result_large_err,
    reason = "a refusal is an answer like any other"
)]
#![expect(deprecated, reason = "deprecated calls are checked all the same")]

use tepui_http::Response;
use tepui_model::id::{self, ContainerId};
use tepui_proto::v1::agent::call::attach_container_input;
use tepui_proto::v1::agent::{Call, call, call::Type};
use tepui_proto::{convert, v1, validate};

/// Longest id of a container with those around it, in bytes: it becomes the name of a directory.
const LONGEST_ID: usize = 242;
/// The highest signal of Linux; 0 only asks whether there is anybody.
const LAST_SIGNAL: i32 = 64;

type Checked = Result<(), String>;

/// Refuses a call that is wrong.
pub(super) fn check(call: &Call) -> Result<(), Response> {
    checked(call).map_err(|what| {
        let text = format!("Failed to validate agent::Call: {what}");
        Response::bad_request(text)
    })
}

fn checked(call: &Call) -> Checked {
    if call.r#type.is_none() {
        return Err("Expecting 'type' to be present".to_owned());
    }
    match call.r#type() {
        Type::GetMetrics => has("get_metrics", call.get_metrics.as_ref()).map(drop),
        Type::SetLoggingLevel => {
            has("set_logging_level", call.set_logging_level.as_ref()).map(drop)
        }
        Type::ListFiles => has("list_files", call.list_files.as_ref()).map(drop),
        Type::ReadFile => has("read_file", call.read_file.as_ref()).map(drop),
        Type::AddResourceProviderConfig => {
            let part = "add_resource_provider_config";
            has(part, call.add_resource_provider_config.as_ref()).map(drop)
        }
        Type::UpdateResourceProviderConfig => {
            let part = "update_resource_provider_config";
            has(part, call.update_resource_provider_config.as_ref()).map(drop)
        }
        Type::RemoveResourceProviderConfig => {
            let part = "remove_resource_provider_config";
            has(part, call.remove_resource_provider_config.as_ref()).map(drop)
        }
        Type::MarkResourceProviderGone => {
            let part = "mark_resource_provider_gone";
            has(part, call.mark_resource_provider_gone.as_ref()).map(drop)
        }
        _ => of_containers(call),
    }
}

/// Calls on containers; nothing is wrong with any other.
fn of_containers(call: &Call) -> Checked {
    match call.r#type() {
        Type::LaunchNestedContainer => {
            let part = "launch_nested_container";
            let launch = has(part, call.launch_nested_container.as_ref())?;
            nested(part, &launch.container_id)?;
            described(part, launch.command.as_ref(), launch.container.as_ref())
        }
        Type::WaitNestedContainer => {
            let part = "wait_nested_container";
            let wait = has(part, call.wait_nested_container.as_ref())?;
            nested(part, &wait.container_id)
        }
        Type::KillNestedContainer => {
            let part = "kill_nested_container";
            let kill = has(part, call.kill_nested_container.as_ref())?;
            nested(part, &kill.container_id)?;
            signal(part, kill.signal)
        }
        Type::RemoveNestedContainer => {
            let part = "remove_nested_container";
            let remove = has(part, call.remove_nested_container.as_ref())?;
            nested(part, &remove.container_id)
        }
        Type::LaunchNestedContainerSession => {
            let part = "launch_nested_container_session";
            let launch = has(part, call.launch_nested_container_session.as_ref())?;
            nested(part, &launch.container_id)?;
            described(part, launch.command.as_ref(), launch.container.as_ref())?;
            if shares_cgroups(launch.container.as_ref()) == Some(false) {
                return Err(format!(
                    "'{part}.container.linux_info' is invalid: 'share_cgroups' cannot be set to \
                     'false' for nested container sessions"
                ));
            }
            Ok(())
        }
        Type::AttachContainerInput => {
            let part = "attach_container_input";
            input(part, has(part, call.attach_container_input.as_ref())?)
        }
        Type::AttachContainerOutput => {
            let part = "attach_container_output";
            let attach = has(part, call.attach_container_output.as_ref())?;
            any(part, &attach.container_id)
        }
        Type::LaunchContainer => {
            let part = "launch_container";
            launch(part, has(part, call.launch_container.as_ref())?)
        }
        Type::WaitContainer => {
            let part = "wait_container";
            any(part, &has(part, call.wait_container.as_ref())?.container_id)
        }
        Type::KillContainer => {
            let part = "kill_container";
            let kill = has(part, call.kill_container.as_ref())?;
            any(part, &kill.container_id)?;
            signal(part, kill.signal)
        }
        Type::RemoveContainer => {
            let part = "remove_container";
            any(
                part,
                &has(part, call.remove_container.as_ref())?.container_id,
            )
        }
        _ => Ok(()),
    }
}

fn has<'a, T>(part: &str, found: Option<&'a T>) -> Result<&'a T, String> {
    found.ok_or_else(|| format!("Expecting '{part}' to be present"))
}

/// The id of any container.
fn any(part: &str, id: &v1::ContainerId) -> Checked {
    let wrong = |what: String| Err(format!("'{part}.container_id' is invalid: {what}"));
    if let Err(what) = names(id) {
        return wrong(what);
    }
    let id = ContainerId::from(id).to_string();
    if id.len() > LONGEST_ID {
        return wrong(format!(
            "'ContainerID.value' '{id}' exceeds the maximum length ({LONGEST_ID})"
        ));
    }
    Ok(())
}

/// The parts of an id: they become names of directories, and periods stand between them.
fn names(id: &v1::ContainerId) -> Checked {
    let value = &id.value;
    id::validate(value).map_err(|error| error.to_string())?;
    if value.contains(['.', ' ']) {
        return Err(format!(
            "'ContainerID.value' '{value}' contains invalid characters"
        ));
    }
    id.parent.as_ref().map_or(Ok(()), |parent| {
        names(parent).map_err(|what| format!("'ContainerID.parent' is invalid: {what}"))
    })
}

/// The id of a container in another one.
fn nested(part: &str, id: &v1::ContainerId) -> Checked {
    any(part, id)?;
    if id.parent.is_none() {
        return Err(format!(
            "Expecting '{part}.container_id.parent' to be present"
        ));
    }
    Ok(())
}

/// What a container is made of.
fn described(
    part: &str,
    command: Option<&v1::CommandInfo>,
    container: Option<&v1::ContainerInfo>,
) -> Checked {
    let command = command.map_or(Ok(()), validate::command);
    command.map_err(|what| format!("'{part}.command' is invalid: {what}"))?;
    let container = container.map_or(Ok(()), validate::container);
    container.map_err(|what| format!("'{part}.container' is invalid: {what}"))
}

fn shares_cgroups(container: Option<&v1::ContainerInfo>) -> Option<bool> {
    container?.linux_info.as_ref()?.share_cgroups
}

fn signal(part: &str, signal: Option<i32>) -> Checked {
    if signal.is_some_and(|signal| !(0..=LAST_SIGNAL).contains(&signal)) {
        return Err(format!(
            "'{part}.signal' is invalid: Expecting a number from 0 to {LAST_SIGNAL}"
        ));
    }
    Ok(())
}

fn input(part: &str, input: &call::AttachContainerInput) -> Checked {
    use attach_container_input::Type;
    if input.r#type.is_none() {
        return Err(format!("Expecting '{part}.type' to be present"));
    }
    match input.r#type() {
        Type::Unknown => Err(format!("'{part}.type' is unknown")),
        Type::ContainerId => any(
            part,
            has(&format!("{part}.container_id"), input.container_id.as_ref())?,
        ),
        Type::ProcessIo => has(&format!("{part}.process_io"), input.process_io.as_ref()).map(drop),
    }
}

fn launch(part: &str, launch: &call::LaunchContainer) -> Checked {
    any(part, &launch.container_id)?;
    let resources = convert::resources(&launch.resources);
    let resources = resources.map_err(|error| format!("Invalid resources: {error}"))?;
    let parent = launch.container_id.parent.as_ref();
    if parent.is_none() {
        // Nobody accounts for them.
        for resource in resources.iter() {
            let is_persistent = resource
                .disk()
                .is_some_and(|disk| disk.persistence.is_some());
            let wrong = match () {
                () if resource.is_reserved() => "must be unreserved",
                () if is_persistent => "may not use persistent volumes",
                () if resource.is_revocable() => "must be non-revocable",
                () => continue,
            };
            return Err(format!("'{part}.resources' {wrong}"));
        }
    }
    described(part, launch.command.as_ref(), launch.container.as_ref())?;
    let shares_cgroups = shares_cgroups(launch.container.as_ref());
    let deep = |what| {
        Err(format!(
            "'{part}' is invalid: containers nested at the second level or greater cannot {what}"
        ))
    };
    if parent.is_some_and(|parent| parent.parent.is_some()) {
        if !launch.resources.is_empty() {
            return deep("specify resources");
        }
        if !launch.limits.is_empty() {
            return deep("specify resource limits");
        }
        if shares_cgroups == Some(false) {
            return deep("set 'share_cgroups' to 'false'");
        }
    }
    if parent.is_none() && shares_cgroups == Some(true) {
        return Err(format!(
            "'{part}' is invalid: containers without a parent cannot set 'share_cgroups' to 'true'"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tepui_proto::json as mesos_json;

    use super::*;

    /// What is said of a call on a container.
    fn said(kind: &str, part: Value) -> Result<(), String> {
        let call = json!({ "type": kind, kind.to_lowercase(): part });
        checked(&mesos_json::to_message(call.to_string().as_bytes()).expect("a call"))
    }

    #[test]
    fn containers_are_named_and_described_as_mesos_wants_it() {
        let inner = json!({ "value": "x", "parent": { "value": "c" } });
        let deep = json!({ "value": "y", "parent": inner });
        let long = "x".repeat(122);
        let long = json!({ "value": long, "parent": { "value": long } });
        let cpus = |more: Value| {
            let mut cpus = json!({ "name": "cpus", "type": "SCALAR", "scalar": { "value": 1 } });
            for (name, value) in more.as_object().expect("fields") {
                cpus[name] = value.clone();
            }
            json!([cpus])
        };
        let own = json!({ "type": "MESOS", "linux_info": { "share_cgroups": false } });
        let shared = json!({ "type": "MESOS", "linux_info": { "share_cgroups": true } });
        let variables = json!({ "variables": [{ "name": "A" }] });
        let nested = "LAUNCH_NESTED_CONTAINER";
        for (kind, part, says) in [
            (
                nested,
                json!({ "container_id": { "value": "a.b", "parent": { "value": "c" } } }),
                "'launch_nested_container.container_id' is invalid: 'ContainerID.value' 'a.b' \
                 contains invalid characters",
            ),
            (
                "WAIT_CONTAINER",
                json!({ "container_id": { "value": "x", "parent": { "value": "../x" } } }),
                "'wait_container.container_id' is invalid: 'ContainerID.parent' is invalid: \
                 '../x' contains invalid characters",
            ),
            (
                "REMOVE_NESTED_CONTAINER",
                json!({ "container_id": { "value": "x" } }),
                "Expecting 'remove_nested_container.container_id.parent' to be present",
            ),
            (
                nested,
                json!({ "container_id": inner, "command": { "value": "x", "environment": variables } }),
                "'launch_nested_container.command' is invalid: Environment variable 'A' of type \
                 'VALUE' must have a value set",
            ),
            (
                nested,
                json!({ "container_id": inner, "container": { "type": "DOCKER" } }),
                "'launch_nested_container.container' is invalid: DockerInfo 'docker' is not set \
                 for DOCKER typed ContainerInfo",
            ),
            (
                "LAUNCH_NESTED_CONTAINER_SESSION",
                json!({ "container_id": inner, "container": own }),
                "'launch_nested_container_session.container.linux_info' is invalid: \
                 'share_cgroups' cannot be set to 'false' for nested container sessions",
            ),
            (
                "KILL_CONTAINER",
                json!({ "container_id": inner, "signal": 65 }),
                "'kill_container.signal' is invalid: Expecting a number from 0 to 64",
            ),
            (
                "LAUNCH_CONTAINER",
                json!({ "container_id": { "value": "x" }, "resources": cpus(json!({ "scalar": { "value": -1 } })) }),
                "Invalid resources: Resource 'cpus:-1' is invalid: Invalid scalar resource: value <= 0",
            ),
            (
                "LAUNCH_CONTAINER",
                json!({ "container_id": { "value": "x" }, "resources": cpus(json!({ "revocable": {} })) }),
                "'launch_container.resources' must be non-revocable",
            ),
            (
                "LAUNCH_CONTAINER",
                json!({ "container_id": { "value": "x" }, "resources": cpus(json!({ "role": "r" })) }),
                "'launch_container.resources' must be unreserved",
            ),
            (
                "LAUNCH_CONTAINER",
                json!({ "container_id": deep, "resources": cpus(json!({})) }),
                "'launch_container' is invalid: containers nested at the second level or greater \
                 cannot specify resources",
            ),
            (
                "LAUNCH_CONTAINER",
                json!({ "container_id": deep, "container": own }),
                "'launch_container' is invalid: containers nested at the second level or greater \
                 cannot set 'share_cgroups' to 'false'",
            ),
            (
                "LAUNCH_CONTAINER",
                json!({ "container_id": { "value": "x" }, "container": shared }),
                "'launch_container' is invalid: containers without a parent cannot set \
                 'share_cgroups' to 'true'",
            ),
        ] {
            assert_eq!(said(kind, part.clone()), Err(says.to_owned()), "{part}");
        }
        let said_of_long = said("KILL_CONTAINER", json!({ "container_id": long }));
        let text = said_of_long.expect_err("243 bytes and more");
        assert!(text.ends_with("exceeds the maximum length (242)"), "{text}");
        for (kind, part) in [
            (nested, json!({ "container_id": inner })),
            (
                "LAUNCH_CONTAINER",
                json!({ "container_id": inner, "container": own, "resources": cpus(json!({})) }),
            ),
            (
                "KILL_CONTAINER",
                json!({ "container_id": deep, "signal": 0 }),
            ),
        ] {
            assert_eq!(said(kind, part.clone()), Ok(()), "{part}");
        }
    }
}
