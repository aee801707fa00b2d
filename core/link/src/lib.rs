//! The agent link: frames, handshake, sessions.
//!
//! An agent and the leading master talk over one upgraded HTTP connection. Both sides send frames:
//! a big-endian `u32` length and one [`LinkFrame`](tepui_proto::link::LinkFrame). A connection
//! carries several sessions, one an agent; an agent that owns its connection has one.
//!
//! What lives here: framing, the `Hello` / `Welcome` / `Refuse` handshake with its protocol range,
//! collecting a `Sync` into one event, pings and their answers, back-pressure. What does not: what
//! the messages mean. There is no sequence number, acknowledgement or resend: a session is ordered
//! by its connection, and what a broken session lost is repaired by the next `Sync`.
//!
//! Invariants:
//! - every session that was reported by a `Hello` (master) or opened (agent) ends with exactly one
//!   `Closed` event;
//! - nothing of a session is reported after its `Closed`;
//! - the master sends no command in a session before its `SyncEnd`.

mod agent;
mod codec;
mod error;
mod master;
mod pump;
mod sender;

pub use agent::{AgentEnd, AgentEvent, AgentSession, AgentSettings, AgentUpdate};
pub use codec::{Frames, FramesError};
pub use error::{CloseReason, LinkError, SendError};
pub use master::{MasterEnd, MasterEvent, MasterSettings, Peer, SessionEvent, SessionKey, Synced};
pub use sender::SessionSender;

use std::ops::RangeInclusive;

/// Versions of the link protocol that this release speaks.
pub const PROTOCOL: RangeInclusive<u32> = 1..=1;

/// Path of the upgrade request, on the master's ordinary port.
pub const PATH: &str = "/tepui/v1/agent";

/// Token of the `Upgrade` header.
pub const UPGRADE: &str = "tepui-link";

/// Longest frame that is accepted, length prefix not counted.
pub const FRAME_LIMIT: usize = 4 << 20;

/// A session with more than this to send is closed.
pub const BACKLOG_LIMIT: usize = 4 << 20;
