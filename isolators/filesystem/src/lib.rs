//! Isolators of a container's file system: `filesystem/linux`, `filesystem/posix`, `docker/runtime`, `appc/runtime`,
//! `disk/du` and `disk/xfs`.

mod du;
mod linux;
mod persistent;
mod posix;
mod runtime;
mod xfs;

pub use du::{Config as DuConfig, Du};
pub use linux::{Config as LinuxFilesystemConfig, LinuxFilesystem};
pub use posix::PosixFilesystem;
pub use runtime::{AppcRuntime, Config as RuntimeConfig, DockerRuntime};
pub use xfs::{Config as XfsConfig, Xfs};
