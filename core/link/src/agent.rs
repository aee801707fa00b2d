//! The agent's end of a connection.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use prost::Message;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{
    Close, Hello, LinkFrame, Pong, ProtocolRange, Refuse, Sync, SyncEnd, Welcome,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::pump::{self, End, Queues};
use crate::sender::{Backlog, Outbox, Outgoing};
use crate::{BACKLOG_LIMIT, CloseReason, FRAME_LIMIT, Frames, PROTOCOL, SendError, SessionSender};
use crate::{LinkError, Synced};

/// Size that frames of a `Sync` are filled up to.
const SYNC_FRAME_SIZE: usize = 256 << 10;

/// How the agent's end behaves.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Protocols spoken, both ends included.
    pub protocol: std::ops::RangeInclusive<u32>,
    /// How long the master may take to answer a `Hello`.
    pub welcome_timeout: Duration,
    /// Longest frame.
    pub frame_limit: usize,
    /// Most that a session may have queued.
    pub backlog_limit: usize,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            protocol: PROTOCOL,
            welcome_timeout: Duration::from_secs(60),
            frame_limit: FRAME_LIMIT,
            backlog_limit: BACKLOG_LIMIT,
        }
    }
}

/// Something that happened in a session.
#[derive(Debug)]
pub struct AgentEvent {
    /// Number of the session on its connection.
    pub session: u32,
    /// What happened.
    pub event: AgentUpdate,
}

/// What the agent's owner hears of a session.
#[derive(Debug)]
pub enum AgentUpdate {
    /// The master took the session: answer with a `Sync`.
    Welcome(Box<Welcome>),
    /// The master did not take it; `Closed` follows.
    Refused(Refuse),
    /// The master wants something done.
    Command(Box<Body>),
    /// The session is over; the last event of it.
    Closed(CloseReason),
}

/// The agent's end of one connection, which carries one session or many.
#[derive(Debug)]
pub struct AgentEnd {
    settings: AgentSettings,
    outbox: Outbox,
    next: AtomicU32,
}

impl AgentEnd {
    /// An end of `stream`, whose events go to `inbox`. The future serves the connection and must be
    /// polled; it ends with the connection, or when this end and all its sessions are dropped.
    pub fn start<S>(
        stream: S,
        settings: AgentSettings,
        inbox: mpsc::Sender<AgentEvent>,
    ) -> (Self, impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (outbox, outgoings) = pump::outbox();
        let frames = Frames::with_limit(settings.frame_limit);
        let connection = Connection {
            settings: settings.clone(),
            sessions: BTreeMap::new(),
            heard: Instant::now(),
        };
        let end = Self {
            settings,
            outbox,
            next: AtomicU32::new(1),
        };
        let run = pump::run(stream, frames, connection, outgoings, inbox);
        (end, run)
    }

    /// Opens a session with `hello`, whose protocol range is set here.
    pub fn open(&self, mut hello: Hello) -> AgentSession {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        hello.protocol = Some(ProtocolRange {
            min: *self.settings.protocol.start(),
            max: *self.settings.protocol.end(),
        });
        let backlog = Backlog::new(self.settings.backlog_limit);
        let frame = LinkFrame {
            session: number,
            must_understand: true,
            body: Some(Body::Hello(hello)),
        };
        // When the connection is gone its run has ended, and that is what the owner sees.
        let _ = self
            .outbox
            .frames
            .send(Outgoing::Open(frame, backlog.clone()));
        AgentSession {
            sender: SessionSender::new(number, backlog, self.outbox.clone()),
            frame_limit: self.settings.frame_limit,
        }
    }
}

/// One session, seen from the agent.
#[derive(Clone, Debug)]
pub struct AgentSession {
    sender: SessionSender,
    frame_limit: usize,
}

impl AgentSession {
    /// Number of the session on its connection.
    pub fn number(&self) -> u32 {
        self.sender.session()
    }

