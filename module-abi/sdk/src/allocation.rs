//! What an allocator sees of the cluster, and how it proposes.
//!
//! [`Cluster`] is kept from the facts and answers what is the same for every policy: what is free, who may be
//! offered what, who has what. It has no policy of its own.

mod limits;
mod proposals;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tepui_model::allocation::{
    Agent, AgentKey, Fact, FilterScope, Framework, FrameworkKey, Holding, Proposal, Quota,
    Unavailability,
};
use tepui_model::id::Role;
use tepui_model::resources::{Name, Quantities, Resource, Resources};
use tepui_model::time::Mono;

use limits::Amounts;
pub use proposals::Proposals;

/// Number of a role in one [`Cluster`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoleKey(pub u32);

/// A framework in one of its roles: who offers are made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// The framework.
    pub framework: FrameworkKey,
    /// The role.
    pub role: RoleKey,
}

#[derive(Debug)]
struct AgentState {
    agent: Agent,
    taken: Resources,
    /// Total less taken. What can be shared is free however many have it.
    free: Resources,
    /// Scalars by who has them.
    held: BTreeMap<Client, Amounts>,
    /// More is taken than there is, so `free` cannot be kept by adding and taking away.
    over: bool,
    unavailable: Option<Unavailability>,
}

impl AgentState {
    fn recount(&mut self) {
        let taken = self.taken.non_shared();
        self.over = !self.agent.total.contains(&taken);
        self.free = &self.agent.total - &taken;
    }
}

#[derive(Debug)]
struct RoleState {
    role: Role,
    weight: u64,
    quota: Quota,
    taken: Amounts,
    /// What is reserved to it on all agents.
    reserved: Quantities,
}

#[derive(Debug)]
struct Filter {
    resources: Resources,
    until: Mono,
}

/// The cluster as the facts tell it.
#[derive(Debug, Default)]
pub struct Cluster {
    agents: BTreeMap<AgentKey, AgentState>,
    frameworks: BTreeMap<FrameworkKey, Framework>,
    roles: Vec<RoleState>,
    role_keys: BTreeMap<Role, RoleKey>,
    /// Those who want offers, by framework and role.
    clients: Vec<Client>,
    /// Scalars in the hands of each client; also of such as want no offers now.
    taken: BTreeMap<Client, Quantities>,
    total: Quantities,
    /// What could be given to any role: free, unreserved and not revocable.
    room: Quantities,
    filters: BTreeMap<(Client, AgentKey), Vec<Filter>>,
    minimum: Vec<Quantities>,
    now: Mono,
}

/// Why nothing of an agent may be offered to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOffered {
    /// The agent or the framework is not there, or may not be offered from or to now.
    Inactive,
    /// The agent has what only frameworks with this capability may see.
    Capability(&'static str),
    /// Nothing is free that the role may have.
    NothingFree,
    /// Less than the least amount worth offering.
    BelowMinimum,
    /// The framework refused this, and its filter still holds.
    Filtered,
}

impl fmt::Display for NotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inactive => f.write_str("agent or framework is not active"),
            Self::Capability(name) => write!(f, "needs the capability {name}"),
            Self::NothingFree => f.write_str("nothing is free for the role"),
            Self::BelowMinimum => f.write_str("less is free than the minimum to offer"),
            Self::Filtered => f.write_str("refused by the framework, until its filter ends"),
        }
    }
}

impl Cluster {
    /// Those who want offers: connected frameworks in each role they did not suppress, in the order of their numbers.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// All agents, in the order of their numbers.
    pub fn agents(&self) -> impl Iterator<Item = (&AgentKey, &Agent)> {
        self.agents.iter().map(|(key, state)| (key, &state.agent))
    }

    /// An agent.
    pub fn agent(&self, key: AgentKey) -> Option<&Agent> {
        self.agents.get(&key).map(|state| &state.agent)
    }

