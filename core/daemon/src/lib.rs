//! The daemons tepui-master and tepui-agent: flags and wiring.

pub mod agent;
pub mod flags;
pub mod master;
pub mod settings;
pub mod start;
