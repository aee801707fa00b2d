//! What the master refuses, with the words of Mesos 1.11 (src/master/validation.cpp).
//!
//! Everything here looks at messages alone; what needs the state (ids in use, resources left) is
//! checked where the state is.

// `FrameworkInfo.role` is deprecated and must go on working.
#![expect(deprecated)]

mod checks;
mod constraints;
mod executor;
mod operation;
mod operator;
mod task;
mod text;

use std::collections::BTreeSet;

use tepui_model::{id, roles};
use tepui_proto::v1::FrameworkInfo;
use tepui_proto::v1::framework_info::capability::Type as Capability;

pub use constraints::offer_constraints;
pub use executor::{executor, group_executor, incompatible_executor};
pub use operation::{Asker, operation};
pub use operator::{machines, quota_config, quota_request, schedule, weights};
pub use task::{group_task, task, unsupported, unsupported_executor};

/// Nothing, or why it is refused.
type Checked = Result<(), String>;

/// An id that a framework brought.
pub fn framework_id(id: &str) -> Checked {
    id::validate(id).map_err(|error| error.to_string())
}

/// Longest `failover_timeout` in seconds: what 64 bits of nanoseconds hold.
const MAX_FAILOVER: f64 = i64::MAX as f64 / 1e9;

/// Roles, capabilities and times of a SUBSCRIBE or UPDATE_FRAMEWORK.
pub fn framework_info(info: &FrameworkInfo) -> Checked {
    // What is no number is taken as none.
    if info
        .failover_timeout
        .is_some_and(|seconds| seconds.abs() > MAX_FAILOVER)
    {
        return Err(
            "Not a valid failover timeout: Argument out of the range that a Duration can represent \
             due to int64_t's size limit"
                .into(),
        );
    }
    let many = info.capabilities.iter().any(|capability| {
        capability.r#type.is_some() && capability.r#type() == Capability::MultiRole
    });
    if !many {
        if !info.roles.is_empty() {
            return Err(
                "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
                    .into(),
            );
        }
        return roles::validate(info.role())
            .map_err(|error| format!("'FrameworkInfo.role' is not a valid role: {error}"));
    }
    if info.role.is_some() {
        return Err(
            "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable".into(),
        );
    }
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<&str> = info
        .roles
        .iter()
        .map(String::as_str)
        .filter(|role| !seen.insert(*role))
        .collect();
    if !twice.is_empty() {
        let list: Vec<&str> = twice.into_iter().collect();
        return Err(format!(
            "'FrameworkInfo.roles' contains duplicate items: {{ {} }}",
            list.join(", ")
        ));
    }
    for role in &info.roles {
        roles::validate(role)
            .map_err(|error| format!("'FrameworkInfo.roles' contains invalid role: {error}"))?;
    }
    Ok(())
}

/// What UPDATE_FRAMEWORK may not change.
pub fn framework_update(old: &FrameworkInfo, new: &FrameworkInfo) -> Checked {
    let refuse = |field: &str, old: &dyn std::fmt::Display, new: &dyn std::fmt::Display| {
        Err(format!(
            "FrameworkInfo update is not valid: Updating 'FrameworkInfo.{field}' is unsupported; attempted to update from '{old}' to '{new}'"
        ))
    };
    if new.principal.is_some() && old.principal != new.principal {
        return refuse("principal", &old.principal(), &new.principal());
    }
    if old.user != new.user {
        return refuse("user", &old.user, &new.user);
    }
    if old.checkpoint() != new.checkpoint() {
        return refuse("checkpoint", &old.checkpoint(), &new.checkpoint());
    }
    Ok(())
}

/// Roles suppressed from the start are among the framework's.
pub fn suppressed_roles(info: &FrameworkInfo, suppressed: &[String]) -> Checked {
    let own =
        |role: &String| info.roles.contains(role) || (info.roles.is_empty() && info.role() == role);
    match suppressed.iter().find(|role| !own(role)) {
        None => Ok(()),
        Some(role) => Err(format!(
            "Suppressed role '{role}' is not contained in the list of roles"
        )),
    }
}
