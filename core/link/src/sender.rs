//! The sending half of a session, on either end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use prost::Message;
use tepui_proto::link::LinkFrame;
use tepui_proto::link::link_frame::Body;
use tokio::sync::mpsc;

use crate::SendError;

/// What a sender hands to the task that owns the connection.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Open a session with this first frame (agent only).
    Open(LinkFrame, Arc<Backlog>),
    /// One frame, with the backlog that it counts in and its size there.
    Frame(LinkFrame, Arc<Backlog>, usize),
    /// End a session; the peer is told why.
    Close(u32, String),
}

/// How much a session has queued.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes: AtomicUsize,
    closed: AtomicBool,
    limit: usize,
}

impl Backlog {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            limit,
        })
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}

/// Sends frames in one session; cheap to clone, never blocks.
///
/// What is queued is bounded in bytes: the frame that exceeds [`crate::BACKLOG_LIMIT`] closes the
/// session instead of being sent.
#[derive(Clone, Debug)]
pub struct SessionSender {
    session: u32,
    backlog: Arc<Backlog>,
    out: Outbox,
}

/// Both ways to the task that owns a connection.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    /// In order; bounded by the backlog of each session.
    pub(crate) frames: mpsc::UnboundedSender<Outgoing>,
    /// Sessions whose backlog is full: must not wait behind that backlog.
    pub(crate) overflow: mpsc::UnboundedSender<u32>,
}

impl SessionSender {
    pub(crate) fn new(session: u32, backlog: Arc<Backlog>, out: Outbox) -> Self {
        Self {
            session,
            backlog,
            out,
        }
    }

    /// Number of the session on its connection.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// Queues a frame that an older peer may skip.
    pub fn send(&self, body: Body) -> Result<(), SendError> {
        self.send_frame(LinkFrame {
            session: 0,
            must_understand: false,
            body: Some(body),
        })
    }

    /// Queues a frame; its session number is set here.
    pub fn send_frame(&self, mut frame: LinkFrame) -> Result<(), SendError> {
        if self.backlog.is_closed() {
            return Err(SendError::Closed);
        }
        frame.session = self.session;
        let size = frame.encoded_len();
        let queued = self.backlog.bytes.fetch_add(size, Ordering::Relaxed);
        if queued > 0 && queued + size > self.backlog.limit {
            self.backlog.close();
            // The connection's task may be gone already; then the session is closed anyhow.
            let _ = self.out.overflow.send(self.session);
            return Err(SendError::Backlog);
        }
        self.out
            .frames
            .send(Outgoing::Frame(frame, self.backlog.clone(), size))
            .map_err(|_| SendError::Closed)
    }

    /// Queues a frame that does not count in the backlog: a `Sync` is as long as what is to be said.
    pub(crate) fn send_uncounted(&self, body: Body) -> Result<(), SendError> {
        if self.backlog.is_closed() {
            return Err(SendError::Closed);
        }
        let frame = LinkFrame {
            session: self.session,
            must_understand: false,
            body: Some(body),
        };
        self.out
            .frames
            .send(Outgoing::Frame(frame, self.backlog.clone(), 0))
            .map_err(|_| SendError::Closed)
    }

    /// Ends the session after what is queued; the peer is told.
    pub fn close(&self, reason: impl Into<String>) {
        self.backlog.close();
        let close = Outgoing::Close(self.session, reason.into());
        // Nothing to close when the connection's task is gone.
        let _ = self.out.frames.send(close);
    }
}
