//! One connection: its requests, one after the other, and their answers.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::Write;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::ServerSettings;
use super::access::Entry;
use super::body::{self, Budget};
use super::gather::{Flusher, gather};
use super::socket::Stream;
use crate::answers::{Unfinished, Written};
use crate::media::{RECORDIO, accepts_encoding};
use crate::percent;
use crate::request::{Query, Request};
use crate::response::{Body, Response};
use crate::router::Handler;
use crate::stream::StreamBody;
use crate::upgrade::Upgrade;

/// Answers shorter than this are never compressed (libprocess' `GZIP_MINIMUM_BODY_LENGTH`).
const GZIP_MINIMUM: usize = 1024;
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

pub(super) struct Connection {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) settings: Arc<ServerSettings>,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) budget: Budget,
    /// Ends this connection at once.
    pub(super) closed: CancellationToken,
}

impl Connection {
    pub(super) async fn run<S: Stream>(self, socket: S) {
        let this = Arc::new(self);
        let service = {
            let this = Arc::clone(&this);
            service_fn(move |request| {
                let this = Arc::clone(&this);
                async move { Ok::<_, Infallible>(this.answer(request).await) }
            })
        };
        let mut socket = TimeoutStream::new(socket);
        socket.set_write_timeout(Some(this.settings.write_timeout));
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(this.settings.head_timeout)
            .title_case_headers(true);
        let (socket, flusher) = gather(socket);
        let serving = http
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        tokio::select! {
            ended = flushed(serving, &flusher) => match ended {
                Ok(()) => {}
                Err(error) => tracing::debug!(peer = %this.peer, %error, "connection ended"),
            },
            () = this.closed.cancelled() => return,
        }
        flusher.pass();
        // Answers before an upgrade may still wait for the client to read.
        let rest = poll_fn(|cx| flusher.flush(cx));
        let _ = tokio::time::timeout(this.settings.write_timeout, rest).await;
    }

    async fn answer(&self, request: hyper::Request<Incoming>) -> hyper::Response<Logged> {
        let (mut parts, body) = request.into_parts();
        let mut entry = Entry::new(&parts, self.peer);
        let span = tracing::info_span!("http", request = %entry.id);
        let compress = accepts_encoding(&parts.headers, "gzip");
        let response = self
            .response(&mut parts, body, &mut entry)
            .instrument(span)
            .await;
        entry.answered(response.status);
        self.finish(response, compress, entry).await
    }

    async fn response(
        &self,
        parts: &mut http::request::Parts,
        body: Incoming,
        entry: &mut Entry,
    ) -> Response {
        let is_stream = |kind: &http::HeaderValue| kind.as_bytes() == RECORDIO.as_bytes();
        if parts.headers.get(CONTENT_TYPE).is_some_and(is_stream) {
            return match self.request(parts, Bytes::new()) {
                Ok(request) => {
                    entry.by(request.subject.as_ref());
                    self.handler.handle(request.with_stream(body)).await
                }
                Err(reason) => Response::bad_request(reason),
            };
        }
        let settings = &self.settings;
        let (limit, idle) = (settings.body_limit, settings.body_timeout);
        let read = match body::read(body, limit, idle, &self.budget).await {
            Ok(read) => read,
            Err(refused) => return *refused,
        };
        match self.request(parts, read.bytes) {
            Ok(request) => {
                entry.by(request.subject.as_ref());
                let response = self.handler.handle(request).await;
                drop(read.taken);
                response
            }
            Err(reason) => Response::bad_request(reason),
        }
    }

    fn request(&self, parts: &mut http::request::Parts, body: Bytes) -> Result<Request, String> {
        let path = percent::decode(parts.uri.path())
            .map_err(|_| format!("Failed to decode URL path: '{}'", parts.uri.path()))?;
        let pending = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let upgrade = pending.and_then(|pending| Upgrade::wished(&parts.headers, pending));
        let mut request = Request::new(parts.method.clone(), "/").with_upgrade(upgrade);
        request.path = path;
        request.target = parts
            .uri
            .path_and_query()
            .map(ToString::to_string)
            .unwrap_or_default();
        request.query = Query::parse(parts.uri.query().unwrap_or_default());
        request.headers = std::mem::take(&mut parts.headers);
        request.body = body;
        request.peer = self.peer;
        request.local = self.local;
        request.subject = None;
        Ok(request)
    }

