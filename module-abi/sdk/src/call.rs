//! The call that the current thread works on, and blocking work begun in it.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::{Failure, Host, Result};

/// What a log event and blocking work need to know of the call they belong to.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) module: &'static str,
    pub(crate) host: Host,
    /// Container the call is about; empty for none.
    pub(crate) container: String,
    /// The host's number of a call that takes its time.
    call: Option<u64>,
    /// Pieces of blocking work that have not ended.
    blocking: AtomicUsize,
    ended: Notify,
}

impl Scope {
    pub(crate) fn new(module: &'static str, host: Host, container: String) -> Arc<Self> {
        Arc::new(Self::plain(module, host, container))
    }

    fn plain(module: &'static str, host: Host, container: String) -> Self {
        Self {
            module,
            host,
            container,
            call: None,
            blocking: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    /// That of a call with a number.
    pub(crate) fn of_call(
        module: &'static str,
        host: Host,
        container: String,
        call: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            call: Some(call),
            ..Self::plain(module, host, container)
        })
    }

    /// Waits until no blocking work of this call is left.
    pub(crate) async fn blocking_ended(&self) {
        loop {
            let ended = self.ended.notified();
            if self.blocking.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<Scope>>> = const { RefCell::new(None) };
}

/// Runs `f` as part of a call.
pub(crate) fn within<T>(scope: &Arc<Scope>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<Scope>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.with(|current| *current.borrow_mut() = self.0.take());
        }
    }
    let _restore = Restore(CURRENT.with(|current| current.borrow_mut().replace(scope.clone())));
    f()
}

/// The call that this thread works on.
pub(crate) fn current() -> Option<Arc<Scope>> {
    CURRENT
        .try_with(|current| current.try_borrow().ok().and_then(|scope| scope.clone()))
        .ok()
        .flatten()
}

/// Says how far the current call is, for people; it is shown as long as the call goes on. Nothing happens outside of a
/// call, such as in tasks that were spawned.
pub fn progress(message: &str) {
    if let Some(scope) = current()
        && let Some(call) = scope.call
    {
        scope.host.progress(call, message);
    }
}

/// Runs blocking work on a thread for such work. A call that is cancelled meanwhile completes only after the
/// work has ended, so that nothing of it runs beside what the host does next.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    struct Counted(Option<Arc<Scope>>);
    impl Drop for Counted {
        fn drop(&mut self) {
            if let Some(scope) = &self.0 {
                scope.blocking.fetch_sub(1, Ordering::Release);
                scope.ended.notify_waiters();
            }
        }
    }
    let scope = current();
    if let Some(scope) = &scope {
        scope.blocking.fetch_add(1, Ordering::Relaxed);
    }
    let counted = Counted(scope.clone());
    let done = tokio::task::spawn_blocking(move || {
        let _counted = counted;
        match scope {
            Some(scope) => within(&scope, work),
            None => work(),
        }
    });
    match done.await {
        Ok(value) => Ok(value),
        // The panic goes on where it would have been without the detour.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Failure::internal(error.to_string())),
    }
}

/// Polls a future as part of a call.
pub(crate) async fn scoped<F: Future>(scope: Arc<Scope>, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| within(&scope, || future.as_mut().poll(context))).await
}
