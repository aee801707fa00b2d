//! What the command executor and the default executor do, as pure state machines.
//!
//! [`CommandExecutor`] plays the executor of one command task without a process of its own. It
//! takes the events and answers with the calls of the v1 executor API, so that the agent's state
//! cannot tell it from an executor on a socket. Its container is the task's command; the agent
//! launches it before the machine is started, and the containerizer ends it (SIGTERM, then SIGKILL
//! after the grace period, across restarts of the agent).
//!
//! [`DefaultExecutor`] does the same for the groups of tasks of one executor, whose containers are nested in its own.
//!
//! What clients see mirrors `src/launcher/executor.cpp` of Mesos: the order of states, the texts,
//! which kill wins.
//!
//! Invariants:
//! - at most one terminal update, and nothing after it;
//! - what decides a verdict is handed out as [`Record`] before it is acted upon, so that a machine
//!   that is resumed from its record comes to the same verdict.

#![deny(clippy::disallowed_types)]

mod checks;
mod command;
mod group;
mod signal;

pub use checks::{Finding, Probe, ProbeId, ProbeKind};
pub use command::{CommandExecutor, Identity, Input, Intent, Output, Record};
pub use group::{ChildEnd, DefaultExecutor, GroupInput, GroupOutput, GroupRecord, TaskRecord};
pub use signal::describe_status;
