//! Many who ask the same at once.

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use tepui_core_master::{Approver, Authorizer};
use tepui_model::authorization::{Action, Subject};
use tokio::sync::watch;
use tokio::task::JoinSet;

use support::{Scheduler, framework, settings, site_with, until};

/// An authorizer that answers nobody who wants to see tasks while it is shut.
struct Gate(watch::Sender<bool>);

#[async_trait]
impl Authorizer for Gate {
    async fn approver(&self, _subject: Option<&Subject>, action: Action) -> Arc<dyn Approver> {
        if action == Action::ViewTask {
            let mut shut = self.0.subscribe();
            shut.wait_for(|shut| !shut).await.expect("the gate stays");
        }
        Arc::new(support::allow_all())
    }
}

#[tokio::test]
async fn equal_questions_that_wait_share_an_answer_that_none_of_them_finds_old() {
    let gate = Arc::new(Gate(watch::Sender::new(false)));
    let site = Arc::new(site_with(settings(), gate.clone()).await);
    gate.0.send_replace(true);
    let ask = || {
        let site = Arc::clone(&site);
        async move { site.json("/master/state").await }
    };
    let hits = async || {
        let metrics = site.json("/metrics/snapshot").await;
        metrics["master/http_cache_hits"].as_f64().expect("a count") as u64
    };
    // As many as are answered at once come to the gate, each alone; all others wait for them, together.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let places = (processors / 2).max(1);
    let mut asking = JoinSet::new();
    for place in 1..=places {
        asking.spawn(ask());
        until("it is being answered", async || {
            (gate.0.receiver_count() == place).then_some(())
        })
        .await;
    }
    for _ in 0..10 {
        asking.spawn(ask());
    }
    until("all but the first share an answer", async || {
        (hits().await == 9).then_some(())
    })
    .await;

    // Whoever asks now knows of this framework.
    let scheduler = Scheduler::subscribe(&site.client, framework("new"), tepui_http::Media::Json);
    let scheduler = scheduler.await;
    let late = tokio::spawn(ask());
    until("the last shares it, too", async || {
        (hits().await == 10).then_some(())
    })
    .await;
    gate.0.send_replace(false);
    let state = late.await.expect("no panic");
    assert_eq!(state["frameworks"][0]["id"], scheduler.id.value.as_str());

    let mut with_it = 0;
    for state in asking.join_all().await {
        with_it += state["frameworks"].as_array().map_or(0, Vec::len);
    }
    assert_eq!(with_it, 10, "all who shared got what the last had to get");
    assert_eq!(hits().await, 10);
}
