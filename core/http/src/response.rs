//! Answers, built with the header sets that Mesos sends. `Date`, `Content-Length` and
//! `Transfer-Encoding` are the server's business; everything else is set here.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tepui_proto::descriptor::Described;
use tepui_proto::json;
use tokio::sync::mpsc;

use crate::answers::Written;
use crate::media::{JSON, Media};
use crate::request::Request;
use crate::stream::StreamBody;

/// `Content-Type` of everything that is an explanation.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// `Content-Type` of JSON that is wrapped into a function's call.
pub(crate) const JAVASCRIPT: &str = "text/javascript";

/// One HTTP answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: StatusCode,
    /// Headers, without those the server adds.
    pub headers: HeaderMap,
    /// What follows the head.
    pub body: Body,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// All of it, in pieces of known total length; none at all is `Content-Length: 0`.
    Full(Vec<Bytes>),
    /// Pieces of known total length that come as fast as they are sent: a file.
    Sized(mpsc::Receiver<Bytes>, u64),
    /// A long answer that is sent while it is written, in chunks.
    Written(Written),
    /// Chunks as they come, until the sender closes.
    Stream(StreamBody),
}

impl Response {
    /// An answer without a body: only `Date` and `Content-Length: 0`.
    pub fn empty(status: StatusCode) -> Response {
        Response {
            status,
            headers: HeaderMap::new(),
            body: Body::Full(Vec::new()),
        }
    }

    /// An answer with a body of the given type.
    pub fn full(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Response {
        Response::pieces(status, content_type, vec![body.into()])
    }

    /// An answer whose body was written in pieces.
    pub fn pieces(status: StatusCode, content_type: &str, pieces: Vec<Bytes>) -> Response {
        let response = Response {
            status,
            headers: HeaderMap::new(),
            body: Body::Full(pieces),
        };
        response.header(CONTENT_TYPE, content_type)
    }

    /// A plain text answer, as all of Mesos' errors are.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Response {
        Response::full(status, TEXT, text.into())
    }

    /// 200 with JSON.
    pub fn json(body: impl Into<Bytes>) -> Response {
        Response::full(StatusCode::OK, JSON, body)
    }

    /// 200 with a message in the form that the client accepts.
    pub fn message(message: &impl Described, media: Media) -> Response {
        let body = match media {
            Media::Json => json::from_message(message),
            Media::Protobuf => message.encode_to_vec(),
        };
        Response::full(StatusCode::OK, media.content_type(), body)
    }

    /// 200 with JSON, wrapped into the function that the query names in `jsonp`.
    pub fn jsonp(request: &Request, pieces: Vec<Bytes>) -> Response {
        match request.query.get("jsonp") {
            None => Response::pieces(StatusCode::OK, JSON, pieces),
            Some(function) => {
                let mut wrapped = vec![Bytes::from(format!("{function}("))];
                wrapped.extend(pieces);
                wrapped.push(Bytes::from_static(b");"));
                Response::pieces(StatusCode::OK, JAVASCRIPT, wrapped)
            }
        }
    }

    /// 200 and a chunked body of the given type that ends when its sender does.
    pub fn stream(content_type: &str, body: StreamBody) -> Response {
        let response = Response {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Body::Stream(body),
        };
        response.header(CONTENT_TYPE, content_type)
    }

    /// 202.
    pub fn accepted() -> Response {
        Response::empty(StatusCode::ACCEPTED)
    }

    /// 400 with its reason.
    pub fn bad_request(reason: impl Into<String>) -> Response {
        Response::text(StatusCode::BAD_REQUEST, reason)
    }

    /// 403 with its reason.
    pub fn forbidden(reason: impl Into<String>) -> Response {
        Response::text(StatusCode::FORBIDDEN, reason)
    }

    /// 404 in libprocess' words.
    pub fn not_found() -> Response {
        Response::standard(StatusCode::NOT_FOUND)
    }

    /// The status line as the body: what libprocess answers where nobody gave a reason.
    pub fn standard(status: StatusCode) -> Response {
        let reason = status.canonical_reason().unwrap_or("Unknown");
        Response::text(status, format!("{} {reason}.", status.as_u16()))
    }

    /// 405 with `Allow`.
    pub fn method_not_allowed(allowed: &[Method], received: &Method) -> Response {
        let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
        let text = format!(
            "405 Method Not Allowed. Expecting one of {{ '{}' }}, but received '{received}'.",
            names.join("', '")
        );
        Response::text(StatusCode::METHOD_NOT_ALLOWED, text).header(ALLOW, &names.join(", "))
    }

    /// 307 to another place.
    pub fn redirect(location: &str) -> Response {
        Response::empty(StatusCode::TEMPORARY_REDIRECT).header(LOCATION, location)
    }

    /// 429: a queue is full; the client may come back after the given seconds.
    pub fn too_many(reason: impl Into<String>, after_seconds: u32) -> Response {
        Response::text(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(after_seconds)
    }

    /// 503 with its reason.
    pub fn unavailable(reason: impl Into<String>) -> Response {
        Response::text(StatusCode::SERVICE_UNAVAILABLE, reason)
    }

    /// Says when the client may come back, in seconds.
    pub fn retry_after(self, seconds: u32) -> Response {
        self.header(RETRY_AFTER, &seconds.to_string())
    }

    /// Sets a header. A value that no header may hold (line breaks) is dropped, so that text from
    /// a client can never split an answer.
    pub fn header(mut self, name: HeaderName, value: &str) -> Response {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The whole body, where it is not a stream: for tests and internal callers.
    pub fn body_bytes(&self) -> Option<Bytes> {
        match &self.body {
            Body::Full(pieces) => Some(pieces.concat().into()),
            Body::Sized(..) | Body::Written(_) | Body::Stream(_) => None,
        }
    }
}
