//! Waiting for a file of the kernel to change.

use std::{io, os::fd::AsFd, path::PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::{Interest, unix::AsyncFd};

/// A file that is watched, such as `memory.events`, whose changes the kernel tells by inotify.
#[derive(Debug)]
pub struct FileWatch {
    raw: Inotify,
}

impl FileWatch {
    /// Begins to watch a file.
    ///
    /// # Errors
    ///
    /// When there is no such file, or this user watches too many.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        let raw = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        raw.add_watch(&path, AddWatchFlags::IN_MODIFY)?;
        Ok(Self { raw })
    }

    /// Waits for a change since the last call. Needs a tokio runtime; of two waits one may miss out.
    ///
    /// # Errors
    ///
    /// When it cannot be waited.
    pub async fn changed(&self) -> io::Result<()> {
        // A registration of its own, so that a wait can be dropped and begun again.
        let own = self.raw.as_fd().try_clone_to_owned()?;
        // SAFETY: an `OwnedFd` is open for as long as it lives and is always the same descriptor.
        let registered = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?;
        loop {
            let mut ready = registered.readable().await?;
            match self.raw.read_events() {
                Ok(_) => return Ok(()),
                Err(Errno::EAGAIN) => ready.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
