//! Checks and health checks (`common/validation.cpp`).

use tepui_proto::v1::{CheckInfo, CommandInfo, HealthCheck, check_info, health_check};
use tepui_proto::validate::command;

use super::Checked;

/// Times of either kind of check.
fn times(times: &[(&str, Option<f64>)]) -> Checked {
    let negative = |time: Option<f64>| time.is_some_and(|seconds| seconds < 0.0);
    match times.iter().find(|(_, time)| negative(*time)) {
        Some((field, _)) => Err(format!("Expecting '{field}' to be non-negative")),
        None => Ok(()),
    }
}

fn path(path: Option<&str>, of: &str) -> Checked {
    match path {
        Some(path) if !path.starts_with('/') => Err(format!(
            "The path '{path}' of HTTP {of} must start with '/'"
        )),
        _ => Ok(()),
    }
}

/// What a check by command runs.
fn check_command(found: &CommandInfo, of: &str) -> Checked {
    if found.value.is_none() {
        let kind = match found.shell() {
            true => "shell command",
            false => "executable path",
        };
        return Err(format!("Command {of} must contain '{kind}'"));
    }
    let mut name = of.to_owned();
    name[..1].make_ascii_uppercase();
    command(found).map_err(|error| format!("{name}'s `CommandInfo` is invalid: {error}"))
}

/// A health check.
pub(super) fn health_check(check: &HealthCheck) -> Checked {
    use health_check::Type;
    const OF: &str = "health check";
    if check.r#type.is_none() {
        return Err("HealthCheck must specify 'type'".into());
    }
    let missing = |field, kind| Err(format!("Expecting '{field}' to be set for {kind} {OF}"));
    match check.r#type() {
        Type::Command => match &check.command {
            Some(command) => check_command(command, OF)?,
            None => return missing("command", "COMMAND"),
        },
        Type::Http => {
            let Some(http) = &check.http else {
                return missing("http", "HTTP");
            };
            let scheme = http.scheme.as_deref().unwrap_or("http");
            if !matches!(scheme, "http" | "https") {
                return Err(format!("Unsupported HTTP health check scheme: '{scheme}'"));
            }
            path(http.path.as_deref(), OF)?;
        }
        Type::Tcp if check.tcp.is_none() => return missing("tcp", "TCP"),
        Type::Tcp => {}
        Type::Unknown => return Err("'UNKNOWN' is not a valid health check type".into()),
    }
    times(&[
        ("delay_seconds", check.delay_seconds),
        ("grace_period_seconds", check.grace_period_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
    ])
}

/// A check that only reports.
pub(super) fn check(check: &CheckInfo) -> Checked {
    use check_info::Type;
    const OF: &str = "check";
    if check.r#type.is_none() {
        return Err("CheckInfo must specify 'type'".into());
    }
    let missing = |field, kind| Err(format!("Expecting '{field}' to be set for {kind} {OF}"));
    match check.r#type() {
        Type::Command => match &check.command {
            Some(found) => check_command(&found.command, OF)?,
            None => return missing("command", "COMMAND"),
        },
        Type::Http => match &check.http {
            Some(http) => path(http.path.as_deref(), OF)?,
            None => return missing("http", "HTTP"),
        },
        Type::Tcp if check.tcp.is_none() => return missing("tcp", "TCP"),
        Type::Tcp => {}
        Type::Unknown => return Err("'UNKNOWN' is not a valid check type".into()),
    }
    times(&[
        ("delay_seconds", check.delay_seconds),
        ("interval_seconds", check.interval_seconds),
        ("timeout_seconds", check.timeout_seconds),
    ])
}
