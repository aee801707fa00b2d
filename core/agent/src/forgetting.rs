//! Forgets containers that are over, on a thread of its own.
//!
//! Their records are directories. Removing one may wait for the disk (a file system that is mounted with `discard` tells
//! it of each block), and the owner would hear of nothing meanwhile.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use tepui_model::id::ContainerId;

use crate::containers::Containers;

/// More than this make the owner wait: containers must not end quicker than they are forgotten.
const WAITING: usize = 4096;

/// The way to the thread, which ends after what it was told.
#[derive(Debug)]
pub(crate) struct Forgetting(Sender<ContainerId>);

impl Forgetting {
    pub(crate) fn start(containers: Arc<dyn Containers>) -> io::Result<Self> {
        let (sender, received) = bounded(WAITING);
        std::thread::Builder::new()
            .name("agent-forgets".to_owned())
            .spawn(move || work(&*containers, &received))?;
        Ok(Self(sender))
    }

    /// Nobody asks for this container any more. One that an agent does not come to is an orphan of the next one.
    pub(crate) fn forget(&self, container: ContainerId) {
        // The thread lives as long as this.
        let _ = self.0.send(container);
    }
}

fn work(containers: &dyn Containers, received: &Receiver<ContainerId>) {
    for container in received {
        if let Err(error) = containers.forget(&container) {
            tracing::debug!(%container, %error, "nothing to forget");
        }
    }
}
