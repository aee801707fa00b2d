//! Kernel primitives that the isolators share: where cgroups are, their files, mounts in other namespaces, and
//! notifications of the kernel.
//!
//! A plain crate, no module: it knows neither containers nor settings.

mod bpf;
mod bytes;
pub mod cgroup;
mod devices;
mod eventfd;
pub mod gids;
mod hierarchy;
pub mod mounts;
mod nvidia;
mod quota;
mod watch;

pub use bytes::show_bytes;
pub use cgroup::{Cgroup, CgroupError};
pub use devices::{DeviceAccess, DeviceFilter, DeviceKind, DeviceRule};
pub use eventfd::{EventFd, Pressure};
pub use hierarchy::{Hierarchies, Mounted, controller_of};
pub use nvidia::{Nvidia, NvidiaError, NvidiaGpu};
pub use quota::{ProjectQuotas, ProjectUsage, QUOTA_BLOCK, give_to_project, project_of};
pub use watch::FileWatch;
