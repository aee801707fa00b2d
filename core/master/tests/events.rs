//! The event stream of the operator API: who gets what, and who is cut off.

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Value, json};
use tepui_core_master::{Approver, Authorizer, Object, Unanswered};
use tepui_http::{Client, Media, Method, Records, StatusCode};
use tepui_model::authorization::{Action, Subject};
use tepui_proto::v1;
use tepui_proto::v1::scheduler::{Call, call};

use support::{FakeAgent, Scheduler, Site, framework, scalar, settings, site_with, until};

/// An operator's stream.
struct Events(Records);

impl Events {
    async fn subscribe(client: &Client) -> Events {
        let body = br#"{"type":"SUBSCRIBE"}"#.to_vec();
        let records = client.stream("/api/v1", Media::Json, &[], body).await;
        Events(records.expect("a stream"))
    }

    /// The next event; none at the end.
    async fn next(&mut self) -> Option<Value> {
        let record = tokio::time::timeout(support::PATIENCE, self.0.next()).await;
        let record = record.expect("timed out: an event").expect("a record")?;
        Some(serde_json::from_slice(&record).expect("JSON"))
    }

    async fn kind(&mut self) -> Option<String> {
        let event = self.next().await?;
        Some(event["type"].as_str().expect("a type").to_owned())
    }
}

async fn metric(site: &Site, name: &str) -> f64 {
    let metrics = site.json("/metrics/snapshot").await;
    metrics[name].as_f64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_stream_makes_room_for_the_newest() {
    let mut settings = settings();
    settings.max_operator_streams = 2;
    let site = site_with(settings, Arc::new(support::allow_all())).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut events = Events::subscribe(&site.client).await;
        assert_eq!(events.kind().await.as_deref(), Some("SUBSCRIBED"));
        assert_eq!(events.kind().await.as_deref(), Some("HEARTBEAT"));
        streams.push(events);
    }
    assert_eq!(streams[0].kind().await, None);
    let _framework = Scheduler::subscribe(&site.client, framework("after"), Media::Json).await;
    for events in &mut streams[1..] {
        assert_eq!(events.kind().await.as_deref(), Some("FRAMEWORK_ADDED"));
    }
    // All go and somebody comes back: nothing was missed that is not in the snapshot.
    streams.clear();
    let _between = Scheduler::subscribe(&site.client, framework("between"), Media::Json).await;
    let mut events = Events::subscribe(&site.client).await;
    let first = events.next().await.expect("SUBSCRIBED");
    let frameworks = &first["subscribed"]["get_state"]["get_frameworks"]["frameworks"];
    assert_eq!(frameworks.as_array().map(Vec::len), Some(2));
    assert_eq!(events.kind().await.as_deref(), Some("HEARTBEAT"));
    let _last = Scheduler::subscribe(&site.client, framework("last"), Media::Json).await;
    assert_eq!(events.kind().await.as_deref(), Some("FRAMEWORK_ADDED"));
    site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_cut_off_and_counted() {
    const CUT_OFF: &str = "master/event_streams_cut_off";
    let mut settings = settings();
    settings.stream_limit = 256 * 1024;
    let site = site_with(settings, Arc::new(support::allow_all())).await;
    let slow = Events::subscribe(&site.client).await;
    let mut info = framework("loud");
    let loud = Scheduler::subscribe(&site.client, info.clone(), Media::Protobuf).await;
    info.id = Some(loud.id.clone());
    // More than a burst may be, and what the sockets hold.
    for round in 0..32 {
        info.webui_url = Some(format!("{round}/{}", "x".repeat(1024 * 1024)));
        let update = call::UpdateFramework {
            framework_info: info.clone(),
            ..Default::default()
        };
        let call = Call {
            r#type: Some(call::Type::UpdateFramework.into()),
            update_framework: Some(update),
            ..Default::default()
        };
        assert_eq!(loud.call(call).await.status, StatusCode::OK);
    }
    until("the slow one is counted", async || {
        (metric(&site, CUT_OFF).await == 1.0).then_some(())
    })
    .await;
    drop(slow);
    site.master.stop().await;
}

/// Hides what belongs to a user or a role named `hidden`; is not there for changes of weights.
struct Blind;

#[async_trait]
impl Authorizer for Blind {
    async fn approver(&self, _subject: Option<&Subject>, action: Action) -> Arc<dyn Approver> {
        match action {
            Action::ViewFramework | Action::ViewTask | Action::ViewRole => Arc::new(Blind),
            Action::UpdateWeight => Arc::new(Unanswered("it is gone".to_owned())),
            _ => Arc::new(support::allow_all()),
        }
    }
}

#[async_trait]
impl Approver for Blind {
    fn constant(&self) -> Option<bool> {
        None
    }

    async fn approved(&self, object: &Object) -> Result<bool, Unanswered> {
        Ok(object.value.as_deref() != Some("hidden"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_shown_to_those_who_may_see_it() {
    let site = site_with(settings(), Arc::new(Blind)).await;
    let mut events = Events::subscribe(&site.client).await;
    assert_eq!(events.kind().await.as_deref(), Some("SUBSCRIBED"));
    assert_eq!(events.kind().await.as_deref(), Some("HEARTBEAT"));
    let mut info = framework("secret");
    info.user = "hidden".to_owned();
    let _secret = Scheduler::subscribe(&site.client, info, Media::Json).await;
    let reserved = v1::Resource {
        reservations: vec![v1::resource::ReservationInfo {
            r#type: Some(v1::resource::reservation_info::Type::Static.into()),
            role: Some("hidden".to_owned()),
            ..Default::default()
        }],
        ..scalar("cpus", 1.0)
    };
    let _agent = FakeAgent::with(&site.client, vec![reserved, scalar("cpus", 2.0)]).await;
    let added = events.next().await.expect("AGENT_ADDED");
    assert_eq!(added["type"], "AGENT_ADDED");
    let total = &added["agent_added"]["agent"]["total_resources"];
    assert_eq!(total.as_array().map(Vec::len), Some(1), "{total}");
    assert_eq!(total[0]["scalar"]["value"], 2.0);

    let weight = json!([{"role": "peer", "weight": 2.0}]).to_string();
    let headers = [("Content-Type", "application/json")];
    let reply = site
        .client
        .request(Method::PUT, "/weights", &headers, weight.into())
        .await
        .expect("an answer");
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
    until("nothing was changed", async || {
        (site.json("/weights").await == json!([])).then_some(())
    })
    .await;
    site.master.stop().await;
}
