//! Facts, rounds and proposals of the allocator as packed columns.
//!
//! Each end of an instance keeps one [`Columns`]: the host's packs facts and unpacks proposals, the library's the
//! other way round. Roles and resource kinds are numbered by their first appearance, and what is numbered is
//! sent once, until a reset; so a fact about an offer costs a few bytes, and no `Resource` message is made of it.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use tepui_model::allocation::{
    Agent, AgentKey, Fact, FilterScope, Framework, FrameworkKey, Holding, Proposal, Quota, Round,
    Unavailability,
};
use tepui_model::attributes::{Attribute, AttributeValue, Attributes};
use tepui_model::id::Role;
use tepui_model::resources::{
    Name, Quantities, Range, Ranges, Resource, Resources, Scalar, Set, Value,
};
use tepui_model::time::{Mono, Wall};
use tepui_proto::v1;

use crate::allocator::{self as messages, FactKind, ResourceColumns};

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
    /// A fact of a kind that this version does not know.
    #[error("a fact of the unknown kind {0}")]
    UnknownFact(i32),
}

type Result<T, E = ColumnsError> = std::result::Result<T, E>;

/// What tells kinds apart; plain ones, which nearly all are, without encoding anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum KindKey {
    Plain(Name, u8),
    Encoded(Vec<u8>),
}

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

    fn kind_of(&mut self, resource: &Resource) -> u32 {
        match self.kind_numbers.get(&key(resource)) {
            Some(&number) => number,
            None => self.define_kind(resource.clone()),
        }
    }

    /// Packs one row, defining kinds that are new.
    fn pack_row(&mut self, resources: &Resources, out: &mut ResourceColumns) {
        for resource in resources {
            self.kind_of(resource);
        }
        self.pack_known(resources, out)
            .expect("all kinds were defined above");
    }

    fn pack_known(&self, resources: &Resources, out: &mut ResourceColumns) -> Result<()> {
        let mut entries = 0;
        for resource in resources {
            let kind = self.kind_numbers.get(&key(resource)).copied();
            let kind = kind.ok_or_else(|| ColumnsError::NewKind(resource.to_string()))?;
            // A shared resource is there once for each of its holders.
            for _ in 0..resource.copies().max(1) {
                entries += 1;
                out.kinds.push(kind);
                pack_value(resource.value(), out);
            }
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

/// Walks the columns of facts, each at its own place.
struct Rows<'a> {
    columns: &'a Columns,
    moves: MoveRows<'a>,
    agents: std::slice::Iter<'a, messages::Agent>,
    removed: std::slice::Iter<'a, u32>,
    active: std::slice::Iter<'a, u32>,
    frameworks: std::slice::Iter<'a, messages::Framework>,
    role_sets: std::slice::Iter<'a, messages::RoleSet>,
    weights: std::slice::Iter<'a, messages::Weight>,
    quotas: std::slice::Iter<'a, messages::Quota>,
    unavailable: std::slice::Iter<'a, messages::Unavailable>,
    minimums: std::slice::Iter<'a, messages::Minimum>,
}

fn next<'a, T>(column: &mut std::slice::Iter<'a, T>, name: &'static str) -> Result<&'a T> {
    column.next().ok_or(ColumnsError::Short(name))
}

impl Rows<'_> {
    fn fact(&mut self, kind: FactKind) -> Result<Fact> {
        let columns = self.columns;
        Ok(match kind {
            FactKind::Taken => Fact::Taken(self.moves.next(columns)?),
            FactKind::Returned => Fact::Returned(self.moves.next(columns)?),
            FactKind::Refused => Fact::Refused(self.moves.next(columns)?),
            FactKind::Filter => Fact::Filter(self.moves.next(columns)?, self.moves.until()?),
            FactKind::AgentAdded => {
                Fact::AgentAdded(columns.unpack_agent(next(&mut self.agents, "agents")?)?)
            }
            FactKind::AgentUpdated => {
                Fact::AgentUpdated(columns.unpack_agent(next(&mut self.agents, "agents")?)?)
            }
            FactKind::AgentRemoved => {
                Fact::AgentRemoved(AgentKey(*next(&mut self.removed, "removed")?))
            }
            FactKind::AgentActive => {
                let (agent, active) = self.active()?;
                Fact::AgentActive(AgentKey(agent), active)
            }
            FactKind::AgentUnavailable => {
                let row = next(&mut self.unavailable, "unavailable")?;
                let duration = row.duration.map(Duration::from_nanos);
                let unavailability = row.from.map(|from| Unavailability {
                    from: Wall(from),
                    duration,
                });
                Fact::AgentUnavailable(AgentKey(row.agent), unavailability)
            }
            FactKind::FrameworkAdded => Fact::FrameworkAdded(
                columns.unpack_framework(next(&mut self.frameworks, "frameworks")?)?,
            ),
            FactKind::FrameworkUpdated => Fact::FrameworkUpdated(
                columns.unpack_framework(next(&mut self.frameworks, "frameworks")?)?,
            ),
            FactKind::FrameworkRemoved => {
                Fact::FrameworkRemoved(FrameworkKey(*next(&mut self.removed, "removed")?))
            }
            FactKind::FrameworkActive => {
                let (framework, active) = self.active()?;
                Fact::FrameworkActive(FrameworkKey(framework), active)
            }
            FactKind::Suppressed => {
                let row = next(&mut self.role_sets, "role_sets")?;
                Fact::Suppressed(
                    FrameworkKey(row.framework),
                    columns.roles_named(&row.roles)?,
                )
            }
            FactKind::Revived => {
                let row = next(&mut self.role_sets, "role_sets")?;
                Fact::Revived(
                    FrameworkKey(row.framework),
                    columns.roles_named(&row.roles)?,
                )
            }
            FactKind::FiltersCleared => {
                let row = next(&mut self.role_sets, "role_sets")?;
                Fact::FiltersCleared(FilterScope {
                    framework: (!row.any_framework).then_some(FrameworkKey(row.framework)),
                    roles: columns.roles_named(&row.roles)?,
                    agent: row.agent.map(AgentKey),
                })
            }
            FactKind::Weight => {
                let row = next(&mut self.weights, "weights")?;
                Fact::Weight(columns.role(row.role)?.clone(), row.weight)
            }
            FactKind::Quota => {
                let row = next(&mut self.quotas, "quotas")?;
                let guarantees = named(&row.guarantees).into_iter().collect();
                Fact::Quota(
                    columns.role(row.role)?.clone(),
                    Quota {
                        guarantees,
                        limits: named(&row.limits),
                    },
                )
            }
            FactKind::Minimum => {
                let alternatives = next(&mut self.minimums, "minimums")?.alternatives.iter();
                let amounts =
                    |row: &messages::Alternative| named(&row.quantities).into_iter().collect();
                Fact::Minimum(alternatives.map(amounts).collect())
            }
            FactKind::Unspecified => return Err(ColumnsError::UnknownFact(0)),
        })
    }

    fn active(&mut self) -> Result<(u32, bool)> {
        let number = *next(&mut self.active, "active")?;
        Ok((number, *next(&mut self.active, "active")? != 0))
    }
}

