//! Every call of operators asks the authorizer, for the action that Mesos asks for.

mod support;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde_json::{Value, json};
use tepui_core_master::{Approver, Authorizer, Object, Unanswered};
use tepui_http::{Media, Method};
use tepui_model::Resources;
use tepui_model::authorization::{Action, Subject};
use tepui_proto::convert;

use support::{FakeAgent, Scheduler, Site, framework, settings, site_with};

/// An action, and what is said to it: no, yes, or nothing.
type Said = (Action, Option<bool>);

/// What is said to one action; everything else is allowed.
#[derive(Clone, Debug, Default)]
struct Says(Arc<Mutex<Option<Said>>>);

impl Says {
    /// No, or nothing at all.
    fn to(&self, action: Action, answer: Option<bool>) {
        *self.0.lock().unwrap() = Some((action, answer));
    }
}

struct Answer(Option<bool>);

#[async_trait]
impl Authorizer for Says {
    async fn approver(&self, _subject: Option<&Subject>, action: Action) -> Arc<dyn Approver> {
        match *self.0.lock().unwrap() {
            Some((about, answer)) if about == action => Arc::new(Answer(answer)),
            _ => Arc::new(support::allow_all()),
        }
    }
}

#[async_trait]
impl Approver for Answer {
    fn constant(&self) -> Option<bool> {
        self.0
    }

    async fn approved(&self, _object: &Object) -> Result<bool, Unanswered> {
        self.0.ok_or_else(|| Unanswered("away".to_owned()))
    }
}

/// Status of a v1 call, and what was answered.
async fn call(site: &Site, kind: &str, part: Value) -> (u16, String) {
    let mut body = json!({ "type": kind });
    body[kind.to_lowercase()] = part;
    let headers = [("Content-Type", "application/json")];
    let body = body.to_string().into();
    let reply = site.client.request(Method::POST, "/api/v1", &headers, body);
    let reply = reply.await.expect("an answer");
    (reply.status.as_u16(), reply.text())
}

