//! Metrics of a leading master with a framework, against what Mesos 1.11 told in the same case.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use tepui_http::Media;
use tepui_proto::v1::TaskState;

use support::{FakeAgent, Scheduler, framework, settings, site, site_with, task, until};

type Metrics = BTreeMap<String, f64>;

/// Name and id of the recorded framework.
const RECORDED: &str = "peer-life/2bb699ce-5753-4d4d-ad59-74064e38038a-0000";

/// The recorded metrics of the master: those of the agent came from the same process.
fn recorded() -> Metrics {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tools/e2e/recordings");
    let body = std::fs::read(folder.join("http-busy/get-metrics-snapshot.body")).unwrap();
    let mut metrics: Metrics = serde_json::from_slice(&body).unwrap();
    metrics.retain(|name, _| {
        let process = name.split('/').next();
        matches!(
            process,
            Some("master" | "allocator" | "registrar" | "system")
        )
    });
    metrics
}

fn snapshot(value: &Value) -> Metrics {
    serde_json::from_value(value.clone()).expect("an object of numbers")
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_values_are_those_of_mesos() {
    let site = site().await;
    let mut agent = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
    let _other = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
    let mut info = framework("peer-life");
    info.roles = vec!["peer".to_owned()];
    let mut scheduler = Scheduler::subscribe(&site.client, info, Media::Json).await;
    let mut offers = scheduler.offers().await;
    while offers.len() < 2 {
        offers.extend(scheduler.offers().await);
    }
    let offer = offers.iter().find(|offer| offer.agent_id == agent.id);
    let offer = offer.expect("an offer of the first agent").clone();
    let names = ["finish", "fail", "stay"];
    let tasks = names.map(|name| task(name, &agent.id, 0.1, 16.0));
    scheduler.launch(&offer, tasks.into()).await;
    for _ in names {
        agent.run().await;
    }
    let updates = [
        ("finish", TaskState::TaskRunning),
        ("finish", TaskState::TaskFinished),
        ("fail", TaskState::TaskRunning),
        ("fail", TaskState::TaskFailed),
        ("stay", TaskState::TaskRunning),
    ];
    for (number, (name, state)) in (1..).zip(updates) {
        agent.update(&scheduler.id, name, state, number);
        let status = scheduler.status().await;
        scheduler.acknowledge(&status).await;
    }
    let declined = offers.iter().filter(|other| other.id != offer.id);
    scheduler
        .decline(declined.map(|offer| offer.id.clone()).collect(), 3600.0)
        .await;

    // As in Mesos a timer is told of from its second value on, here with the second round of offers.
    let timed = "allocator/mesos/allocation_run_ms/count";
    until("a second round", async || {
        site.json("/metrics/snapshot").await.get(timed).cloned()
    })
    .await;
    let told = site.json("/metrics/snapshot").await;
    let names: Vec<&String> = told.as_object().unwrap().keys().collect();
    assert!(names.is_sorted());
    let told = snapshot(&told);
    let own = format!("peer-life/{}", scheduler.id.value);
    let wanted: Vec<String> = recorded()
        .into_keys()
        .map(|name| name.replace(RECORDED, &own))
        .collect();
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !told.contains_key(*name))
        .collect();
    assert!(missing.is_empty(), "missing: {missing:#?}");
    let more: Vec<_> = told.keys().filter(|name| !wanted.contains(name)).collect();
    assert_eq!(more, ["master/event_streams_cut_off"], "only Tepui has it");

    let same = |name: &str| told[&name.replace(RECORDED, &own)];
    for (name, value) in recorded() {
        let shown = [
            "frameworks_",
            "slave",
            "messages_register",
            "tasks_running",
            "tasks_gone",
        ];
        if shown
            .iter()
            .any(|part| name.starts_with(&format!("master/{part}")))
        {
            assert_eq!(same(&name), value, "{name}");
        }
    }
    let expected = [
        ("master/tasks_finished", 1.0),
        ("master/tasks_failed", 1.0),
        ("master/messages_launch_tasks", 1.0),
        ("master/messages_status_update", 5.0),
        ("master/valid_status_update_acknowledgements", 5.0),
        ("master/cpus_total", 8.0),
        ("master/cpus_used", 0.1),
        ("master/cpus_percent", 0.0125),
        (
            "allocator/mesos/quota/roles/peer/resources/mem/consumed",
            16.0,
        ),
        ("allocator/mesos/quota/roles//resources/cpus/consumed", 0.1),
    ];
    for (name, value) in expected {
        assert!((told[name] - value).abs() < 1e-9, "{name}: {}", told[name]);
    }
    let of = |name: &str| told[&format!("master/frameworks/{own}/{name}")];
    assert_eq!((of("calls/acknowledge"), of("calls/accept")), (5.0, 1.0));
    assert_eq!((of("operations"), of("operations/launch")), (3.0, 3.0));
    assert_eq!(
        (
            of("tasks/active/task_running"),
            of("tasks/terminal/task_failed")
        ),
        (1.0, 1.0)
    );

    let quota = r#"{"type":"UPDATE_QUOTA","update_quota":{"quota_configs":[{"role":"peer",
        "guarantees":{"cpus":{"value":1}},"limits":{"cpus":{"value":16},"mem":{"value":16384}}}]}}"#;
    let reply = site
        .client
        .post_json("/api/v1", quota)
        .await
        .expect("an answer");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let told = snapshot(&site.json("/metrics/snapshot").await);
    let of = |name: &str| told[&format!("allocator/mesos/quota/roles/peer/resources/{name}")];
    assert_eq!(
        (of("cpus/guarantee"), of("cpus/limit"), of("mem/limit")),
        (1.0, 16.0, 16384.0)
    );

    let body = r#"{"type":"GET_METRICS","get_metrics":{"timeout":{"nanoseconds":5000000000}}}"#;
    let reply = site
        .client
        .post_json("/api/v1", body)
        .await
        .expect("an answer");
    let v1: Value = serde_json::from_slice(&reply.body).expect("JSON");
    let v1 = v1["get_metrics"]["metrics"].as_array().expect("metrics");
    let v1: Vec<&str> = v1
        .iter()
        .map(|metric| metric["name"].as_str().unwrap())
        .collect();
    let v0: Vec<&str> = told.keys().map(String::as_str).collect();
    assert_eq!(v1, v0);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_of_frameworks_can_be_left_out() {
    let settings = tepui_core_master::Settings {
        per_framework_metrics: false,
        ..settings()
    };
    let site = site_with(settings, std::sync::Arc::new(support::allow_all())).await;
    Scheduler::subscribe(&site.client, framework("one"), Media::Json).await;
    let told = until("the framework is counted", async || {
        let told = snapshot(&site.json("/metrics/snapshot").await);
        (told["master/messages_register_framework"] == 1.0).then_some(told)
    })
    .await;
    assert!(
        told.keys()
            .all(|name| !name.starts_with("master/frameworks/"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_operators_are_counted_while_they_are_open() {
    let site = site().await;
    let open = async || {
        site.json("/metrics/snapshot").await["master/operator_event_stream_subscribers"].clone()
    };
    assert_eq!(open().await, 0.0);
    let subscribe = r#"{"type":"SUBSCRIBE"}"#;
    let stream = site
        .client
        .stream("/api/v1", Media::Json, &[], subscribe)
        .await
        .expect("a stream");
    assert_eq!(open().await, 1.0);
    drop(stream);
    // Nothing happens in the cluster, and it is noticed all the same.
    until("the stream is gone", async || {
        (open().await == 0.0).then_some(())
    })
    .await;
}
