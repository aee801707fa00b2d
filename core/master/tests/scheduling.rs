//! Schedulers over HTTP and agents over the link, with a real master between them.

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tepui_core_master::{Approver, Authorizer, Object, RateLimit, RateLimits, Unanswered};
use tepui_http::{Media, StatusCode};
use tepui_model::authorization::{Action, Subject};
use tepui_proto::link::link_frame::Body;
use tepui_proto::v1::scheduler::{Call, call, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState};
use tokio::sync::Notify;

use support::{FakeAgent, Scheduler, framework, revive, settings, site, site_with, task, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_from_offer_to_acknowledgement() {
    for media in [Media::Json, Media::Protobuf] {
        let site = site().await;
        let mut agent = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
        let mut scheduler = Scheduler::subscribe(&site.client, framework("life"), media).await;
        let offers = scheduler.offers().await;
        assert_eq!(offers[0].agent_id, agent.id);

        scheduler
            .launch(&offers[0], vec![task("t1", &agent.id, 1.0, 64.0)])
            .await;
        let run = agent.run().await;
        assert_eq!(run.tasks[0].task_id.value, "t1");
        // Reading after the call sees its effect.
        let state = site.json("/master/state").await;
        assert_eq!(state["frameworks"][0]["tasks"][0]["state"], "TASK_STAGING");
        assert_eq!(state["slaves"][0]["used_resources"]["cpus"], 1.0);

        for (state, uuid) in [(TaskState::TaskRunning, 1), (TaskState::TaskFinished, 2)] {
            agent.update(&scheduler.id, "t1", state, uuid);
            let status = scheduler.status().await;
            assert_eq!(status.state, i32::from(state));
            scheduler.acknowledge(&status).await;
            let acknowledged = agent
                .command(|body| match body {
                    Body::AckUpdate(ack) => Some(ack),
                    _ => None,
                })
                .await;
            assert_eq!(acknowledged.uuid, vec![uuid; 16]);
        }
        let tasks = site.json("/tasks").await;
        assert_eq!(tasks["tasks"][0]["state"], "TASK_FINISHED");
        let body = r#"{"type":"GET_STATE"}"#;
        let reply = site
            .client
            .post_json("/api/v1", body)
            .await
            .expect("an answer");
        let state: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        let completed = &state["get_state"]["get_tasks"]["completed_tasks"];
        assert_eq!(completed[0]["task_id"]["value"], "t1");

        scheduler.teardown().await;
        // The stream ends with the framework; offers may still be in it.
        while scheduler.event().await.is_some() {}
        let state = site.json("/state").await;
        assert_eq!(
            state["completed_frameworks"][0]["id"],
            scheduler.id.value.as_str()
        );
        assert_eq!(state["frameworks"].as_array().map(Vec::len), Some(0));
        site.master.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_framework_declines_the_other_gets() {
    let site = site().await;
    let agent = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
    let mut first = Scheduler::subscribe(&site.client, framework("first"), Media::Json).await;
    let offers = first.offers().await;
    let mut second = Scheduler::subscribe(&site.client, framework("second"), Media::Protobuf).await;
    let begin = std::time::Instant::now();
    first
        .decline(
            offers.iter().map(|offer| offer.id.clone()).collect(),
            3600.0,
        )
        .await;
    let offers = second.offers().await;
    assert_eq!(offers[0].agent_id, agent.id);
    assert_eq!(
        offers[0]
            .allocation_info
            .as_ref()
            .and_then(|info| info.role.as_deref()),
        Some("second")
    );
    // To another framework at once, not with the next batch.
    assert!(begin.elapsed().as_millis() < 900, "{:?}", begin.elapsed());

    let roles = site
        .client
        .post_json("/api/v1", r#"{"type":"GET_ROLES"}"#)
        .await
        .expect("an answer")
        .text();
    assert!(
        roles.contains(r#"{"name":"second","weight":1.0,"frameworks":[{"value":"#),
        "{roles}"
    );
    site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connection_ends_the_first() {
    let site = site().await;
    let mut first = Scheduler::subscribe(&site.client, framework("twice"), Media::Json).await;
    let mut info = framework("twice");
    info.id = Some(first.id.clone());
    info.failover_timeout = Some(60.0);
    let second = Scheduler::subscribe(&site.client, info, Media::Json).await;
    assert_eq!(second.id, first.id);
    let error = first.wait(|event| event.error).await;
    assert_eq!(error.message, "Framework failed over");
    assert!(first.event().await.is_none());
    let reply = first.call(Default::default()).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_that_does_not_read_is_cut_off() {
    let mut settings = settings();
    settings.stream_limit = 64 * 1024;
    let site = site_with(settings, Arc::new(support::allow_all())).await;
    let agent = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
    let slow = Scheduler::subscribe(&site.client, framework("slow"), Media::Json).await;
    // Reconciliation answers each task with an event that nobody reads.
    let cut = until("the reader is cut off", async || {
        slow.reconcile(&agent.id, 2000).await;
        let state = site.json("/state").await;
        let gone = state["frameworks"].as_array().is_none_or(Vec::is_empty)
            || state["frameworks"][0]["connected"] == false;
        gone.then_some(())
    });
    cut.await;
    let metrics = site.json("/metrics/snapshot").await;
    assert_eq!(metrics["master/event_streams_cut_off"], 1.0);
    // Others go on.
    let mut other = Scheduler::subscribe(&site.client, framework("other"), Media::Json).await;
    assert!(!other.offers().await.is_empty());
    site.master.stop().await;
}

/// Whoever brings a call may do those of others: none is lost, and each framework's stay in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_that_come_together_are_all_answered_in_order() {
    const FRAMEWORKS: usize = 8;
    const ROUNDS: usize = 50;
    let site = site().await;
    let agent = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
    // Of an agent that has not told everything yet nothing is known, and nothing said.
    let mut first = Scheduler::subscribe(&site.client, framework("first"), Media::Json).await;
    assert!(!first.offers().await.is_empty());
    let frameworks = (0..FRAMEWORKS).map(|n| {
        let (client, agent) = (site.client.clone(), agent.id.clone());
        tokio::spawn(async move {
            let info = framework(&format!("busy-{n}"));
            let mut scheduler = Scheduler::subscribe(&client, info, Media::Protobuf).await;
            for round in 0..ROUNDS {
                // One update for each task that is asked about.
                scheduler.reconcile(&agent, round).await;
                for task in 0..round {
                    let status = scheduler.status().await;
                    assert_eq!(status.task_id.value, format!("unknown-{task}"));
                }
            }
        })
    });
    let frameworks: Vec<_> = frameworks.collect();
    let mut reads = 0;
    while frameworks.iter().any(|framework| !framework.is_finished()) {
        let state = site.json("/master/state").await;
        assert_eq!(state["slaves"].as_array().map(Vec::len), Some(1));
        reads += 1;
    }
    for framework in frameworks {
        framework.await.expect("every call was answered");
    }
    assert!(reads > 0);
    site.master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_everything_once() {
    let site = site().await;
    let _before = Scheduler::subscribe(&site.client, framework("before"), Media::Json).await;
    let mut operator = site
        .client
        .stream("/api/v1", Media::Json, &[], r#"{"type":"SUBSCRIBE"}"#)
        .await
        .expect("a stream");
    let mut next = async || -> serde_json::Value {
        let record = tokio::time::timeout(support::PATIENCE, operator.next())
            .await
            .expect("timed out: an event");
        serde_json::from_slice(&record.expect("a record").expect("the stream is open"))
            .expect("JSON")
    };
    let subscribed = next().await;
    assert_eq!(subscribed["type"], "SUBSCRIBED");
    assert_eq!(subscribed["subscribed"]["heartbeat_interval_seconds"], 15.0);
    let frameworks = &subscribed["subscribed"]["get_state"]["get_frameworks"]["frameworks"];
    assert_eq!(frameworks[0]["framework_info"]["name"], "before");
    assert_eq!(next().await["type"], "HEARTBEAT");
    let _after = Scheduler::subscribe(&site.client, framework("after"), Media::Json).await;
    let added = next().await;
    assert_eq!(added["type"], "FRAMEWORK_ADDED");
    assert_eq!(
        added["framework_added"]["framework"]["framework_info"]["name"],
        "after"
    );
    site.master.stop().await;
}

/// Refuses roles and users named `bad`.
struct NoBad;

#[async_trait]
impl Authorizer for NoBad {
    async fn approver(&self, _subject: Option<&Subject>, action: Action) -> Arc<dyn Approver> {
        match action {
            Action::RegisterFramework | Action::RunTask => Arc::new(NoBad),
            _ => Arc::new(support::allow_all()),
        }
    }
}

#[async_trait]
impl Approver for NoBad {
    fn constant(&self) -> Option<bool> {
        None
    }

    async fn approved(&self, object: &Object) -> Result<bool, Unanswered> {
        Ok(object.value.as_deref() != Some("bad"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorizer_is_asked_before_the_owner() {
    let site = site_with(settings(), Arc::new(NoBad)).await;
    let agent = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
    let refused = Scheduler::first_event(&site.client, framework("bad")).await;
    assert_eq!(refused.r#type, Some(event::Type::Error.into()));
    assert_eq!(
        refused.error.expect("ERROR").message,
        "Not authorized to use role 'bad'"
    );

    let mut scheduler = Scheduler::subscribe(&site.client, framework("good"), Media::Json).await;
    let offers = scheduler.offers().await;
    let mut bad = task("bad-user", &agent.id, 1.0, 64.0);
    bad.command.as_mut().expect("it has one").user = Some("bad".to_owned());
    scheduler.launch(&offers[0], vec![bad]).await;
    let status = scheduler.status().await;
    assert_eq!(status.state, i32::from(TaskState::TaskError));
    assert_eq!(status.reason, Some(Reason::TaskUnauthorized.into()));

    let mut info = framework("good");
    info.id = Some(scheduler.id.clone());
    info.roles.push("bad".to_owned());
    let update = call::UpdateFramework {
        framework_info: info,
        ..Default::default()
    };
    let call = Call {
        r#type: Some(call::Type::UpdateFramework.into()),
        update_framework: Some(update),
        ..Default::default()
    };
    assert_eq!(scheduler.call(call).await.status, StatusCode::FORBIDDEN);
    site.master.stop().await;
}

/// Never answers about launches; tells that it was asked.
#[derive(Clone, Default)]
struct Stuck(Arc<Notify>);

#[async_trait]
impl Authorizer for Stuck {
    async fn approver(&self, _subject: Option<&Subject>, action: Action) -> Arc<dyn Approver> {
        match action {
            Action::RunTask => Arc::new(self.clone()),
            _ => Arc::new(support::allow_all()),
        }
    }
}

#[async_trait]
impl Approver for Stuck {
    fn constant(&self) -> Option<bool> {
        None
    }

    async fn approved(&self, _object: &Object) -> Result<bool, Unanswered> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_lane_refuses_calls_of_its_framework_only() {
    let mut settings = settings();
    settings.lane_limit = 2;
    let authorizer = Stuck::default();
    let site = site_with(settings, Arc::new(authorizer.clone())).await;
    let agent = FakeAgent::connect(&site.client, 4.0, 4096.0).await;
    let mut scheduler = Scheduler::subscribe(&site.client, framework("full"), Media::Json).await;
    let offers = scheduler.offers().await;
    let other = Scheduler::subscribe(&site.client, framework("other"), Media::Json).await;
    let stuck = scheduler.launch(&offers[0], vec![task("t", &agent.id, 1.0, 64.0)]);
    let refused = async {
        authorizer.0.notified().await;
        let mut waiting = futures::stream::FuturesUnordered::new();
        // One is with the authorizer, two wait in the lane.
        for _ in 0..8 {
            waiting.push(scheduler.call(support::revive()));
        }
        futures::StreamExt::next(&mut waiting)
            .await
            .expect("an answer")
    };
    let refused = tokio::select! {
        biased;
        () = stuck => panic!("the launch is answered"),
        refused = refused => refused,
    };
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.header("retry-after"), Some("1"));
    let reply = other.call(support::revive()).await;
    assert_eq!(reply.status, StatusCode::ACCEPTED);
    site.master.stop().await;
}

/// A principal that may make one call an hour, while one more waits.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_limited_principal_wait_or_are_refused() {
    let mut settings = settings();
    let limit = RateLimit {
        interval: Duration::from_hours(1),
        capacity: Some(1),
    };
    settings.rate_limits = RateLimits {
        principals: [("slow".to_owned(), Some(limit))].into(),
        others: None,
    };
    let site = site_with(settings, Arc::new(support::allow_all())).await;
    let info = |name: &str| v1::FrameworkInfo {
        principal: Some(name.to_owned()),
        ..framework(name)
    };
    let slow = Scheduler::subscribe(&site.client, info("slow"), Media::Json).await;
    let free = Scheduler::subscribe(&site.client, info("free"), Media::Json).await;
    for _ in 0..3 {
        assert_eq!(free.call(revive()).await.status, StatusCode::ACCEPTED);
    }
    assert_eq!(slow.call(revive()).await.status, StatusCode::ACCEPTED);
    let (waits, others) = (slow.call(revive()), async {
        let count = async |what: &str| {
            let metrics = site.json("/metrics/snapshot?timeout=5secs").await;
            metrics[format!("frameworks/slow/messages_{what}")].clone()
        };
        until("a call waits", async || {
            (count("received").await == 2.0).then_some(())
        })
        .await;
        let refused = slow.call(revive()).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.header("Retry-After"), Some("1"));
        assert_eq!(count("received").await, 3.0);
        assert_eq!(count("processed").await, 1.0);
        assert_eq!(free.call(revive()).await.status, StatusCode::ACCEPTED);
    });
    tokio::select! {
        reply = waits => panic!("it has to wait for an hour, not {}", reply.status),
        () = others => {}
    }
}
