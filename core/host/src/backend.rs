//! One instance behind its table, in this process. The only unsafe code of the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use prost::Message as _;
use tepui_module_abi::{HostV1, InstanceV1, Library, Message, RErr, ROk, RSlice, RVec, Reply};
use tepui_module_proto::common::{Code, Failure};

/// An answer: a code, and the payload or the failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) fn failure(code: Code, message: &str) -> Self {
        Answer {
            code: code as u32,
            bytes: Failure::new(message).encode_to_vec(),
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        drop_handles(&reply.message);
        Answer {
            code: reply.code,
            bytes: reply.message.bytes.into_vec(),
        }
    }
}

/// No method of the present kinds answers with handles; whoever has a message owns those in it.
fn drop_handles(message: &Message) {
    use std::os::fd::{FromRawFd, OwnedFd};
    for handle in &message.handles {
        if let Ok(fd) = i32::try_from(*handle)
            && fd >= 0
        {
            // SAFETY: the table says that handles of a message belong to its receiver, and nobody
            // else has seen this one.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
}

/// What an instance tells its host, from any thread.
pub(crate) trait Events: Send + Sync {
    /// Log, metrics, health, progress.
    fn host_call(&self, method: u32, request: &[u8]);
    /// A started call has its answer.
    fn complete(&self, call: u64, answer: Answer);
    /// The process of the instance has ended: nothing will complete any more.
    fn lost(&self, why: &str);
}

/// An instance, wherever it runs.
pub(crate) trait Backend: Send + Sync {
    /// Answers now.
    fn call(&self, method: u32, request: &[u8]) -> Answer;
    /// Answers through [`Events::complete`].
    fn start(&self, call: u64, method: u32, timeout_ms: u64, request: Vec<u8>);
    /// A request to end the call.
    fn cancel(&self, call: u64);
    /// The last call. May wait a little for calls that are being entered.
    fn release(&self);
    /// Ends the process of the instance, where it has one. Whether it has.
    fn kill(&self, why: &str) -> bool;
    /// Whether its process has ended.
    fn is_gone(&self) -> bool;
}

/// Creates an instance of an open library.
pub(crate) fn create(
    library: Library,
    request: &[u8],
    events: Arc<dyn Events>,
) -> Result<Arc<dyn Backend>, Answer> {
    // Never freed, as the table demands: a completion after release must still find something.
    let context: &'static Arc<dyn Events> = Box::leak(Box::new(events));
    let host = HostV1 {
        ctx: std::ptr::from_ref(context).cast(),
        call: host_call,
        complete: host_complete,
    };
    match (library.root().create())(RSlice::from_slice(request), host) {
        ROk(instance) => Ok(Arc::new(Local {
            instance,
            entered: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })),
        RErr(reply) => Err(reply.into()),
    }
}

/// The manifest of an open library.
pub(crate) fn manifest(library: Library) -> Vec<u8> {
    (library.root().manifest())().into_vec()
}

/// # Safety
/// `ctx` is the pointer that [`create`] has put in the table.
unsafe extern "C" fn host_call(ctx: *const (), method: u32, request: RSlice<'_, u8>) -> Reply {
    // SAFETY: it points to a leaked `Arc<dyn Events>`, shared only, which is `Sync`.
    let events = unsafe { &*ctx.cast::<Arc<dyn Events>>() };
    contained(|| events.host_call(method, request.as_slice()));
    Reply::default()
}

/// # Safety
/// As of [`host_call`].
unsafe extern "C" fn host_complete(ctx: *const (), call: u64, reply: Reply) {
    // SAFETY: as in `host_call`.
    let events = unsafe { &*ctx.cast::<Arc<dyn Events>>() };
    contained(|| events.complete(call, reply.into()));
}

/// A panic of the host must not unwind into a module.
fn contained(f: impl FnOnce()) {
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err() {
        tracing::error!("the module host panicked in a call of a module");
    }
}

struct Local {
    instance: InstanceV1,
    /// Threads that are inside the table now.
    entered: AtomicUsize,
    closed: AtomicBool,
}

impl Local {
    /// Runs `f` unless the instance is released, or about to be.
    fn enter<T>(&self, f: impl FnOnce(&InstanceV1) -> T) -> Option<T> {
        struct Leave<'a>(&'a AtomicUsize);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.entered.fetch_add(1, Ordering::SeqCst);
        let _leave = Leave(&self.entered);
        (!self.closed.load(Ordering::SeqCst)).then(|| f(&self.instance))
    }
}

impl Backend for Local {
    fn call(&self, method: u32, request: &[u8]) -> Answer {
        // SAFETY: `enter` guarantees that the instance is not released; the slice outlives the call.
        let reply = self.enter(|i| unsafe { (i.call)(i.obj, method, RSlice::from_slice(request)) });
        reply.map_or_else(
            || Answer::failure(Code::Unavailable, "the instance is released"),
            Answer::from,
        )
    }

    fn start(&self, call: u64, method: u32, timeout_ms: u64, request: Vec<u8>) {
        let message = Message {
            bytes: request.into(),
            handles: RVec::new(),
        };
        // SAFETY: as in `call`; the message is handed over.
        self.enter(|i| unsafe { (i.start)(i.obj, call, method, timeout_ms, message) });
    }

    fn cancel(&self, call: u64) {
        // SAFETY: as in `call`.
        self.enter(|i| unsafe { (i.cancel)(i.obj, call) });
    }

    fn release(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        // A thread that hangs inside keeps the instance alive for good: a leak, not a use after free.
        let patience = Instant::now() + Duration::from_secs(2);
        while self.entered.load(Ordering::SeqCst) > 0 {
            if Instant::now() > patience {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // SAFETY: nobody is inside, and `closed` lets nobody in: this is the last call.
        unsafe { (self.instance.release)(self.instance.obj) };
    }

    fn kill(&self, _why: &str) -> bool {
        false
    }

    fn is_gone(&self) -> bool {
        false
    }
}
