//! The daemons tepui-master and tepui-agent: flags and wiring.

pub mod agent;
pub mod flags;
mod gpus;
mod log;
pub mod master;
mod own_cgroup;
pub mod settings;
pub mod start;
mod systemd;
