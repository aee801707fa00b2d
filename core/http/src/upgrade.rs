//! Leaving HTTP on a connection (RFC 9110, `Upgrade`): the agent link does.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::response::Response;

/// The connection after the switch: an ordered byte stream in both directions.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// The connection did not get through the switch.
#[derive(Debug, thiserror::Error)]
#[error("connection was lost during the upgrade")]
pub struct UpgradeError(#[from] hyper::Error);

/// A client's wish to switch protocols.
#[derive(Debug)]
pub struct Upgrade {
    protocol: String,
    pending: OnUpgrade,
}

impl Upgrade {
    pub(crate) fn wished(headers: &HeaderMap, pending: OnUpgrade) -> Option<Upgrade> {
        let wanted = headers.get(CONNECTION)?.to_str().ok()?;
        if !wanted
            .split(',')
            .any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
        {
            return None;
        }
        let protocol = headers.get(UPGRADE)?.to_str().ok()?.to_owned();
        Some(Upgrade { protocol, pending })
    }

    /// The protocol that the client named.
    pub fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Agrees: the handler returns the 101 and, on a task of its own, awaits the byte stream.
    pub fn accept(
        self,
    ) -> (
        Response,
        impl Future<Output = Result<Upgraded, UpgradeError>> + Send + 'static,
    ) {
        let mut response =
            Response::empty(StatusCode::SWITCHING_PROTOCOLS).header(UPGRADE, &self.protocol);
        response
            .headers
            .insert(CONNECTION, HeaderValue::from_static("upgrade"));
        (
            response,
            async move { Ok(TokioIo::new(self.pending.await?)) },
        )
    }
}