    /// When an agent will not be there, if that is known.
    pub fn unavailable(&self, key: AgentKey) -> Option<Unavailability> {
        self.agents.get(&key)?.unavailable
    }

    /// A framework.
    pub fn framework(&self, key: FrameworkKey) -> Option<&Framework> {
        self.frameworks.get(&key)
    }

    /// All frameworks, in the order of their numbers.
    pub fn frameworks(&self) -> impl Iterator<Item = &Framework> {
        self.frameworks.values()
    }

    /// Name of a role.
    pub fn role(&self, key: RoleKey) -> &Role {
        &self.roles[key.0 as usize].role
    }

    /// Number of a role, if the facts named it.
    pub fn role_key(&self, role: &Role) -> Option<RoleKey> {
        self.role_keys.get(role).copied()
    }

    /// All roles that the facts named.
    pub fn roles(&self) -> impl Iterator<Item = (RoleKey, &Role)> {
        let roles = self.role_keys.iter();
        roles.map(|(role, key)| (*key, role))
    }

    /// Weight in thousandths of a role by its name, also of one that no fact named.
    pub fn weight_of(&self, role: &str) -> u64 {
        let key = self.role_keys.get(role);
        key.map_or(1000, |key| self.weight(*key))
    }

    /// Weight of a role in thousandths.
    pub fn weight(&self, key: RoleKey) -> u64 {
        self.roles[key.0 as usize].weight
    }

    /// Quota of a role. It is set at the top of the tree of roles; limits are kept by [`Proposals::all_free`].
    pub fn quota(&self, key: RoleKey) -> &Quota {
        &self.roles[key.0 as usize].quota
    }

    /// Scalars of all agents together.
    pub fn total(&self) -> &Quantities {
        &self.total
    }

    /// Scalars that are free for any role. Those of agents that may not be offered from count, too, as in Mesos.
    pub fn room(&self) -> &Quantities {
        &self.room
    }

    /// Scalars in the hands of a client, offered or used.
    pub fn taken(&self, client: &Client) -> Option<&Quantities> {
        self.taken.get(client)
    }

    /// Scalars in the hands of a role.
    pub fn taken_by_role(&self, role: RoleKey) -> &Quantities {
        &self.roles[role.0 as usize].taken.all
    }

    /// What is free on an agent; nothing on one that is not there.
    pub fn free(&self, agent: AgentKey) -> &Resources {
        const NONE: &Resources = &Resources::new();
        self.agents.get(&agent).map_or(NONE, |state| &state.free)
    }

    /// Whether anything that is free on the agent may be offered to the client.
    pub fn may_offer(&self, client: &Client, agent: AgentKey) -> bool {
        self.offerable(client, agent, self.free(agent)).is_ok()
    }

    /// The part of `free` that may be offered to the client on the agent: what its role may have and its capabilities
    /// let it see, unless that is below the minimum or refused.
    pub fn offerable(
        &self,
        client: &Client,
        agent: AgentKey,
        free: &Resources,
    ) -> Result<Resources, NotOffered> {
        let (Some(state), Some(framework)) = (
            self.agents.get(&agent),
            self.frameworks.get(&client.framework),
        ) else {
            return Err(NotOffered::Inactive);
        };
        if !state.agent.active || !framework.active {
            return Err(NotOffered::Inactive);
        }
        let role = self.role(client.role);
        capable(framework, &state.agent, role).map_err(NotOffered::Capability)?;
        let part = free.filter(|resource| {
            resource.is_allocatable_to(role.as_str()) && sees(framework, resource)
        });
        if part.is_empty() {
            return Err(NotOffered::NothingFree);
        }
        let of_role = framework.minimums.iter().filter(|(of, _)| of == role);
        let mut own = of_role.map(|(_, minimum)| minimum).peekable();
        let has = |minimum: &Quantities| {
            let mut amounts = minimum.iter();
            amounts.all(|(name, amount)| part.scalar(name) >= amount)
        };
        let enough = if own.peek().is_some() {
            own.any(has)
        } else {
            self.minimum.is_empty() || self.minimum.iter().any(has)
        };
        if !enough {
            return Err(NotOffered::BelowMinimum);
        }
        let filters = self.filters.get(&(*client, agent));
        let refused = |filter: &Filter| filter.until > self.now && filter.resources.contains(&part);
        if filters.is_some_and(|filters| filters.iter().any(refused)) {
            return Err(NotOffered::Filtered);
        }
        Ok(part)
    }

