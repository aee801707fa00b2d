//! The master's end of a connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{
    AgentResources, Close, ExecutorEnded, ExecutorMessage, Hello, LinkFrame, OperationUpdate, Ping,
    Refuse, Sync, SyncExecutor, SyncFramework, SyncTask, Update, Welcome, refuse,
};
use tepui_proto::v1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::pump::{self, End, Queues};
use crate::sender::{Backlog, Outbox};
use crate::{BACKLOG_LIMIT, CloseReason, FRAME_LIMIT, Frames, PROTOCOL, SessionSender};

/// Sessions that one connection may carry.
const SESSIONS_LIMIT: usize = 4096;

/// Names one session among all that this master process has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey(pub u64);

/// Something that happened in a session.
#[derive(Debug)]
pub struct SessionEvent {
    /// The session.
    pub session: SessionKey,
    /// What happened.
    pub event: MasterEvent,
}

/// What the master's owner hears of a session.
#[derive(Debug)]
pub enum MasterEvent {
    /// An agent asks to be taken; answer with `Welcome` or `Refuse` through the sender.
    Hello {
        /// What the agent says of itself; its protocol range has been looked at already.
        hello: Box<Hello>,
        /// The protocol both speak: goes into `Welcome` (the link sets it, too).
        protocol: u32,
        /// The way back to the agent.
        sender: SessionSender,
        /// Who is at the other end of the connection.
        peer: Peer,
    },
    /// The agent told everything it has. Once a session, before any of the events below.
    Synced(Box<Synced>),
    /// Status updates.
    Updates(Vec<Update>),
    /// State of an operation.
    OperationUpdate(Box<OperationUpdate>),
    /// A custom or default executor is gone.
    ExecutorEnded(ExecutorEnded),
    /// The agent's totals changed.
    Resources(Box<AgentResources>),
    /// Data for a framework.
    ExecutorMessage(ExecutorMessage),
    /// The agent leaves for good.
    Unregister,
    /// The agent has missed so many pings that it counts as lost. Once, until it is `Heard`.
    Silent,
    /// A silent agent answers again.
    Heard,
    /// The session is over; the last event of it.
    Closed(CloseReason),
}

/// Everything that an agent has, collected from its `Sync` frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Synced {
    /// Frameworks with tasks or executors there, and remembered ones.
    pub frameworks: Vec<SyncFramework>,
    /// Custom and default executors.
    pub executors: Vec<SyncExecutor>,
    /// Tasks that are not yet forgotten.
    pub tasks: Vec<SyncTask>,
    /// Total resources, reservations and volumes included.
    pub total: Vec<v1::Resource>,
    /// Operations that are not yet forgotten.
    pub operations: Vec<v1::Operation>,
    /// Version of `total`.
    pub resource_version: Bytes,
}

/// The other end of a connection, as the HTTP layer knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Address that the connection came from.
    pub address: String,
    /// Principal it authenticated as.
    pub principal: Option<String>,
}

/// How the master's end behaves.
#[derive(Clone, Debug)]
pub struct MasterSettings {
    /// Protocols spoken, both ends included.
    pub protocol: std::ops::RangeInclusive<u32>,
    /// Time between pings.
    pub ping_interval: Duration,
    /// So many pings in a row unanswered make an agent `Silent`.
    pub max_missed_pings: u32,
    /// Longest frame.
    pub frame_limit: usize,
    /// Most that a session may have queued.
    pub backlog_limit: usize,
    /// Most that one `Sync` may hold, all its frames together.
    pub sync_limit: usize,
}

impl Default for MasterSettings {
    fn default() -> Self {
        Self {
            protocol: PROTOCOL,
            ping_interval: Duration::from_secs(15),
            max_missed_pings: 5,
            frame_limit: FRAME_LIMIT,
            backlog_limit: BACKLOG_LIMIT,
            sync_limit: 256 << 20,
        }
    }
}

