//! An agent follows the leading master.

mod support;

use std::sync::Arc;

use futures::future::BoxFuture;
use support::{Master, Pretend, start_with, wait_until};
use tepui_core_agent::Detector;
use tokio::sync::watch;

/// Says what a test says.
struct Told(watch::Sender<Option<String>>);

impl Detector for Told {
    fn detect<'a>(
        &'a self,
        previous: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Option<String>, String>> {
        let mut leader = self.0.subscribe();
        Box::pin(async move {
            let found = leader
                .wait_for(|leader| leader.as_deref() != previous)
                .await;
            found
                .map(|leader| leader.clone())
                .map_err(|error| error.to_string())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_goes_where_the_leader_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut first, mut second) = (Master::start().await, Master::start().await);
    let told = Arc::new(Told(watch::Sender::new(None)));
    let detector = told.clone();
    let containers = Arc::new(Pretend::default());
    let running = start_with(dir.path(), &first, &containers, |settings| {
        settings.master = detector;
    })
    .await;
    let registered = async || running.get("/metrics/snapshot").await["slave/registered"] == 1.0;
    assert!(!registered().await, "there is no leader yet");

    told.0
        .send_replace(Some(first.server.local_addr().to_string()));
    assert_eq!(first.welcome().await.0, None, "a new agent");
    wait_until("it is registered", registered).await;
    told.0
        .send_replace(Some(second.server.local_addr().to_string()));
    assert_eq!(
        second.welcome().await.0.as_deref(),
        Some("S0"),
        "the same agent"
    );
    // Nobody leads: it lets go, and waits.
    told.0.send_replace(None);
    wait_until("it is registered nowhere", async || !registered().await).await;
    running.stop().await;
}
