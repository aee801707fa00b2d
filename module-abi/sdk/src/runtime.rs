//! The library's own tokio.
//!
//! One single-threaded runtime a library. It is made when the first call is started, because the first poll of a
//! future already needs it around (timers and sockets register themselves), and costs two descriptors then; its
//! thread is made when something has to wait. It lives as long as the process: libraries are never unloaded.

use std::sync::{Once, OnceLock};
use std::{future::pending, io, thread};

use tokio::runtime::{Builder, Handle, Runtime};

struct Own {
    handle: Handle,
    runtime: std::sync::Mutex<Option<Runtime>>,
}

static OWN: OnceLock<io::Result<Own>> = OnceLock::new();
static THREAD: Once = Once::new();

fn own() -> Result<&'static Own, &'static io::Error> {
    OWN.get_or_init(|| {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(64)
            .build()?;
        Ok(Own {
            handle: runtime.handle().clone(),
            runtime: std::sync::Mutex::new(Some(runtime)),
        })
    })
    .as_ref()
}

/// The library's runtime; nothing that is spawned there runs before its thread is started.
pub(crate) fn handle() -> Result<&'static Handle, &'static io::Error> {
    own().map(|own| &own.handle)
}

/// Starts the thread if anything was given to the runtime.
pub(crate) fn ensure_thread_if_used() {
    if !THREAD.is_completed() && handle().is_ok_and(|handle| handle.metrics().num_alive_tasks() > 0)
    {
        ensure_thread();
    }
}

/// Starts the thread that drives the runtime, once.
fn ensure_thread() {
    let Ok(own) = own() else { return };
    THREAD.call_once(|| {
        let runtime = own
            .runtime
            .lock()
            .ok()
            .and_then(|mut runtime| runtime.take());
        let Some(runtime) = runtime else { return };
        // Deep enough for author code; the memory is only used when touched.
        let spawned = thread::Builder::new()
            .name("tepui-module".to_owned())
            .stack_size(2 << 20)
            .spawn(move || runtime.block_on(pending::<()>()));
        if let Err(error) = spawned {
            // Calls that wait for it are ended by their deadlines.
            tracing::error!(%error, "the module's thread cannot be started");
        }
    });
}