/// The master's end of all links: one for the process, serving each upgraded connection.
#[derive(Debug)]
pub struct MasterEnd {
    settings: MasterSettings,
    inbox: mpsc::Sender<SessionEvent>,
    next: AtomicU64,
}

impl MasterEnd {
    /// An end whose events go to `inbox`. While the inbox is full no connection is read.
    pub fn new(settings: MasterSettings, inbox: mpsc::Sender<SessionEvent>) -> Arc<Self> {
        Arc::new(Self {
            settings,
            inbox,
            next: AtomicU64::new(1),
        })
    }

    /// Serves one upgraded connection until it ends.
    pub async fn serve<S>(self: Arc<Self>, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (outbox, outgoings) = pump::outbox();
        let frames = Frames::with_limit(self.settings.frame_limit);
        let inbox = self.inbox.clone();
        let connection = Connection {
            end: self,
            peer,
            outbox,
            sessions: BTreeMap::new(),
            next_ping: None,
            pings: 0,
        };
        pump::run(stream, frames, connection, outgoings, inbox).await;
    }
}

/// Where a session is.
#[derive(Debug)]
enum Stage {
    /// The owner has not answered the `Hello` yet.
    Asked,
    /// Welcomed; the parts of the `Sync` so far, and their size.
    Syncing(Box<Synced>, usize),
    /// Synced.
    Live,
}

#[derive(Debug)]
struct Session {
    key: SessionKey,
    stage: Stage,
    protocol: u32,
    backlog: Arc<Backlog>,
    /// A ping is under way.
    asked: bool,
    missed: u32,
    silent: bool,
}

struct Connection {
    end: Arc<MasterEnd>,
    peer: Peer,
    outbox: Outbox,
    sessions: BTreeMap<u32, Session>,
    /// All sessions of a connection are pinged at once.
    next_ping: Option<Instant>,
    pings: u64,
}

type Events = Queues<SessionEvent>;

impl Connection {
    fn hello(&mut self, number: u32, mut hello: Hello, queues: &mut Events) {
        if self.sessions.contains_key(&number) {
            self.drop_session(number, CloseReason::Replaced, queues);
        }
        let ours = &self.end.settings.protocol;
        // An agent that states no range speaks the first version.
        let theirs = hello.protocol.get_or_insert_default();
        let (min, max) = (theirs.min.max(1), theirs.max.max(1));
        let common = max.min(*ours.end());
        if common < min || common < *ours.start() {
            let reason = format!(
                "protocol {min} to {max} is spoken there, {} to {} here",
                ours.start(),
                ours.end()
            );
            return self.refuse(number, refuse::Code::TooOld, reason, queues);
        }
        if self.sessions.len() >= SESSIONS_LIMIT {
            let reason = format!("a connection carries at most {SESSIONS_LIMIT} sessions");
            return self.refuse(number, refuse::Code::Busy, reason, queues);
        }
        let key = SessionKey(self.end.next.fetch_add(1, Ordering::Relaxed));
        let backlog = Backlog::new(self.end.settings.backlog_limit);
        let sender = SessionSender::new(number, backlog.clone(), self.outbox.clone());
        self.sessions.insert(
            number,
            Session {
                key,
                stage: Stage::Asked,
                protocol: common,
                backlog,
                asked: false,
                missed: 0,
                silent: false,
            },
        );
        queues.events.push_back(SessionEvent {
            session: key,
            event: MasterEvent::Hello {
                hello: Box::new(hello),
                protocol: common,
                sender,
                peer: self.peer.clone(),
            },
        });
    }

    /// Refuses without asking the owner.
    fn refuse(&mut self, number: u32, code: refuse::Code, reason: String, queues: &mut Events) {
        tracing::warn!(peer = %self.peer.address, %reason, "agent session refused");
        queues.replies.push_back(LinkFrame {
            session: number,
            must_understand: true,
            body: Some(Body::Refuse(Refuse {
                code: code.into(),
                reason,
                retry_ms: 0,
            })),
        });
        self.end_if_unused(CloseReason::Refused, queues);
    }

