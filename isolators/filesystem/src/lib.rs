//! Isolators of a container's file system: `filesystem/linux`.

mod linux;

pub use linux::LinuxFilesystem;
