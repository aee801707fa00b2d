//! What happens to one container, in which order, and what an agent that was killed in between does next.
//!
//! [`ContainerState`] is a pure machine: events in, effects out. The containerizer performs the effects, in the
//! order given, and reports what came of them. The machine owns the order of the launch (isolators prepare, logger,
//! supervisor held at its gate, isolators isolate, record, gate), of the end (what is nested ends, kill, isolators clean
//! up in reverse) and the verdict ([`Termination`]).
//!
//! Invariants, checked by the property tests with a crash between any two effects:
//! - The command starts at most once. [`Mark::GateOpened`] is recorded before the gate is opened, and a container
//!   that is recovered is never started: without that mark it is destroyed.
//! - What is nested in a container has ended before the container is killed or cleaned up.
//! - Every container ends: each isolator is cleaned up after its last other call, and the supervisor is gone.
//! - An isolator has at most one call under way; the next effect of a sequence is given only once the last one was
//!   answered.
//!
//! It deliberately knows neither names nor paths: isolators are numbers, in the order they prepare.

#![deny(clippy::disallowed_types)]

mod machine;
mod types;

pub use machine::ContainerState;
pub use types::{Effect, Event, Exit, Limitation, Mark, Supervisor, Termination};
