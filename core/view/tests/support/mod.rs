//! Builds views from recorded answers.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;
use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::authorization::{Class, ClassKey};
use tepui_model::hash::Seed;
use tepui_model::id::{AgentId, Role, Uuid};
use tepui_model::time::Wall;
use tepui_proto::v1::master::response::get_agents::Agent;
use tepui_proto::v1::master::response::get_frameworks::Framework;
use tepui_proto::v1::master::response::{GetState, GetTasks};
use tepui_proto::{convert, json, v1};
use tepui_view::encode::About;
use tepui_view::{
    AgentRow, Classes, DoneRow, ExecutorRow, FrameworkRow, FrameworkView, Globals, OfferRow, Rows,
    Table, TaskRow, UpdateHead, View,
};

/// A recorded answer.
pub(crate) fn recorded(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// A recorded answer as JSON.
pub(crate) fn parsed(path: &str) -> Value {
    let text = recorded(path);
    exact(&json::parse(text.as_bytes()).expect("recorded JSON"))
}

/// Without serde_json's parser, which may miss the last digit of a number.
fn exact(value: &json::Value<'_>) -> Value {
    match value {
        json::Value::Null => Value::Null,
        json::Value::Bool(value) => Value::Bool(*value),
        json::Value::Number(number) => match number {
            json::Number::Float(value) => (*value).into(),
            json::Number::Int(value) => (*value).into(),
            json::Number::Uint(value) => (*value).into(),
        },
        json::Value::String(text) => text.to_string().into(),
        json::Value::Array(items) => items.iter().map(exact).collect(),
        json::Value::Object(members) => {
            let members = members.iter();
            members
                .map(|(key, value)| (key.to_string(), exact(value)))
                .collect()
        }
    }
}

fn bytes(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

fn wall(time: &Option<v1::TimeInfo>) -> Option<Wall> {
    time.as_ref().map(Into::into)
}

fn rows<R: Clone>(all: impl IntoIterator<Item = R>) -> Rows<R> {
    let mut table: Table<usize, R> = Table::new(Seed(1, 2));
    for (key, row) in all.into_iter().enumerate() {
        table.insert(key, row);
    }
    table.publish()
}

/// What a master says about itself, from its `/state`.
pub(crate) fn about(state: &Value) -> About {
    let text = |key: &str| state[key].as_str().map(str::to_owned);
    let flags = state["flags"].as_object().expect("flags").iter();
    About {
        version: text("version").expect("a version"),
        git_sha: text("git_sha"),
        git_branch: text("git_branch"),
        git_tag: text("git_tag"),
        build_date: text("build_date").expect("a date"),
        build_time: state["build_time"].as_f64().expect("a time"),
        build_user: text("build_user").expect("a user"),
        cluster: text("cluster"),
        log_dir: text("log_dir"),
        external_log_file: text("external_log_file"),
        flags: flags
            .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
            .collect(),
    }
}

/// The globals, from a `/state`.
pub(crate) fn globals(state: &Value) -> Globals {
    let leader = &state["leader_info"];
    let text = |key: &str| leader[key].as_str().map(str::to_owned);
    let time = |key: &str| state[key].as_f64().map(Wall::from_secs_f64);
    let master_id = text("id").expect("an id");
    Globals {
        master_info: bytes(&v1::MasterInfo {
            id: master_id.clone(),
            port: 15050,
            pid: text("pid"),
            hostname: text("hostname"),
            ..Default::default()
        }),
        master_id,
        started: time("start_time").expect("a start"),
        elected: time("elected_time"),
        ..Globals::default()
    }
}

/// The view of a moment, from its GET_STATE.
pub(crate) fn view(get_state: &str) -> View {
    let response: v1::master::Response =
        json::to_message(recorded(get_state).as_bytes()).expect("a response");
    view_of(&response.get_state.expect("a state"))
}

/// The view of a moment.
pub(crate) fn view_of(state: &GetState) -> View {
    let agents = state.get_agents.clone().unwrap_or_default().agents;
    let agents: Vec<AgentRow> = agents.iter().enumerate().map(agent_row).collect();
    let key_of = |id: &str| {
        let found = agents.iter().find(|a| a.id.as_str() == id);
        found.map_or(AgentKey(99), |a| a.key)
    };
    let all = state.get_frameworks.clone().unwrap_or_default();
    let mut offers = Vec::new();
    let mut number = 0;
    let mut build = |list: &[Framework]| -> Vec<Arc<FrameworkView>> {
        let mut views = Vec::new();
        for framework in list {
            let key = FrameworkKey(number);
            number += 1;
            offers.extend(framework.offers.iter().map(|o| offer_row(o, key, &key_of)));
            views.push(Arc::new(framework_view(framework, key, state, &key_of)));
        }
        views
    };
    let frameworks = build(&all.frameworks);
    let completed_frameworks = build(&all.completed_frameworks);
    View {
        version: 1,
        agents: rows(agents.clone()),
        frameworks,
        completed_frameworks,
        offers: rows(offers),
        classes: Arc::new(Classes {
            list: vec![Arc::new(Class::default())],
        }),
        ..View::default()
    }
}

fn agent_row((n, agent): (usize, &Agent)) -> AgentRow {
    let info = agent.agent_info.clone();
    let names = agent.capabilities.iter();
    AgentRow {
        key: AgentKey(n as u32),
        id: AgentId::from(info.id.as_ref().expect("an id")),
        class: ClassKey(0),
        hostname: info.hostname.clone(),
        port: info.port() as u16,
        info: bytes(&info),
        pid: agent.pid().to_owned(),
        version: agent.version.clone(),
        capabilities: names.map(|c| c.r#type().as_str_name().to_owned()).collect(),
        active: agent.active,
        deactivated: agent.deactivated(),
        connected: true,
        registered: wall(&agent.registered_time).expect("a time"),
        reregistered: wall(&agent.reregistered_time),
        total: convert::resources(&agent.total_resources).expect("resources"),
        used: convert::resources(&agent.allocated_resources).expect("resources"),
        offered: convert::resources(&agent.offered_resources).expect("resources"),
        resource_version: Bytes::new(),
        drain: agent.drain_info.as_ref().map(bytes),
        drain_started: wall(&agent.estimated_drain_start_time),
    }
}

fn offer_row(
    offer: &v1::Offer,
    framework: FrameworkKey,
    agent: &dyn Fn(&str) -> AgentKey,
) -> OfferRow {
    let role = offer.allocation_info.as_ref().expect("an allocation");
    OfferRow {
        id: (&offer.id).into(),
        framework,
        agent: agent(&offer.agent_id.value),
        role: Role::from(role.role()),
        resources: convert::resources(&offer.resources).expect("resources"),
        bytes: bytes(offer),
    }
}

fn framework_view(
    framework: &Framework,
    key: FrameworkKey,
    state: &GetState,
    agent: &dyn Fn(&str) -> AgentKey,
) -> FrameworkView {
    let info = framework.framework_info.clone();
    let id = info.id.clone().expect("an id").value;
    let tasks = state.get_tasks.clone().unwrap_or_default();
    let GetTasks {
        tasks,
        unreachable_tasks,
        completed_tasks,
        ..
    } = tasks;
    let own = |all: Vec<v1::Task>| all.into_iter().filter(|t| t.framework_id.value == id);
    let executors = state.get_executors.clone().unwrap_or_default().executors;
    let executors = executors.iter().filter(|e| {
        let of = e.executor_info.framework_id.as_ref();
        of.is_some_and(|f| f.value == id)
    });
    let registered = wall(&framework.registered_time).expect("a time");
    let reregistered = wall(&framework.reregistered_time).filter(|time| *time != registered);
    FrameworkView {
        row: FrameworkRow {
            key,
            id: id.as_str().into(),
            class: ClassKey(0),
            roles: info.roles.iter().map(|r| Role::from(r.as_str())).collect(),
            suppressed: Vec::new(),
            info: bytes(&info),
            active: framework.active,
            connected: framework.connected,
            recovered: framework.recovered,
            registered,
            reregistered,
            unregistered: wall(&framework.unregistered_time),
            constraints: None,
            used: convert::resources(&framework.allocated_resources).expect("resources"),
            offered: convert::resources(&framework.offered_resources).expect("resources"),
        },
        tasks: rows(own(tasks).map(|t| task_row(t, key, agent))),
        unreachable: rows(own(unreachable_tasks).map(|t| done_row(&t))),
        completed: rows(own(completed_tasks).map(|t| done_row(&t))),
        executors: rows(executors.map(|e| ExecutorRow {
            id: (&e.executor_info.executor_id).into(),
            agent: agent(&e.agent_id.value),
            agent_id: (&e.agent_id).into(),
            class: ClassKey(0),
            info: bytes(&e.executor_info),
            resources: convert::resources(&e.executor_info.resources).expect("resources"),
        })),
    }
}

fn task_row(
    mut task: v1::Task,
    framework: FrameworkKey,
    agent: &dyn Fn(&str) -> AgentKey,
) -> TaskRow {
    let statuses = std::mem::take(&mut task.statuses);
    let uuid = task.status_update_uuid.take();
    let update = uuid.map(|uuid| UpdateHead {
        state: task.status_update_state(),
        uuid: Uuid::from_slice(&uuid).expect("sixteen bytes"),
    });
    task.status_update_state = None;
    TaskRow {
        id: (&task.task_id).into(),
        framework,
        agent: agent(&task.agent_id.value),
        executor: task.executor_id.as_ref().map(Into::into),
        class: ClassKey(0),
        state: task.state(),
        resources: convert::resources(&task.resources).expect("resources"),
        spec: bytes(&task),
        statuses: statuses.iter().map(bytes).collect(),
        update,
        terminal: false,
    }
}

/// An ended task.
pub(crate) fn done_row(task: &v1::Task) -> DoneRow {
    DoneRow {
        id: (&task.task_id).into(),
        agent: (&task.agent_id).into(),
        class: ClassKey(0),
        state: task.state(),
        ended: Wall(0),
        bytes: bytes(task),
    }
}

/// A task's message, from a v0 answer.
pub(crate) fn task_of_v0(task: &Value) -> v1::Task {
    let id = |key: &str| serde_json::json!({ "value": task[key] });
    let role = &task["role"];
    let scalar = |name: &str| {
        serde_json::json!({"name": name, "type": "SCALAR", "allocation_info": {"role": role},
            "scalar": {"value": task["resources"][name]}})
    };
    let statuses = task["statuses"].as_array().expect("statuses").iter();
    let statuses: Vec<Value> = statuses
        .map(|status| {
            let mut status = status.clone();
            status["task_id"] = id("id");
            status
        })
        .collect();
    let mut v1 = serde_json::json!({
        "name": task["name"], "task_id": id("id"), "framework_id": id("framework_id"),
        "agent_id": id("slave_id"), "state": task["state"],
        "resources": [scalar("cpus"), scalar("mem")], "statuses": statuses,
    });
    for key in ["user", "health_check", "container", "discovery"] {
        v1[key] = task[key].clone();
    }
    if task["executor_id"] != "" {
        v1["executor_id"] = id("executor_id");
    }
    json::to_message(v1.to_string().as_bytes()).expect("a task")
}
