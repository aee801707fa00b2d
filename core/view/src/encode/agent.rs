//! The agent's `/state`, from what its owner gathers for one answer.
//!
//! An agent has few rows, so they come as plain data, already cut to what the viewer may see.

use bytes::Bytes;
use tepui_model::Resources;
use tepui_model::id::Role;
use tepui_proto::descriptor::Described;
use tepui_proto::json::Writer;
use tepui_proto::v1;

use super::blocks;
use super::master_v0::{about_members, framework_roles, log_and_flags};
use super::wire::{Value, field, value_text};
use super::{About, Allowed, Sink, json, resources};

/// Everything that an agent's `/state` says.
#[derive(Clone, Debug, Default)]
pub struct AgentState {
    /// When the process started, in seconds since 1970.
    pub start_time: f64,
    /// Its id; empty until it has registered.
    pub id: String,
    /// `slave(1)@ip:port`
    pub pid: String,
    /// Its hostname.
    pub hostname: String,
    /// Names of its capabilities.
    pub capabilities: Vec<String>,
    /// `mesos.v1.AgentInfo`: attributes and domain are taken from it.
    pub info: Bytes,
    /// `mesos.v1.DrainConfig` while it drains.
    pub drain_config: Option<Bytes>,
    /// When the drain began, in seconds since 1970.
    pub drain_started: Option<f64>,
    /// Everything it has.
    pub total: Resources,
    /// What its executors and tasks have, in allocated form.
    pub allocated: Resources,
    /// The host of the master, once one is known.
    pub master_hostname: Option<String>,
    /// Frameworks with live executors.
    pub frameworks: Vec<AgentFramework>,
    /// Frameworks with none left.
    pub completed_frameworks: Vec<AgentFramework>,
}

/// A framework on an agent.
#[derive(Clone, Debug, Default)]
pub struct AgentFramework {
    /// Its info, with its id.
    pub info: v1::FrameworkInfo,
    /// Live executors.
    pub executors: Vec<AgentExecutor>,
    /// Ended executors, oldest first.
    pub completed_executors: Vec<AgentExecutor>,
}

/// An executor on an agent; generated ones look like the others.
#[derive(Clone, Debug, Default)]
pub struct AgentExecutor {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its source.
    pub source: String,
    /// Id of its container.
    pub container: String,
    /// Its sandbox.
    pub directory: String,
    /// Its own resources and those of its tasks, in allocated form.
    pub resources: Resources,
    /// `mesos.v1.Labels`
    pub labels: Option<Bytes>,
    /// Its type; a generated one has none.
    pub kind: Option<v1::executor_info::Type>,
    /// `mesos.v1.Task` of tasks that have been handed to it.
    pub tasks: Vec<Bytes>,
    /// `mesos.v1.TaskInfo` of tasks that wait for it.
    pub queued: Vec<Bytes>,
    /// `mesos.v1.Task` of ended tasks.
    pub completed: Vec<Bytes>,
}

/// `GET /state` of an agent; `roles` and `flags` say what the viewer may see.
pub fn state(
    state: &AgentState,
    about: &About,
    roles: &Allowed<Role>,
    flags: bool,
    sink: Sink<'_>,
) {
    json(sink, |w| {
        w.object(|w| {
            about_members(w, about);
            w.key("start_time").f64(state.start_time);
            w.key("id").str(&state.id);
            w.key("pid").str(&state.pid);
            w.key("hostname").str(&state.hostname);
            w.key("capabilities")
                .array(|w| state.capabilities.iter().for_each(|name| w.str(name)));
            if let Some(domain) = field(&state.info, 10) {
                w.key("domain")
                    .wire(v1::DomainInfo::DESCRIPTOR, domain.bytes());
            }
            if let Some(config) = &state.drain_config {
                w.key("drain_config")
                    .wire(v1::DrainConfig::DESCRIPTOR, config);
            }
            if let Some(started) = state.drain_started {
                w.key("estimated_drain_start_time_seconds").f64(started);
            }
            resource_members(w, state, roles);
            w.key("resource_providers").array(|_| {});
            w.key("attributes");
            resources::attributes(w, &state.info, 5);
            if let Some(hostname) = &state.master_hostname {
                w.key("master_hostname").str(hostname);
            }
            if flags {
                log_and_flags(w, about);
            }
            w.key("frameworks");
            framework_array(w, &state.frameworks);
            w.key("completed_frameworks");
            framework_array(w, &state.completed_frameworks);
        });
    });
}

