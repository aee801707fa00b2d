//! Notifications of v1 cgroups, which come by eventfd.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    sync::OnceLock,
};

use tokio::io::{Interest, unix::AsyncFd};

use nix::sys::eventfd::{EfdFlags, EventFd as Raw};

use crate::{Cgroup, CgroupError};

/// A descriptor on which the kernel counts notifications. The kernel signals it once more when the cgroup is removed.
#[derive(Debug)]
pub struct EventFd {
    /// Made by the first wait; its descriptor is that of `raw`, so it goes first.
    waited: OnceLock<AsyncFd<RawFd>>,
    raw: Raw,
}

/// How hard the kernel finds it to get memory for a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// It reclaims.
    Low,
    /// It swaps or drops files in use.
    Medium,
    /// It is about to run out.
    Critical,
}

impl EventFd {
    /// Counts how often a memory cgroup runs out of memory.
    ///
    /// # Errors
    ///
    /// When the kernel does not take the registration.
    pub fn on_oom(cgroup: &Cgroup) -> Result<Self, CgroupError> {
        Self::register(cgroup, "memory.oom_control", "")
    }

    /// Counts how often a memory cgroup comes under pressure of a level.
    ///
    /// # Errors
    ///
    /// When the kernel does not take the registration.
    pub fn on_pressure(cgroup: &Cgroup, level: Pressure) -> Result<Self, CgroupError> {
        let level = match level {
            Pressure::Low => " low",
            Pressure::Medium => " medium",
            Pressure::Critical => " critical",
        };
        Self::register(cgroup, "memory.pressure_level", level)
    }

    fn register(cgroup: &Cgroup, file: &str, argument: &str) -> Result<Self, CgroupError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let raw = Raw::from_value_and_flags(0, flags)
            .map_err(|errno| cgroup.error("make an eventfd for", file, errno.into()))?;
        // The kernel looks at this descriptor only now.
        let control = cgroup.open(file)?;
        let line = format!(
            "{} {}{argument}",
            raw.as_fd().as_raw_fd(),
            control.as_raw_fd()
        );
        cgroup.write("cgroup.event_control", &line)?;
        Ok(Self {
            waited: OnceLock::new(),
            raw,
        })
    }

    /// Waits for a notification and takes all that have come. Needs a tokio runtime, which has to be the same for all
    /// waits; of two at once one may miss out.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be waited on.
    pub async fn wait(&self) -> io::Result<u64> {
        let registered = match self.waited.get() {
            Some(registered) => registered,
            None => {
                let (raw, interest) = (self.as_raw_fd(), Interest::READABLE);
                // SAFETY: `raw` is open for as long as this lives, and the registration ends before.
                let registered = unsafe { AsyncFd::register_with_interest(raw, interest) }?;
                self.waited.get_or_init(|| registered)
            }
        };
        loop {
            let mut ready = registered.readable().await?;
            let count = self.take()?;
            if count > 0 {
                return Ok(count);
            }
            ready.clear_ready();
        }
    }

    /// How many notifications have come since the last call; does not wait.
    ///
    /// # Errors
    ///
    /// When the descriptor cannot be read.
    pub fn take(&self) -> io::Result<u64> {
        match self.raw.read() {
            Ok(count) => Ok(count),
            Err(nix::errno::Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.raw.as_fd().as_raw_fd()
    }
}