    /// Queues a frame.
    pub fn send(&self, body: Body) -> Result<(), SendError> {
        self.sender.send(body)
    }

    /// Tells the master everything, in as many frames as it takes.
    pub fn sync(&self, all: Synced) -> Result<(), SendError> {
        let mut parts = SyncParts {
            sender: &self.sender,
            limit: SYNC_FRAME_SIZE.min(self.frame_limit / 2),
            size: 0,
            part: Sync::default(),
        };
        for framework in all.frameworks {
            let size = framework.encoded_len();
            parts.add(size, |part| part.frameworks.push(framework))?;
        }
        for executor in all.executors {
            let size = executor.encoded_len();
            parts.add(size, |part| part.executors.push(executor))?;
        }
        for task in all.tasks {
            let size = task.encoded_len();
            parts.add(size, |part| part.tasks.push(task))?;
        }
        for resource in all.total {
            let size = resource.encoded_len();
            parts.add(size, |part| part.total.push(resource))?;
        }
        for operation in all.operations {
            let size = operation.encoded_len();
            parts.add(size, |part| part.operations.push(operation))?;
        }
        parts.flush()?;
        self.sender.send_uncounted(Body::SyncEnd(SyncEnd {
            resource_version: all.resource_version,
        }))
    }

    /// Ends the session; the master is told.
    pub fn close(&self, reason: impl Into<String>) {
        self.sender.close(reason);
    }
}

struct SyncParts<'a> {
    sender: &'a SessionSender,
    limit: usize,
    size: usize,
    part: Sync,
}

impl SyncParts<'_> {
    fn add(&mut self, size: usize, push: impl FnOnce(&mut Sync)) -> Result<(), SendError> {
        if self.size > 0 && self.size + size > self.limit {
            self.flush()?;
        }
        self.size += size;
        push(&mut self.part);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SendError> {
        self.size = 0;
        let part = std::mem::take(&mut self.part);
        if part == Sync::default() {
            return Ok(());
        }
        self.sender.send_uncounted(Body::Sync(part))
    }
}

#[derive(Debug)]
struct Session {
    backlog: Arc<Backlog>,
    opened: Instant,
    /// From the `Welcome`: without a sign of life for this long the master counts as gone.
    timeout: Option<Duration>,
}

struct Connection {
    settings: AgentSettings,
    sessions: BTreeMap<u32, Session>,
    /// When the master last sent anything.
    heard: Instant,
}

type Events = Queues<AgentEvent>;

impl Connection {
    fn drop_session(&mut self, number: u32, reason: CloseReason, queues: &mut Events) {
        if let Some(session) = self.sessions.remove(&number) {
            session.backlog.close();
            queues.events.push_back(AgentEvent {
                session: number,
                event: AgentUpdate::Closed(reason),
            });
        }
    }

    fn close_session(&mut self, number: u32, reason: CloseReason, queues: &mut Events) {
        if self.sessions.contains_key(&number) {
            queues.replies.push_back(LinkFrame {
                session: number,
                must_understand: true,
                body: Some(Body::Close(Close {
                    reason: reason.to_string(),
                })),
            });
            self.drop_session(number, reason, queues);
        }
    }

