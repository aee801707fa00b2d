//! A small client for the v1 and v0 endpoints: what the command line, the agent and tests use.
//!
//! Connections are kept and reused. Redirects to a leader (307) are followed a few times for calls
//! that are made anew each time; streams and upgrades report them to the caller.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, LOCATION, UPGRADE};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tepui_proto::recordio::{Decoder, RecordError};

use crate::media::{Media, PROTOBUF};
use crate::upgrade::Upgraded;

/// Redirects followed for one call.
const MAX_REDIRECTS: usize = 3;
/// Largest answer that is read into memory.
const MAX_ANSWER: usize = 1 << 30;
/// Largest record of a stream.
const MAX_RECORD: usize = 64 * 1024 * 1024;

/// Why there is no (good) answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is not one.
    #[error("bad address '{0}'")]
    Address(String),
    /// A path or header that cannot be sent.
    #[error("request cannot be built")]
    Build(#[from] http::Error),
    /// No connection, or it broke before the answer's head.
    #[error("no answer from {authority}")]
    Connect {
        /// Host and port.
        authority: String,
        /// Why.
        source: hyper_util::client::legacy::Error,
    },
    /// No answer in time.
    #[error("no answer from {authority} in {after:?}")]
    Timeout {
        /// Host and port.
        authority: String,
        /// The limit.
        after: Duration,
    },
    /// The connection broke in the middle of an answer.
    #[error("answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server refused: anything but 2xx.
    #[error("{status}: {text}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its explanation.
        text: String,
        /// Its headers.
        headers: Box<HeaderMap>,
    },
    /// The answer is not what was asked for.
    #[error("answer cannot be decoded")]
    Decode(#[from] prost::DecodeError),
    /// A stream's framing is broken.
    #[error("stream is not in RecordIO format")]
    Record(#[from] RecordError),
    /// A stream ended in the middle of a record.
    #[error("stream ended in the middle of a record")]
    Unfinished,
    /// The server did not switch protocols.
    #[error("server did not upgrade the connection")]
    NotUpgraded(#[source] Option<hyper::Error>),
}

/// A complete answer of any status.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Reply {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The reply if its status is 2xx, else what the server said as an error.
    pub fn success(self) -> Result<Reply, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let text = self.text().trim_end().to_owned();
        Err(ClientError::Refused {
            status: self.status,
            text,
            headers: Box::new(self.headers),
        })
    }
}

/// For an answer to begin and, where it is not a stream, to arrive.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
    authority: String,
}

