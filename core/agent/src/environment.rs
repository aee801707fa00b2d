//! The environment of executors (`executorEnvironment` of Mesos), and what its command executor adds
//! for a command task.

use std::path::Path;
use std::time::Duration;

use tepui_model::time::text;
use tepui_proto::v1::{self, environment::variable};
use tepui_state_agent::Launch;

use crate::Settings;

/// All variables in order; of two with one name the later wins.
pub(crate) fn environment(
    settings: &Settings,
    agent_id: &str,
    launch: &Launch,
    sandbox: &Path,
) -> Vec<(String, String)> {
    let mut all = settings.executor_environment.clone();
    let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
    let framework = launch.framework.id.as_ref();
    let sandbox = sandbox.display().to_string();
    let address = format!("{}:{}", settings.ip, settings.port);
    set("LIBPROCESS_PORT", "0".to_owned());
    if let Ok(ip) = std::env::var("LIBPROCESS_IP") {
        set("LIBPROCESS_IP", ip);
    }
    set(
        "MESOS_FRAMEWORK_ID",
        framework.map_or_else(String::new, |id| id.value.clone()),
    );
    set(
        "MESOS_EXECUTOR_ID",
        launch.executor.executor_id.value.clone(),
    );
    set("MESOS_DIRECTORY", sandbox.clone());
    set("MESOS_SANDBOX", sandbox);
    set("MESOS_SLAVE_ID", agent_id.to_owned());
    set("MESOS_SLAVE_PID", format!("slave(1)@{address}"));
    set("MESOS_AGENT_ENDPOINT", address);
    if let Some(socket) = &settings.domain_socket {
        set("MESOS_DOMAIN_SOCKET", socket.display().to_string());
    }
    set("MESOS_CHECKPOINT", flag(launch.framework.checkpoint()));
    set("MESOS_HTTP_COMMAND_EXECUTOR", flag(false));
    let grace = launch.executor.shutdown_grace_period.as_ref();
    let grace = grace.map(|d| Duration::from_nanos(d.nanoseconds.max(0).unsigned_abs()));
    set(
        "MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD",
        text(grace.unwrap_or(settings.executor_shutdown_grace_period)),
    );
    if launch.framework.checkpoint() {
        set("MESOS_RECOVERY_TIMEOUT", text(settings.recovery_timeout));
        set(
            "MESOS_SUBSCRIPTION_BACKOFF_MAX",
            text(Duration::from_secs(2)),
        );
    }
    if let Some(role) = allocation_role(launch) {
        set("MESOS_ALLOCATION_ROLE", role);
    }
    let command = match &launch.task {
        Some(task) => task.command.as_ref(),
        None => launch.executor.command.as_ref(),
    };
    all.extend(command.into_iter().flat_map(plain));
    all
}

/// The same for a task in a default executor: what the executor has, as that one hands it on.
pub(crate) fn of_task(
    settings: &Settings,
    executor: Vec<(String, String)>,
    task: &v1::TaskInfo,
    sandbox: &Path,
) -> Vec<(String, String)> {
    let is_handed_on = |(name, _): &(String, String)| {
        name.starts_with("MESOS_") && name != "MESOS_EXECUTOR_AUTHENTICATION_TOKEN"
    };
    let mut all: Vec<_> = executor.into_iter().filter(is_handed_on).collect();
    let mut set = |name: &str, value: String| all.push((name.to_owned(), value));
    set("MESOS_SANDBOX", sandbox.display().to_string());
    set("MESOS_CONTAINER_IP", settings.ip.to_string());
    if let Some(role) = role_of(&task.resources) {
        set("MESOS_ALLOCATION_ROLE", role);
    }
    all.extend(task.command.iter().flat_map(plain));
    all
}

/// The variables of a command whose values are no secrets.
pub(crate) fn plain(command: &v1::CommandInfo) -> impl Iterator<Item = (String, String)> {
    let own = command.environment.iter().flat_map(|own| &own.variables);
    let own = own.filter(|variable| variable.r#type() != variable::Type::Secret);
    own.map(|variable| (variable.name.clone(), variable.value().to_owned()))
}

fn flag(value: bool) -> String {
    if value { "1" } else { "0" }.to_owned()
}

fn allocation_role(launch: &Launch) -> Option<String> {
    role_of(launch.task.as_ref().map_or(&[], |task| &task.resources))
}

fn role_of(resources: &[v1::Resource]) -> Option<String> {
    let role = |r: &v1::Resource| {
        r.allocation_info
            .as_ref()
            .and_then(|info| info.role.clone())
    };
    resources.iter().find_map(role)
}
