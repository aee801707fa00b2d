//! Isolators of a container's file system: `filesystem/linux` and `docker/runtime`.

mod linux;
mod runtime;

pub use linux::LinuxFilesystem;
pub use runtime::{Config as RuntimeConfig, DockerRuntime};
