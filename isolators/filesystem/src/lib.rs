//! Isolators of a container's file system: `filesystem/linux`, `docker/runtime` and `disk/du`.

mod du;
mod linux;
mod runtime;

pub use du::{Config as DuConfig, Du};
pub use linux::LinuxFilesystem;
pub use runtime::{Config as RuntimeConfig, DockerRuntime};
