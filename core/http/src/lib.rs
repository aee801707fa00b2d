//! HTTP server and client: listeners, routing, content negotiation, streams, upgrades, and the
//! endpoints that master and agent share.
//!
//! What goes over the wire follows libprocess of Mesos 1.11 (statuses, texts, header sets, routing
//! rules); what is not observable is our own. This crate knows no master and no agent: handlers get
//! a complete [`Request`] and return a [`Response`].

pub mod answers;
pub mod authorize;
mod client;
pub mod media;
pub mod percent;
mod request;
mod response;
mod router;
pub mod scheduler_client;
mod server;
pub mod shared;
pub mod stream;
mod upgrade;

pub use answers::Answers;
pub use client::{Client, ClientError, Records, Reply};
pub use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
pub use media::Media;
pub use request::{BrokenOff, Query, Request, RequestStream};
pub use response::{Body, Response, TEXT};
pub use router::{Handler, Router};
pub use scheduler_client::{SchedulerClient, SchedulerError};
pub use server::{ListenError, Listener, Server, ServerSettings, UnixListenError};
pub use stream::{StreamBody, StreamError, StreamSender};
pub use tepui_model::authorization::Subject;
pub use upgrade::{Upgrade, UpgradeError, Upgraded};
