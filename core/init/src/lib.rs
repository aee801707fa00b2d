//! What an agent and the supervisor of a container say to each other, and what the supervisor leaves on disk.
//!
//! The supervisor is the program `tepui-init`; this library is its protocol, used by both ends. It has no dependency
//! beyond std and system calls, so that the program stays small: two of its processes live as long as each container does.
//!
//! # The launcher
//!
//! The program that an agent starts is the launcher of its supervisors: its standard input is one end of a socket pair,
//! over which the agent passes a socket for each container ([`ask_for_supervisor`]). It forks a supervisor for it,
//! and says nothing. It ends when the agent's end is closed; supervisors do not.
//!
//! # The supervisor's directory
//!
//! | name | what |
//! |---|---|
//! | `lock` | held (flock) by the supervisor for as long as anything of the container may run |
//! | `sock` | where a later agent process connects |
//! | `exit` | how the command ended, see [`Exit`]; written before the lock is let go |
//!
//! A lock that is free without an `exit` file means that the supervisor was killed from outside.
//!
//! # The conversation
//!
//! The agent that launches sends [`Request::Launch`] over the socket that it has passed. The supervisor answers [`Answer::Hello`] once the first process is held at the gate. The
//! gate opens by an explicit [`Request::Open`] on this connection and no other way: when the connection closes
//! before, the supervisor ends and nothing was started. A later agent connects to `sock` and is greeted with the same
//! `Hello`; its connection replaces the one before.
//!
//! # Versions
//!
//! `Hello` carries the version of the supervisor. An agent adopts supervisors of its own version and of every
//! earlier one: kinds of frames are only ever added, and an unknown kind is skipped by both ends. A launch only
//! happens between equals, so [`LaunchSpec`] may change with the version: an agent asks the program for its version
//! ([`ASK_PROTOCOL`]) before it uses it.

mod exit;
mod frame;
#[cfg(unix)]
mod passing;
mod spec;

pub use exit::Exit;
pub use frame::{Answer, Decoder, FrameError, MAX_FRAME, Request};
#[cfg(unix)]
pub use passing::{ask_for_supervisor, next_supervisor};
pub use spec::{
    Capabilities, CloneFlags, Create, Device, File, FileKind, Input, Join, LaunchSpec, Mount,
    Rlimit, User,
};

/// The version of the protocol that this release speaks.
pub const PROTOCOL: u32 = 5;

/// The program's argument upon which it prints [`PROTOCOL`] and ends.
pub const ASK_PROTOCOL: &str = "--protocol";

/// Name of the lock file in the supervisor's directory.
pub const LOCK_FILE: &str = "lock";
/// Name of the socket in the supervisor's directory.
pub const SOCKET_FILE: &str = "sock";
/// Name of the file that says how the command ended.
pub const EXIT_FILE: &str = "exit";
