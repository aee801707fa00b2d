//! The listener: HTTP/1.1 connections, bodies read up to a limit, answers compressed and sent.
//!
//! Each connection is one task; all of them end on [`Server::stop`]. A client may keep a connection
//! open as long as it likes once a request head has arrived in time; it may not keep a request or an
//! answer half sent. What it sends is bounded by request and for all together, beyond that it is told
//! to come back.

mod access;
mod body;
mod connection;
mod gather;
mod refuse;
mod socket;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::router::Handler;
use body::Budget;
use connection::Connection;
use refuse::Refusing;
use socket::{Socket, Unix};

/// How a server listens.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Address to bind; port 0 takes a free one.
    pub address: SocketAddr,
    /// Largest request body in bytes; longer ones get 413.
    pub body_limit: usize,
    /// Bytes of all request bodies that are being read or handled; beyond that clients get 503.
    pub bodies_limit: usize,
    /// Connections at once; more get 503.
    pub max_connections: usize,
    /// Time a client has to send a complete request head.
    pub head_timeout: Duration,
    /// Longest pause within a request body; after it the client gets 408.
    pub body_timeout: Duration,
    /// Time that a client may take nothing of an answer that waits for it; then it is cut off.
    pub write_timeout: Duration,
}

impl ServerSettings {
    /// Defaults for an address.
    pub fn new(address: SocketAddr) -> ServerSettings {
        ServerSettings {
            address,
            body_limit: 16 * 1024 * 1024,
            bodies_limit: 512 * 1024 * 1024,
            max_connections: 18_000,
            head_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
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

/// The server could not listen on a socket in the file system.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on '{path}'")]
pub struct UnixListenError {
    /// Where it was to be; at most 107 bytes long.
    pub path: PathBuf,
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
        Server::run(self.socket, self.local, self.settings, handler)
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

    /// Starts to answer on a socket in the file system as well: `settings` name the address where the
    /// same handler is reached by others. The socket goes with the server.
    pub fn start_unix(
        path: &Path,
        settings: ServerSettings,
        handler: Arc<dyn Handler>,
    ) -> Result<Server, UnixListenError> {
        let socket = Unix::bind(path).map_err(|source| UnixListenError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Server::run(socket, settings.address, settings, handler))
    }

    fn run(
        socket: impl Socket,
        local: SocketAddr,
        settings: ServerSettings,
        handler: Arc<dyn Handler>,
    ) -> Server {
        let server = Server {
            local,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        let (stop, tasks) = (server.stop.clone(), server.tasks.clone());
        let accepting = accept(socket, local, settings, handler, stop, tasks);
        server.tasks.spawn(accepting);
        server
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
    socket: impl Socket,
    local: SocketAddr,
    settings: ServerSettings,
    handler: Arc<dyn Handler>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let room = Arc::new(Semaphore::new(settings.max_connections));
    let refusing = Refusing::new();
    let budget = Budget::new(settings.bodies_limit);
    let settings = Arc::new(settings);
    loop {
        let accepted = tokio::select! {
            accepted = socket.next() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                    refusing.tell(stream, &tasks);
                    continue;
                };
                let connection = Connection {
                    local,
                    peer,
                    settings: Arc::clone(&settings),
                    handler: Arc::clone(&handler),
                    budget: budget.clone(),
                    closed: stop.child_token(),
                };
                tasks.spawn(async move {
                    connection.run(stream).await;
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