    /// Ends a connection that carries no session any more: an agent that is alone on its
    /// connection waits for its end before it tries again.
    fn end_if_unused(&self, reason: CloseReason, queues: &mut Events) {
        if self.sessions.is_empty() {
            queues.done = Some(reason);
        }
    }

    /// Ends a session on this side only.
    fn drop_session(&mut self, number: u32, reason: CloseReason, queues: &mut Events) {
        if let Some(session) = self.sessions.remove(&number) {
            session.backlog.close();
            queues.events.push_back(SessionEvent {
                session: session.key,
                event: MasterEvent::Closed(reason),
            });
        }
    }

    /// Ends a session and tells the agent.
    fn close_session(&mut self, number: u32, reason: CloseReason, queues: &mut Events) {
        if !self.sessions.contains_key(&number) {
            return;
        }
        queues.replies.push_back(LinkFrame {
            session: number,
            must_understand: true,
            body: Some(Body::Close(Close {
                reason: reason.to_string(),
            })),
        });
        self.drop_session(number, reason.clone(), queues);
        self.end_if_unused(reason, queues);
    }

    fn violation(&mut self, number: u32, what: &str, queues: &mut Events) {
        let reason = CloseReason::Protocol(what.to_owned());
        self.close_session(number, reason, queues);
    }

    fn sync(&mut self, number: u32, part: Sync, queues: &mut Events) {
        let limit = self.end.settings.sync_limit;
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        let Stage::Syncing(synced, size) = &mut session.stage else {
            return self.violation(number, "unexpected Sync", queues);
        };
        *size += part.encoded_len();
        if *size > limit {
            return self.violation(number, "Sync exceeds the limit", queues);
        }
        synced.frameworks.extend(part.frameworks);
        synced.executors.extend(part.executors);
        synced.tasks.extend(part.tasks);
        synced.total.extend(part.total);
        synced.operations.extend(part.operations);
    }

    fn sync_end(&mut self, number: u32, resource_version: Bytes, queues: &mut Events) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        match std::mem::replace(&mut session.stage, Stage::Live) {
            Stage::Syncing(mut synced, _) => {
                synced.resource_version = resource_version;
                queues.events.push_back(SessionEvent {
                    session: session.key,
                    event: MasterEvent::Synced(synced),
                });
            }
            stage => {
                session.stage = stage;
                self.violation(number, "unexpected SyncEnd", queues);
            }
        }
    }

    /// A frame that only a synced agent may send.
    fn report(&mut self, number: u32, event: MasterEvent, queues: &mut Events) {
        match self.sessions.get(&number) {
            Some(session) if matches!(session.stage, Stage::Live) => {
                queues.events.push_back(SessionEvent {
                    session: session.key,
                    event,
                });
            }
            Some(_) => self.violation(number, "frame before SyncEnd", queues),
            // Under way when this side closed the session.
            None => {}
        }
    }

    /// Any frame shows that the agent lives.
    fn heard(&mut self, number: u32, queues: &mut Events) {
        if let Some(session) = self.sessions.get_mut(&number) {
            session.asked = false;
            session.missed = 0;
            if std::mem::take(&mut session.silent) {
                queues.events.push_back(SessionEvent {
                    session: session.key,
                    event: MasterEvent::Heard,
                });
            }
        }
    }
}

impl End for Connection {
    type Event = SessionEvent;

