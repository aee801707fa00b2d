//! A request as handlers see it: read completely (up to the body limit), path decoded, peer and
//! subject known. Handlers never touch the socket, except through [`Request::take_upgrade`].

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::upgrade::Upgrade;
use crate::{Subject, percent};

/// One HTTP request.
#[derive(Debug)]
pub struct Request {
    /// Method as sent; `HEAD` reaches handlers as `HEAD`.
    pub method: Method,
    /// Decoded path without query, as the client sent it (with or without a process prefix).
    pub path: String,
    /// Path and query exactly as sent: what a redirect repeats.
    pub target: String,
    /// Decoded query.
    pub query: Query,
    /// Headers as sent.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Address of the other end.
    pub peer: SocketAddr,
    /// Address on which the connection was accepted.
    pub local: SocketAddr,
    /// Who asks, as the authentication chain found; nobody where none is configured.
    pub subject: Option<Subject>,
    /// What follows the matched route in `path`, without slashes at its ends
    /// (`operator` for `/quota/operator` on the route `/quota`). Set by the router.
    pub rest: String,
    upgrade: Option<Upgrade>,
    stream: Option<RequestStream>,
}

/// A body that is read while it comes: that of requests in RecordIO format, which may go on for hours.
#[derive(Debug)]
pub struct RequestStream {
    body: Incoming,
}

/// The client went away in the middle of its body.
#[derive(Debug, thiserror::Error)]
#[error("request body broke off")]
pub struct BrokenOff(#[from] hyper::Error);

impl RequestStream {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

impl Request {
    /// A request from nowhere: what tests and internal callers start from.
    pub fn new(method: Method, target: &str) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Request {
            method,
            path: percent::decode(path).unwrap_or_else(|_| path.to_owned()),
            target: target.to_owned(),
            query: Query::parse(query),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            peer: nowhere,
            local: nowhere,
            subject: None,
            rest: String::new(),
            upgrade: None,
            stream: None,
        }
    }

    pub(crate) fn with_stream(mut self, body: Incoming) -> Request {
        self.stream = Some(RequestStream { body });
        self
    }

    /// The body of a request in RecordIO format, of which `body` has nothing. It can be taken once.
    pub fn take_stream(&mut self) -> Option<RequestStream> {
        self.stream.take()
    }

    pub(crate) fn with_upgrade(mut self, upgrade: Option<Upgrade>) -> Request {
        self.upgrade = upgrade;
        self
    }

    /// Value of a header, if it is there and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as an `application/x-www-form-urlencoded` form.
    pub fn form(&self) -> Query {
        Query::parse(&String::from_utf8_lossy(&self.body))
    }

    /// The right to turn this connection into another protocol; present only when the client
    /// asked with `Connection: upgrade` and `Upgrade`. It can be taken once.
    pub fn take_upgrade(&mut self) -> Option<Upgrade> {
        self.upgrade.take()
    }
}

/// Decoded `key=value` pairs; the last of equal keys counts, as in libprocess.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2` (or `;` between them). A malformed escape is kept as it is.
    pub fn parse(text: &str) -> Query {
        let pair = |piece: &str| {
            let (key, value) = piece.split_once('=').unwrap_or((piece, ""));
            (percent::decode_form(key), percent::decode_form(value))
        };
        Query(
            text.split(['&', ';'])
                .filter(|piece| !piece.is_empty())
                .map(pair)
                .collect(),
        )
    }

    /// Value of `key`, the last one when it is repeated.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .rev()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_is_decoded_and_the_last_value_counts() {
        let request = Request::new(
            Method::GET,
            "/files/read?path=%2Fa+b&offset=1&offset=2;flag",
        );
        assert_eq!(request.path, "/files/read");
        assert_eq!(request.query.get("path"), Some("/a b"));
        assert_eq!(request.query.get("offset"), Some("2"));
        assert_eq!(request.query.get("flag"), Some(""));
        assert_eq!(request.query.get("none"), None);
    }
}
