//! Simulates a cluster of the real state machines under one virtual clock and one seed.
//!
//! A run has the real master state with a real allocator module, real agent states with the real command
//! executor, and pretended frameworks, custom executors, links, registry, disks and containers. Links are cut, processes
//! die between any two effects, messages are late. After every event the states check their invariants
//! (R1), and an oracle watches from outside that no launch runs twice (R3) and that every task's end is
//! told (R2). Equal seeds give equal effects: [`Outcome::hash`] is a hash over all of them. A run can be
//! recorded and its events played again.
//!
//! What it does not simulate: HTTP, authorization, operations on resources.

mod agent;
mod allocator;
mod link;
mod master;
mod operator;
mod oracle;
mod process;
mod record;
mod scheduler;
mod simulation;

pub use allocator::Kind as AllocatorKind;
pub use record::{EffectHash, Entry, Node, Recording};
pub use simulation::{Failure, Options, Outcome, run};
