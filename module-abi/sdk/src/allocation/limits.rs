//! Limits of quota: how much of what is free a role may still have.
//!
//! The master refuses whatever goes beyond a limit; here proposals are made that it takes.

use std::collections::BTreeMap;

use tepui_model::id::Role;
use tepui_model::resources::{Name, Quantities, Resource, Resources, Scalar};
use tepui_model::roles::{is_at_or_below, up};

use super::{Cluster, RoleKey};

/// Scalars in somebody's hands.
#[derive(Debug, Default)]
pub(super) struct Amounts {
    pub(super) all: Quantities,
    /// The part that counts against a quota besides reservations.
    pub(super) charged: Quantities,
}

impl Amounts {
    pub(super) fn of(resources: &Resources) -> Self {
        Self {
            all: resources.quantities(),
            charged: resources.filter(is_charged).quantities(),
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

/// What counts against a quota when it is taken: reservations count where they are made.
pub(super) fn is_charged(resource: &Resource) -> bool {
    !resource.is_reserved() && !resource.is_revocable()
}

impl Cluster {
    /// What a role may still take of what its top-level role is limited to; `given` it has on top. None: there is
    /// no limit. Reservations of roles below count as taken, as does what these use.
    pub(super) fn below_limits(
        &self,
        role: RoleKey,
        given: &BTreeMap<RoleKey, Quantities>,
    ) -> Option<Vec<(&Name, Scalar)>> {
        let top = up(self.role(role).as_str()).last()?;
        let limits = &self.quota(*self.role_keys.get(top)?).limits;
        if limits.is_empty() {
            return None;
        }
        let below = |role: &Role| is_at_or_below(role.as_str(), top);
        let mut consumed = Quantities::new();
        for state in self.roles.iter().filter(|state| below(&state.role)) {
            consumed += &state.taken.charged;
            consumed += &state.reserved;
        }
        for (_, given) in given.iter().filter(|(role, _)| below(self.role(**role))) {
            consumed += given;
        }
        let left =
            |(name, limit): &'_ (Name, Scalar)| (*limit - consumed.get(name)).max(Scalar::ZERO);
        Some(limits.iter().map(|limit| (&limit.0, left(limit))).collect())
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
