//! Building blocks of the v0 answers, from message bytes: tasks, statuses, executors, commands.
//!
//! The keys and their order mirror Mesos' `common/http.cpp`. Field numbers are those of
//! `mesos/v1/mesos.proto`.

use tepui_proto::descriptor::Described;
use tepui_proto::json::Writer;
use tepui_proto::v1;

use super::resources;
use super::wire::{Fields, Value, field, value_text};

/// What `task` needs of a task that a row keeps outside its message.
pub(super) struct Live<'a> {
    pub(super) state: v1::TaskState,
    pub(super) statuses: &'a [bytes::Bytes],
    pub(super) resources: &'a tepui_model::Resources,
}

/// A task, from its `mesos.v1.Task` and, for a live one, what its row keeps.
pub(super) fn task(w: &mut Writer<'_>, spec: &[u8], live: Option<&Live<'_>>) {
    let mut found: [Option<Value<'_>>; 18] = [None; 18];
    for (number, value) in Fields(spec) {
        if let Some(slot) = found.get_mut(number as usize) {
            *slot = Some(value);
        }
    }
    let id = |number: usize| found[number].map_or("", |v| value_text(v.bytes()));
    w.object(|w| {
        w.key("id").str(id(2));
        w.key("name").str(found[1].map_or("", Value::str));
        w.key("framework_id").str(id(3));
        w.key("executor_id").str(id(4));
        w.key("slave_id").str(id(5));
        w.key("state");
        match live {
            Some(live) => w.str(live.state.as_str_name()),
            None => w.str(task_state(found[6].map_or(0, Value::int))),
        }
        task_resources(w, spec, found[17].is_some(), live);
        statuses(w, spec, live);
        if let Some(user) = found[14] {
            w.key("user").str(user.str());
        }
        if let Some(value) = found[11] {
            w.key("labels");
            labels(w, value.bytes());
        }
        if let Some(value) = found[12] {
            w.key("discovery")
                .wire(v1::DiscoveryInfo::DESCRIPTOR, value.bytes());
        }
        if let Some(value) = found[13] {
            w.key("container")
                .wire(v1::ContainerInfo::DESCRIPTOR, value.bytes());
        }
        if let Some(value) = found[15] {
            w.key("health_check")
                .wire(v1::HealthCheck::DESCRIPTOR, value.bytes());
        }
    });
}

fn task_resources(w: &mut Writer<'_>, spec: &[u8], has_limits: bool, live: Option<&Live<'_>>) {
    w.key("resources");
    match live {
        Some(live) => resources::object(w, live.resources),
        None => resources::object_of_messages(w, spec, 7),
    }
    if has_limits {
        w.key("limits");
        limits(w, spec, 17);
    }
    w.key("role");
    match live {
        Some(live) => w.str(role(live.resources)),
        None => w.str(resources::role_of_messages(spec, 7)),
    }
}

/// The role that these resources are allocated to: that of the first, as tasks do not mix them.
pub(super) fn role(all: &tepui_model::Resources) -> &str {
    let first = all.iter().next().and_then(|r| r.allocation_role());
    first.map_or("", |role| role.as_str())
}

fn statuses(w: &mut Writer<'_>, spec: &[u8], live: Option<&Live<'_>>) {
    w.key("statuses").array(|w| match live {
        Some(live) => live.statuses.iter().for_each(|s| status(w, s)),
        None => Fields(spec)
            .filter(|(number, _)| *number == 8)
            .for_each(|(_, value)| status(w, value.bytes())),
    });
}

/// The name of a task state.
pub(super) fn task_state(number: i64) -> &'static str {
    let known = i32::try_from(number)
        .ok()
        .and_then(|n| v1::TaskState::try_from(n).ok());
    known.unwrap_or(v1::TaskState::TaskUnknown).as_str_name()
}

fn limits(w: &mut Writer<'_>, message: &[u8], number: u32) {
    w.object(|w| {
        for (_, entry) in Fields(message).filter(|(found, _)| *found == number) {
            let name = field(entry.bytes(), 1).map_or("", Value::str);
            let amount = field(entry.bytes(), 2).and_then(|v| field(v.bytes(), 1));
            let amount = amount.map_or(0.0, Value::f64);
            w.key(name).f64(amount);
        }
    });
}

/// A `mesos.v1.TaskStatus`.
fn status(w: &mut Writer<'_>, message: &[u8]) {
    let (mut state, mut timestamp, mut healthy) = (0, 0.0, None);
    let (mut found_labels, mut container) = (None, None);
    for (number, value) in Fields(message) {
        match number {
            2 => state = value.int(),
            6 => timestamp = value.f64(),
            8 => healthy = Some(value.int() != 0),
            12 => found_labels = Some(value.bytes()),
            13 => container = Some(value.bytes()),
            _ => {}
        }
    }
    w.object(|w| {
        w.key("state").str(task_state(state));
        w.key("timestamp").f64(timestamp);
        if let Some(message) = found_labels {
            w.key("labels");
            labels(w, message);
        }
        if let Some(message) = container {
            w.key("container_status");
            container_status(w, message);
        }
        if let Some(healthy) = healthy {
            w.key("healthy").bool(healthy);
        }
    });
}

