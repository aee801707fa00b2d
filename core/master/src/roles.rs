//! GET_ROLES: the roles that frameworks are subscribed to or have resources of.

use std::collections::BTreeMap;

use tepui_model::id::Role;
use tepui_model::resources::Quantities;
use tepui_proto::v1;
use tepui_proto::v1::master::response;
use tepui_view::View;
use tepui_view::encode::{Allowed, Visibility};

/// Weight of a role that nobody gave one.
const DEFAULT_WEIGHT: f64 = 1.0;

#[derive(Default)]
struct Sums {
    frameworks: Vec<v1::FrameworkId>,
    quantities: Quantities,
}

/// The answer to GET_ROLES.
pub(crate) fn get_roles(view: &View, see: &Visibility) -> response::GetRoles {
    let mut roles: BTreeMap<Role, Sums> = BTreeMap::new();
    for framework in &view.frameworks {
        for role in &framework.row.roles {
            let id = v1::FrameworkId {
                value: framework.row.id.to_string(),
            };
            roles.entry(role.clone()).or_default().frameworks.push(id);
        }
    }
    for agent in view.agents.iter() {
        for held in [&agent.used, &agent.offered] {
            for (role, resources) in held.allocations() {
                let sums = roles.entry(role).or_default();
                for (name, amount) in resources.quantities().iter() {
                    sums.quantities.add(name, amount);
                }
            }
        }
    }
    let seen = |role: &Role| match &see.roles {
        Allowed::All => true,
        Allowed::Only(these) => these.contains(role),
    };
    let roles = roles
        .into_iter()
        .filter(|(role, _)| seen(role))
        .map(|(role, sums)| v1::Role {
            name: role.to_string(),
            weight: DEFAULT_WEIGHT,
            frameworks: sums.frameworks,
            resources: sums
                .quantities
                .iter()
                .map(|(name, amount)| scalar(name.as_str(), amount.to_f64()))
                .collect(),
        });
    response::GetRoles {
        roles: roles.collect(),
    }
}

fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.to_owned(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..Default::default()
    }
}
