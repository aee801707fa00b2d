//! Simulates a cluster of the real state machines under one virtual clock and one seed.
//!
//! A run has the real master state with a real allocator module, real agent states with the real command
//! executor, and pretended frameworks, custom executors, links, registry, disks and containers. Links are cut or fall
//! silent, calls are lost, repeated and held up, machines are on the other side of a partition or start anew, processes
//! die between any two effects, disks are slow or full, and the wall clock jumps; agents come back with more to give, or as
//! new ones, all from one address or each from its own, and masters may give up only some in a time. After every event the states check
//! their invariants (R1), and an oracle watches from outside that no launch runs twice (R3), that every task's end is
//! told (R2), that every leader knows what operators were told is so, that reservations and volumes
//! are on a disk as they were reported, each volume with its data (R4), and that a new agent process takes over all
//! that runs (R5). Equal seeds give equal effects: [`Outcome::hash`] is a hash over all of them. A run can be recorded
//! and its events played again; a failing one is tried with fewer and fewer faults ([`Case::minimized`]) and kept.
//!
//! What it does not simulate: HTTP, authorization, what tasks do with the data of volumes.

mod agent;
mod allocator;
mod case;
mod fault;
mod link;
mod master;
mod operations;
mod operator;
mod oracle;
mod process;
mod record;
mod run;
mod scheduler;
mod simulation;
mod step;

pub use allocator::Kind as AllocatorKind;
pub use case::Case;
pub use record::{EffectHash, Entry, Node, Recording};
pub use run::{Failure, Options, Outcome, Tried, run};
