//! Weights, quota and maintenance as operators send them.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::resources::Scalar;
use tepui_model::roles;
use tepui_proto::v1::quota::{QuotaConfig, QuotaRequest};
use tepui_proto::v1::{self, MachineId, Unavailability, WeightInfo, maintenance, value};

use super::Checked;
use crate::maintenance::{machine_key, said};

/// A tebi of megabytes, an exabyte: the most memory or disk that a quota may name.
const MOST_MEGABYTES: f64 = (1_u64 << 40) as f64;
/// The most of anything else.
const MOST: f64 = 1e12;

/// UPDATE_WEIGHTS and PUT `/weights`.
pub fn weights(weights: &[WeightInfo]) -> Checked {
    for info in weights {
        let role = info.role();
        roles::validate(role).map_err(|error| {
            format!(
                "Failed to validate update weights request JSON: Invalid role '{role}': {error}"
            )
        })?;
        if !(info.weight.is_finite() && info.weight > 0.0) {
            return Err(format!(
                "Failed to validate update weights request JSON for role '{role}': Invalid weight '{}': Weights must be positive",
                info.weight
            ));
        }
    }
    Ok(())
}

/// One config of an UPDATE_QUOTA.
pub fn quota_config(config: &QuotaConfig) -> Checked {
    let invalid = |why: String| format!("Invalid QuotaConfig: {why}");
    roles::validate(&config.role)
        .map_err(|error| invalid(format!("Invalid 'QuotaConfig.role': {error}")))?;
    for (kind, amounts) in [("guarantee", &config.guarantees), ("limit", &config.limits)] {
        for (name, amount) in amounts {
            quota_amount(name, amount.value).map_err(|why| {
                let amount = Scalar::from_f64(amount.value);
                invalid(format!(
                    "Invalid {kind} configuration {{'{name}': {amount}}}: {why}"
                ))
            })?;
        }
    }
    let over = |(name, amount): (&String, &value::Scalar)| {
        config
            .limits
            .get(name)
            .is_some_and(|limit| Scalar::from_f64(amount.value) > Scalar::from_f64(limit.value))
    };
    if config.guarantees.iter().any(over) {
        return Err(invalid(format!(
            "'QuotaConfig.guarantees' {} is not contained within the 'QuotaConfig.limits' {}",
            listed(&config.guarantees),
            listed(&config.limits)
        )));
    }
    flat(&config.role)
}

/// Quota is set at the top of the tree of roles.
fn flat(role: &str) -> Checked {
    if role.contains('/') {
        return Err(format!(
            "Updating quota on nested role '{role}' is not supported yet"
        ));
    }
    Ok(())
}

fn quota_amount(name: &str, amount: f64) -> Checked {
    if !amount.is_finite() {
        return Err("Only finite values are supported".into());
    }
    if amount < 0.0 {
        return Err("Negative values not supported".into());
    }
    let (most, said) = match name {
        "mem" | "disk" => (MOST_MEGABYTES, "1 exabyte"),
        _ => (MOST, "1 trillion"),
    };
    if amount > most {
        return Err(format!("Values above {said} are not supported"));
    }
    Ok(())
}

/// `{ cpus: 3, mem: 64 }`
fn listed(amounts: &BTreeMap<String, value::Scalar>) -> String {
    let amount = |(name, amount): (&String, &value::Scalar)| {
        format!("{name}: {}", Scalar::from_f64(amount.value))
    };
    let amounts: Vec<String> = amounts.iter().map(amount).collect();
    format!("{{ {} }}", amounts.join(", "))
}

/// SET_QUOTA and POST `/quota`.
pub fn quota_request(request: &QuotaRequest) -> Checked {
    let invalid = |why: String| format!("Failed to validate set quota request: {why}");
    let Some(role) = &request.role else {
        return Err(invalid("Expecting 'role' to be present".into()));
    };
    roles::validate(role).map_err(|error| invalid(format!("Invalid role '{role}': {error}")))?;
    flat(role)?;
    if request.guarantee.is_empty() {
        return Err(invalid("Expecting 'guarantee' to name resources".into()));
    }
    let mut seen = BTreeSet::new();
    for resource in &request.guarantee {
        let name = &resource.name;
        guaranteed(resource).map_err(|why| invalid(format!("Guarantee of '{name}' {why}")))?;
        if !seen.insert(name) {
            return Err(invalid(format!("Guarantee of '{name}' is given twice")));
        }
    }
    Ok(())
}

/// A guarantee is an amount of something and says no more.
#[expect(deprecated, reason = "the old way to name a reservation")]
fn guaranteed(resource: &v1::Resource) -> Checked {
    let Some(amount) = &resource.scalar else {
        return Err("is not a scalar".into());
    };
    if !resource.reservations.is_empty()
        || resource.reservation.is_some()
        || resource.role.as_deref().is_some_and(|role| role != "*")
    {
        return Err("names a reservation".into());
    }
    if resource.disk.is_some() || resource.revocable.is_some() || resource.shared.is_some() {
        return Err("names more than an amount".into());
    }
    quota_amount(&resource.name, amount.value).map_err(|why| format!("is {}: {why}", amount.value))
}

/// UPDATE_MAINTENANCE_SCHEDULE and POST `/maintenance/schedule`.
pub fn schedule(schedule: &maintenance::Schedule) -> Checked {
    let mut seen = BTreeSet::new();
    for window in &schedule.windows {
        if window.machine_ids.is_empty() {
            return Err("List of machines in the maintenance window is empty".into());
        }
        unavailability(&window.unavailability)?;
        for id in &window.machine_ids {
            machine(id)?;
            if !seen.insert(machine_key(id)) {
                return Err(format!(
                    "Machine '{}' appears more than once in the schedule",
                    said(id)
                ));
            }
        }
    }
    Ok(())
}

fn unavailability(unavailability: &Unavailability) -> Checked {
    let duration = unavailability.duration.as_ref();
    if duration.is_some_and(|duration| duration.nanoseconds < 0) {
        return Err("Unavailability 'duration' is negative".into());
    }
    Ok(())
}

fn machine(id: &MachineId) -> Checked {
    if id.hostname().is_empty() && id.ip().is_empty() {
        return Err("Expecting a machine's 'hostname' or 'ip' to be present".into());
    }
    if !id.ip().is_empty() && id.ip().parse::<std::net::IpAddr>().is_err() {
        return Err(format!("Machine '{}' has an invalid 'ip'", said(id)));
    }
    Ok(())
}

/// Machines of START_MAINTENANCE, STOP_MAINTENANCE, `/machine/down` and `/machine/up`.
pub fn machines(machines: &[MachineId]) -> Checked {
    if machines.is_empty() {
        return Err("List of machines is empty".into());
    }
    let mut seen = BTreeSet::new();
    for id in machines {
        machine(id)?;
        if !seen.insert(machine_key(id)) {
            return Err(format!(
                "Machine '{}' appears more than once in the list",
                said(id)
            ));
        }
    }
    Ok(())
}