    fn receive(&mut self, frame: LinkFrame, _now: Instant, queues: &mut Events) {
        let number = frame.session;
        self.heard(number, queues);
        match frame.body {
            None if frame.must_understand => {
                self.close_session(number, CloseReason::UnknownFrame, queues);
            }
            None | Some(Body::Pong(_)) => {}
            Some(Body::Hello(hello)) => self.hello(number, hello, queues),
            Some(Body::Sync(part)) => self.sync(number, part, queues),
            Some(Body::SyncEnd(end)) => self.sync_end(number, end.resource_version, queues),
            Some(Body::Updates(updates)) => {
                self.report(number, MasterEvent::Updates(updates.updates), queues);
            }
            Some(Body::OperationUpdate(update)) => {
                let event = MasterEvent::OperationUpdate(Box::new(update));
                self.report(number, event, queues);
            }
            Some(Body::ExecutorEnded(ended)) => {
                self.report(number, MasterEvent::ExecutorEnded(ended), queues);
            }
            Some(Body::AgentResources(resources)) => {
                let event = MasterEvent::Resources(Box::new(resources));
                self.report(number, event, queues);
            }
            Some(Body::ExecutorMessage(message)) => {
                self.report(number, MasterEvent::ExecutorMessage(message), queues);
            }
            Some(Body::Unregister(_)) => self.report(number, MasterEvent::Unregister, queues),
            Some(Body::Close(close)) => {
                self.drop_session(number, CloseReason::Peer(close.reason), queues);
            }
            Some(_) => self.violation(number, "frame of the other direction", queues),
        }
    }

    fn open(&mut self, _hello: &LinkFrame, _backlog: Arc<Backlog>, _now: Instant) {}

    fn sending(&mut self, frame: &LinkFrame, now: Instant, queues: &mut Events) -> bool {
        let Some(session) = self.sessions.get_mut(&frame.session) else {
            return false;
        };
        match (&frame.body, &session.stage) {
            (Some(Body::Welcome(welcome)), Stage::Asked) => {
                session.stage = Stage::Syncing(Box::default(), 0);
                let interval = self.end.settings.ping_interval;
                self.next_ping.get_or_insert(now + interval);
                // The protocol was settled here, whoever built the answer.
                let mut settled = frame.clone();
                settled.body = Some(Body::Welcome(Welcome {
                    protocol: session.protocol,
                    ..welcome.clone()
                }));
                queues.replies.push_back(settled);
                false
            }
            (Some(Body::Refuse(_)), Stage::Asked) => {
                queues.replies.push_back(frame.clone());
                self.drop_session(frame.session, CloseReason::Refused, queues);
                self.end_if_unused(CloseReason::Refused, queues);
                false
            }
            (Some(Body::Shutdown(_)), _) | (_, Stage::Live) => true,
            (body, stage) => {
                tracing::error!(?body, ?stage, "command before the agent's Sync is not sent");
                false
            }
        }
    }

    fn close(&mut self, session: u32, reason: CloseReason, queues: &mut Events) {
        self.close_session(session, reason, queues);
    }

    fn next_wake(&self) -> Option<Instant> {
        self.next_ping
    }

    fn wake(&mut self, now: Instant, queues: &mut Events) {
        if self.next_ping.is_none_or(|at| at > now) {
            return;
        }
        self.next_ping = Some(now + self.end.settings.ping_interval);
        self.pings += 1;
        for (number, session) in &mut self.sessions {
            if matches!(session.stage, Stage::Asked) {
                continue;
            }
            if session.asked {
                session.missed += 1;
            }
            session.asked = true;
            if session.missed >= self.end.settings.max_missed_pings && !session.silent {
                session.silent = true;
                queues.events.push_back(SessionEvent {
                    session: session.key,
                    event: MasterEvent::Silent,
                });
            }
            queues.replies.push_back(LinkFrame {
                session: *number,
                must_understand: false,
                body: Some(Body::Ping(Ping { number: self.pings })),
            });
        }
    }

    fn end(&mut self, reason: &CloseReason, queues: &mut Events) {
        while let Some((number, _)) = self.sessions.first_key_value() {
            let number = *number;
            self.drop_session(number, reason.clone(), queues);
        }
    }
}
