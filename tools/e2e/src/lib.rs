//! What end-to-end tests share: real daemons in folders of their own, waiting for conditions, and
//! the replay of recorded exchanges.

pub mod bench;
pub mod cluster;
pub mod images;
pub mod own_modules;
pub mod replay;
pub mod scheduler;
pub mod scratch;
pub mod server;
pub mod stall;
pub mod tokens;
pub mod wait;

pub use bench::Bench;
pub use cluster::{Cluster, Daemon, bin, client, python, tepui};
pub use scheduler::Scheduler;
pub use scratch::Scratch;
pub use wait::wait_for;
