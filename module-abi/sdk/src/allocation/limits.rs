//! Quota: how much of what is free a role may still have, and what it lacks of its guarantee.
//!
//! The master refuses whatever goes beyond a limit; here proposals are made that it takes.

use std::collections::BTreeMap;

use tepui_model::resources::{Name, Quantities, Resource, Resources, Scalar};
use tepui_model::roles::is_at_or_below;

use super::{Cluster, RoleKey};

/// Scalars in somebody's hands.
#[derive(Debug, Default, Clone)]
pub(super) struct Amounts {
    pub(super) all: Quantities,
    /// The part that counts against a quota besides reservations.
    pub(super) charged: Quantities,
}

impl Amounts {
    pub(super) fn of(resources: &Resources) -> Self {
        Self {
            all: resources.quantities(),
            charged: Cluster::charged(resources),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.all += &other.all;
        self.charged += &other.charged;
    }

    pub(super) fn sub(&mut self, other: &Self) {
        self.all -= &other.all;
        self.charged -= &other.charged;
    }
}

/// Whether it counts against a quota when it is taken: reservations count where they are made.
fn is_charged(resource: &Resource) -> bool {
    !resource.is_reserved() && !resource.is_revocable()
}

impl Cluster {
    /// The amounts that count against a quota when these resources are taken: what is neither reserved, which
    /// counts where that is done, nor revocable.
    pub fn charged(resources: &Resources) -> Quantities {
        let mut charged = Quantities::new();
        for resource in resources.iter().filter(|one| is_charged(one)) {
            if let Some(amount) = resource.amount() {
                charged.add(resource.name(), amount);
            }
        }
        charged
    }

    /// The role at the top of the tree that this one is in, where quota is set; none before a fact named it.
    pub fn top(&self, role: RoleKey) -> Option<RoleKey> {
        self.roles[role.0 as usize].top
    }

    /// What a role and those below it have of its quota: all that is reserved to them, and what else they hold.
    pub fn consumed(&self, role: RoleKey) -> Quantities {
        let name = self.role(role).as_str();
        let is_top = self.top(role) == Some(role);
        let mut consumed = Quantities::new();
        for state in &self.roles {
            let below = match is_top {
                true => state.top == Some(role),
                false => is_at_or_below(state.role.as_str(), name),
            };
            if below {
                consumed += &state.taken.charged;
                consumed += &state.reserved;
            }
        }
        consumed
    }

    /// What roles lack of their guarantees, by top-level role; those that lack nothing are left out.
    pub fn unmet(&self) -> BTreeMap<RoleKey, Quantities> {
        let mut unmet = BTreeMap::new();
        for &key in self.role_keys.values() {
            let guarantees = &self.quota(key).guarantees;
            if !guarantees.is_empty() {
                let mut lacking = guarantees.clone();
                lacking -= &self.consumed(key);
                if !lacking.is_empty() {
                    unmet.insert(key, lacking);
                }
            }
        }
        unmet
    }

    /// The role at the top of the tree that this one is in, if that one has limits.
    pub(super) fn limited_top(&self, role: RoleKey) -> Option<RoleKey> {
        let top = self.top(role)?;
        (!self.quota(top).limits.is_empty()).then_some(top)
    }

    /// What a role may still take of what its top-level role is limited to; top-level roles have what was `given` on
    /// top. Empty: there is no limit. Reservations of roles below count as taken, as does what these use.
    pub(super) fn below_limits(
        &self,
        role: RoleKey,
        given: &BTreeMap<RoleKey, Quantities>,
    ) -> Vec<(&Name, Scalar)> {
        let Some(top) = self.limited_top(role) else {
            return Vec::new();
        };
        let limits = &self.quota(top).limits;
        let mut consumed = self.consumed(top);
        if let Some(given) = given.get(&top) {
            consumed += given;
        }
        let left =
            |(name, limit): &'_ (Name, Scalar)| (*limit - consumed.get(name)).max(Scalar::ZERO);
        limits.iter().map(|limit| (&limit.0, left(limit))).collect()
    }
}

/// The resources without what goes beyond the limits. What cannot be divided is kept whole or left out.
pub(super) fn cut(free: &Resources, limits: &mut [(&Name, Scalar)]) -> Resources {
    let mut kept = Resources::new();
    for resource in free {
        let limit = limits
            .iter_mut()
            .find(|(name, _)| *name == resource.name())
            .filter(|_| is_charged(resource));
        let (Some((_, left)), Some(amount)) = (limit, resource.amount()) else {
            kept.add_one(resource);
            continue;
        };
        let whole = resource.is_shared() || resource.disk().is_some();
        let part = if amount <= *left {
            amount
        } else if whole {
            Scalar::ZERO
        } else {
            *left
        };
        if part.0 > 0 {
            *left -= part;
            kept.add_one(&resource.clone().with_amount(part));
        }
    }
    kept
}
