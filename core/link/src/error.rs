//! What can go wrong on a link.

use thiserror::Error;

/// The peer sent something that is not the protocol; its connection is closed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// A frame is longer than the limit.
    #[error("frame of {length} bytes exceeds the limit of {limit}")]
    FrameTooLong {
        /// What the prefix says.
        length: usize,
        /// The limit in force.
        limit: usize,
    },
    /// A frame is no `LinkFrame`.
    #[error("undecodable frame: {0}")]
    Undecodable(String),
}

/// Why a session ended.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The connection ended.
    #[error("connection closed")]
    Disconnected,
    /// The connection broke.
    #[error("connection failed: {0}")]
    Io(String),
    /// The peer does not speak the protocol.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// The peer sent a frame that must be understood and is not known here.
    #[error("frame that must be understood is unknown")]
    UnknownFrame,
    /// The peer ended the session.
    #[error("closed by peer: {0}")]
    Peer(String),
    /// This end closed the session.
    #[error("closed: {0}")]
    Local(String),
    /// More was queued than the peer takes.
    #[error("backlog exceeds the limit")]
    Backlog,
    /// The master refused the session.
    #[error("refused")]
    Refused,
    /// A newer session took this one's number.
    #[error("replaced by a newer session")]
    Replaced,
    /// The master has not been heard for the time it promised.
    #[error("no ping from the master")]
    Silent,
}

/// The session takes nothing any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// It is closed, or its connection is gone.
    #[error("session is closed")]
    Closed,
    /// It had too much to send, and is being closed.
    #[error("session backlog exceeds the limit")]
    Backlog,
}
