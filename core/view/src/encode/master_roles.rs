//! Roles with what they have: `/roles` and GET_ROLES.
//!
//! A role is known while a framework is subscribed to it, resources are allocated or reserved to it, or it
//! has a weight or a quota; so is every role above it. What the roles below it have counts as its own.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::allocation::Quota;
use tepui_model::id::Role;
use tepui_model::resources::{Name, Quantities, Resources, Scalar, Value};
use tepui_model::roles::up;
use tepui_proto::json::Writer;
use tepui_proto::v1;
use tepui_proto::v1::master::response;

use super::{Sink, Visibility, json};
use crate::view::View;

/// Weight of a role that nobody gave one.
const DEFAULT_WEIGHT: f64 = 1.0;

/// What a role has.
#[derive(Default)]
struct RoleSums<'a> {
    weight: Option<f64>,
    quota: Option<&'a Quota>,
    allocated: Resources,
    offered: Resources,
    reserved: Resources,
    /// Reserved, or unreserved and allocated: what counts against a quota.
    consumed: Quantities,
    frameworks: Vec<&'a str>,
}

/// Sums by role, while they are made.
#[derive(Default)]
struct Roles<'a>(BTreeMap<Role, RoleSums<'a>>);

impl<'a> Roles<'a> {
    fn of(view: &'a View) -> Self {
        let mut roles = Self::default();
        for (role, weight) in &view.globals.weights {
            roles.own(role).weight = Some(*weight);
        }
        for (role, quota) in &view.globals.quotas {
            if *quota != Quota::default() {
                roles.own(role).quota = Some(quota);
            }
        }
        for framework in &view.frameworks {
            for role in &framework.row.roles {
                let sums = roles.own(role);
                sums.frameworks.push(framework.row.id.as_str());
            }
        }
        for agent in view.agents.iter() {
            for (role, used) in agent.used.allocations() {
                let charged = used.unreserved().non_revocable().quantities();
                roles.add(&role, |sums| {
                    sums.consumed += &charged;
                    sums.allocated += &used;
                });
            }
            for (role, offered) in agent.offered.allocations() {
                roles.add(&role, |sums| sums.offered += &offered);
            }
            for (role, reserved) in agent.total.reserved() {
                let amounts = reserved.quantities();
                roles.add(&role, |sums| {
                    sums.consumed += &amounts;
                    sums.reserved += &reserved;
                });
            }
        }
        roles
    }

    /// The role itself; the roles above it are known then, too.
    fn own(&mut self, role: &Role) -> &mut RoleSums<'a> {
        self.add(role, |_| {});
        self.0.get_mut(role).expect("just added")
    }

    /// Adds to the role and to those above it.
    fn add(&mut self, role: &Role, mut add: impl FnMut(&mut RoleSums<'a>)) {
        for name in up(role.as_str()) {
            match self.0.get_mut(name) {
                Some(sums) => add(sums),
                None => add(self.0.entry(Role::from(name)).or_default()),
            }
        }
    }

    fn seen(self, see: &Visibility) -> impl Iterator<Item = (Role, RoleSums<'a>)> {
        let roles = self.0.into_iter();
        roles.filter(|(role, _)| see.roles.has(role.as_str()))
    }
}

impl RoleSums<'_> {
    fn weight(&self) -> f64 {
        self.weight.unwrap_or(DEFAULT_WEIGHT)
    }

    /// Offered and allocated.
    fn taken(&self) -> Resources {
        &self.allocated + &self.offered
    }
}

/// All roles that are known.
#[must_use]
pub fn known_roles(view: &View) -> BTreeSet<Role> {
    Roles::of(view).0.into_keys().collect()
}

/// The answer to GET_ROLES.
#[must_use]
pub fn get_roles(view: &View, see: &Visibility) -> response::GetRoles {
    let scalar = |(name, amount): (&Name, Scalar)| amount_of(name, amount);
    let role = |(role, sums): (Role, RoleSums<'_>)| v1::Role {
        name: role.to_string(),
        weight: sums.weight(),
        frameworks: sums
            .frameworks
            .iter()
            .map(|id| v1::FrameworkId {
                value: (*id).to_owned(),
            })
            .collect(),
        resources: sums.taken().quantities().iter().map(scalar).collect(),
    };
    response::GetRoles {
        roles: Roles::of(view).seen(see).map(role).collect(),
    }
}

/// A scalar that says no more than how much there is of what.
#[must_use]
pub fn amount_of(name: &Name, amount: Scalar) -> v1::Resource {
    v1::Resource {
        name: name.as_str().to_owned(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar {
            value: amount.to_f64(),
        }),
        ..Default::default()
    }
}

/// `GET /roles`
pub fn roles(view: &View, see: &Visibility, sink: Sink<'_>) {
    json(sink, |w| {
        w.object(|w| {
            w.key("roles").array(|w| {
                for (role, sums) in Roles::of(view).seen(see) {
                    w.object(|w| role_members(w, &role, &sums));
                }
            });
        });
    });
}

fn role_members(w: &mut Writer<'_>, role: &Role, sums: &RoleSums<'_>) {
    w.key("name").str(role.as_str());
    w.key("weight").f64(sums.weight());
    w.key("quota").object(|w| {
        let quota = sums.quota.cloned().unwrap_or_default();
        w.key("role").str(role.as_str());
        amounts(w.key("guarantee"), quota.guarantees.iter());
        let limits = quota.limits.iter().map(|(name, limit)| (name, *limit));
        amounts(w.key("limit"), limits);
        amounts(w.key("consumed"), sums.consumed.iter());
    });
    let amounts = [
        ("resources", &sums.taken()),
        ("allocated", &sums.allocated),
        ("offered", &sums.offered),
        ("reserved", &sums.reserved),
    ];
    for (key, all) in amounts {
        w.key(key).object(|w| amount_members(w, all));
    }
    w.key("frameworks")
        .array(|w| sums.frameworks.iter().for_each(|id| w.str(id)));
}

fn amounts<'a>(w: &mut Writer<'_>, amounts: impl Iterator<Item = (&'a Name, Scalar)>) {
    w.object(|w| {
        for (name, amount) in amounts {
            w.key(name.as_str()).f64(amount.to_f64());
        }
    });
}

/// Names and amounts, sorted; of ranges and sets the number of things in them.
fn amount_members(w: &mut Writer<'_>, all: &Resources) {
    let mut amounts: BTreeMap<&str, f64> = BTreeMap::new();
    let mut scalars: BTreeMap<&str, Scalar> = BTreeMap::new();
    for resource in all {
        let name = resource.name().as_str();
        match resource.value() {
            Value::Scalar(amount) => *scalars.entry(name).or_default() += *amount,
            Value::Ranges(ranges) => *amounts.entry(name).or_default() += ranges.count() as f64,
            Value::Set(set) => *amounts.entry(name).or_default() += set.as_slice().len() as f64,
        }
    }
    amounts.extend(
        scalars
            .iter()
            .map(|(name, amount)| (*name, amount.to_f64())),
    );
    for (name, amount) in amounts {
        w.key(name).f64(amount);
    }
}