    fn welcome(&mut self, number: u32, welcome: Welcome, queues: &mut Events) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        if session.timeout.is_some() {
            let reason = CloseReason::Protocol("second Welcome".to_owned());
            return self.close_session(number, reason, queues);
        }
        if !self.settings.protocol.contains(&welcome.protocol) {
            let reason = format!("protocol {} is not spoken here", welcome.protocol);
            return self.close_session(number, CloseReason::Protocol(reason), queues);
        }
        session.timeout = Some(match welcome.ping_timeout_ms {
            0 => Duration::from_secs(75),
            ms => Duration::from_millis(ms.into()),
        });
        queues.events.push_back(AgentEvent {
            session: number,
            event: AgentUpdate::Welcome(Box::new(welcome)),
        });
    }

    fn refused(&mut self, number: u32, refuse: Refuse, queues: &mut Events) {
        if self.sessions.contains_key(&number) {
            queues.events.push_back(AgentEvent {
                session: number,
                event: AgentUpdate::Refused(refuse),
            });
            self.drop_session(number, CloseReason::Refused, queues);
        }
    }

    fn command(&mut self, number: u32, body: Body, queues: &mut Events) {
        match self.sessions.get(&number) {
            Some(session) if session.timeout.is_some() => queues.events.push_back(AgentEvent {
                session: number,
                event: AgentUpdate::Command(Box::new(body)),
            }),
            Some(_) => {
                let reason = CloseReason::Protocol("command before Welcome".to_owned());
                self.close_session(number, reason, queues);
            }
            // Under way when this side closed the session.
            None => {}
        }
    }

    fn deadline(&self, session: &Session) -> Instant {
        match session.timeout {
            Some(timeout) => self.heard + timeout,
            None => session.opened + self.settings.welcome_timeout,
        }
    }
}

impl End for Connection {
    type Event = AgentEvent;

    fn receive(&mut self, frame: LinkFrame, now: Instant, queues: &mut Events) {
        self.heard = now;
        let number = frame.session;
        match frame.body {
            None if frame.must_understand => {
                self.close_session(number, CloseReason::UnknownFrame, queues);
            }
            None => {}
            Some(Body::Ping(ping)) if self.sessions.contains_key(&number) => {
                queues.replies.push_back(LinkFrame {
                    session: number,
                    must_understand: false,
                    body: Some(Body::Pong(Pong {
                        number: ping.number,
                    })),
                });
            }
            Some(Body::Ping(_)) => {}
            Some(Body::Welcome(welcome)) => self.welcome(number, welcome, queues),
            Some(Body::Refuse(refuse)) => self.refused(number, refuse, queues),
            Some(Body::Close(close)) => {
                self.drop_session(number, CloseReason::Peer(close.reason), queues);
            }
            Some(
                Body::Hello(_)
                | Body::Sync(_)
                | Body::SyncEnd(_)
                | Body::Pong(_)
                | Body::Updates(_)
                | Body::OperationUpdate(_)
                | Body::ExecutorEnded(_)
                | Body::AgentResources(_)
                | Body::ExecutorMessage(_)
                | Body::Unregister(_),
            ) => {
                let reason = CloseReason::Protocol("frame of the other direction".to_owned());
                self.close_session(number, reason, queues);
            }
            Some(body) => self.command(number, body, queues),
        }
    }

    fn open(&mut self, hello: &LinkFrame, backlog: Arc<Backlog>, now: Instant) {
        self.sessions.insert(
            hello.session,
            Session {
                backlog,
                opened: now,
                timeout: None,
            },
        );
    }

    fn sending(&mut self, frame: &LinkFrame, _now: Instant, _queues: &mut Events) -> bool {
        self.sessions.contains_key(&frame.session)
    }

    fn close(&mut self, session: u32, reason: CloseReason, queues: &mut Events) {
        self.close_session(session, reason, queues);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.sessions
            .values()
            .map(|session| self.deadline(session))
            .min()
    }

    fn wake(&mut self, now: Instant, queues: &mut Events) {
        let late: Vec<u32> = self
            .sessions
            .iter()
            .filter(|(_, session)| self.deadline(session) <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in late {
            self.close_session(number, CloseReason::Silent, queues);
        }
    }

    fn end(&mut self, reason: &CloseReason, queues: &mut Events) {
        while let Some((number, _)) = self.sessions.first_key_value() {
            let number = *number;
            self.drop_session(number, reason.clone(), queues);
        }
    }
}

impl From<LinkError> for CloseReason {
    fn from(error: LinkError) -> Self {
        Self::Protocol(error.to_string())
    }
}