/// Calls that change something, with the actions of Mesos' table. `agent` is known, `framework` subscribed.
fn changes(agent: &str, framework: &str) -> Vec<(&'static str, Value, Action)> {
    let agent_id = json!({ "value": agent });
    let machine = json!({"hostname": "h", "ip": "10.0.0.1"});
    let window = json!({"machine_ids": [machine], "unavailability": {"start": {"nanoseconds": 1}}});
    let guarantee = json!([{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}}]);
    let reservations = json!([{"type": "DYNAMIC", "role": "ops"}]);
    let reserved = json!({"name": "disk", "type": "SCALAR", "scalar": {"value": 2}, "reservations": reservations});
    let volume = |id: &str| {
        let mut volume = reserved.clone();
        volume["disk"] =
            json!({"persistence": {"id": id}, "volume": {"container_path": "d", "mode": "RW"}});
        volume
    };
    let (volume, there) = (volume("v"), volume("there"));
    let on_agent = |key: &str, value: Value| json!({"agent_id": agent_id, key: value});
    let drain = |gone: bool| on_agent("mark_gone", gone.into());
    vec![
        (
            "SET_LOGGING_LEVEL",
            json!({"level": 1, "duration": {"nanoseconds": 1}}),
            Action::SetLogLevel,
        ),
        (
            "UPDATE_WEIGHTS",
            json!({"weight_infos": [{"role": "r", "weight": 2}]}),
            Action::UpdateWeight,
        ),
        (
            "UPDATE_QUOTA",
            json!({"quota_configs": [{"role": "r", "limits": {"cpus": {"value": 1}}}]}),
            Action::UpdateQuotaWithConfig,
        ),
        (
            "SET_QUOTA",
            json!({"quota_request": {"role": "r", "guarantee": guarantee}}),
            Action::UpdateQuota,
        ),
        ("REMOVE_QUOTA", json!({"role": "r"}), Action::UpdateQuota),
        (
            "UPDATE_MAINTENANCE_SCHEDULE",
            json!({"schedule": {"windows": [window]}}),
            Action::UpdateMaintenanceSchedule,
        ),
        (
            "START_MAINTENANCE",
            json!({"machines": [machine]}),
            Action::StartMaintenance,
        ),
        (
            "STOP_MAINTENANCE",
            json!({"machines": [machine]}),
            Action::StopMaintenance,
        ),
        (
            "RESERVE_RESOURCES",
            on_agent("resources", json!([reserved])),
            Action::ReserveResources,
        ),
        (
            "UNRESERVE_RESOURCES",
            on_agent("resources", json!([reserved])),
            Action::UnreserveResources,
        ),
        (
            "CREATE_VOLUMES",
            on_agent("volumes", json!([volume])),
            Action::CreateVolume,
        ),
        (
            "DESTROY_VOLUMES",
            on_agent("volumes", json!([there])),
            Action::DestroyVolume,
        ),
        (
            "GROW_VOLUME",
            json!({"agent_id": agent_id, "volume": volume, "addition": reserved}),
            Action::ResizeVolume,
        ),
        (
            "SHRINK_VOLUME",
            json!({"agent_id": agent_id, "volume": volume, "subtract": {"value": 1}}),
            Action::ResizeVolume,
        ),
        ("DRAIN_AGENT", drain(false), Action::DrainAgent),
        ("DRAIN_AGENT", drain(true), Action::MarkAgentGone),
        (
            "DEACTIVATE_AGENT",
            json!({ "agent_id": agent_id }),
            Action::DeactivateAgent,
        ),
        (
            "REACTIVATE_AGENT",
            json!({ "agent_id": agent_id }),
            Action::ReactivateAgent,
        ),
        (
            "MARK_AGENT_GONE",
            json!({ "agent_id": agent_id }),
            Action::MarkAgentGone,
        ),
        (
            "TEARDOWN",
            json!({"framework_id": {"value": framework}}),
            Action::TeardownFramework,
        ),
        ("GET_FLAGS", Value::Null, Action::ViewFlags),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_asks_for_its_action() {
    let says = Says::default();
    let site = site_with(settings(), Arc::new(says.clone())).await;
    let total = "cpus:4;mem:4096;disk(reservations: [(DYNAMIC,ops)])[there:d]:2";
    let total = Resources::parse(total, "*").expect("resources");
    let agent = FakeAgent::with(&site.client, convert::to_proto(&total)).await;
    let scheduler = Scheduler::subscribe(&site.client, framework("some"), Media::Json).await;
    support::until("the agent serves", async || {
        let state = site.json("/state").await;
        (state["activated_slaves"] == 1.0).then_some(())
    })
    .await;
    for (kind, part, action) in changes(&agent.id.value, &scheduler.id.value) {
        for (answer, status) in [(Some(false), 403), (None, 500)] {
            says.to(action, answer);
            let (got, text) = call(&site, kind, part.clone()).await;
            assert_eq!(got, status, "{kind} without {action}: {text}");
        }
    }
    // Nothing of it was done.
    let registry = site.json("/registrar(1)/registry").await;
    let keys: Vec<&String> = registry.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["master", "slaves"]);
    let state = site.json("/state").await;
    assert_eq!(state["frameworks"].as_array().map(Vec::len), Some(1));
    site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_be_seen_is_left_out() {
    let says = Says::default();
    let site = site_with(settings(), Arc::new(says.clone())).await;
    let machine = json!({"hostname": "h"});
    let window = json!({"machine_ids": [machine], "unavailability": {"start": {"nanoseconds": 1}}});
    for (kind, part) in [
        (
            "UPDATE_WEIGHTS",
            json!({"weight_infos": [{"role": "r", "weight": 2}]}),
        ),
        (
            "UPDATE_QUOTA",
            json!({"quota_configs": [{"role": "r", "limits": {"cpus": {"value": 1}}}]}),
        ),
        (
            "UPDATE_MAINTENANCE_SCHEDULE",
            json!({"schedule": {"windows": [window]}}),
        ),
    ] {
        assert_eq!(call(&site, kind, part).await, (200, String::new()));
    }
    for (kind, action, nothing) in [
        (
            "GET_WEIGHTS",
            Action::ViewRole,
            json!({"type": "GET_WEIGHTS"}),
        ),
        (
            "GET_ROLES",
            Action::ViewRole,
            json!({"type": "GET_ROLES", "get_roles": {}}),
        ),
        (
            "GET_QUOTA",
            Action::GetQuota,
            json!({"type": "GET_QUOTA", "get_quota": {"status": {}}}),
        ),
        (
            "GET_MAINTENANCE_SCHEDULE",
            Action::GetMaintenanceSchedule,
            json!({"type": "GET_MAINTENANCE_SCHEDULE", "get_maintenance_schedule": {"schedule": {}}}),
        ),
        (
            "GET_MAINTENANCE_STATUS",
            Action::GetMaintenanceStatus,
            json!({"type": "GET_MAINTENANCE_STATUS", "get_maintenance_status": {"status": {}}}),
        ),
    ] {
        let shown = async || {
            let (status, text) = call(&site, kind, Value::Null).await;
            assert_eq!(status, 200, "{kind}: {text}");
            serde_json::from_str::<Value>(&text).expect("JSON")
        };
        says.to(Action::RunTask, Some(false));
        assert_ne!(shown().await, nothing, "{kind}");
        for answer in [Some(false), None] {
            says.to(action, answer);
            assert_eq!(shown().await, nothing, "{kind} without {action}");
        }
    }
    site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_be_reserved_only_for_roles_that_its_principal_may_reserve_for() {
    let says = Says::default();
    let site = site_with(settings(), Arc::new(says.clone())).await;
    let resources = |text: &str| {
        let resources = Resources::parse(text, "*").expect("resources");
        convert::to_proto(&resources)
    };
    says.to(Action::ReserveResources, Some(false));
    FakeAgent::with(&site.client, resources("cpus:1")).await;
    let reserved = resources("cpus:1;cpus(ops):1");
    let refused = FakeAgent::register(&site.client, reserved.clone()).await;
    let refused = refused.err().expect("not allowed").reason;
    assert!(refused.contains("role 'ops'"), "{refused}");
    says.to(Action::ReserveResources, None);
    assert!(
        FakeAgent::register(&site.client, reserved.clone())
            .await
            .is_err()
    );
    says.to(Action::ReserveResources, Some(true));
    assert!(FakeAgent::register(&site.client, reserved).await.is_ok());
}
