//! Isolators `linux/capabilities` and `linux/nnp`: what the command's processes may do, and gain.

mod capabilities;
mod nnp;
mod set;

pub use capabilities::{Capabilities, Config};
pub use nnp::NoNewPrivileges;
