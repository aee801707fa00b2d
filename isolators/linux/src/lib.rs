//! Kernel primitives that the isolators share: where cgroups are, their files, and notifications of the kernel.
//!
//! A plain crate, no module: it knows neither containers nor settings.

mod bytes;
pub mod cgroup;
mod eventfd;
mod hierarchy;
mod watch;

pub use bytes::show_bytes;
pub use cgroup::{Cgroup, CgroupError};
pub use eventfd::{EventFd, Pressure};
pub use hierarchy::{Hierarchies, Mounted, controller_of};
pub use watch::FileWatch;