fn resource_members(w: &mut Writer<'_>, state: &AgentState, roles: &Allowed<Role>) {
    let unreserved = state.total.unreserved();
    w.key("resources");
    resources::object(w, &state.total);
    w.key("reserved_resources");
    resources::reserved(w, &state.total, roles);
    w.key("unreserved_resources");
    resources::object(w, &unreserved);
    w.key("reserved_resources_full");
    resources::reserved_full(w, &state.total, roles);
    w.key("unreserved_resources_full");
    resources::full(w, &unreserved, roles);
    w.key("reserved_resources_allocated");
    resources::reserved(w, &state.allocated, roles);
    w.key("unreserved_resources_allocated");
    resources::object(w, &state.allocated.unreserved());
}

fn framework_array(w: &mut Writer<'_>, frameworks: &[AgentFramework]) {
    w.array(|w| {
        for framework in frameworks {
            w.object(|w| framework_members(w, framework));
        }
    });
}

fn framework_members(w: &mut Writer<'_>, framework: &AgentFramework) {
    let info = &framework.info;
    w.key("id").str(info.id.as_ref().map_or("", |id| &id.value));
    w.key("name").str(&info.name);
    w.key("user").str(&info.user);
    w.key("failover_timeout").f64(info.failover_timeout());
    w.key("checkpoint").bool(info.checkpoint());
    w.key("hostname").str(info.hostname());
    if let Some(principal) = &info.principal {
        w.key("principal").str(principal);
    }
    framework_roles(w, info);
    let lists = [
        ("executors", &framework.executors),
        ("completed_executors", &framework.completed_executors),
    ];
    for (key, executors) in lists {
        w.key(key).array(|w| {
            for executor in executors {
                w.object(|w| executor_members(w, executor));
            }
        });
    }
}

fn executor_members(w: &mut Writer<'_>, executor: &AgentExecutor) {
    w.key("id").str(&executor.id);
    w.key("name").str(&executor.name);
    w.key("source").str(&executor.source);
    w.key("container").str(&executor.container);
    w.key("directory").str(&executor.directory);
    w.key("resources");
    resources::object(w, &executor.resources);
    if !executor.resources.is_empty() {
        w.key("role").str(blocks::role(&executor.resources));
    }
    if let Some(labels) = &executor.labels {
        w.key("labels");
        blocks::labels(w, labels);
    }
    if let Some(kind) = executor.kind {
        w.key("type").str(kind.as_str_name());
    }
    w.key("tasks").array(|w| {
        executor
            .tasks
            .iter()
            .for_each(|task| blocks::task(w, task, None))
    });
    w.key("queued_tasks")
        .array(|w| executor.queued.iter().for_each(|task| queued(w, task)));
    w.key("completed_tasks").array(|w| {
        executor
            .completed
            .iter()
            .for_each(|task| blocks::task(w, task, None))
    });
}

/// A task that waits for its executor, from its `mesos.v1.TaskInfo`.
fn queued(w: &mut Writer<'_>, info: &[u8]) {
    let id = |number| field(info, number).map_or("", |v| value_text(v.bytes()));
    w.object(|w| {
        w.key("id").str(id(2));
        w.key("name").str(field(info, 1).map_or("", Value::str));
        w.key("slave_id").str(id(3));
        w.key("resources");
        resources::object_of_messages(w, info, 4);
        w.key("role").str(resources::role_of_messages(info, 4));
        if let Some(command) = field(info, 7) {
            w.key("command");
            blocks::command(w, command.bytes());
        }
        if let Some(executor) = field(info, 5) {
            let executor_id = field(executor.bytes(), 1).map_or("", |v| value_text(v.bytes()));
            w.key("executor_id").str(executor_id);
        }
        if let Some(discovery) = field(info, 11) {
            w.key("discovery")
                .wire(v1::DiscoveryInfo::DESCRIPTOR, discovery.bytes());
        }
    });
}
