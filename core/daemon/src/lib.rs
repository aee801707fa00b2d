//! The daemons tepui-master and tepui-agent: flags and wiring.

pub mod agent;
pub mod flags;
mod log;
pub mod master;
mod own_cgroup;
mod systemd;
pub mod settings;
pub mod start;
