//! Operations of operators on an agent's resources: reservations and persistent volumes.
//!
//! Wrong ones are refused with the words of Mesos 1.11; there is nothing that carries out right ones yet.

use tepui_http::{Response, StatusCode};
use tepui_model::authorization::Action;
use tepui_model::id::{AgentId, Principal};
use tepui_model::resources::{Resource, Resources};
use tepui_proto::v1::{self, master};
use tepui_view::AgentRow;

use super::Caller;
use crate::authorize::Object;
use crate::refusal::Refusal;

/// What is done to resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Reserve,
    Unreserve,
    Create,
    Destroy,
    Grow,
    Shrink,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Reserve => "RESERVE",
            Operation::Unreserve => "UNRESERVE",
            Operation::Create => "CREATE",
            Operation::Destroy => "DESTROY",
            Operation::Grow => "GROW_VOLUME",
            Operation::Shrink => "SHRINK_VOLUME",
        }
    }

    fn action(self) -> Action {
        match self {
            Operation::Reserve => Action::ReserveResources,
            Operation::Unreserve => Action::UnreserveResources,
            Operation::Create => Action::CreateVolume,
            Operation::Destroy => Action::DestroyVolume,
            Operation::Grow | Operation::Shrink => Action::ResizeVolume,
        }
    }

    /// What ACLs look at: the role, or who made what is taken back.
    fn object(self, resource: &Resource) -> Object {
        let principal = |principal: Option<&Principal>| Object {
            value: principal.map(ToString::to_string),
            ..Object::default()
        };
        match self {
            Operation::Unreserve => {
                let made = resource.reservations().last();
                principal(made.and_then(|made| made.principal.as_ref()))
            }
            Operation::Destroy => {
                let made = resource.disk().and_then(|disk| disk.persistence.as_ref());
                principal(made.and_then(|made| made.principal.as_ref()))
            }
            _ => {
                let role = resource.reservation_role();
                Object::value(role.map_or("*", |role| role.as_str()))
            }
        }
    }

    /// What must be free for it.
    fn taken(self, resource: &Resource) -> Resource {
        match self {
            Operation::Reserve => resource.clone().pop_reservation(),
            Operation::Create => resource.clone().with_disk(None),
            _ => resource.clone(),
        }
    }
}

/// An operation as an operator asks for it.
pub(crate) struct Asked {
    pub(crate) operation: Operation,
    pub(crate) agent: String,
    pub(crate) resources: Vec<v1::Resource>,
}

impl Asked {
    /// The operation of a v1 call; none if it is another call.
    pub(crate) fn of(call: &mut master::Call) -> Option<Asked> {
        let id = |id: v1::AgentId| id.value;
        let (operation, agent, resources) = if let Some(call) = call.reserve_resources.take() {
            (Operation::Reserve, id(call.agent_id), call.resources)
        } else if let Some(call) = call.unreserve_resources.take() {
            (Operation::Unreserve, id(call.agent_id), call.resources)
        } else if let Some(call) = call.create_volumes.take() {
            (Operation::Create, id(call.agent_id), call.volumes)
        } else if let Some(call) = call.destroy_volumes.take() {
            (Operation::Destroy, id(call.agent_id), call.volumes)
        } else if let Some(call) = call.grow_volume.take() {
            let agent = call.agent_id.map(id).unwrap_or_default();
            (Operation::Grow, agent, vec![call.volume, call.addition])
        } else {
            let call = call.shrink_volume.take()?;
            let agent = call.agent_id.map(id).unwrap_or_default();
            (Operation::Shrink, agent, vec![call.volume])
        };
        Some(Asked {
            operation,
            agent,
            resources,
        })
    }
}

impl Caller<'_> {
    /// Refuses what is wrong. `prefix` stands before what is wrong with the resources by themselves.
    pub(crate) async fn operate(&self, asked: Asked, prefix: &str) -> Result<Response, Refusal> {
        let Asked {
            operation,
            agent,
            resources,
        } = asked;
        let resources: Vec<Resource> = resources
            .iter()
            .map(Resource::try_from)
            .collect::<Result<_, _>>()
            .map_err(|error| Refusal::bad_request(format!("{prefix}{error}")))?;
        let view = self.owner.view().await?;
        let id = AgentId::from(agent);
        let agent = view
            .agents
            .iter()
            .find(|row| row.id == id)
            .ok_or_else(|| Refusal::bad_request("No agent found with specified ID"))?;
        check(operation, &resources, agent).map_err(Refusal::bad_request)?;
        let objects: Vec<Object> = resources
            .iter()
            .map(|resource| operation.object(resource))
            .collect();
        self.require_all(operation.action(), objects).await?;
        let needed: Resources = resources
            .iter()
            .map(|resource| operation.taken(resource))
            .collect();
        // Offers are taken back for an operation; what is used stays.
        let mut free = agent.total.clone();
        free -= &agent.used.unallocate();
        if !free.contains(&needed) {
            let text = format!("{free} does not contain {needed}");
            return Err(Refusal::new(StatusCode::CONFLICT, text));
        }
        let name = operation.name();
        let text = format!("{name} is not supported yet: agents cannot carry out operations");
        Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, text))
    }
}

fn check(operation: Operation, resources: &[Resource], agent: &AgentRow) -> Result<(), String> {
    let invalid = |why: String| {
        let (name, id, pid, host) = (operation.name(), &agent.id, &agent.pid, &agent.hostname);
        format!("Invalid {name} operation on agent {id} at {pid} ({host}): {why}")
    };
    if resources.is_empty() {
        return Err(invalid("No resources specified".to_owned()));
    }
    for resource in resources {
        match operation {
            Operation::Reserve | Operation::Unreserve => {
                if !resource.is_dynamically_reserved() {
                    let why = format!("Resource {resource} is not dynamically reserved");
                    return Err(invalid(why));
                }
                if resource.is_persistent_volume() {
                    let why =
                        format!("A persistent volume {resource} cannot be reserved or unreserved");
                    return Err(invalid(why));
                }
            }
            Operation::Create | Operation::Destroy => check_volume(resource).map_err(invalid)?,
            Operation::Grow | Operation::Shrink => {}
        }
    }
    match operation {
        Operation::Create => check_new(resources, agent).map_err(invalid),
        Operation::Destroy
            if !resources
                .iter()
                .all(|volume| agent.total.contains_one(volume)) =>
        {
            Err("Invalid DESTROY operation: Persistent volumes not found".to_owned())
        }
        Operation::Grow | Operation::Shrink => check_volume(&resources[0]).map_err(invalid),
        _ => Ok(()),
    }
}

fn check_volume(volume: &Resource) -> Result<(), String> {
    if !volume.is_persistent_volume() {
        return Err(format!("Resource {volume} is not a persistent volume"));
    }
    if !volume.is_reserved() {
        return Err(format!("Persistent volume {volume} is not reserved"));
    }
    Ok(())
}

/// Volumes of one role have different ids on an agent.
fn check_new(volumes: &[Resource], agent: &AgentRow) -> Result<(), String> {
    let known = agent.total.persistent_volumes();
    let name = |volume: &Resource| {
        let id = volume.disk()?.persistence.as_ref()?.id.clone();
        Some((volume.reservation_role().cloned(), id))
    };
    let mut names: Vec<_> = known.iter().filter_map(name).collect();
    for volume in volumes {
        if let Some(name) = name(volume) {
            if names.contains(&name) {
                return Err(format!("Persistence ID '{}' is not unique", name.1));
            }
            names.push(name);
        }
    }
    Ok(())
}
