//! Isolators of a container's file system: `filesystem/linux`, `filesystem/posix`, `docker/runtime` and `disk/du`.

mod du;
mod linux;
mod persistent;
mod posix;
mod runtime;

pub use du::{Config as DuConfig, Du};
pub use linux::LinuxFilesystem;
pub use posix::PosixFilesystem;
pub use runtime::{Config as RuntimeConfig, DockerRuntime};
