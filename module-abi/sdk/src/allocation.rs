//! What an allocator sees of the cluster, and how it proposes.
//!
//! [`Cluster`] is kept from the facts and answers what is the same for every policy: what is free, who may be
//! offered what, who has what. It has no policy of its own.

mod books;
mod capabilities;
mod limits;
mod proposals;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use tepui_model::allocation::{
    Agent, AgentKey, Fact, FilterScope, Framework, FrameworkKey, Holding, Proposal, Quota,
    Unavailability,
};
use tepui_model::id::Role;
use tepui_model::resources::{Quantities, Resources};
use tepui_model::roles::{is_at_or_below, up};
use tepui_model::slots::Slots;
use tepui_model::time::Mono;

use books::AgentState;
use capabilities::{FrameworkState, obstacle, sees};
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
struct RoleState {
    role: Role,
    /// The role at the top of its tree, once a fact named it.
    top: Option<RoleKey>,
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
    agents: Slots<AgentKey, AgentState>,
    frameworks: Slots<FrameworkKey, FrameworkState>,
    roles: Vec<RoleState>,
    role_keys: BTreeMap<Role, RoleKey>,
    /// Roles whose top no fact has named.
    topless: Vec<RoleKey>,
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
        let agents = self.agents.values();
        agents.map(|state| (&state.agent.key, &state.agent))
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
        self.frameworks.get(&key).map(|state| &state.framework)
    }

    /// All frameworks, in the order of their numbers.
    pub fn frameworks(&self) -> impl Iterator<Item = &Framework> {
        self.frameworks.values().map(|state| &state.framework)
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
        let (Some(state), Some(owner)) = (
            self.agents.get(&agent),
            self.frameworks.get(&client.framework),
        ) else {
            return Err(NotOffered::Inactive);
        };
        if !state.agent.active || !owner.framework.active {
            return Err(NotOffered::Inactive);
        }
        let role = self.role(client.role);
        if let Some(capability) = obstacle(owner.can, state.asks, role) {
            return Err(NotOffered::Capability(capability));
        }
        let part = free.filter(|resource| {
            resource.is_allocatable_to(role.as_str()) && sees(owner.can, resource)
        });
        if part.is_empty() {
            return Err(NotOffered::NothingFree);
        }
        let minimums = owner.framework.minimums.iter();
        let of_role = minimums.filter(|(of, _)| of == role);
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
                let state = FrameworkState::new(framework.clone());
                self.frameworks.insert(framework.key, state);
                self.list_clients(framework.key);
            }
            Fact::FrameworkRemoved(framework) => {
                self.frameworks.remove(framework);
                self.filters
                    .retain(|(client, _), _| client.framework != *framework);
                self.list_clients(*framework);
            }
            Fact::FrameworkActive(framework, active) => {
                if let Some(state) = self.frameworks.get_mut(framework) {
                    state.framework.active = *active;
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
        let top = up(role.as_str()).last().unwrap_or_default();
        let top = if top == role.as_str() {
            // Those below that were named before.
            let (roles, name) = (&mut self.roles, top);
            self.topless.retain(|below| {
                let state = &mut roles[below.0 as usize];
                let mine = is_at_or_below(state.role.as_str(), name);
                if mine {
                    state.top = Some(key);
                }
                !mine
            });
            Some(key)
        } else {
            self.role_keys.get(top).copied()
        };
        if top.is_none() {
            self.topless.push(key);
        }
        self.roles.push(RoleState {
            role: role.clone(),
            top,
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
        if let Some(FrameworkState { framework, .. }) = self.frameworks.get_mut(&key) {
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
        if let Some(FrameworkState { framework, .. }) = self.frameworks.get_mut(&key) {
            framework
                .suppressed
                .retain(|role| !roles.is_empty() && !roles.contains(role));
        }
        self.list_clients(key);
    }

    /// Lists anew where the framework wants offers.
    fn list_clients(&mut self, framework: FrameworkKey) {
        let mut wanted = Vec::new();
        if let Some(FrameworkState { framework, .. }) = self.frameworks.get(&framework)
            && framework.active
        {
            let roles = framework
                .roles
                .iter()
                .filter(|role| !framework.suppressed.contains(role));
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