    async fn finish(
        &self,
        response: Response,
        compress: bool,
        entry: Entry,
    ) -> hyper::Response<Logged> {
        let Response {
            status,
            mut headers,
            body,
        } = response;
        let body = match body {
            Body::Stream(stream) => {
                stream.on_connection(self.closed.clone());
                entry.opened();
                Outgoing::Stream(stream)
            }
            Body::Sized(pieces, left) => Outgoing::Sized { pieces, left },
            Body::Written(written) => Outgoing::Written(written),
            Body::Full(pieces) => {
                let body = Outgoing::full(encode(pieces, &mut headers, compress).await);
                // Said here because hyper leaves it out of answers to HEAD.
                if let Some(length) = body
                    .size_hint()
                    .exact()
                    .filter(|_| !status.is_informational())
                {
                    headers.insert(CONTENT_LENGTH, length.into());
                }
                body
            }
        };
        let mut answer = hyper::Response::new(Logged { body, entry });
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }
}

/// Serves a connection, and sends after each poll what it has written.
async fn flushed<S: AsyncWrite>(
    serving: impl Future<Output = hyper::Result<()>>,
    flusher: &Flusher<S>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut serving = pin!(serving);
    poll_fn(|cx| {
        let served = serving.as_mut().poll(cx);
        match flusher.flush(cx) {
            Poll::Ready(Err(error)) if served.is_pending() => Poll::Ready(Err(error.into())),
            _ => served.map_err(Into::into),
        }
    })
    .await
}

/// Compresses a body where that is allowed and pays. Large bodies are compressed off the runtime.
async fn encode(pieces: Vec<Bytes>, headers: &mut HeaderMap, allowed: bool) -> Vec<Bytes> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    if !allowed || length < GZIP_MINIMUM || headers.contains_key(CONTENT_ENCODING) {
        return pieces;
    }
    headers.insert(CONTENT_ENCODING, GZIP);
    if length < 64 * 1024 {
        return vec![gzip(&pieces)];
    }
    let compressed = tokio::task::spawn_blocking(move || gzip(&pieces)).await;
    vec![compressed.expect("compression does not panic")]
}

fn gzip(pieces: &[Bytes]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    for piece in pieces {
        encoder
            .write_all(piece)
            .expect("writing to memory cannot fail");
    }
    encoder
        .finish()
        .expect("writing to memory cannot fail")
        .into()
}

/// What hyper sends.
enum Outgoing {
    Full {
        pieces: std::vec::IntoIter<Bytes>,
        left: u64,
    },
    Sized {
        pieces: mpsc::Receiver<Bytes>,
        left: u64,
    },
    Written(Written),
    Stream(StreamBody),
}

impl Outgoing {
    fn full(pieces: Vec<Bytes>) -> Outgoing {
        let left = pieces.iter().map(|piece| piece.len() as u64).sum();
        Outgoing::Full {
            pieces: pieces.into_iter(),
            left,
        }
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        match self.get_mut() {
            Outgoing::Stream(stream) => Pin::new(stream)
                .poll_frame(cx)
                .map_err(|never| match never {}),
            Outgoing::Written(written) => {
                let piece = written.poll_piece(cx);
                piece.map_ok(Frame::data)
            }
            Outgoing::Sized { pieces, left } => pieces.poll_recv(cx).map(|piece| {
                let piece = piece?;
                *left = left.saturating_sub(piece.len() as u64);
                Some(Ok(Frame::data(piece)))
            }),
            Outgoing::Full { pieces, left } => {
                Poll::Ready(pieces.find(|piece| !piece.is_empty()).map(|piece| {
                    *left -= piece.len() as u64;
                    Ok(Frame::data(piece))
                }))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(
            self,
            Outgoing::Full { left: 0, .. } | Outgoing::Sized { left: 0, .. }
        )
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Outgoing::Full { left, .. } | Outgoing::Sized { left, .. } => {
                SizeHint::with_exact(*left)
            }
            Outgoing::Written(_) | Outgoing::Stream(_) => SizeHint::default(),
        }
    }
}

/// A body whose bytes are counted for the access log; dropping it writes the line.
struct Logged {
    body: Outgoing,
    entry: Entry,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = Unfinished;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unfinished>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
        {
            this.entry.sent(data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
