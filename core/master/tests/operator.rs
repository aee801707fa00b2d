//! Calls of operators that change something, compared with what Mesos 1.11 answered.

mod support;

use tepui_http::Media;
use tepui_proto::v1::scheduler::{Call, call};
use tepui_proto::{json, v1};

use support::{FakeAgent, Recording, Scheduler, Site, framework, scalar, site, until};

/// Resources of the recorded agents; the first has some reserved to a role.
fn recorded_resources(reserved: bool) -> Vec<v1::Resource> {
    let to_peer = |amount: v1::Resource| v1::Resource {
        reservations: vec![v1::resource::ReservationInfo {
            r#type: Some(v1::resource::reservation_info::Type::Dynamic.into()),
            role: Some("peer".to_owned()),
            ..Default::default()
        }],
        ..amount
    };
    if !reserved {
        let amounts = [("cpus", 4.0), ("mem", 4096.0), ("disk", 10240.0)];
        return amounts.map(|(name, amount)| scalar(name, amount)).into();
    }
    vec![
        scalar("cpus", 3.0),
        scalar("mem", 4096.0),
        scalar("disk", 10040.0),
        to_peer(scalar("cpus", 1.0)),
        to_peer(scalar("disk", 200.0)),
    ]
}

/// The recorded cluster: a framework that wants nothing, two agents.
struct Recorded {
    site: Site,
    master: String,
    _peer: Scheduler,
    _agents: [FakeAgent; 2],
}

impl Recorded {
    async fn begin() -> Recorded {
        let site = site().await;
        let peer = Scheduler::subscribe(&site.client, framework("peer"), Media::Json).await;
        let suppress = Call {
            r#type: Some(call::Type::Suppress.into()),
            ..Default::default()
        };
        peer.call(suppress).await;
        let agents = [
            FakeAgent::with(&site.client, recorded_resources(false)).await,
            FakeAgent::with(&site.client, recorded_resources(true)).await,
        ];
        until("both agents serve", async || {
            let state = site.json("/state").await;
            (state["activated_slaves"] == 2.0).then_some(())
        })
        .await;
        let state = site.json("/state").await;
        let master = state["id"].as_str().expect("an id").to_owned();
        Recorded {
            site,
            master,
            _peer: peer,
            _agents: agents,
        }
    }

    async fn replay(&self, group: &str, names: &[&str]) {
        for name in names {
            let recording = Recording::of(&format!("{group}/{name}"));
            recording.replay(&self.site.client, &self.master).await;
        }
    }

    async fn v1(&self, names: &[&str]) {
        self.replay("operator-master", names).await;
    }

    async fn v0(&self, names: &[&str]) {
        self.replay("http-legacy", names).await;
    }

