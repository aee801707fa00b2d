//! Isolators `namespaces/pid` and `namespaces/ipc`.

mod ipc;
mod pid;

pub use ipc::{Config as IpcConfig, IpcNamespaces};
pub use pid::{Config as PidConfig, PidNamespaces};