/// Walks TAKEN, RETURNED, REFUSED and FILTER.
struct MoveRows<'a> {
    moves: Option<&'a messages::Moves>,
    at: usize,
    filters: usize,
    resources: Option<ResourceRows<'a>>,
}

impl<'a> MoveRows<'a> {
    fn new(moves: Option<&'a messages::Moves>) -> Self {
        let resources = moves
            .and_then(|moves| moves.resources.as_ref())
            .map(ResourceRows::new);
        Self {
            moves,
            at: 0,
            filters: 0,
            resources,
        }
    }

    fn next(&mut self, columns: &Columns) -> Result<Holding> {
        let (Some(moves), Some(resources)) = (self.moves, &mut self.resources) else {
            return Err(ColumnsError::Short("moves"));
        };
        let at = self.at;
        self.at += 1;
        let cell = |column: &[u32]| column.get(at).copied().ok_or(ColumnsError::Short("moves"));
        Ok(Holding {
            framework: FrameworkKey(cell(&moves.frameworks)?),
            role: columns.role(cell(&moves.roles)?)?.clone(),
            agent: AgentKey(cell(&moves.agents)?),
            resources: resources.next(columns)?,
        })
    }

    fn until(&mut self) -> Result<Mono> {
        let until = self.moves.and_then(|moves| moves.until.get(self.filters));
        self.filters += 1;
        until.copied().map(Mono).ok_or(ColumnsError::Short("until"))
    }
}

/// Walks columns of resources.
struct ResourceRows<'a> {
    entries: std::slice::Iter<'a, u32>,
    kinds: std::slice::Iter<'a, u32>,
    amounts: std::slice::Iter<'a, i64>,
    bounds: std::slice::Iter<'a, u64>,
    items: std::slice::Iter<'a, String>,
}

impl<'a> ResourceRows<'a> {
    fn new(columns: &'a ResourceColumns) -> Self {
        Self {
            entries: columns.entries.iter(),
            kinds: columns.kinds.iter(),
            amounts: columns.amounts.iter(),
            bounds: columns.bounds.iter(),
            items: columns.items.iter(),
        }
    }

    fn next(&mut self, columns: &Columns) -> Result<Resources> {
        let mut row = Resources::new();
        for _ in 0..*next(&mut self.entries, "entries")? {
            let kind = *next(&mut self.kinds, "kinds")?;
            let kind = columns
                .kinds
                .get(kind as usize)
                .ok_or(ColumnsError::Undefined("resource kind", kind))?;
            let amount = *next(&mut self.amounts, "amounts")?;
            row.push(kind.clone().with_value(self.value(kind.value(), amount)?));
        }
        Ok(row)
    }