    /// Sets the clock that filters end by. The kit does this; for tests.
    pub fn set_now(&mut self, now: Mono) {
        self.now = now;
    }

    /// Takes what was proposed. The kit does this after each round; for tests.
    pub fn book(&mut self, proposals: &[Proposal]) {
        for proposal in proposals {
            self.take(proposal);
        }
    }

    /// Takes in a fact. The kit does this before `observe`; for tests.
    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Reset => *self = Self::default(),
            Fact::AgentAdded(agent) => self.agent_added(agent),
            Fact::AgentUpdated(agent) => self.agent_updated(agent),
            Fact::AgentRemoved(agent) => self.agent_removed(*agent),
            Fact::AgentActive(agent, active) => {
                if let Some(state) = self.agents.get_mut(agent) {
                    state.agent.active = *active;
                }
            }
            Fact::AgentUnavailable(agent, unavailable) => {
                if let Some(state) = self.agents.get_mut(agent) {
                    state.unavailable = *unavailable;
                }
            }
            Fact::FrameworkAdded(framework) | Fact::FrameworkUpdated(framework) => {
                self.frameworks.insert(framework.key, framework.clone());
                self.list_clients(framework.key);
            }
            Fact::FrameworkRemoved(framework) => {
                self.frameworks.remove(framework);
                self.filters
                    .retain(|(client, _), _| client.framework != *framework);
                self.list_clients(*framework);
            }
            Fact::FrameworkActive(framework, active) => {
                if let Some(framework) = self.frameworks.get_mut(framework) {
                    framework.active = *active;
                }
                self.list_clients(*framework);
            }
            Fact::Taken(holding) => self.take(holding),
            Fact::Returned(holding) | Fact::Refused(holding) => self.give_back(holding),
            Fact::Filter(holding, until) => self.filter(holding, *until),
            Fact::FiltersCleared(scope) => self.clear_filters(scope),
            Fact::Suppressed(framework, roles) => self.suppress(*framework, roles),
            Fact::Revived(framework, roles) => self.revive(*framework, roles),
            Fact::Weight(role, weight) => {
                let key = self.key_of(role);
                self.roles[key.0 as usize].weight = *weight;
            }
            Fact::Quota(role, quota) => {
                let key = self.key_of(role);
                self.roles[key.0 as usize].quota = quota.clone();
            }
            Fact::Minimum(minimum) => self.minimum.clone_from(minimum),
            // A hint, for policies that care.
            Fact::Requested(..) => {}
        }
    }

    fn key_of(&mut self, role: &Role) -> RoleKey {
        if let Some(&key) = self.role_keys.get(role) {
            return key;
        }
        let key = RoleKey(u32::try_from(self.roles.len()).expect("fewer than 2^32 roles"));
        self.roles.push(RoleState {
            role: role.clone(),
            weight: 1000,
            quota: Quota::default(),
            taken: Amounts::default(),
            reserved: Quantities::new(),
        });
        self.role_keys.insert(role.clone(), key);
        key
    }

    fn client_of(&mut self, holding: &Holding) -> Client {
        Client {
            framework: holding.framework,
            role: self.key_of(&holding.role),
        }
    }

    /// Changes an agent, and with it what is free for all.
    fn change_agent(&mut self, agent: AgentKey, change: impl FnOnce(&mut AgentState)) {
        let Some(state) = self.agents.get_mut(&agent) else {
            return;
        };
        self.room -= &Self::charged(&state.free);
        change(state);
        self.room += &Self::charged(&state.free);
    }

    fn agent_added(&mut self, agent: &Agent) {
        self.agent_removed(agent.key);
        self.total += &agent.total.quantities();
        self.reserve(&agent.total, true);
        let state = AgentState {
            agent: agent.clone(),
            taken: Resources::new(),
            free: agent.total.clone(),
            held: BTreeMap::new(),
            over: false,
            unavailable: None,
        };
        self.room += &Self::charged(&state.free);
        self.agents.insert(agent.key, state);
    }

    fn agent_updated(&mut self, agent: &Agent) {
        let Some(state) = self.agents.get(&agent.key) else {
            return self.agent_added(agent);
        };
        let old = state.agent.total.clone();
        self.change_agent(agent.key, |state| {
            state.agent.clone_from(agent);
            state.recount();
        });
        self.total -= &old.quantities();
        self.total += &agent.total.quantities();
        self.reserve(&old, false);
        self.reserve(&agent.total, true);
    }

    fn agent_removed(&mut self, agent: AgentKey) {
        let Some(state) = self.agents.remove(&agent) else {
            return;
        };
        self.room -= &Self::charged(&state.free);
        self.total -= &state.agent.total.quantities();
        self.reserve(&state.agent.total, false);
        for (client, amounts) in &state.held {
            self.charge(*client, amounts, false);
        }
        self.filters.retain(|(_, of), _| *of != agent);
    }

    fn take(&mut self, holding: &Holding) {
        let client = self.client_of(holding);
        // Facts about an agent that is gone mean nothing, for the shares too.
        let Some(state) = self.agents.get_mut(&holding.agent) else {
            return;
        };
        let amounts = Amounts::of(&holding.resources);
        state.held.entry(client).or_default().add(&amounts);
        for resource in &holding.resources {
            state.taken.add_one(resource);
        }
        if !state.over && state.free.contains(&holding.resources) {
            for resource in holding.resources.iter().filter(|one| !one.is_shared()) {
                state.free.sub_one(resource);
            }
            // What can be shared is reserved, so it is not part of either.
            self.room -= &amounts.charged;
        } else {
            self.change_agent(holding.agent, AgentState::recount);
        }
        self.charge(client, &amounts, true);
    }

    fn give_back(&mut self, holding: &Holding) {
        let client = self.client_of(holding);
        let Some(state) = self.agents.get_mut(&holding.agent) else {
            return;
        };
        let amounts = Amounts::of(&holding.resources);
        if let Some(held) = state.held.get_mut(&client) {
            held.sub(&amounts);
            if held.all.is_empty() {
                state.held.remove(&client);
            }
        }
        for resource in &holding.resources {
            state.taken.sub_one(resource);
        }
        if state.over {
            self.change_agent(holding.agent, AgentState::recount);
        } else {
            for resource in holding.resources.iter().filter(|one| !one.is_shared()) {
                state.free.add_one(resource);
            }
            self.room += &amounts.charged;
        }
        self.charge(client, &amounts, false);
    }

    /// Adds to what a client and its role have, or takes from it.
    fn charge(&mut self, client: Client, amounts: &Amounts, more: bool) {
        let of_role = &mut self.roles[client.role.0 as usize].taken;
        let of_client = self.taken.entry(client).or_default();
        if more {
            of_role.add(amounts);
            *of_client += &amounts.all;
        } else {
            of_role.sub(amounts);
            *of_client -= &amounts.all;
            if of_client.is_empty() {
                self.taken.remove(&client);
            }
        }
    }

    /// Counts the reservations of an agent, or counts them no more.
    fn reserve(&mut self, total: &Resources, more: bool) {
        for (role, resources) in total.reserved() {
            let key = self.key_of(&role);
            let reserved = &mut self.roles[key.0 as usize].reserved;
            if more {
                *reserved += &resources.quantities();
            } else {
                *reserved -= &resources.quantities();
            }
        }
    }

    fn filter(&mut self, holding: &Holding, until: Mono) {
        let client = self.client_of(holding);
        let now = self.now;
        let filters = self.filters.entry((client, holding.agent)).or_default();
        filters.retain(|filter| filter.until > now);
        filters.push(Filter {
            resources: holding.resources.clone(),
            until,
        });
    }

    fn clear_filters(&mut self, scope: &FilterScope) {
        let roles: BTreeSet<RoleKey> = scope
            .roles
            .iter()
            .filter_map(|role| self.role_key(role))
            .collect();
        if let (Some(framework), Some(agent), false) =
            (scope.framework, scope.agent, scope.roles.is_empty())
        {
            for role in roles {
                self.filters.remove(&(Client { framework, role }, agent));
            }
            return;
        }
        self.filters.retain(|(client, agent), _| {
            let matches = scope
                .framework
                .is_none_or(|framework| framework == client.framework)
                && scope.agent.is_none_or(|of| of == *agent)
                && (scope.roles.is_empty() || roles.contains(&client.role));
            !matches
        });
    }

    fn suppress(&mut self, key: FrameworkKey, roles: &[Role]) {
        if let Some(framework) = self.frameworks.get_mut(&key) {
            let all = framework.roles.clone();
            for role in if roles.is_empty() { &all } else { roles } {
                if !framework.suppressed.contains(role) {
                    framework.suppressed.push(role.clone());
                }
            }
        }
        self.list_clients(key);
    }

    fn revive(&mut self, key: FrameworkKey, roles: &[Role]) {
        if let Some(framework) = self.frameworks.get_mut(&key) {
            framework
                .suppressed
                .retain(|role| !roles.is_empty() && !roles.contains(role));
        }
        self.list_clients(key);
    }

    /// Lists anew where the framework wants offers.
    fn list_clients(&mut self, framework: FrameworkKey) {
        let mut wanted = Vec::new();
        if let Some(state) = self.frameworks.get(&framework)
            && state.active
        {
            let roles = state
                .roles
                .iter()
                .filter(|role| !state.suppressed.contains(role));
            wanted.extend(roles.cloned());
        }
        let wanted = wanted.iter().map(|role| Client {
            framework,
            role: self.key_of(role),
        });
        let mut wanted: Vec<_> = wanted.collect();
        wanted.sort_unstable();
        let from = self
            .clients
            .partition_point(|client| client.framework < framework);
        let to = self
            .clients
            .partition_point(|client| client.framework <= framework);
        self.clients.splice(from..to, wanted);
    }
}

