//! What operations on resources are asked of the authorizer, whoever wants them.

use tepui_model::authorization::Action;
use tepui_model::id::Principal;
use tepui_model::resources::{Operation, Resource, Resources};

use crate::authorize::Object;

/// Everything that must be allowed for an operation. ACLs look at the role of what is made, and at who made what is
/// taken back.
pub(crate) fn questions(operation: &Operation) -> Vec<(Action, Object)> {
    let each = |action, all: &[Resource], object: fn(&Resource) -> Object| {
        let all = all.iter().map(move |one| (action, object(one)));
        all.collect::<Vec<_>>()
    };
    match operation {
        Operation::Reserve { source, resources } => {
            let mut all = each(Action::ReserveResources, resources, role);
            // Reservations that are replaced are taken back.
            all.extend(each(Action::UnreserveResources, source, reserver));
            all
        }
        Operation::Unreserve(resources) => each(Action::UnreserveResources, resources, reserver),
        Operation::Create(volumes) => each(Action::CreateVolume, volumes, role),
        Operation::Destroy(volumes) => each(Action::DestroyVolume, volumes, creator),
        Operation::Grow { volume, .. } | Operation::Shrink { volume, .. } => {
            vec![(Action::ResizeVolume, role(volume))]
        }
    }
}

/// What must be allowed for an agent that is reserved for roles when it registers.
pub(crate) fn reservations(resources: &Resources) -> impl Iterator<Item = (Action, Object)> {
    let reserved = resources.iter().filter(|resource| resource.is_reserved());
    reserved.map(|resource| (Action::ReserveResources, role(resource)))
}

/// What a framework may not do, as Mesos says it.
pub(crate) fn described(operation: &Operation) -> &'static str {
    match operation {
        Operation::Reserve { .. } => "reserve resources",
        Operation::Unreserve(_) => "unreserve resources",
        Operation::Create(_) => "create persistent volumes",
        Operation::Destroy(_) => "destroy persistent volumes",
        Operation::Grow { .. } => "grow a volume",
        Operation::Shrink { .. } => "shrink a volume",
    }
}

fn role(resource: &Resource) -> Object {
    let role = resource.reservation_role();
    Object::value(role.map_or("*", |role| role.as_str()))
}

fn reserver(resource: &Resource) -> Object {
    let made = resource.reservations().last();
    principal(made.and_then(|made| made.principal.as_ref()))
}

fn creator(volume: &Resource) -> Object {
    let made = volume.disk().and_then(|disk| disk.persistence.as_ref());
    principal(made.and_then(|made| made.principal.as_ref()))
}

fn principal(principal: Option<&Principal>) -> Object {
    Object {
        value: principal.map(ToString::to_string),
        ..Object::default()
    }
}