/// A `mesos.v1.ContainerStatus`.
fn container_status(w: &mut Writer<'_>, message: &[u8]) {
    w.object(|w| {
        if let Some(id) = field(message, 4) {
            w.key("container_id")
                .wire(v1::ContainerId::DESCRIPTOR, id.bytes());
        }
        let networks = || Fields(message).filter(|(number, _)| *number == 1);
        if networks().next().is_some() {
            w.key("network_infos").array(|w| {
                networks().for_each(|(_, network)| network_info(w, network.bytes()));
            });
        }
        if let Some(cgroup) = field(message, 2) {
            w.key("cgroup_info")
                .wire(v1::CgroupInfo::DESCRIPTOR, cgroup.bytes());
        }
    });
}

/// A `mesos.v1.NetworkInfo`.
fn network_info(w: &mut Writer<'_>, message: &[u8]) {
    let of = |wanted| Fields(message).filter(move |(number, _)| *number == wanted);
    w.object(|w| {
        if of(3).next().is_some() {
            w.key("groups")
                .array(|w| of(3).for_each(|(_, group)| w.str(group.str())));
        }
        if let Some(value) = field(message, 4) {
            w.key("labels");
            labels(w, value.bytes());
        }
        if of(5).next().is_some() {
            w.key("ip_addresses").array(|w| {
                for (_, address) in of(5) {
                    w.wire(v1::network_info::IpAddress::DESCRIPTOR, address.bytes());
                }
            });
        }
        if let Some(name) = field(message, 6) {
            w.key("name").str(name.str());
        }
        if of(7).next().is_some() {
            w.key("port_mappings").array(|w| {
                for (_, mapping) in of(7) {
                    w.wire(v1::network_info::PortMapping::DESCRIPTOR, mapping.bytes());
                }
            });
        }
    });
}

/// A `mesos.v1.Labels` as an array.
pub(super) fn labels(w: &mut Writer<'_>, message: &[u8]) {
    w.array(|w| {
        for (_, label) in Fields(message).filter(|(number, _)| *number == 1) {
            // One walk for both: tasks have many labels.
            let (mut key, mut value) = ("", None);
            for (number, found) in Fields(label.bytes()) {
                match number {
                    1 => key = found.str(),
                    2 => value = Some(found.str()),
                    _ => {}
                }
            }
            w.object(|w| {
                w.key("key").str(key);
                if let Some(value) = value {
                    w.key("value").str(value);
                }
            });
        }
    });
}

/// A `mesos.v1.CommandInfo`.
pub(super) fn command(w: &mut Writer<'_>, message: &[u8]) {
    let of = |wanted| Fields(message).filter(move |(number, _)| *number == wanted);
    w.object(|w| {
        if let Some(shell) = field(message, 6) {
            w.key("shell").bool(shell.int() != 0);
        }
        if let Some(value) = field(message, 3) {
            w.key("value").str(value.str());
        }
        w.key("argv")
            .array(|w| of(7).for_each(|(_, argument)| w.str(argument.str())));
        if let Some(environment) = field(message, 2) {
            w.key("environment")
                .wire(v1::Environment::DESCRIPTOR, environment.bytes());
        }
        w.key("uris").array(|w| {
            for (_, uri) in of(1) {
                w.object(|w| {
                    w.key("value")
                        .str(field(uri.bytes(), 1).map_or("", Value::str));
                    let executable = field(uri.bytes(), 2).is_some_and(|v| v.int() != 0);
                    w.key("executable").bool(executable);
                });
            }
        });
    });
}

/// The members of an executor on the master, from its `mesos.v1.ExecutorInfo`.
pub(super) fn executor(
    w: &mut Writer<'_>,
    info: &[u8],
    used: &tepui_model::Resources,
    agent: &str,
) {
    let id = |number| field(info, number).map_or("", |v| value_text(v.bytes()));
    w.object(|w| {
        w.key("executor_id").str(id(1));
        w.key("name").str(field(info, 9).map_or("", Value::str));
        w.key("framework_id").str(id(8));
        w.key("command");
        command(w, field(info, 7).map_or(&[], Value::bytes));
        w.key("resources");
        resources::object(w, used);
        if !used.is_empty() {
            w.key("role").str(role(used));
        }
        if let Some(value) = field(info, 14) {
            w.key("labels");
            labels(w, value.bytes());
        }
        if let Some(kind) = field(info, 15) {
            w.key("type").str(executor_type(kind.int()));
        }
        w.key("slave_id").str(agent);
    });
}

/// The name of an executor's type.
pub(super) fn executor_type(number: i64) -> &'static str {
    use v1::executor_info::Type;
    let known = i32::try_from(number)
        .ok()
        .and_then(|n| Type::try_from(n).ok());
    known.unwrap_or(Type::Unknown).as_str_name()
}
