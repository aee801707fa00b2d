//! The access log: one line for each answered request, once its body is sent or its client has gone.
//!
//! Lines begin as those of Mesos do: `HTTP GET for /master/state from 10.0.0.7:40118`. They are on the
//! target `tepui_http::access`, so that `RUST_LOG=info,tepui_http::access=off` silences them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, StatusCode};

use crate::Subject;

/// What lines of other targets can be filtered by.
pub(crate) const TARGET: &str = "tepui_http::access";

/// Numbers requests that bring no id.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A request on its way to its line in the log.
#[derive(Debug)]
pub(super) struct Entry {
    /// `X-Request-Id` of the client, or a number.
    pub(super) id: String,
    method: Method,
    path: String,
    peer: SocketAddr,
    agent: Option<String>,
    principal: Option<String>,
    begin: Instant,
    status: StatusCode,
    sent: u64,
}

/// The client's own id, if it is fit for a log.
fn own_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_.:/=+".contains(c);
    (!id.is_empty() && id.len() <= 128 && id.chars().all(fit)).then(|| id.to_owned())
}

impl Entry {
    pub(super) fn new(parts: &http::request::Parts, peer: SocketAddr) -> Entry {
        let agent = parts.headers.get(http::header::USER_AGENT);
        let agent = agent
            .and_then(|agent| agent.to_str().ok())
            .map(str::to_owned);
        Entry {
            id: own_id(&parts.headers)
                .unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed).to_string()),
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            peer,
            agent,
            principal: None,
            begin: Instant::now(),
            status: StatusCode::OK,
            sent: 0,
        }
    }

    pub(super) fn by(&mut self, subject: Option<&Subject>) {
        self.principal = subject.and_then(|subject| subject.principal.clone());
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.status = status;
    }

    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// A stream has begun, whose line may come hours later.
    pub(super) fn opened(&self) {
        let Entry {
            id,
            method,
            path,
            peer,
            ..
        } = self;
        tracing::debug!(target: TARGET, request = %id, "HTTP {method} for {path} from {peer}: stream opened");
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Entry {
            id,
            method,
            path,
            peer,
            status,
            sent,
            ..
        } = self;
        let took: Duration = self.begin.elapsed();
        tracing::info!(
            target: TARGET,
            request = %id,
            agent = self.agent,
            principal = self.principal,
            "HTTP {method} for {path} from {peer}: {} with {sent} bytes in {took:.1?}",
            status.as_u16(),
        );
    }
}
