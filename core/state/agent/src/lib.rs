//! The life of one agent, as a pure state machine.
//!
//! [`AgentState`] owns frameworks, executors, tasks, status updates and resources of an agent: what may run,
//! what its state is, what the master and the schedulers still have to be told. It takes
//! [`Event`]s and answers with [`Effect`]s, which its owner performs in order: a
//! [`Effect::Checkpoint`] is done before what follows it, so that nothing is said that an agent
//! process that starts anew would not know.
//!
//! It deliberately knows no files, sockets, processes or clocks, and cannot tell an executor that
//! is played inside the agent from one on a socket: both take executor events and make executor
//! calls.
//!
//! Invariants, see [`AgentState::check`]:
//! - a task is launched at most once, and never after its launch was found cut short;
//! - one unacknowledged update of a task is under way at a time, in order, until acknowledged;
//! - an update of a checkpointing framework is recorded before it is sent, an acknowledgement
//!   before the update is forgotten;
//! - an operation on resources is recorded before its end is told, and told until that is acknowledged;
//! - an executor that has ended stays until all its updates are acknowledged.

#![deny(clippy::disallowed_types)]

mod calls;
mod counts;
mod effect;
mod event;
mod executors;
mod launch;
mod master;
mod operations;
mod recover;
mod rows;
mod state;
mod updates;

pub use calls::Refusal;
pub use counts::Counts;
pub use effect::{Effect, ExecutorKind, Launch, Record, RecordBody, Resumed};
pub use event::{
    ContainerEnd, Event, Found, Limitation, RecoveredAgent, RecoveredExecutor, RecoveredFramework,
};
pub use operations::ResourceRecord;
pub use rows::{Executor, ExecutorState, Framework, Stream, Task, Verdict};
pub use state::{AgentSettings, AgentState};
