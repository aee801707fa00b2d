//! The master: owner of [`MasterState`](tepui_state_master::MasterState), and everything between it
//! and the sockets.
//!
//! ```text
//! requests, links -> lanes -> owner thread (apply) -> outbox thread -> streams, links, replies,
//!                                                                     allocator, registry
//! ```
//!
//! The owner thread ([`owner`]) applies events in batches and does nothing else; the outbox thread
//! ([`outbox`]) encodes and hands on what the state wants done, in order. Allocator ([`allocation`])
//! and registry ([`store`]) have places of their own and answer with events. Readers get published
//! views ([`readers`]) and never disturb the owner.
//!
//! Invariants:
//! - a reply leaves after its call was applied, and a reader that asks later sees a view with it;
//! - what must be in the registry before it is said is an effect of the event that says it is there;
//! - every queue is bounded: lanes and the owner's inbox refuse calls with 429, links are not read
//!   while the inbox is full, streams and links that are too far behind are cut off.

mod allocation;
mod authorize;
mod calls;
mod clock;
mod lanes;
mod leadership;
mod limits;
mod links;
mod master;
mod metrics;
mod modules;
mod operation;
mod operator;
mod operators;
mod outbox;
mod owner;
mod parts;
mod readers;
mod reading;
mod refusal;
mod registrar;
mod routes;
mod scheduler;
mod settings;
mod store;
mod v0;
mod visibility;
mod whitelist;

pub use authorize::{AllowAll, Approver, Authorizer, Object, Unanswered};
pub use leadership::{Leadership, Standalone};
pub use limits::{RateLimit, RateLimits};
pub use master::{Master, StartError};
pub use modules::ModuleLeadership;
pub use parts::{Allocator, Parts};
pub use settings::Settings;
pub use store::{InMemory, Recovery, Store};
pub use tepui_http::authorize::ModuleAuthorizer;
