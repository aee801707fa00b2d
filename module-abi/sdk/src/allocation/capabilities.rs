//! What frameworks and agents have to know before one is offered from the other.

use tepui_model::allocation::{Agent, Framework};
use tepui_model::id::Role;
use tepui_model::resources::{Name, Resource};

fn has(capabilities: &[String], name: &str) -> bool {
    capabilities.iter().any(|capability| capability == name)
}

/// A framework, and what its capabilities say, which is asked with each offer.
#[derive(Debug)]
pub(super) struct FrameworkState {
    pub(super) framework: Framework,
    pub(super) can: Can,
}

impl FrameworkState {
    pub(super) fn new(framework: Framework) -> Self {
        let can = Can::of(&framework.capabilities);
        Self { framework, can }
    }
}

/// What a framework can handle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Can {
    many_roles: bool,
    regions: bool,
    gpus: bool,
    revocable: bool,
    shared: bool,
    refined: bool,
}

impl Can {
    fn of(capabilities: &[String]) -> Self {
        let has = |name| has(capabilities, name);
        Self {
            many_roles: has("MULTI_ROLE"),
            regions: has("REGION_AWARE"),
            gpus: has("GPU_RESOURCES"),
            revocable: has("REVOCABLE_RESOURCES"),
            shared: has("SHARED_RESOURCES"),
            refined: has("RESERVATION_REFINEMENT"),
        }
    }
}

/// What an agent knows, and what it asks of frameworks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asks {
    knows_many_roles: bool,
    knows_the_tree: bool,
    remote: bool,
    gpus: bool,
}

impl Asks {
    pub(super) fn of(agent: &Agent) -> Self {
        Self {
            knows_many_roles: has(&agent.capabilities, "MULTI_ROLE"),
            knows_the_tree: has(&agent.capabilities, "HIERARCHICAL_ROLE"),
            remote: agent.remote,
            gpus: agent.total.scalar(&Name::GPUS).0 > 0,
        }
    }
}

/// The capability that framework or agent lacks, if nothing of the agent may be offered to it.
pub(super) fn obstacle(can: Can, asks: Asks, role: &Role) -> Option<&'static str> {
    if can.many_roles && !asks.knows_many_roles {
        return Some("MULTI_ROLE (agent)");
    }
    if !asks.knows_the_tree && role.as_str().contains('/') {
        return Some("HIERARCHICAL_ROLE (agent)");
    }
    if asks.remote && !can.regions {
        return Some("REGION_AWARE");
    }
    (asks.gpus && !can.gpus).then_some("GPU_RESOURCES")
}

/// Whether the framework's capabilities let it see the resource.
pub(super) fn sees(can: Can, resource: &Resource) -> bool {
    (can.revocable || !resource.is_revocable())
        && (can.shared || !resource.is_shared())
        && (can.refined || !resource.is_refined())
}
