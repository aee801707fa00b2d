//! What is wrong with a command or a container by itself, in the words of Mesos (`common/validation.cpp`): masters say
//! it of tasks and executors, agents of containers that operators launch.

use crate::v1::environment::{Variable, variable};
use crate::v1::volume::{Source, source};
use crate::v1::{CommandInfo, ContainerInfo, Secret, Volume, container_info, secret};

/// A command: its environment.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn command(command: &CommandInfo) -> Result<(), String> {
    let variables = command.environment.iter().flat_map(|e| &e.variables);
    variables.into_iter().try_for_each(environment_variable)
}

fn environment_variable(found: &Variable) -> Result<(), String> {
    use variable::Type;
    let name = &found.name;
    let wrong = |what| Err(format!("Environment variable '{name}' of type {what}"));
    match (found.r#type(), &found.value, &found.secret) {
        (Type::Value, None, _) => wrong("'VALUE' must have a value set"),
        (Type::Value, _, Some(_)) => wrong("'VALUE' must not have a secret set"),
        (Type::Value, Some(_), None) => Ok(()),
        (Type::Secret, _, None) => wrong("'SECRET' must have a secret set"),
        (Type::Secret, Some(_), _) => wrong("'SECRET' must not have a value set"),
        (Type::Secret, None, Some(found)) => {
            kept(found).map_err(|error| {
                format!("Environment variable '{name}' specifies an invalid secret: {error}")
            })?;
            if found.value.iter().any(|value| value.data.contains(&0)) {
                return Err(format!(
                    "Environment variable '{name}' specifies a secret containing null bytes, which \
                     is not allowed in the environment"
                ));
            }
            Ok(())
        }
        (Type::Unknown, ..) => Err("Environment variable of type 'UNKNOWN' is not allowed".into()),
    }
}

/// A secret has either a value or the name of one.
fn kept(found: &Secret) -> Result<(), String> {
    match (found.r#type(), &found.reference, &found.value) {
        (secret::Type::Reference, None, _) => {
            Err("Secret of type REFERENCE must have the 'reference' field set".into())
        }
        (secret::Type::Reference, Some(reference), Some(_)) => Err(format!(
            "Secret '{}' of type REFERENCE must not have the 'value' field set",
            reference.name
        )),
        (secret::Type::Value, _, None) => {
            Err("Secret of type VALUE must have the 'value' field set".into())
        }
        (secret::Type::Value, Some(_), Some(_)) => {
            Err("Secret of type VALUE must not have the 'reference' field set".into())
        }
        _ => Ok(()),
    }
}

/// A container: its volumes, and what Docker needs.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn container(container: &ContainerInfo) -> Result<(), String> {
    for found in &container.volumes {
        volume(found).map_err(|error| format!("Invalid volume: {error}"))?;
    }
    if container.r#type() != container_info::Type::Docker {
        return Ok(());
    }
    let Some(docker) = &container.docker else {
        return Err("DockerInfo 'docker' is not set for DOCKER typed ContainerInfo".into());
    };
    // Containers are found again by their names.
    if docker.parameters.iter().any(|one| one.key == "name") {
        return Err("Parameter in DockerInfo must not be 'name'".into());
    }
    Ok(())
}

fn volume(volume: &Volume) -> Result<(), String> {
    let said = [
        volume.host_path.is_some(),
        volume.image.is_some(),
        volume.source.is_some(),
    ];
    if said.into_iter().filter(|said| *said).count() != 1 {
        return Err("Only one of them should be set: 'host_path', 'image' and 'source'".into());
    }
    volume.source.as_ref().map_or(Ok(()), volume_source)
}

fn volume_source(found: &Source) -> Result<(), String> {
    use source::Type;
    let (field, kind, is_set) = match found.r#type() {
        Type::DockerVolume => (
            "docker_volume",
            "DOCKER_VOLUME",
            found.docker_volume.is_some(),
        ),
        Type::HostPath => ("host_path", "HOST_PATH", found.host_path.is_some()),
        Type::SandboxPath => ("sandbox_path", "SANDBOX_PATH", found.sandbox_path.is_some()),
        Type::Secret => ("secret", "SECRET", found.secret.is_some()),
        Type::CsiVolume => {
            let csi = found.csi_volume.as_ref();
            if csi.is_some_and(|csi| csi.static_provisioning.is_none()) {
                return Err(
                    "'source.csi_volume.static_provisioning' is not set for CSI volume".into(),
                );
            }
            ("csi_volume", "CSI", csi.is_some())
        }
        Type::Unknown => return Err("'source.type' is unknown".into()),
    };
    if is_set {
        return Ok(());
    }
    Err(format!("'source.{field}' is not set for {kind} volume"))
}
