//! Operations on resources: what is wrong with one, for whoever asks.

use std::collections::BTreeSet;

use tepui_model::id;
use tepui_model::resources::{Disk, Operation, Resource, Resources, Scalar, SourceKind};

use super::Checked;

/// Who asks for an operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// Principal that reservations and volumes must name, where one is known.
    pub principal: Option<&'a str>,
    /// The framework's id, and whether it is capable of SHARED_RESOURCES; none for an operator.
    pub framework: Option<(&'a str, bool)>,
}

/// All that can be wrong with an operation on an agent that has `total`, of which tasks use `used`. Whether what it
/// takes is there is not looked at, but for volumes. The words are those of Mesos where they are recorded.
pub fn operation(
    operation: &Operation,
    asker: Asker<'_>,
    total: &Resources,
    used: &Resources,
) -> Checked {
    match operation {
        Operation::Reserve { source, resources } => {
            some(resources)?;
            resources.iter().try_for_each(|r| reserve(r, asker))?;
            source_of(source, resources)
        }
        Operation::Unreserve(resources) => {
            some(resources)?;
            resources.iter().try_for_each(unreserve)
        }
        Operation::Create(volumes) => {
            some(volumes)?;
            volumes.iter().try_for_each(|v| create(v, asker))?;
            unique(volumes, total)
        }
        Operation::Destroy(volumes) => {
            some(volumes)?;
            volumes.iter().try_for_each(|v| destroy(v, total, used))
        }
        Operation::Grow { volume, addition } => grow(volume, addition),
        Operation::Shrink { volume, subtract } => shrink(volume, *subtract),
    }
}

fn some(resources: &[Resource]) -> Checked {
    match resources.is_empty() {
        true => Err("No resources specified".into()),
        false => Ok(()),
    }
}

fn reserve(resource: &Resource, asker: Asker<'_>) -> Checked {
    let Some(top) = resource.reservations().last().filter(|top| top.dynamic) else {
        return Err(format!("Resource {resource} is not dynamically reserved"));
    };
    match resource.allocation_role() {
        Some(role) if *role != top.role => {
            return Err(format!(
                "A reserve operation was attempted for a resource with role '{}', but the resource was allocated to role '{role}'",
                top.role
            ));
        }
        None if asker.framework.is_some() => {
            return Err(format!("Resource {resource} is not allocated"));
        }
        Some(role) if asker.framework.is_none() => {
            return Err(format!(
                "A reserve operation was attempted for a resource that is allocated to role '{role}'"
            ));
        }
        _ => {}
    }
    if let Some(principal) = asker.principal {
        match top.principal.as_ref().map(|own| own.as_str()) {
            None => {
                return Err(format!(
                    "A reserve operation was attempted by principal '{principal}', but there is a reserved resource in the request with no principal set"
                ));
            }
            Some(own) if own != principal => {
                return Err(format!(
                    "A reserve operation was attempted by authenticated principal '{principal}', which does not match a reserved resource in the request with principal '{own}'"
                ));
            }
            Some(_) => {}
        }
    }
    match resource.is_persistent_volume() {
        true => Err(format!(
            "A persistent volume {resource} must already be reserved"
        )),
        false => Ok(()),
    }
}

/// Reservations are replaced by others of the same resources.
fn source_of(source: &[Resource], resources: &[Resource]) -> Checked {
    if source.is_empty() {
        return Ok(());
    }
    let bare = |all: &[Resource]| all.iter().cloned().collect::<Resources>().to_unreserved();
    if source.iter().any(Resource::is_persistent_volume) {
        return Err("The reservation of a persistent volume cannot be replaced".into());
    }
    match bare(source) == bare(resources) {
        true => Ok(()),
        false => Err(
            "Expecting 'source' and 'resources' of a reserve operation to differ in their reservations only".into(),
        ),
    }
}

fn unreserve(resource: &Resource) -> Checked {
    if !resource.is_dynamically_reserved() {
        return Err(format!("Resource {resource} is not dynamically reserved"));
    }
    match resource.is_persistent_volume() {
        true => Err(format!(
            "A dynamically reserved persistent volume {resource} cannot be unreserved directly. Please destroy the persistent volume first then unreserve the resource"
        )),
        false => Ok(()),
    }
}

