//! The listener: HTTP/1.1 connections, bodies read up to a limit, answers compressed and sent.
//!
//! Each connection is one task; all of them end on [`Server::stop`]. A client may keep a connection
//! open as long as it likes once a request head has arrived in time.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::media::accepts_encoding;
use crate::percent;
use crate::request::{Query, Request};
use crate::response::{Body, Response};
use crate::router::Handler;
use crate::stream::StreamBody;
use crate::upgrade::Upgrade;

/// Answers shorter than this are never compressed (libprocess' `GZIP_MINIMUM_BODY_LENGTH`).
const GZIP_MINIMUM: usize = 1024;

/// How a server listens.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Address to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// Largest request body; longer ones get 413.
    pub body_limit: usize,
    /// Connections at once; more wait in the listener's backlog.
    pub max_connections: usize,
    /// Time a client has to send a complete request head.
    pub head_timeout: Duration,
}

impl ServerSettings {
    /// Defaults for an address.
    pub fn new(address: SocketAddr) -> ServerSettings {
        ServerSettings {
            address,
            body_limit: 16 * 1024 * 1024,
            max_connections: 18_000,
            head_timeout: Duration::from_secs(30),
        }
    }
}

/// The server could not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    local: SocketAddr,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A bound socket that does not answer yet: its port is known before the handlers are built.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
    settings: ServerSettings,
}

impl Listener {
    /// Binds the address.
    pub async fn bind(settings: ServerSettings) -> Result<Listener, ListenError> {
        let address = settings.address;
        let failed = |source| ListenError { address, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        Ok(Listener {
            socket,
            local,
            settings,
        })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Starts to answer.
    pub fn serve(self, handler: Arc<dyn Handler>) -> Server {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let server = Server {
            local: self.local,
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        tasks.clone().spawn(accept(self, handler, stop, tasks));
        server
    }
}

impl Server {
    /// Binds and starts to answer.
    pub async fn start(
        settings: ServerSettings,
        handler: Arc<dyn Handler>,
    ) -> Result<Server, ListenError> {
        Ok(Listener::bind(settings).await?.serve(handler))
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Stops listening, closes all connections and waits for their tasks.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(
    listener: Listener,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let room = Arc::new(Semaphore::new(listener.settings.max_connections));
    let settings = Arc::new(listener.settings);
    loop {
        let permit = Arc::clone(&room)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.socket.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let connection = Connection {
                    local: listener.local,
                    peer,
                    settings: Arc::clone(&settings),
                    handler: Arc::clone(&handler),
                    closed: stop.child_token(),
                };
                tasks.spawn(async move {
                    connection.run(socket).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the peer gave up: neither ends the server.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

struct Connection {
    local: SocketAddr,
    peer: SocketAddr,
    settings: Arc<ServerSettings>,
    handler: Arc<dyn Handler>,
    /// Ends this connection at once.
    closed: CancellationToken,
}

impl Connection {
    async fn run(self, socket: TcpStream) {
        let _ = socket.set_nodelay(true);
        let this = Arc::new(self);
        let service = {
            let this = Arc::clone(&this);
            service_fn(move |request| {
                let this = Arc::clone(&this);
                async move { Ok::<_, Infallible>(this.answer(request).await) }
            })
        };
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(this.settings.head_timeout)
            .title_case_headers(true);
        let serving = http
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::debug!(peer = %this.peer, %error, "connection ended");
            },
            () = this.closed.cancelled() => {}
        }
    }

    async fn answer(&self, request: hyper::Request<Incoming>) -> hyper::Response<Outgoing> {
        let (mut parts, body) = request.into_parts();
        let compress = accepts_encoding(&parts.headers, "gzip");
        let response = match Limited::new(body, self.settings.body_limit).collect().await {
            Err(error) if error.is::<LengthLimitError>() => {
                Response::standard(StatusCode::PAYLOAD_TOO_LARGE)
            }
            Err(_) => Response::bad_request("Failed to read the request body"),
            Ok(body) => match self.request(&mut parts, body.to_bytes()) {
                Ok(request) => self.handler.handle(request).await,
                Err(reason) => Response::bad_request(reason),
            },
        };
        self.finish(response, compress).await
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

    async fn finish(&self, response: Response, compress: bool) -> hyper::Response<Outgoing> {
        let Response {
            status,
            mut headers,
            body,
        } = response;
        let body = match body {
            Body::Stream(stream) => {
                stream.on_connection(self.closed.clone());
                Outgoing::Stream(stream)
            }
            Body::Sized(pieces, left) => Outgoing::Sized { pieces, left },
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
        let mut answer = hyper::Response::new(body);
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        answer
    }
}

/// Compresses a body where that is allowed and pays. Large bodies are compressed off the runtime.
async fn encode(pieces: Vec<Bytes>, headers: &mut HeaderMap, allowed: bool) -> Vec<Bytes> {
    let length: usize = pieces.iter().map(Bytes::len).sum();
    if !allowed || length < GZIP_MINIMUM || headers.contains_key(CONTENT_ENCODING) {
        return pieces;
    }
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
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
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Outgoing::Stream(stream) => Pin::new(stream).poll_frame(cx),
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
            Outgoing::Stream(_) => SizeHint::default(),
        }
    }
}
