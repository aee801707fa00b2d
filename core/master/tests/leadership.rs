//! Masters that do not lead, and leaders that cannot go on.

mod support;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tepui_core_master::{AllowAll, InMemory, Leadership, Master, Recovery, Standalone, Store};
use tepui_http::{Client, Method, StatusCode};
use tepui_link::{PATH, UPGRADE};
use tepui_proto::Message as _;
use tepui_proto::v1::{Address, MasterInfo};
use tepui_state_master::Entry;

use support::{FakeAgent, parts, settings, until};

/// Somebody else leads, or nobody.
struct Elsewhere(Option<MasterInfo>);

#[async_trait]
impl Leadership for Elsewhere {
    async fn contend(&self, _info: Bytes) -> Result<(), String> {
        Ok(())
    }

    async fn lost(&self) -> String {
        std::future::pending().await
    }

    async fn detect(&self, previous: Option<Bytes>) -> Result<Option<Bytes>, String> {
        let leader = self
            .0
            .as_ref()
            .map(|info| Bytes::from(info.encode_to_vec()));
        if leader == previous {
            return std::future::pending().await;
        }
        Ok(leader)
    }
}

async fn master(leadership: impl Leadership + 'static) -> (Master, Client) {
    let mut parts = parts(Arc::new(AllowAll));
    parts.leadership = Arc::new(leadership);
    let master = Master::start(settings(), parts).await.expect("a free port");
    let client = Client::new(&master.local_addr().to_string()).expect("an address");
    (master, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn others_point_at_the_leader() {
    let address = Address {
        hostname: None,
        ip: Some("10.0.0.7".to_owned()),
        port: 5050,
    };
    let leader = MasterInfo {
        id: "leader".to_owned(),
        port: 5050,
        hostname: Some("leader.example".to_owned()),
        address: Some(address),
        ..Default::default()
    };
    let (master, client) = master(Elsewhere(Some(leader))).await;
    let location = async |path: &str| {
        // Sent as a request that the client does not follow: a stream.
        let error = client
            .upgrade(path, "none", &[])
            .await
            .expect_err("a redirect");
        match error {
            tepui_http::ClientError::Refused {
                status: StatusCode::TEMPORARY_REDIRECT,
                headers,
                ..
            } => headers["location"].to_str().expect("text").to_owned(),
            other => panic!("{other}"),
        }
    };
    until("the leader is known", async || {
        let error = client.upgrade(PATH, UPGRADE, &[]).await.err()?;
        error.to_string().starts_with("307").then_some(())
    })
    .await;
    assert_eq!(location("/redirect").await, "//leader.example:5050");
    assert_eq!(
        location("/master/state?jsonp=x").await,
        "//leader.example:5050/master/state?jsonp=x"
    );
    assert_eq!(
        location("/api/v1/scheduler").await,
        "//leader.example:5050/api/v1/scheduler"
    );
    assert_eq!(
        client
            .get("/redirect/more")
            .await
            .expect("an answer")
            .status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        client.get("/version").await.expect("an answer").status,
        StatusCode::OK
    );
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_nothing_is_served() {
    let (master, client) = master(Elsewhere(None)).await;
    for path in ["/state", "/api/v1", "/redirect", "/quota"] {
        let reply = client
            .request(Method::GET, path, &[], Bytes::new())
            .await
            .expect("an answer");
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
    }
    assert_eq!(
        client.get("/health").await.expect("an answer").status,
        StatusCode::OK
    );
    master.stop().await;
}

/// Can be read, not written.
struct Full;

#[async_trait]
impl Store for Full {
    async fn recover(&self) -> Result<Recovery, String> {
        InMemory::default().recover().await
    }

    async fn write(
        &self,
        _epoch: u64,
        _puts: Vec<Entry>,
        _deletes: Vec<String>,
    ) -> Result<(), String> {
        Err("no space left on device".to_owned())
    }

    fn size(&self) -> u64 {
        0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_write_steps_down() {
    let mut parts = parts(Arc::new(AllowAll));
    parts.store = Arc::new(Full);
    parts.leadership = Arc::new(Standalone::default());
    let master = Master::start(settings(), parts).await.expect("a free port");
    let client = Client::new(&master.local_addr().to_string()).expect("an address");
    let agent = async {
        until("the master leads", async || {
            (client.get("/state").await.ok()?.status == StatusCode::OK).then_some(())
        })
        .await;
        FakeAgent::connect(&client, 1.0, 1.0).await
    };
    let reason = tokio::select! {
        reason = master.stepped_down() => reason,
        _ = agent => panic!("the agent is welcomed"),
    };
    assert!(reason.contains("no space left on device"), "{reason}");
    master.stop().await;
}