fn create(volume: &Resource, asker: Asker<'_>) -> Checked {
    let invalid = |why: &str| Err(format!("Invalid resources: Invalid DiskInfo: {why}"));
    let Some((disk, persistence)) = persistence(volume) else {
        return Err(format!("Resource {volume} is not a persistent volume"));
    };
    if !volume.is_reserved() {
        return invalid("Persistent volumes cannot be created from unreserved resources");
    }
    if volume.is_revocable() {
        return invalid("Persistent volumes cannot be created from revocable resources");
    }
    if let Err(error) = id::validate(&persistence.id) {
        return invalid(&format!("Invalid persistence ID: {error}"));
    }
    let Some(how) = &disk.volume else {
        return invalid("Expecting 'volume' to be set for persistent volume");
    };
    if how.host_path.is_some() {
        return invalid("Expecting 'host_path' to be unset for persistent volume");
    }
    if how.read_only {
        return invalid("Read-only persistent volume not supported");
    }
    if let Some(principal) = asker.principal {
        let own = persistence.principal.as_ref().map(|own| own.as_str());
        if own != Some(principal) {
            let said = own.map_or("no principal set".to_owned(), |own| {
                format!("principal '{own}'")
            });
            return Err(format!(
                "A create volume operation was attempted by principal '{principal}', but there is a volume in the request with {said}"
            ));
        }
    }
    match asker.framework {
        Some((id, false)) if volume.is_shared() => Err(format!(
            "Create volume operation has been attempted by framework '{id}' with no SHARED_RESOURCES capability"
        )),
        _ => Ok(()),
    }
}

fn persistence(volume: &Resource) -> Option<(&Disk, &tepui_model::resources::Persistence)> {
    let disk = volume.disk()?;
    Some((disk, disk.persistence.as_ref()?))
}

/// Volumes of one role have different ids on an agent.
fn unique(volumes: &[Resource], total: &Resources) -> Checked {
    let name = |volume: &Resource| {
        let id = persistence(volume)?.1.id.clone();
        Some((volume.reservation_role().cloned(), id))
    };
    let known = total.persistent_volumes();
    let mut names: BTreeSet<_> = known.iter().filter_map(name).collect();
    for name in volumes.iter().filter_map(name) {
        let id = name.1.clone();
        if !names.insert(name) {
            return Err(format!("Persistence ID '{id}' is not unique"));
        }
    }
    Ok(())
}

fn destroy(volume: &Resource, total: &Resources, used: &Resources) -> Checked {
    if !volume.is_persistent_volume() {
        return Err(format!("Resource {volume} is not a persistent volume"));
    }
    let bare = volume.clone().unallocated();
    if !total.contains_one(&bare) {
        return Err("Persistent volumes not found".into());
    }
    let same = |other: &Resource| other.clone().unallocated() == bare;
    match used.iter().any(same) {
        true => Err("Persistent volumes in use".into()),
        false => Ok(()),
    }
}

/// What a volume that is to be resized must be.
fn resizable(volume: &Resource) -> Checked {
    let Some((disk, _)) = persistence(volume) else {
        return Err(format!("Volume {volume} is not persistent"));
    };
    if volume.is_shared() {
        return Err(format!(
            "Shared persistent volume {volume} cannot be resized"
        ));
    }
    if volume.provider().is_some() {
        return Err(format!(
            "Volume {volume} of a resource provider cannot be resized"
        ));
    }
    match &disk.source {
        Some(source) if source.kind != SourceKind::Path => Err(format!(
            "Volume {volume} on a {} disk cannot be resized",
            source.kind.as_str()
        )),
        _ => Ok(()),
    }
}

fn grow(volume: &Resource, addition: &Resource) -> Checked {
    resizable(volume)?;
    if addition.is_empty() {
        return Err("The size of 'addition' must be greater than zero".into());
    }
    let same = addition.of_value(volume.value().clone());
    match same == volume.clone().without_volume() {
        true => Ok(()),
        false => Err(format!(
            "Incompatible resources in the 'volume' and 'addition' fields: {addition} cannot be added to {volume}"
        )),
    }
}

fn shrink(volume: &Resource, subtract: Scalar) -> Checked {
    resizable(volume)?;
    if subtract.0 <= 0 {
        return Err("Value of 'subtract' must be greater than zero".into());
    }
    match volume.amount().is_some_and(|size| size > subtract) {
        true => Ok(()),
        false => Err(format!(
            "Value of 'subtract' {subtract} must be less than the size of the volume {volume}"
        )),
    }
}
