//! Finds, verifies, loads and calls modules; reads their configuration.
//!
//! A module is a shared library with a stable ABI. The host finds it by its name without running any
//! code of it, checks it in a child process, loads a private copy, and calls it through lanes with
//! deadlines, so that a panic or a late answer costs that call only. The same library runs in the
//! daemon or in a child process ([`config::RunIn`]). Nothing is ever unloaded.
//!
//! What the calls of a kind mean is in [`kinds`]; policies of what to do when one fails are the
//! callers' (authorizer: deny; isolator: that launch; leader: step down).

mod backend;
mod calls;
mod child;
pub mod config;
mod error;
mod frames;
mod host;
mod instance;
pub mod kinds;
mod log;
mod methods;
pub mod note;
pub mod report;
pub mod search;
mod serve;
mod threads;
mod trial;
pub mod value;
mod verify;

pub use error::{CallError, LoadError};
pub use host::{Checked, HostSettings, ModuleHost};
pub use instance::Instance;
pub use report::Report;
pub use serve::serve;
