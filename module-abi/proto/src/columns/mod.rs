//! Facts, rounds and proposals of the allocator as packed columns.
//!
//! Each end of an instance keeps one [`Columns`]: the host's packs facts and unpacks proposals, the library's the
//! other way round. Roles and resource kinds are numbered by their first appearance, and what is numbered is
//! sent once, until a reset; so a fact about an offer costs a few bytes, and no `Resource` message is made of it.

mod convert;
mod rows;

use std::collections::HashMap;
use std::mem::discriminant;

use tepui_model::allocation::{
    Agent, AgentKey, Fact, Framework, FrameworkKey, Holding, Proposal, Round, Wanted,
};
use tepui_model::attributes::Attributes;
use tepui_model::id::Role;
use tepui_model::resources::{Quantities, Resource, Resources};
use tepui_model::time::Mono;

use crate::allocator::{self as messages, FactKind, ResourceColumns};
use convert::{
    KindKey, encoded, key, named, nanos, pack_attribute, pack_resource, pack_wanted, quantities,
    quantity, sample, unpack_attribute, unpack_wanted,
};
use rows::{MoveRows, ResourceRows, Rows};

/// Why columns do not hold what they should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// A column ends before the others.
    #[error("the column {0} is too short")]
    Short(&'static str),
    /// A number of a role or resource kind that was never defined.
    #[error("{0} {1} was never defined")]
    Undefined(&'static str, u32),
    /// A resource of a kind that the host never told of.
    #[error("a resource of a kind that is on no agent: {0}")]
    NewKind(String),
    /// A resource kind that is no resource.
    #[error("resource kind {0} is not valid: {1}")]
    BadKind(u32, String),
    /// What a framework asked for is no resources.
    #[error("what a framework asked for is not valid: {0}")]
    BadRequest(String),
    /// A fact of a kind that this version does not know.
    #[error("a fact of the unknown kind {0}")]
    UnknownFact(i32),
}

type Result<T, E = ColumnsError> = std::result::Result<T, E>;

/// Numbers of roles and kinds that both ends have agreed on.
#[derive(Debug, Default)]
pub struct Columns {
    roles: Vec<Role>,
    role_numbers: HashMap<Role, u32>,
    /// One resource of each kind, of any amount.
    kinds: Vec<Resource>,
    kind_numbers: HashMap<KindKey, u32>,
    /// Encoded forms of the kinds, as they are sent.
    encoded: Vec<Vec<u8>>,
    /// Roles and kinds before these were sent already.
    sent: (usize, usize),
}

impl Columns {
    /// Packs facts. Those before the last [`Fact::Reset`] are void and left out, and numbers begin anew.
    pub fn pack_facts(&mut self, facts: &[Fact]) -> messages::Facts {
        let reset = facts.iter().rposition(|fact| matches!(fact, Fact::Reset));
        if reset.is_some() {
            *self = Self::default();
        }
        let mut out = messages::Facts {
            reset: reset.is_some(),
            ..Default::default()
        };
        for fact in &facts[reset.map_or(0, |at| at + 1)..] {
            self.pack_fact(fact, &mut out);
        }
        out.roles = self.roles[self.sent.0..]
            .iter()
            .map(ToString::to_string)
            .collect();
        let kinds = self.encoded[self.sent.1..].iter();
        out.kinds = kinds
            .map(|resource| messages::ResourceKind {
                resource: resource.clone(),
            })
            .collect();
        self.sent = (self.roles.len(), self.kinds.len());
        out
    }

    /// Reads facts, and learns the roles and kinds they define.
    pub fn unpack_facts(&mut self, facts: messages::Facts) -> Result<Vec<Fact>> {
        if facts.reset {
            *self = Self::default();
        }
        for role in &facts.roles {
            self.define_role(Role::from(role.as_str()));
        }
        for kind in &facts.kinds {
            let number = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
            let resource =
                sample(&kind.resource).map_err(|error| ColumnsError::BadKind(number, error))?;
            self.define_kind(resource);
        }
        let mut out = Vec::with_capacity(facts.order.len() + usize::from(facts.reset));
        if facts.reset {
            out.push(Fact::Reset);
        }
        let moves = facts.moves.as_ref();
        let mut rows = Rows {
            columns: self,
            moves: MoveRows::new(moves),
            agents: facts.agents.iter(),
            removed: facts.removed.iter(),
            active: facts.active.iter(),
            frameworks: facts.frameworks.iter(),
            role_sets: facts.role_sets.iter(),
            weights: facts.weights.iter(),
            quotas: facts.quotas.iter(),
            unavailable: facts.unavailable.iter(),
            minimums: facts.minimums.iter(),
        };
        for &kind in &facts.order {
            let kind = FactKind::try_from(kind).map_err(|_| ColumnsError::UnknownFact(kind))?;
            out.push(rows.fact(kind)?);
        }
        for request in &facts.requests {
            let wanted = request.wanted.iter().map(unpack_wanted);
            let wanted: Result<Vec<Wanted>, String> = wanted.collect();
            out.push(Fact::Requested(
                FrameworkKey(request.framework),
                wanted.map_err(ColumnsError::BadRequest)?,
            ));
        }
        Ok(out)
    }

    /// Packs proposals, of kinds and roles that the facts told of.
    pub fn pack_proposals(&self, proposals: &[Proposal]) -> Result<messages::Proposals> {
        let mut out = messages::Proposals::default();
        let mut resources = ResourceColumns::default();
        for proposal in proposals {
            out.frameworks.push(proposal.framework.0);
            let role = self.role_numbers.get(&proposal.role).copied();
            out.roles
                .push(role.ok_or(ColumnsError::Undefined("role", u32::MAX))?);
            out.agents.push(proposal.agent.0);
            self.pack_known(&proposal.resources, &mut resources)?;
        }
        out.resources = Some(resources);
        Ok(out)
    }

    /// Reads proposals.
    pub fn unpack_proposals(&self, proposals: &messages::Proposals) -> Result<Vec<Proposal>> {
        let none = ResourceColumns::default();
        let mut resources = ResourceRows::new(proposals.resources.as_ref().unwrap_or(&none));
        let rows = proposals
            .frameworks
            .iter()
            .zip(&proposals.roles)
            .zip(&proposals.agents);
        if proposals.roles.len() != proposals.frameworks.len()
            || proposals.agents.len() != proposals.roles.len()
        {
            return Err(ColumnsError::Short("roles or agents"));
        }
        rows.map(|((&framework, &role), &agent)| {
            Ok(Proposal {
                framework: FrameworkKey(framework),
                role: self.role(role)?.clone(),
                agent: AgentKey(agent),
                resources: resources.next(self)?,
            })
        })
        .collect()
    }

    /// The role of a number.
    pub fn role(&self, number: u32) -> Result<&Role> {
        self.roles
            .get(number as usize)
            .ok_or(ColumnsError::Undefined("role", number))
    }

    /// The number of a role, if it was defined.
    pub fn role_number(&self, role: &Role) -> Option<u32> {
        self.role_numbers.get(role).copied()
    }

    fn define_role(&mut self, role: Role) -> u32 {
        let next = u32::try_from(self.roles.len()).expect("fewer than 2^32 roles");
        let number = *self.role_numbers.entry(role.clone()).or_insert(next);
        if number == next {
            self.roles.push(role);
        }
        number
    }

    fn role_of(&mut self, role: &Role) -> u32 {
        match self.role_numbers.get(role) {
            Some(&number) => number,
            None => self.define_role(role.clone()),
        }
    }

    fn roles_of(&mut self, roles: &[Role]) -> Vec<u32> {
        roles.iter().map(|role| self.role_of(role)).collect()
    }

    fn roles_named(&self, numbers: &[u32]) -> Result<Vec<Role>> {
        numbers
            .iter()
            .map(|&number| self.role(number).cloned())
            .collect()
    }

    fn define_kind(&mut self, resource: Resource) -> u32 {
        let next = u32::try_from(self.kinds.len()).expect("fewer than 2^32 kinds");
        self.encoded.push(encoded(&resource));
        self.kind_numbers.insert(key(&resource), next);
        self.kinds.push(resource);
        next
    }

    /// The number of a resource's kind, if it was defined.
    fn kind_number(&self, resource: &Resource) -> Option<u32> {
        // Nearly all are plain and among the first kinds: looking at those is quicker than hashing.
        const FIRST: usize = 8;
        let like = |kind: &&Resource| {
            kind.is_plain()
                && kind.name() == resource.name()
                && discriminant(kind.value()) == discriminant(resource.value())
        };
        let mut first = (0..).zip(self.kinds.iter().take(FIRST));
        if resource.is_plain()
            && let Some((number, _)) = first.find(|(_, kind)| like(kind))
        {
            return Some(number);
        }
        self.kind_numbers.get(&key(resource)).copied()
    }

    /// Packs one row, defining kinds that are new.
    fn pack_row(&mut self, resources: &Resources, out: &mut ResourceColumns) {
        let mut entries = 0;
        for resource in resources {
            let kind = self.kind_number(resource);
            let kind = kind.unwrap_or_else(|| self.define_kind(resource.clone()));
            entries += pack_resource(kind, resource, out);
        }
        out.entries.push(entries);
    }

    fn pack_known(&self, resources: &Resources, out: &mut ResourceColumns) -> Result<()> {
        let mut entries = 0;
        for resource in resources {
            let kind = self.kind_number(resource);
            let kind = kind.ok_or_else(|| ColumnsError::NewKind(resource.to_string()))?;
            entries += pack_resource(kind, resource, out);
        }
        out.entries.push(entries);
        Ok(())
    }

    fn pack_fact(&mut self, fact: &Fact, out: &mut messages::Facts) {
        let kind = match fact {
            Fact::Reset => return,
            Fact::Taken(holding) => self.pack_move(holding, FactKind::Taken, out),
            Fact::Returned(holding) => self.pack_move(holding, FactKind::Returned, out),
            Fact::Refused(holding) => self.pack_move(holding, FactKind::Refused, out),
            Fact::Filter(holding, until) => {
                let kind = self.pack_move(holding, FactKind::Filter, out);
                out.moves.get_or_insert_default().until.push(until.0);
                kind
            }
            Fact::AgentAdded(agent) => {
                out.agents.push(self.pack_agent(agent));
                FactKind::AgentAdded
            }
            Fact::AgentUpdated(agent) => {
                out.agents.push(self.pack_agent(agent));
                FactKind::AgentUpdated
            }
            Fact::AgentRemoved(agent) => {
                out.removed.push(agent.0);
                FactKind::AgentRemoved
            }
            Fact::AgentActive(agent, active) => {
                out.active.extend([agent.0, u32::from(*active)]);
                FactKind::AgentActive
            }
            Fact::AgentUnavailable(agent, unavailable) => {
                out.unavailable.push(messages::Unavailable {
                    agent: agent.0,
                    from: unavailable.map(|unavailable| unavailable.from.0),
                    duration: unavailable
                        .and_then(|unavailable| unavailable.duration)
                        .map(nanos),
                });
                FactKind::AgentUnavailable
            }
            Fact::FrameworkAdded(framework) => {
                out.frameworks.push(self.pack_framework(framework));
                FactKind::FrameworkAdded
            }
            Fact::FrameworkUpdated(framework) => {
                out.frameworks.push(self.pack_framework(framework));
                FactKind::FrameworkUpdated
            }
            Fact::FrameworkRemoved(framework) => {
                out.removed.push(framework.0);
                FactKind::FrameworkRemoved
            }
            Fact::FrameworkActive(framework, active) => {
                out.active.extend([framework.0, u32::from(*active)]);
                FactKind::FrameworkActive
            }
            Fact::Suppressed(framework, roles) => {
                let roles = self.roles_of(roles);
                out.role_sets.push(messages::RoleSet {
                    framework: framework.0,
                    roles,
                    ..Default::default()
                });
                FactKind::Suppressed
            }
            Fact::Revived(framework, roles) => {
                let roles = self.roles_of(roles);
                out.role_sets.push(messages::RoleSet {
                    framework: framework.0,
                    roles,
                    ..Default::default()
                });
                FactKind::Revived
            }
            Fact::FiltersCleared(scope) => {
                out.role_sets.push(messages::RoleSet {
                    framework: scope.framework.unwrap_or_default().0,
                    roles: self.roles_of(&scope.roles),
                    agent: scope.agent.map(|agent| agent.0),
                    any_framework: scope.framework.is_none(),
                });
                FactKind::FiltersCleared
            }
            Fact::Requested(framework, wanted) => {
                out.requests.push(messages::Request {
                    framework: framework.0,
                    wanted: wanted.iter().map(pack_wanted).collect(),
                });
                return;
            }
            Fact::Weight(role, weight) => {
                out.weights.push(messages::Weight {
                    role: self.role_of(role),
                    weight: *weight,
                });
                FactKind::Weight
            }
            Fact::Quota(role, quota) => {
                let limits = quota
                    .limits
                    .iter()
                    .map(|(name, amount)| quantity(name, *amount))
                    .collect();
                let guarantees = quantities(&quota.guarantees);
                out.quotas.push(messages::Quota {
                    role: self.role_of(role),
                    guarantees,
                    limits,
                });
                FactKind::Quota
            }
            Fact::Minimum(alternatives) => {
                let alternative = |amounts| messages::Alternative {
                    quantities: quantities(amounts),
                };
                let alternatives = alternatives.iter().map(alternative).collect();
                out.minimums.push(messages::Minimum { alternatives });
                FactKind::Minimum
            }
        };
        out.order.push(kind.into());
    }

    fn pack_move(
        &mut self,
        holding: &Holding,
        kind: FactKind,
        out: &mut messages::Facts,
    ) -> FactKind {
        let moves = out.moves.get_or_insert_default();
        moves.frameworks.push(holding.framework.0);
        moves.roles.push(self.role_of(&holding.role));
        moves.agents.push(holding.agent.0);
        self.pack_row(&holding.resources, moves.resources.get_or_insert_default());
        kind
    }

    fn pack_agent(&mut self, agent: &Agent) -> messages::Agent {
        let mut total = ResourceColumns::default();
        self.pack_row(&agent.total, &mut total);
        let (region, zone) = agent.domain.clone().unwrap_or_default();
        messages::Agent {
            agent: agent.key.0,
            id: agent.id.to_string(),
            hostname: agent.hostname.clone(),
            total: Some(total),
            attributes: agent.attributes.0.iter().map(pack_attribute).collect(),
            active: agent.active,
            capabilities: agent.capabilities.clone(),
            region,
            zone,
            remote: agent.remote,
        }
    }

    fn unpack_agent(&self, agent: &messages::Agent) -> Result<Agent> {
        let none = ResourceColumns::default();
        let domain = !(agent.region.is_empty() && agent.zone.is_empty());
        Ok(Agent {
            key: AgentKey(agent.agent),
            id: agent.id.as_str().into(),
            hostname: agent.hostname.clone(),
            total: ResourceRows::new(agent.total.as_ref().unwrap_or(&none)).next(self)?,
            attributes: Attributes(
                agent
                    .attributes
                    .iter()
                    .filter_map(unpack_attribute)
                    .collect(),
            ),
            active: agent.active,
            capabilities: agent.capabilities.clone(),
            domain: domain.then(|| (agent.region.clone(), agent.zone.clone())),
            remote: agent.remote,
        })
    }

    fn pack_framework(&mut self, framework: &Framework) -> messages::Framework {
        let minimum = |(role, amounts): &(Role, Quantities)| messages::RoleMinimum {
            role: self.role_of(role),
            quantities: quantities(amounts),
        };
        let minimums = framework.minimums.iter().map(minimum).collect();
        messages::Framework {
            framework: framework.key.0,
            id: framework.id.to_string(),
            principal: framework
                .principal
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            roles: self.roles_of(&framework.roles),
            suppressed: self.roles_of(&framework.suppressed),
            active: framework.active,
            capabilities: framework.capabilities.clone(),
            minimums,
        }
    }

    fn unpack_framework(&self, framework: &messages::Framework) -> Result<Framework> {
        let minimum = |minimum: &messages::RoleMinimum| {
            Ok((
                self.role(minimum.role)?.clone(),
                named(&minimum.quantities).into_iter().collect(),
            ))
        };
        Ok(Framework {
            key: FrameworkKey(framework.framework),
            id: framework.id.as_str().into(),
            principal: (!framework.principal.is_empty())
                .then(|| framework.principal.as_str().into()),
            roles: self.roles_named(&framework.roles)?,
            suppressed: self.roles_named(&framework.suppressed)?,
            active: framework.active,
            capabilities: framework.capabilities.clone(),
            minimums: framework
                .minimums
                .iter()
                .map(minimum)
                .collect::<Result<_>>()?,
        })
    }
}

/// Packs a round.
pub fn pack_round(round: &Round) -> messages::Round {
    messages::Round {
        now: round.now.0,
        seed: round.seed,
        candidates: round.candidates.iter().map(|agent| agent.0).collect(),
    }
}

/// Reads a round.
pub fn unpack_round(round: &messages::Round) -> Round {
    Round {
        now: Mono(round.now),
        seed: round.seed,
        candidates: round.candidates.iter().copied().map(AgentKey).collect(),
    }
}