impl Client {
    /// A client for `host:port` or `http://host:port`.
    pub fn new(address: &str) -> Result<Client, ClientError> {
        let bad = || ClientError::Address(address.to_owned());
        let authority = address
            .strip_prefix("http://")
            .unwrap_or(address)
            .trim_end_matches('/');
        let parsed: http::uri::Authority = authority.parse().map_err(|_| bad())?;
        if parsed.port_u16().is_none() || parsed.host().is_empty() {
            return Err(bad());
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(10)));
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .http1_title_case_headers(true)
            .build(connector);
        let authority = authority.to_owned();
        Ok(Client { pool, authority })
    }

    /// `host:port` of the server.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Result<Reply, ClientError> {
        self.request(Method::GET, path, &[], Bytes::new()).await
    }

    /// POST with a JSON body, JSON accepted.
    pub async fn post_json(
        &self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Reply, ClientError> {
        let json = Media::Json.content_type();
        let headers = [(CONTENT_TYPE.as_str(), json), (ACCEPT.as_str(), json)];
        self.request(Method::POST, path, &headers, body.into())
            .await
    }

    /// POSTs a protobuf call and decodes the protobuf answer; anything but 2xx is an error.
    pub async fn call<C: Message, R: Message + Default>(
        &self,
        path: &str,
        call: &C,
    ) -> Result<R, ClientError> {
        let headers = [
            (CONTENT_TYPE.as_str(), PROTOBUF),
            (ACCEPT.as_str(), PROTOBUF),
        ];
        let reply = self
            .request(Method::POST, path, &headers, call.encode_to_vec().into())
            .await?;
        Ok(R::decode(reply.success()?.body)?)
    }

    /// Any request, its answer read completely; redirects are followed.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Reply, ClientError> {
        let mut authority = self.authority.clone();
        let mut path = path.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let whole = async {
                let (parts, incoming) = self
                    .send(&method, &authority, &path, headers, body.clone())
                    .await?;
                let body = Limited::new(incoming, MAX_ANSWER)
                    .collect()
                    .await
                    .map_err(ClientError::Body)?;
                Ok(Reply {
                    status: parts.status,
                    headers: parts.headers,
                    body: body.to_bytes(),
                })
            };
            let reply: Reply = self.in_time(&authority, whole).await?;
            match redirect(&reply)
                .filter(|(_, next)| next.starts_with(path.split('?').next().unwrap_or("/")))
            {
                Some((leader, next)) => (authority, path) = (leader, next),
                None => return Ok(reply),
            }
        }
        Err(ClientError::Address(format!(
            "{authority}: too many redirects"
        )))
    }

    /// Opens a stream of records: POSTs a call and, if the answer is 2xx, hands the records on.
    pub async fn stream(
        &self,
        path: &str,
        media: Media,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Records, ClientError> {
        let mut all = vec![
            (CONTENT_TYPE.as_str(), media.content_type()),
            (ACCEPT.as_str(), media.content_type()),
        ];
        all.extend_from_slice(headers);
        let sent = self.send(&Method::POST, &self.authority, path, &all, body.into());
        let (parts, incoming) = self.in_time(&self.authority, sent).await?;
        if !parts.status.is_success() {
            let body = Limited::new(incoming, MAX_ANSWER)
                .collect()
                .await
                .map_err(ClientError::Body)?;
            let reply = Reply {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            };
            return Err(reply.success().expect_err("the status is not a success"));
        }
        Ok(Records {
            headers: parts.headers,
            incoming,
            decoder: Decoder::new(MAX_RECORD),
        })
    }

    /// Switches a fresh connection to another protocol; a refusal (a redirect, too) is an error.
    pub async fn upgrade(
        &self,
        path: &str,
        protocol: &str,
        headers: &[(&str, &str)],
    ) -> Result<Upgraded, ClientError> {
        let mut all = vec![
            (CONNECTION.as_str(), "upgrade"),
            (UPGRADE.as_str(), protocol),
        ];
        all.extend_from_slice(headers);
        let sent = self.send(&Method::GET, &self.authority, path, &all, Bytes::new());
        let (parts, incoming) = self.in_time(&self.authority, sent).await?;
        if parts.status != StatusCode::SWITCHING_PROTOCOLS {
            let body = Limited::new(incoming, MAX_ANSWER)
                .collect()
                .await
                .map_err(ClientError::Body)?;
            let reply = Reply {
                status: parts.status,
                headers: parts.headers,
                body: body.to_bytes(),
            };
            return Err(reply
                .success()
                .err()
                .unwrap_or(ClientError::NotUpgraded(None)));
        }
        let response = http::Response::from_parts(parts, incoming);
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| ClientError::NotUpgraded(Some(error)))?;
        Ok(TokioIo::new(upgraded))
    }

    async fn in_time<T>(
        &self,
        authority: &str,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let late = |_| ClientError::Timeout {
            authority: authority.to_owned(),
            after: TIMEOUT,
        };
        tokio::time::timeout(TIMEOUT, work).await.map_err(late)?
    }

    async fn send(
        &self,
        method: &Method,
        authority: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(http::response::Parts, Incoming), ClientError> {
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query(path)
            .build()?;
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body))?;
        let failed = |source| ClientError::Connect {
            authority: authority.to_owned(),
            source,
        };
        Ok(self
            .pool
            .request(request)
            .await
            .map_err(failed)?
            .into_parts())
    }
}

/// Where a 307 points: host and port, path and query. Mesos writes `//host:port/path`.
fn redirect(reply: &Reply) -> Option<(String, String)> {
    if reply.status != StatusCode::TEMPORARY_REDIRECT {
        return None;
    }
    let location = reply.headers.get(LOCATION)?.to_str().ok()?;
    let rest = location
        .strip_prefix("http:")
        .unwrap_or(location)
        .strip_prefix("//")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    Some((authority.to_owned(), format!("/{path}")))
}

/// A stream of RecordIO records, read as they come.
#[derive(Debug)]
pub struct Records {
    /// Headers of the answer, `Mesos-Stream-Id` among them.
    pub headers: HeaderMap,
    incoming: Incoming,
    decoder: Decoder,
}

impl Records {
    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The next record; `None` after the stream's end. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(record) = self.decoder.next_record()? {
                return Ok(Some(record));
            }
            match self.incoming.frame().await {
                None if self.decoder.is_between_records() => return Ok(None),
                None => return Err(ClientError::Unfinished),
                Some(frame) => {
                    let frame = frame.map_err(|error| ClientError::Body(error.into()))?;
                    if let Some(data) = frame.data_ref() {
                        self.decoder.push(data);
                    }
                }
            }
        }
    }
}
