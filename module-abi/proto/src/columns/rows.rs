//! Walks over columns, row by row, each column at its own place.

use std::time::Duration;

use tepui_model::allocation::{
    AgentKey, Fact, FilterScope, FrameworkKey, Holding, Quota, Unavailability,
};
use tepui_model::resources::{Range, Ranges, Resources, Scalar, Set, Value};
use tepui_model::time::{Mono, Wall};

use super::convert::named;
use super::{Columns, ColumnsError, Result};
use crate::allocator::{self as messages, FactKind, ResourceColumns};

/// Walks the columns of facts, each at its own place.
pub(super) struct Rows<'a> {
    pub(super) columns: &'a Columns,
    pub(super) moves: MoveRows<'a>,
    pub(super) agents: std::slice::Iter<'a, messages::Agent>,
    pub(super) removed: std::slice::Iter<'a, u32>,
    pub(super) active: std::slice::Iter<'a, u32>,
    pub(super) frameworks: std::slice::Iter<'a, messages::Framework>,
    pub(super) role_sets: std::slice::Iter<'a, messages::RoleSet>,
    pub(super) weights: std::slice::Iter<'a, messages::Weight>,
    pub(super) quotas: std::slice::Iter<'a, messages::Quota>,
    pub(super) unavailable: std::slice::Iter<'a, messages::Unavailable>,
    pub(super) minimums: std::slice::Iter<'a, messages::Minimum>,
}

fn next<'a, T>(column: &mut std::slice::Iter<'a, T>, name: &'static str) -> Result<&'a T> {
    column.next().ok_or(ColumnsError::Short(name))
}

impl Rows<'_> {
    pub(super) fn fact(&mut self, kind: FactKind) -> Result<Fact> {
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
pub(super) struct MoveRows<'a> {
    moves: Option<&'a messages::Moves>,
    at: usize,
    filters: usize,
    resources: Option<ResourceRows<'a>>,
}

impl<'a> MoveRows<'a> {
    pub(super) fn new(moves: Option<&'a messages::Moves>) -> Self {
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

    pub(super) fn next(&mut self, columns: &Columns) -> Result<Holding> {
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
pub(super) struct ResourceRows<'a> {
    entries: std::slice::Iter<'a, u32>,
    kinds: std::slice::Iter<'a, u32>,
    amounts: std::slice::Iter<'a, i64>,
    bounds: std::slice::Iter<'a, u64>,
    items: std::slice::Iter<'a, String>,
}

impl<'a> ResourceRows<'a> {
    pub(super) fn new(columns: &'a ResourceColumns) -> Self {
        Self {
            entries: columns.entries.iter(),
            kinds: columns.kinds.iter(),
            amounts: columns.amounts.iter(),
            bounds: columns.bounds.iter(),
            items: columns.items.iter(),
        }
    }

    pub(super) fn next(&mut self, columns: &Columns) -> Result<Resources> {
        let mut row = Resources::new();
        for _ in 0..*next(&mut self.entries, "entries")? {
            let kind = *next(&mut self.kinds, "kinds")?;
            let kind = columns
                .kinds
                .get(kind as usize)
                .ok_or(ColumnsError::Undefined("resource kind", kind))?;
            let amount = *next(&mut self.amounts, "amounts")?;
            row.push(kind.of_value(self.value(kind.value(), amount)?));
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
