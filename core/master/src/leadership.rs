//! Who leads: contender and detector modules, or nobody else.

use async_trait::async_trait;
use bytes::Bytes;

/// Election and detection of the leading master. Infos are `mesos.v1.MasterInfo`.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Enters the election.
    async fn contend(&self, info: Bytes) -> Result<(), String>;

    /// Returns, with the reason, when the candidacy is lost.
    async fn lost(&self) -> String;

    /// Returns the leader as soon as it is another than `previous`.
    async fn detect(&self, previous: Option<Bytes>) -> Result<Option<Bytes>, String>;
}

/// The only master there is.
#[derive(Debug, Default)]
pub struct Standalone(tokio::sync::watch::Sender<Option<Bytes>>);

#[async_trait]
impl Leadership for Standalone {
    async fn contend(&self, info: Bytes) -> Result<(), String> {
        self.0.send_replace(Some(info));
        Ok(())
    }

    async fn lost(&self) -> String {
        std::future::pending().await
    }

    async fn detect(&self, previous: Option<Bytes>) -> Result<Option<Bytes>, String> {
        let mut leader = self.0.subscribe();
        let found = leader.wait_for(|leader| *leader != previous).await;
        found
            .map(|leader| leader.clone())
            .map_err(|error| error.to_string())
    }
}
