//! The encoders against recorded answers, byte for byte.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use prost::Message as _;
use support::{about, globals, parsed, recorded, task_of_v0, view};
use tepui_model::authorization::ClassKey;
use tepui_model::{Resource, Scalar};
use tepui_proto::v1;
use tepui_view::encode::{self, Allowed, Form, Sink, TasksQuery, Visibility, agent};
use tepui_view::{FrameworkView, View};

/// What a writer writes, as text.
fn text(write: impl FnOnce(Sink<'_>)) -> String {
    String::from_utf8(encode::collect(write)).expect("UTF-8")
}

#[track_caller]
fn assert_same(path: &str, write: impl FnOnce(Sink<'_>)) {
    let (expected, actual) = (recorded(path), text(write));
    if expected != actual {
        let same = expected
            .bytes()
            .zip(actual.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let around = |text: &str| {
            text[same.saturating_sub(120)..]
                .chars()
                .take(300)
                .collect::<String>()
        };
        panic!(
            "{path}: differs at {same}\nexpected ..{}\nactual   ..{}",
            around(&expected),
            around(&actual)
        );
    }
}

/// The view of a moment, with the globals of its `/state`.
fn moment(get_state: &str, state: &str) -> (View, encode::About) {
    let mut view = view(get_state);
    let state = parsed(state);
    view.globals = Arc::new(globals(&state));
    (view, about(&state))
}

#[test]
fn v0_of_an_idle_cluster() {
    let (view, about) = moment(
        "operator-master-idle/get-state.json",
        "http-idle/get-master-state.json",
    );
    let see = Visibility::all();
    assert_same("http-idle/get-master-state.json", |sink| {
        encode::state(&view, &about, &see, sink);
    });
    assert_same("http-idle/get-master-slaves.json", |sink| {
        encode::slaves(&view, &see, None, sink);
    });
    assert_same("http-idle/get-master-frameworks.json", |sink| {
        encode::frameworks(&view, &see, None, sink);
    });
    assert_same("http-idle/get-master-state-summary.json", |sink| {
        encode::state_summary(&view, &about, &see, sink);
    });
    assert_same("http-idle/get-master-tasks.json", |sink| {
        encode::tasks(&view, &see, &TasksQuery::default(), sink);
    });
    assert_same("http-idle/get-master-roles.json", |sink| {
        encode::roles(&view, &see, sink);
    });
}

#[test]
fn v0_of_a_busy_cluster() {
    let (view, about) = moment(
        "operator-master-busy/get-state.json",
        "http-busy/get-master-state.json",
    );
    let see = Visibility::all();
    assert_same("http-busy/get-master-state.json", |sink| {
        encode::state(&view, &about, &see, sink);
    });
    let id = view.agents.iter().next().expect("an agent").id.clone();
    assert_same("http-busy/get-slaves-one.json", |sink| {
        encode::slaves(&view, &see, Some(&id), sink);
    });
    assert_same("http-busy/get-slaves-unknown.json", |sink| {
        encode::slaves(&view, &see, Some(&"nope".into()), sink);
    });
    assert_same("http-busy/get-master-frameworks.json", |sink| {
        encode::frameworks(&view, &see, None, sink);
    });
    assert_same("http-busy/get-master-state-summary.json", |sink| {
        encode::state_summary(&view, &about, &see, sink);
    });
    assert_same("http-busy/get-master-roles.json", |sink| {
        encode::roles(&view, &see, sink);
    });
    let queries = [
        ("get-master-tasks", TasksQuery::default()),
        (
            "get-tasks-limit",
            TasksQuery {
                limit: 1,
                ..Default::default()
            },
        ),
        (
            "get-tasks-order",
            TasksQuery {
                limit: 2,
                offset: 1,
                ascending: true,
                ..Default::default()
            },
        ),
        (
            "get-tasks-task",
            TasksQuery {
                task: Some("t-stay".into()),
                ..Default::default()
            },
        ),
    ];
    for (name, query) in queries {
        assert_same(&format!("http-busy/{name}.json"), |sink| {
            encode::tasks(&view, &see, &query, sink);
        });
    }
}

#[test]
fn a_draining_agent_with_reservations() {
    let recorded: serde_json::Value = parsed("http-legacy/get-slaves-draining.json");
    let mut state = v1::master::response::GetState::default();
    let agents = state.get_agents.get_or_insert_default();
    for agent in recorded["slaves"].as_array().expect("agents") {
        let mut all: Vec<serde_json::Value> = Vec::new();
        for part in agent["reserved_resources_full"]
            .as_object()
            .expect("roles")
            .values()
        {
            all.extend(part.as_array().expect("resources").iter().cloned());
        }
        all.extend(
            agent["unreserved_resources_full"]
                .as_array()
                .expect("resources")
                .clone(),
        );
        let nanos = |key: &str| {
            agent[key]
                .as_f64()
                .map(|s| serde_json::json!({"nanoseconds": (s * 1e9) as i64}))
        };
        let capabilities: Vec<_> = agent["capabilities"]
            .as_array()
            .expect("names")
            .iter()
            .map(|name| serde_json::json!({ "type": name }))
            .collect();
        let v1 = serde_json::json!({
            "agent_info": {"hostname": agent["hostname"], "port": agent["port"], "id": {"value": agent["id"]}},
            "active": agent["active"], "deactivated": agent["deactivated"], "version": agent["version"],
            "pid": agent["pid"], "registered_time": nanos("registered_time"), "total_resources": all,
            "allocated_resources": agent["used_resources_full"],
            "offered_resources": agent["offered_resources_full"],
            "capabilities": capabilities, "drain_info": agent["drain_info"],
            "estimated_drain_start_time": nanos("estimated_drain_start_time_seconds"),
        });
        agents
            .agents
            .push(tepui_proto::json::to_message(v1.to_string().as_bytes()).expect("an agent"));
    }
    let view = support::view_of(&state);
    assert_same("http-legacy/get-slaves-draining.json", |sink| {
        encode::slaves(&view, &Visibility::all(), None, sink);
    });
}

#[test]
fn v0_of_ended_frameworks() {
    let recorded = parsed("http-done/get-master-state.json");
    let (mut view, about) = moment(
        "operator-master-idle/get-state.json",
        "http-done/get-master-state.json",
    );
    for (n, framework) in recorded["completed_frameworks"]
        .as_array()
        .expect("a list")
        .iter()
        .enumerate()
    {
        view.completed_frameworks
            .push(Arc::new(ended_framework(n as u32, framework)));
    }
    let see = Visibility::all();
    assert_same("http-done/get-master-tasks.json", |sink| {
        encode::tasks(&view, &see, &TasksQuery::default(), sink);
    });
    // The agents of that moment have reservations and are not what is looked at here.
    let ours = text(|sink| encode::frameworks(&view, &see, None, sink));
    let theirs = support::recorded("http-done/get-master-state.json");
    let from = theirs.find("\"frameworks\":[]").expect("frameworks");
    let theirs = theirs[from..].replace("\"orphan_tasks\":[],", "");
    assert_eq!(ours[1..], theirs);
    let whole = text(|sink| encode::state(&view, &about, &see, sink));
    assert!(whole.ends_with(",\"orphan_tasks\":[],\"unregistered_frameworks\":[]}"));
}

/// A completed framework, from a v0 answer.
fn ended_framework(n: u32, v0: &serde_json::Value) -> FrameworkView {
    let nanos = |key: &str| {
        v0[key]
            .as_f64()
            .map(|s| serde_json::json!({"nanoseconds": (s * 1e9) as i64}))
    };
    let capabilities: Vec<_> = v0["capabilities"]
        .as_array()
        .expect("names")
        .iter()
        .map(|name| serde_json::json!({ "type": name }))
        .collect();
    let framework = serde_json::json!({
        "framework_info": {"user": v0["user"], "name": v0["name"], "id": {"value": v0["id"]},
            "failover_timeout": v0["failover_timeout"], "roles": v0["roles"],
            "hostname": v0["hostname"], "capabilities": capabilities},
        "active": false, "connected": false, "recovered": false,
        "registered_time": nanos("registered_time"),
        "reregistered_time": nanos("reregistered_time"),
        "unregistered_time": nanos("unregistered_time"),
    });
    let mut state = v1::master::response::GetState::default();
    let message = tepui_proto::json::to_message(framework.to_string().as_bytes());
    let frameworks = state.get_frameworks.get_or_insert_default();
    frameworks
        .completed_frameworks
        .push(message.expect("a framework"));
    let tasks = v0["completed_tasks"]
        .as_array()
        .expect("tasks")
        .iter()
        .map(task_of_v0);
    state.get_tasks.get_or_insert_default().completed_tasks = tasks.collect();
    let view = support::view_of(&state);
    let mut framework = (*view.completed_frameworks[0]).clone();
    framework.row.key.0 = n;
    framework
}

#[test]
fn v1_in_both_forms() {
    type Get = fn(&View, &Visibility, Form, Sink<'_>);
    let answers: [(&str, &str, Get); 11] = [
        ("operator-master-idle", "get-state", encode::get_state),
        ("operator-master-idle", "get-agents", encode::get_agents),
        (
            "operator-master-idle",
            "get-executors",
            encode::get_executors,
        ),
        (
            "operator-master-idle",
            "get-frameworks",
            encode::get_frameworks,
        ),
        ("operator-master-idle", "get-tasks", encode::get_tasks),
        ("operator-master-busy", "get-state", encode::get_state),
        ("operator-master-busy", "get-agents", encode::get_agents),
        (
            "operator-master-busy",
            "get-frameworks",
            encode::get_frameworks,
        ),
        ("operator-master-busy", "get-tasks", encode::get_tasks),
        ("commands", "master-get-state", encode::get_state),
        ("commands", "master-get-executors", encode::get_executors),
    ];
    for (group, name, get) in answers {
        let moment = if group == "commands" {
            "master-get-state"
        } else {
            "get-state"
        };
        let view = view(&format!("{group}/{moment}.json"));
        let path = format!("{group}/{name}.json");
        let see = Visibility::all();
        assert_same(&path, |sink| get(&view, &see, Form::Json, sink));
        // The protobuf form says the same, required fields and lengths included.
        let bytes = encode::collect(|sink| get(&view, &see, Form::Protobuf, sink));
        let message: v1::master::Response = tepui_proto::decode(&bytes).expect("a response");
        let expected: v1::master::Response =
            tepui_proto::json::to_message(recorded(&path).as_bytes()).expect("a response");
        assert_eq!(message, expected, "{path}");
    }
}

#[test]
fn the_state_of_a_subscriber_is_a_message_of_its_own() {
    let view = view("commands/master-get-state.json");
    let see = Visibility::all();
    let alone = encode::state_message(&view, &see, Form::Protobuf);
    let alone = v1::master::response::GetState::decode(&*alone).expect("a state");
    let answer = encode::collect(|sink| encode::get_state(&view, &see, Form::Protobuf, sink));
    let answer = v1::master::Response::decode(&*answer).expect("a response");
    assert_eq!(Some(alone), answer.get_state);
    let json = encode::state_message(&view, &see, Form::Json);
    let json = String::from_utf8(json).expect("UTF-8");
    assert!(recorded("commands/master-get-state.json").contains(&json));
}

#[test]
fn what_may_not_be_seen_is_left_out() {
    let (view, about) = moment(
        "operator-master-busy/get-state.json",
        "http-busy/get-master-state.json",
    );
    let blind = Visibility {
        frameworks: Allowed::Only(BTreeSet::from([ClassKey(0)])),
        tasks: Allowed::none(),
        executors: Allowed::none(),
        roles: Allowed::none(),
        flags: false,
    };
    let state = text(|sink| encode::state(&view, &about, &blind, sink));
    assert!(state.contains("\"peer-life\"") && state.contains("\"tasks\":[],"));
    for hidden in ["t-stay", "t-finish", "peer-executor", "\"flags\""] {
        assert!(!state.contains(hidden), "{hidden}");
    }
    let slaves = text(|sink| encode::slaves(&view, &blind, None, sink));
    assert!(slaves.contains("\"used_resources_full\":[]"));
    let tasks = encode::collect(|sink| encode::get_tasks(&view, &blind, Form::Protobuf, sink));
    let tasks = v1::master::Response::decode(&*tasks).expect("a response");
    assert_eq!(tasks.get_tasks, Some(Default::default()));
    let none = Visibility {
        frameworks: Allowed::none(),
        ..blind
    };
    let state = text(|sink| encode::state(&view, &about, &none, sink));
    assert!(state.contains("\"frameworks\":[],\"completed_frameworks\":[]"));
    assert_eq!(
        text(|sink| encode::roles(&view, &none, sink)),
        "{\"roles\":[]}"
    );
}

#[test]
fn the_state_of_an_agent() {
    for (path, hostname) in [
        ("http-idle/get-slave-1-state.json", "localhost"),
        ("commands/get-slave-1-state.json", "localhost"),
        ("http-busy/get-slave-1-state-reserved.json", "localhost"),
    ] {
        let v0 = parsed(path);
        let state = agent_state(&v0, hostname);
        assert_same(path, |sink| {
            agent::state(&state, &about(&v0), &Allowed::All, true, sink);
        });
    }
}

fn agent_state(v0: &serde_json::Value, master: &str) -> agent::AgentState {
    let text = |key: &str| v0[key].as_str().expect("text").to_owned();
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let mut total = Vec::new();
    for part in v0["reserved_resources_full"]
        .as_object()
        .expect("roles")
        .values()
    {
        total.extend(list(part));
    }
    total.extend(list(&v0["unreserved_resources_full"]));
    let total: Vec<v1::Resource> = total
        .iter()
        .map(|r| tepui_proto::json::to_message(r.to_string().as_bytes()).expect("a resource"))
        .collect();
    let names = list(&v0["capabilities"]);
    agent::AgentState {
        start_time: v0["start_time"].as_f64().expect("a time"),
        id: text("id"),
        pid: text("pid"),
        hostname: text("hostname"),
        capabilities: names
            .iter()
            .map(|n| n.as_str().expect("text").to_owned())
            .collect(),
        total: tepui_proto::convert::resources(&total).expect("resources"),
        allocated: of_v0(&v0["unreserved_resources_allocated"], "r"),
        master_hostname: Some(master.to_owned()),
        frameworks: list(&v0["frameworks"])
            .iter()
            .map(agent_framework)
            .collect(),
        completed_frameworks: list(&v0["completed_frameworks"])
            .iter()
            .map(agent_framework)
            .collect(),
        ..Default::default()
    }
}

/// Cpus, memory and disk of a v0 answer.
fn of_v0(resources: &serde_json::Value, role: &str) -> tepui_model::Resources {
    let amount = |name: &str| resources[name].as_f64().unwrap_or_default();
    let names = ["cpus", "mem", "disk"].into_iter();
    let all = names.map(|n| Resource::scalar(n, Scalar::from_f64(amount(n))));
    all.map(|r| r.allocated(role.into())).collect()
}

fn agent_framework(v0: &serde_json::Value) -> agent::AgentFramework {
    let info = serde_json::json!({"user": v0["user"], "name": v0["name"], "id": {"value": v0["id"]},
        "failover_timeout": v0["failover_timeout"], "checkpoint": v0["checkpoint"],
        "hostname": v0["hostname"], "roles": v0["roles"], "capabilities": [{"type": "MULTI_ROLE"}]});
    let list = |key: &str| {
        v0[key]
            .as_array()
            .expect("executors")
            .iter()
            .map(agent_executor)
            .collect()
    };
    agent::AgentFramework {
        info: tepui_proto::json::to_message(info.to_string().as_bytes()).expect("an info"),
        executors: list("executors"),
        completed_executors: list("completed_executors"),
    }
}

fn agent_executor(v0: &serde_json::Value) -> agent::AgentExecutor {
    let text = |key: &str| v0[key].as_str().expect("text").to_owned();
    let tasks = |key: &str| {
        let tasks = v0[key].as_array().expect("tasks").iter();
        tasks
            .map(|t| task_of_v0(t).encode_to_vec().into())
            .collect()
    };
    let kind = v0["type"].as_str();
    agent::AgentExecutor {
        id: text("id"),
        name: text("name"),
        source: text("source"),
        container: text("container"),
        directory: text("directory"),
        resources: of_v0(&v0["resources"], v0["role"].as_str().unwrap_or("r")),
        labels: None,
        kind: kind.and_then(v1::executor_info::Type::from_str_name),
        tasks: tasks("tasks"),
        queued: Vec::new(),
        completed: tasks("completed_tasks"),
    }
}
