//! Owner of the agent's state: sandboxes, records, the link to the master, the agent's endpoints.
//!
//! [`Agent::start`] takes a work directory, finds what an earlier process left there, and serves.
//! One thread owns the state ([`tepui_state_agent`]) and performs its effects; containers and the
//! connection to the master are tasks that answer with events; endpoints read snapshots.
//!
//! What it deliberately does not know: flags (the daemon does), how containers are made
//! ([`tepui_containerizer`] does), how the leader is found (a [`Detector`] does).

mod agent;
mod checks;
mod clock;
mod connection;
mod containers;
mod deadlines;
mod detector;
mod environment;
mod executors;
mod forgetting;
mod gc;
mod groups;
mod http;
mod launching;
mod machine;
mod metrics;
mod owner;
mod paths;
mod played;
mod reconfiguration;
mod settings;
mod store;
mod volumes;

pub use agent::{Agent, Ended, StartError, attach_endpoints};
pub use containers::Containers;
pub use detector::{Configured, Detector, ModuleDetector};
pub use machine::resources;
pub use reconfiguration::{ReconfigurationPolicy, Reconfigured};
pub use settings::{CAPABILITIES, Settings};
pub use store::StoreError;

/// An error with all its causes, for logs.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
