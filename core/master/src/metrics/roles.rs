//! What the allocator's metrics say of roles, from the ledger: true for every allocator.

use std::collections::BTreeMap;

use tepui_http::shared::Sample;
use tepui_model::allocation::Quota;
use tepui_model::id::Role;
use tepui_model::resources::Quantities;
use tepui_state_master::Counted;
use tepui_view::View;

/// What a role has.
#[derive(Default)]
struct Held {
    /// Used or offered, without what is only reserved.
    allocated: Quantities,
    /// Counted against its quota: reserved, or used without a reservation.
    consumed: Quantities,
}

pub(super) fn register(view: &View, counted: &Counted, samples: &mut Vec<Sample>) {
    let mut total = Quantities::new();
    let mut roles: BTreeMap<Role, Held> = BTreeMap::new();
    let rows = || view.frameworks.iter().map(|framework| &framework.row);
    for role in rows().flat_map(|row| &row.roles) {
        roles.entry(role.clone()).or_default();
    }
    for agent in view.agents.iter() {
        merge(&mut total, &agent.total.quantities());
        for (role, reserved) in agent.total.reserved() {
            consume(&mut roles, &role, &reserved.quantities());
        }
    }
    for row in rows() {
        for (role, used) in row.used.allocations() {
            consume(&mut roles, &role, &used.unreserved().quantities());
            let held = roles.entry(role).or_default();
            merge(&mut held.allocated, &used.quantities());
        }
        for (role, offered) in row.offered.allocations() {
            let held = roles.entry(role).or_default();
            merge(&mut held.allocated, &offered.quantities());
        }
    }
    for (role, quota) in &view.globals.quotas {
        of_quota(role, quota, samples);
    }
    for (role, held) in &roles {
        of_role(role, held, &total, counted, samples);
    }
}

/// What a role is promised, and where it ends.
fn of_quota(role: &Role, quota: &Quota, samples: &mut Vec<Sample>) {
    let guarantees = quota.guarantees.iter();
    let guarantees = guarantees.map(|(name, amount)| ("guarantee", name, amount));
    let limits = quota
        .limits
        .iter()
        .map(|(name, amount)| ("limit", name, *amount));
    for (what, name, amount) in guarantees.chain(limits) {
        of_resource(role, name.as_str(), what, amount.to_f64(), samples);
    }
}

fn of_resource(role: &Role, resource: &str, what: &str, amount: f64, samples: &mut Vec<Sample>) {
    let full = format!("allocator/mesos/quota/roles/{role}/resources/{resource}/{what}");
    let labels = vec![
        ("role", role.to_string()),
        ("resource", resource.to_owned()),
    ];
    let family = format!("allocator/mesos/quota/{what}");
    samples.push(Sample::gauge(full, amount).of(family, labels));
}

fn merge(sums: &mut Quantities, more: &Quantities) {
    for (name, amount) in more.iter() {
        sums.add(name, amount);
    }
}

/// A role's consumption is its ancestors' too; the root is the role without a name.
fn consume(roles: &mut BTreeMap<Role, Held>, role: &Role, amount: &Quantities) {
    if amount.is_empty() {
        return;
    }
    let mut at = Some(role.as_str());
    while let Some(role) = at {
        merge(&mut roles.entry(role.into()).or_default().consumed, amount);
        at = match role.rsplit_once('/') {
            Some((parent, _)) => Some(parent),
            None => (!role.is_empty()).then_some(""),
        };
    }
}

fn of_role(
    role: &Role,
    held: &Held,
    total: &Quantities,
    counted: &Counted,
    samples: &mut Vec<Sample>,
) {
    let label = || vec![("role", role.to_string())];
    for (name, amount) in held.consumed.iter() {
        of_resource(role, name.as_str(), "consumed", amount.to_f64(), samples);
    }
    if role.as_str().is_empty() {
        return;
    }
    // Shares are of the four resources that every cluster has.
    let share = ["cpus", "disk", "gpus", "mem"].into_iter().map(|name| {
        let of = |sums: &Quantities| sums.get(&name.into()).to_f64();
        let all = of(total);
        if all > 0.0 {
            of(&held.allocated) / all
        } else {
            0.0
        }
    });
    let dominant = share.fold(0.0, f64::max);
    let name = format!("allocator/mesos/roles/{role}/shares/dominant");
    samples
        .push(Sample::gauge(name, dominant).of("allocator/mesos/roles/shares/dominant", label()));
    let filters = counted.filters.get(role).copied().unwrap_or_default();
    let name = format!("allocator/mesos/offer_filters/roles/{role}/active");
    let sample = Sample::gauge(name, filters as f64);
    samples.push(sample.of("allocator/mesos/offer_filters/active", label()));
}
