//! Published views: how endpoints read without disturbing the owner.
//!
//! A reader notes the number of the last applied event when it arrives and waits for a view at least
//! as new: so it sees its own earlier calls. Views are published at the end of a batch, only when
//! somebody waits, and at most each [`PUBLISH_INTERVAL`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tepui_view::View;
use tokio::sync::watch;

/// Least time between two published views.
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_millis(5);

/// The owner's side.
pub(crate) struct Publisher {
    applied: Arc<AtomicU64>,
    views: watch::Sender<Arc<View>>,
}

/// A reader's side.
#[derive(Clone)]
pub(crate) struct Readers {
    applied: Arc<AtomicU64>,
    views: watch::Receiver<Arc<View>>,
}

/// Both sides.
pub(crate) fn views() -> (Publisher, Readers) {
    let applied = Arc::new(AtomicU64::new(0));
    let (sender, receiver) = watch::channel(Arc::default());
    (
        Publisher {
            applied: Arc::clone(&applied),
            views: sender,
        },
        Readers {
            applied,
            views: receiver,
        },
    )
}

impl Publisher {
    /// Says how far the state is. Must come before the effects of the events leave.
    pub(crate) fn applied(&self, version: u64) {
        self.applied.store(version, Ordering::Release);
    }

    /// Hands out a view.
    pub(crate) fn publish(&self, view: Arc<View>) {
        self.views.send_replace(view);
    }
}

impl Readers {
    /// The event that a reader who arrives now must see.
    pub(crate) fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// The published view, if it is new enough.
    pub(crate) fn newest(&self, version: u64) -> Option<Arc<View>> {
        let view = self.views.borrow();
        (view.version >= version).then(|| Arc::clone(&view))
    }

    /// Waits until a view of that version is published; `None` when the owner ends.
    pub(crate) async fn wait(&self, version: u64) -> Option<Arc<View>> {
        let mut views = self.views.clone();
        let view = views.wait_for(|view| view.version >= version).await.ok()?;
        Some(Arc::clone(&view))
    }
}
