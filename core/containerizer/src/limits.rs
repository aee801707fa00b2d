//! Hearing of containers beyond a limit.

use std::sync::{Arc, Weak, atomic::Ordering};
use std::time::Duration;

use tepui_module_proto::isolator as messages;

use crate::containerizer::{Containerizer, Inner, lock};
use crate::driver::Command;
use crate::isolation::Isolator;

impl Containerizer {
    /// Begins to hear of limits: once, after the isolators were told what runs.
    pub(crate) fn watch_limits(&self) {
        if self.inner.watches.swap(true, Ordering::Relaxed) {
            return;
        }
        for isolator in self
            .inner
            .isolators
            .iter()
            .filter(|isolator| isolator.limits())
        {
            tokio::spawn(watch_limits(Arc::downgrade(&self.inner), isolator.clone()));
        }
    }
}

/// Hands what an isolator tells of limits to the containers, for as long as the containerizer lives.
async fn watch_limits(inner: Weak<Inner>, isolator: Arc<dyn Isolator>) {
    let mut seen = 0;
    loop {
        let reply = isolator.limited(seen).await;
        let Some(inner) = inner.upgrade() else { return };
        match reply {
            Ok(reply) => {
                seen = reply.revision;
                for limitation in reply.limitations {
                    tell_limitation(&inner, limitation);
                }
            }
            Err(error) => {
                tracing::warn!(
                    isolator = isolator.name(),
                    error,
                    "limits are not watched for a second"
                );
                // A new instance counts from the start.
                seen = 0;
                drop(inner);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn tell_limitation(inner: &Inner, limitation: messages::Limitation) {
    let found = lock(&inner.containers)
        .iter()
        .find(|(id, _)| id.to_string() == limitation.id)
        .map(|(_, container)| container.clone());
    let (Some(container), Some(limitation)) = (found, crate::driver::limitation(limitation)) else {
        return;
    };
    // The poll is repeated with each change, so a container that is busy is told again.
    let _ = container.commands.try_send(Command::Limited(limitation));
}