    fn value(&mut self, like: &Value, amount: i64) -> Result<Value> {
        Ok(match like {
            Value::Scalar(_) => Value::Scalar(Scalar(amount)),
            Value::Ranges(_) => {
                let mut ranges = Vec::new();
                for _ in 0..amount {
                    let begin = *next(&mut self.bounds, "bounds")?;
                    ranges.push(Range {
                        begin,
                        end: *next(&mut self.bounds, "bounds")?,
                    });
                }
                Value::Ranges(Ranges::new(ranges))
            }
            Value::Set(_) => {
                let mut items = Vec::new();
                for _ in 0..amount {
                    items.push(next(&mut self.items, "items")?.as_str());
                }
                Value::Set(Set::new(items))
            }
        })
    }
}

fn pack_value(value: &Value, out: &mut ResourceColumns) {
    let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    match value {
        Value::Scalar(amount) => out.amounts.push(amount.0),
        Value::Ranges(ranges) => {
            out.amounts.push(length(ranges.as_slice().len()));
            out.bounds
                .extend(ranges.iter().flat_map(|range| [range.begin, range.end]));
        }
        Value::Set(set) => {
            out.amounts.push(length(set.as_slice().len()));
            out.items
                .extend(set.as_slice().iter().map(ToString::to_string));
        }
    }
}

fn key(resource: &Resource) -> KindKey {
    let plain = !resource.is_reserved()
        && resource.disk().is_none()
        && resource.provider().is_none()
        && !resource.is_revocable()
        && !resource.is_shared();
    if !plain {
        return KindKey::Encoded(encoded(resource));
    }
    let value = match resource.value() {
        Value::Scalar(_) => 0,
        Value::Ranges(_) => 1,
        Value::Set(_) => 2,
    };
    KindKey::Plain(resource.name().clone(), value)
}

/// The message of a kind: no value, no allocation.
fn encoded(resource: &Resource) -> Vec<u8> {
    let mut message = v1::Resource::from(resource);
    (
        message.scalar,
        message.ranges,
        message.set,
        message.allocation_info,
    ) = (None, None, None, None);
    message.encode_to_vec()
}

/// Some resource of a kind; only a resource with a value can be converted.
fn sample(kind: &[u8]) -> Result<Resource, String> {
    let mut message = v1::Resource::decode(kind).map_err(|error| error.to_string())?;
    match message.r#type() {
        v1::value::Type::Scalar => message.scalar = Some(v1::value::Scalar { value: 1.0 }),
        v1::value::Type::Ranges => {
            message.ranges = Some(v1::value::Ranges {
                range: vec![v1::value::Range { begin: 1, end: 1 }],
            });
        }
        v1::value::Type::Set => {
            message.set = Some(v1::value::Set {
                item: vec!["sample".to_owned()],
            })
        }
        v1::value::Type::Text => return Err("a text is no resource".to_owned()),
    }
    Resource::try_from(&message).map_err(|error| error.to_string())
}

fn quantity(name: &Name, amount: Scalar) -> messages::Quantity {
    messages::Quantity {
        name: name.to_string(),
        amount: amount.0,
    }
}

fn quantities(amounts: &Quantities) -> Vec<messages::Quantity> {
    amounts
        .iter()
        .map(|(name, amount)| quantity(name, amount))
        .collect()
}

fn named(amounts: &[messages::Quantity]) -> Vec<(Name, Scalar)> {
    amounts
        .iter()
        .map(|amount| (Name::from(amount.name.as_str()), Scalar(amount.amount)))
        .collect()
}

fn pack_attribute(attribute: &Attribute) -> messages::Attribute {
    use messages::attribute::Value;
    let value = match &attribute.value {
        AttributeValue::Text(text) => Value::Text(text.to_string()),
        AttributeValue::Scalar(amount) => Value::Scalar(amount.0),
        AttributeValue::Ranges(ranges) => {
            let bounds = ranges
                .iter()
                .flat_map(|range| [range.begin, range.end])
                .collect();
            Value::Ranges(messages::Bounds { bounds })
        }
        AttributeValue::Set(set) => Value::Set(messages::Items {
            items: set.as_slice().iter().map(ToString::to_string).collect(),
        }),
    };
    messages::Attribute {
        name: attribute.name.to_string(),
        value: Some(value),
    }
}

/// None for a type of value that this version does not know: an attribute less, not a broken agent.
fn unpack_attribute(attribute: &messages::Attribute) -> Option<Attribute> {
    use messages::attribute::Value;
    let value = match attribute.value.as_ref()? {
        Value::Text(text) => AttributeValue::Text(text.as_str().into()),
        Value::Scalar(amount) => AttributeValue::Scalar(Scalar(*amount)),
        Value::Ranges(bounds) => {
            let range = |pair: &[u64]| Range {
                begin: pair[0],
                end: pair[1],
            };
            AttributeValue::Ranges(Ranges::new(bounds.bounds.chunks_exact(2).map(range)))
        }
        Value::Set(items) => AttributeValue::Set(Set::new(items.items.iter().map(String::as_str))),
    };
    Some(Attribute {
        name: attribute.name.as_str().into(),
        value,
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
