//! Ids, time and the resource algebra: the vocabulary that every other crate of the core shares.
//!
//! Nothing here does I/O, reads a clock or draws randomness from the system. Data is plain and
//! serializable, so that events and effects of the state machines can be recorded and replayed.

#![deny(clippy::disallowed_types)]

pub mod allocation;
pub mod attributes;
pub mod authorization;
pub mod filters;
pub mod hash;
pub mod id;
pub mod labels;
pub mod resources;
pub mod rng;
pub mod roles;
pub mod slots;
pub mod time;

pub use attributes::{Attribute, Attributes};
pub use hash::{Map, Seed, SeededHasher};
pub use id::{
    AgentId, ContainerId, ExecutorId, FrameworkId, OfferId, OperationId, Principal, ProviderId,
    Role, TaskId, Uuid,
};
pub use labels::{Label, Labels};
pub use resources::{Quantities, Resource, Resources, Scalar};
pub use rng::Rng;
pub use time::{Mono, Now, Wall};