    /// A step that is not recorded.
    async fn post(&self, body: serde_json::Value) {
        let headers = [("Content-Type", "application/json")];
        let method = tepui_http::Method::POST;
        let body = body.to_string().into();
        let client = &self.site.client;
        let reply = client.request(method, "/api/v1", &headers, body).await;
        let reply = reply.expect("an answer");
        assert_eq!(reply.status, tepui_http::StatusCode::OK, "{}", reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_and_quota_are_answered_as_recorded() {
    let cluster = Recorded::begin().await;
    cluster.v1(&["update-weights", "get-weights-set"]).await;
    cluster.v0(&["get-roles-set"]).await;
    cluster
        .v1(&[
            "update-weights-negative",
            "update-weights-zero",
            "update-weights-bad-role",
        ])
        .await;
    cluster
        .v0(&["put-weights", "put-weights-bad", "put-weights-not-json"])
        .await;
    cluster
        .v1(&["update-weights-star", "update-weights-empty"])
        .await;

    cluster.v1(&["update-quota", "get-quota-set"]).await;
    cluster.v0(&["get-quota-set", "get-roles-quota"]).await;
    cluster
        .v1(&[
            "get-roles-quota",
            "update-quota-too-much",
            "update-quota-forced",
            "update-quota-clear-one",
            "update-quota-guarantee-over-limit",
            "update-quota-bad-role",
            "update-quota-negative",
            "update-quota-same-role-twice",
            "update-quota-child-over-parent",
            "update-quota-clear",
        ])
        .await;
    // The recordings that follow show it.
    let star = serde_json::json!({"role": "*", "guarantees": {"cpus": {"value": 1}}, "limits": {"cpus": {"value": 1}}});
    cluster
        .post(
            serde_json::json!({"type": "UPDATE_QUOTA", "update_quota": {"quota_configs": [star]}}),
        )
        .await;
    cluster
        .v1(&[
            "set-quota",
            "set-quota-again",
            "set-quota-too-much",
            "remove-quota",
        ])
        .await;
    cluster
        .v0(&["post-quota", "get-quota-posted", "delete-quota"])
        .await;
    cluster.site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_is_answered_as_recorded() {
    let cluster = Recorded::begin().await;
    cluster
        .v1(&[
            "update-maintenance-schedule",
            "get-maintenance-schedule-set",
            "get-maintenance-status-set",
        ])
        .await;
    cluster
        .v0(&[
            "get-maintenance-schedule-set",
            "get-maintenance-status-set",
            "post-maintenance-schedule-bad",
            "machine-down-empty",
            "machine-up-empty",
        ])
        .await;
    cluster
        .v1(&[
            "stop-maintenance-not-down",
            "start-maintenance-unknown",
            "update-maintenance-schedule-twice",
            "update-maintenance-schedule-no-machines",
            "update-maintenance-schedule-negative",
            "update-maintenance-schedule-clear",
            "deactivate-agent",
            "deactivate-agent-unknown",
            "reactivate-agent",
            "reactivate-agent-unknown",
            "drain-agent-duration-as-string",
            "drain-agent",
            "drain-agent-again",
            "drain-agent-unknown",
            "mark-agent-gone-unknown",
            "mark-agent-gone",
            "mark-agent-gone-again",
            "update-maintenance-schedule-2",
            "start-maintenance",
            "get-maintenance-status-down",
            "start-maintenance-again",
        ])
        .await;
    let machine = serde_json::json!({"hostname": "LOCALHOST", "ip": "127.0.0.1"});
    cluster
        .post(serde_json::json!({"type": "STOP_MAINTENANCE", "stop_maintenance": {"machines": [machine]}}))
        .await;
    cluster.v1(&["get-maintenance-schedule-after-up"]).await;
    cluster
        .v1(&["teardown", "teardown-again", "teardown-unknown"])
        .await;
    cluster.v0(&["teardown-no-id", "teardown-unknown"]).await;
    cluster.site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_operations_on_resources_are_refused_as_recorded() {
    let cluster = Recorded::begin().await;
    cluster
        .v1(&[
            "reserve-resources-static",
            "reserve-resources-star",
            "reserve-resources-unreserved",
            "reserve-resources-no-agent",
            "destroy-volumes-unknown",
        ])
        .await;
    cluster.v0(&["reserve-no-slave", "reserve-get"]).await;
    // Agents differ from the recorded one: what it has already reserved.
    let post = async |body: serde_json::Value| {
        let headers = [("Content-Type", "application/json")];
        let method = tepui_http::Method::POST;
        let body = body.to_string().into();
        let reply = cluster
            .site
            .client
            .request(method, "/api/v1", &headers, body);
        let reply = reply.await.expect("an answer");
        (reply.status.as_u16(), reply.text())
    };
    let reserve = |name: &str, amount: f64| {
        let reservation = serde_json::json!({"type": "DYNAMIC", "role": "ops"});
        let resource = serde_json::json!({"name": name, "type": "SCALAR", "scalar": {"value": amount}, "reservations": [reservation]});
        let agent = format!("{}-S0", cluster.master);
        serde_json::json!({"type": "RESERVE_RESOURCES", "reserve_resources": {"agent_id": {"value": agent}, "resources": [resource]}})
    };
    let too_much = "cpus:4; mem:4096; disk:10240 does not contain cpus:100".to_owned();
    assert_eq!(post(reserve("cpus", 100.0)).await, (409, too_much));
    cluster.site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_shown_as_recorded() {
    let cluster = Recorded::begin().await;
    let before = cluster.site.json("/registrar(1)/registry").await;
    let recorded = Recording::of("http-idle/get-registrar-1-registry").json();
    // Ids, addresses and the agents' resources are of another run; the form is not.
    let form = |value: &serde_json::Value| {
        let mut keys = Vec::new();
        keys_of(value, "", &mut keys);
        keys.sort();
        keys.dedup();
        keys.retain(|key| !key.contains("resources") && !key.ends_with("checkpoint"));
        keys
    };
    assert_eq!(form(&before), form(&recorded));
    let capabilities = &before["master"]["info"]["capabilities"];
    assert_eq!(capabilities, &recorded["master"]["info"]["capabilities"]);

    let id = |n: usize| format!("{}-S{n}", cluster.master);
    cluster
        .v1(&[
            "update-weights",
            "update-quota",
            "update-maintenance-schedule",
        ])
        .await;
    let agent = |call: &str, part: &str, n: usize| serde_json::json!({"type": call, part: {"agent_id": {"value": id(n)}}});
    cluster
        .post(agent("DEACTIVATE_AGENT", "deactivate_agent", 1))
        .await;
    cluster
        .post(agent("MARK_AGENT_GONE", "mark_agent_gone", 0))
        .await;
    let after = cluster.site.json("/registrar(1)/registry").await;
    assert_eq!(after["slaves"]["slaves"].as_array().map(Vec::len), Some(1));
    assert_eq!(after["slaves"]["slaves"][0]["deactivated"], true);
    assert_eq!(after["gone"]["slaves"][0]["id"]["value"], id(0));
    assert_eq!(after["weights"][1]["info"]["weight"], 2.5);
    assert_eq!(after["quota_configs"][0]["role"], "dev");
    assert_eq!(after["machines"]["machines"][0]["info"]["mode"], "DRAINING");
    assert!(after["schedules"][0]["windows"].is_array());
    cluster.site.master.stop().await;
}

/// Paths of all keys in a value; elements of arrays are alike.
fn keys_of(value: &serde_json::Value, path: &str, keys: &mut Vec<String>) {
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        keys_of(value, &path, keys);
        keys.push(path);
    }
    for value in value.as_array().into_iter().flatten() {
        keys_of(value, path, keys);
    }
}

#[tokio::test]
async fn what_offer_constraints_exclude_is_shown() {
    let site = site().await;
    let _agent = FakeAgent::connect(&site.client, 2.0, 64.0).await;
    let mut scheduler = Scheduler::subscribe(&site.client, framework("picky"), Media::Json).await;
    let offer = scheduler.offers().await.remove(0);
    let info = v1::FrameworkInfo {
        id: Some(offer.framework_id),
        ..framework("picky")
    };
    let body = serde_json::json!({ "role_constraints": { (info.roles[0].clone()): { "groups": [ {
        "attribute_constraints": [ {
            "selector": { "attribute_name": "rack" },
            "predicate": { "exists": {} },
        } ],
    } ] } } });
    let id = info.id.clone().expect("just set").value;
    let role = info.roles[0].clone();
    let call = Call {
        r#type: Some(call::Type::UpdateFramework.into()),
        update_framework: Some(call::UpdateFramework {
            framework_info: info,
            offer_constraints: Some(
                json::to_message(body.to_string().as_bytes()).expect("constraints"),
            ),
            ..Default::default()
        }),
        ..Default::default()
    };
    scheduler.call(call).await;
    let shown = site.json("/allocator/offer_constraints_debug").await;
    let excluded = &shown["frameworks"][id.as_str()]["excluded_by_attribute_constraints"];
    assert_eq!(excluded[role.as_str()][0], offer.agent_id.value, "{shown}");
}
