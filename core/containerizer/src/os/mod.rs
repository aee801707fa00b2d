//! What differs between operating systems: starting a supervisor held at its gate, talking to it, finding it again
//! and seeing its end.
//!
//! `linux` is complete. On other systems the module does not exist and the containerizer refuses to start.

#[cfg(target_os = "linux")]
mod launcher;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod user;

#[cfg(target_os = "linux")]
pub(crate) use launcher::Launcher;
#[cfg(target_os = "linux")]
pub(crate) use linux::{Found, Supervisor, boot_id, boot_time, find, is_own_namespace, namespaces};
#[cfg(target_os = "linux")]
pub(crate) use user::{Users, give_to};