fn has(capabilities: &[String], name: &str) -> bool {
    capabilities.iter().any(|capability| capability == name)
}

/// Whether the framework may be offered from the agent at all; else the capability that one of them lacks.
fn capable(framework: &Framework, agent: &Agent, role: &Role) -> Result<(), &'static str> {
    let multi_role = has(&framework.capabilities, "MULTI_ROLE");
    if multi_role && !has(&agent.capabilities, "MULTI_ROLE") {
        return Err("MULTI_ROLE (agent)");
    }
    if role.as_str().contains('/') && !has(&agent.capabilities, "HIERARCHICAL_ROLE") {
        return Err("HIERARCHICAL_ROLE (agent)");
    }
    if agent.remote && !has(&framework.capabilities, "REGION_AWARE") {
        return Err("REGION_AWARE");
    }
    if agent.total.scalar(&Name::GPUS).0 > 0 && !has(&framework.capabilities, "GPU_RESOURCES") {
        return Err("GPU_RESOURCES");
    }
    Ok(())
}

/// Whether the framework's capabilities let it see the resource.
fn sees(framework: &Framework, resource: &Resource) -> bool {
    let needs = |needed: bool, name: &str| !needed || has(&framework.capabilities, name);
    needs(resource.is_revocable(), "REVOCABLE_RESOURCES")
        && needs(resource.is_shared(), "SHARED_RESOURCES")
        && needs(resource.is_refined(), "RESERVATION_REFINEMENT")
}
