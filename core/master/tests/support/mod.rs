//! A master on a free port with an allocator of its own, agents that pretend, and schedulers.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part"
)]

mod agent;
mod allocator;
mod recording;
mod scheduler;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tepui_core_master::{AllowAll, Authorizer, InMemory, Master, Parts, Settings, Standalone};
use tepui_http::shared::{Files, Logging, Metrics, VersionInfo};
use tepui_http::{Client, StatusCode};

pub use agent::{FakeAgent, scalar};
pub use recording::Recording;
pub use scheduler::{Scheduler, framework, revive, task};

/// Nothing that these tests wait for takes this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running master and a client of it.
pub struct Site {
    pub master: Master,
    pub client: Client,
}

pub fn allow_all() -> AllowAll {
    AllowAll
}

pub fn settings() -> Settings {
    let mut settings = Settings::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    // The release that was recorded, so that its answers can be compared whole.
    settings.version = VersionInfo {
        build_date: "2020-11-24 15:38:37".to_owned(),
        build_time: 1_606_232_317.0,
        build_user: "ubuntu".to_owned(),
        git_sha: Some("04bc7ee1984d86fbb0bd782ccc69ce44c13ae4b9".to_owned()),
        git_tag: Some("1.11.0".to_owned()),
        version: "1.11.0".to_owned(),
    };
    settings
}

pub async fn site() -> Site {
    site_with(settings(), Arc::new(AllowAll)).await
}

/// Parts of a master that stands alone and forgets everything.
pub fn parts(authorizer: Arc<dyn Authorizer>) -> Parts {
    Parts {
        allocator: Box::new(allocator::Fair::default()),
        authorizer,
        leadership: Arc::new(Standalone::default()),
        store: Arc::new(InMemory::default()),
        modules: Arc::new(|| br#"{"modules":[]}"#.to_vec()),
        logging: Logging::new(0, |_| {}),
        metrics: Metrics::default(),
        files: Files::default(),
    }
}

pub async fn site_with(settings: Settings, authorizer: Arc<dyn Authorizer>) -> Site {
    let parts = parts(authorizer);
    let master = Master::start(settings, parts).await.expect("a free port");
    let client = Client::new(&master.local_addr().to_string()).expect("an address");
    let site = Site { master, client };
    until("the master leads", async || {
        (site.client.get("/master/state").await.ok()?.status == StatusCode::OK).then_some(())
    })
    .await;
    site
}

impl Site {
    /// GETs JSON.
    pub async fn json(&self, path: &str) -> serde_json::Value {
        let reply = self.client.get(path).await.expect("an answer");
        serde_json::from_slice(&reply.body).unwrap_or_else(|_| panic!("{path}: {}", reply.text()))
    }
}

/// Asks again and again until there is an answer.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| panic!("timed out: {what}"))
}
