//! An instance behind the frozen table: guards every entry into author code and answers every call once.
//!
//! A panic anywhere in author code, destructors included, ends at the guard: the call answers INTERNAL and the
//! instance is finished, since its state may be half changed. What cannot be guarded against is in `SPEC.md`.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll, Waker};

use tepui_module_abi::{InstanceV1, Message, RSlice, Reply};
use tepui_module_proto::common::CommonMethod;
use tokio::sync::oneshot;

use crate::call::{self, Scope};
use crate::{Failure, Host, Result, log, runtime};

/// A future of author code and what it makes of a request.
pub(crate) type Work = Pin<Box<dyn Future<Output = Result<Vec<u8>>> + Send>>;

/// A kind's view of an instance: numbers and bytes in, bytes out.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers now. `None`: there is no such method.
    fn call(&self, method: u32, request: &[u8]) -> Option<Result<Vec<u8>>>;

    /// Begins a call. `None`: there is no such method.
    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>>;
}

/// A call that has begun.
pub(crate) struct Started {
    /// Container it is about; empty for none.
    pub(crate) container: String,
    pub(crate) work: Work,
}

impl Started {
    /// A call that is about no container.
    pub(crate) fn new(work: impl Future<Output = Result<Vec<u8>>> + Send + 'static) -> Self {
        Self::about(String::new(), work)
    }

    /// A call about a container.
    pub(crate) fn about(
        container: String,
        work: impl Future<Output = Result<Vec<u8>>> + Send + 'static,
    ) -> Self {
        Self {
            container,
            work: Box::pin(work),
        }
    }
}

struct Instance {
    module: &'static str,
    host: Host,
    /// Taken out only to be dropped under the guard.
    service: Option<Arc<dyn Service>>,
    /// Set by a panic; nothing is entered any more.
    finished: AtomicBool,
    /// Calls that are not complete, each with what cancels it when it is dropped.
    waiting: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
}

/// The table of a new instance.
pub(crate) fn table(module: &'static str, host: Host, service: Arc<dyn Service>) -> InstanceV1 {
    let instance = Arc::new(Instance {
        module,
        host,
        service: Some(service),
        finished: AtomicBool::new(false),
        waiting: Mutex::default(),
    });
    InstanceV1 {
        obj: Arc::into_raw(instance).cast(),
        call,
        start,
        cancel,
        release,
    }
}

/// The instance behind the pointer of a table.
///
/// # Safety
/// `obj` is the pointer of a table of this module that was not released.
unsafe fn instance(obj: *const ()) -> Arc<Instance> {
    let raw: *const Instance = obj.cast();
    // SAFETY: the pointer came from `Arc::into_raw` in `table`, and the reference it stands for is
    // given back in `release` only, after which the host makes no call.
    unsafe {
        Arc::increment_strong_count(raw);
        Arc::from_raw(raw)
    }
}

unsafe extern "C" fn call(obj: *const (), method: u32, request: RSlice<'_, u8>) -> Reply {
    // SAFETY: the host calls with the pointer of the table, before its release.
    unsafe { instance(obj) }.call(method, request.as_slice())
}

unsafe extern "C" fn start(
    obj: *const (),
    call: u64,
    method: u32,
    _timeout_ms: u64,
    request: Message,
) {
    // SAFETY: as in `call`.
    unsafe { instance(obj) }.start(call, method, request);
}

unsafe extern "C" fn cancel(obj: *const (), call: u64) {
    // SAFETY: as in `call`.
    let instance = unsafe { instance(obj) };
    let cancel = instance.waiting().remove(&call);
    drop(cancel);
}

unsafe extern "C" fn release(obj: *const ()) {
    // SAFETY: the last call of the host, which gives back the reference that `table` made.
    let instance = unsafe { Arc::from_raw(obj.cast::<Instance>()) };
    let cancels = std::mem::take(&mut *instance.waiting());
    drop(cancels);
}

impl Instance {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<()>>> {
        // Nothing in here panics while it holds the lock, and no author code runs under it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn service(&self) -> &Arc<dyn Service> {
        self.service.as_ref().expect("taken in drop only")
    }

    fn call(&self, method: u32, request: &[u8]) -> Reply {
        let scope = Scope::new(self.module, self.host, String::new());
        let answered = self.guard(&scope, || match method {
            m if m == CommonMethod::ProbePanic as u32 => std::panic::panic_any(log::Probe),
            m => self
                .service()
                .call(m, request)
                .unwrap_or_else(|| Err(Failure::unimplemented(m))),
        });
        reply(answered.and_then(|answer| answer))
    }

    fn start(self: Arc<Self>, call: u64, method: u32, request: Message) {
        // Before anything is polled: a cancellation may come while the first poll goes on.
        let (cancel, cancelled) = oneshot::channel();
        self.waiting().insert(call, cancel);
        let answer = Answer {
            instance: self.clone(),
            call: Some(call),
        };
        close_handles(&request);
        // Timers and sockets of the future register with the runtime that is entered here.
        let _entered = match runtime::handle() {
            Ok(handle) => handle.enter(),
            Err(error) => {
                return answer.give(Err(Failure::internal(format!(
                    "no runtime for this library: {error}"
                ))));
            }
        };
        let scope = Scope::new(self.module, self.host, String::new());
        let service = self.service().clone();
        let begun = self.guard(&scope, || service.start(method, &request.bytes));
        let started = match begun {
            Ok(Some(Ok(started))) => started,
            Ok(Some(Err(failure))) | Err(failure) => return answer.give(Err(failure)),
            Ok(None) => return answer.give(Err(Failure::unimplemented(method))),
        };
        let scope = Scope::of_call(self.module, self.host, started.container, call);
        let mut work = Guarded {
            instance: self,
            scope,
            work: Some(started.work),
        };
        match Pin::new(&mut work).poll(&mut task::Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => answer.give(result),
            Poll::Pending => finish_later(work, cancelled, answer),
        }
        runtime::ensure_thread_if_used();
    }

    /// Enters author code. A panic finishes the instance.
    fn guard<T>(&self, scope: &Arc<Scope>, enter: impl FnOnce() -> T) -> Result<T> {
        if self.finished.load(Ordering::Acquire) {
            return Err(Failure::finished());
        }
        let entered = catch_unwind(AssertUnwindSafe(|| call::within(scope, enter)));
        entered.map_err(|payload| {
            self.finished.store(true, Ordering::Release);
            let message = message_of(&*payload);
            // Its destructor is author code too, and may panic again.
            std::mem::forget(payload);
            Failure::panicked(&message, log::take_backtrace())
        })
    }
}

/// Dropping the module is author code as well.
impl Drop for Instance {
    fn drop(&mut self) {
        let scope = Scope::new(self.module, self.host, String::new());
        let service = self.service.take();
        if let Err(payload) =
            catch_unwind(AssertUnwindSafe(|| call::within(&scope, || drop(service))))
        {
            std::mem::forget(payload);
        }
    }
}

/// Polls the rest of a call on the library's runtime.
fn finish_later(mut work: Guarded, cancelled: oneshot::Receiver<()>, answer: Answer) {
    tokio::spawn(async move {
        let result = tokio::select! {
            biased;
            result = &mut work => result,
            _ = cancelled => {
                let dropped = work.end();
                work.scope.blocking_ended().await;
                dropped.and(Err(Failure::cancelled()))
            }
        };
        answer.give(result);
    });
}

/// Author code that is polled, and in the end dropped, under the guard.
struct Guarded {
    instance: Arc<Instance>,
    scope: Arc<Scope>,
    work: Option<Work>,
}

impl Guarded {
    /// Drops the future, whose destructors are author code.
    fn end(&mut self) -> Result<()> {
        let work = self.work.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| {
            call::within(&self.scope, || drop(work))
        }));
        dropped.map_err(|payload| {
            self.instance.finished.store(true, Ordering::Release);
            let message = message_of(&*payload);
            std::mem::forget(payload);
            Failure::panicked(&message, log::take_backtrace())
        })
    }
}

impl Future for Guarded {
    type Output = Result<Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(work) = this.work.as_mut() else {
            return Poll::Ready(Err(Failure::finished()));
        };
        let polled = this
            .instance
            .guard(&this.scope, || work.as_mut().poll(context));
        let result = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(result)) => result,
            Err(failure) => Err(failure),
        };
        // A panic in a task that the kit runs for the instance is told by whoever asks next.
        if result.as_ref().is_err_and(Failure::is_finished) {
            this.instance.finished.store(true, Ordering::Release);
        }
        let ended = this.end();
        Poll::Ready(result.and_then(|answer| ended.map(|()| answer)))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// Owes an answer; one that is dropped answers too.
struct Answer {
    instance: Arc<Instance>,
    call: Option<u64>,
}

impl Answer {
    fn give(mut self, result: Result<Vec<u8>>) {
        self.send(reply(result));
    }

    fn send(&mut self, reply: Reply) {
        let Some(call) = self.call.take() else {
            return;
        };
        // First, since the host may use the number again once the call is complete.
        let cancel = self.instance.waiting().remove(&call);
        drop(cancel);
        let host = self.instance.host.0;
        // SAFETY: the host's table is valid for the life of the process, and `take` makes this the only completion.
        unsafe { (host.complete)(host.ctx, call, reply) };
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.send(Failure::internal("the library's runtime dropped the call").reply());
    }
}

fn reply(result: Result<Vec<u8>>) -> Reply {
    match result {
        Ok(bytes) => Reply::ok(bytes),
        Err(failure) => failure.reply(),
    }
}

/// Text of a panic.
pub(crate) fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// No method of the present kinds takes handles, and whoever has a message owns those in it.
fn close_handles(request: &Message) {
    #[cfg(unix)]
    for &handle in &request.handles {
        use std::os::fd::{FromRawFd, OwnedFd};
        if let Ok(fd) = i32::try_from(handle)
            && fd >= 0
        {
            // SAFETY: the table says that handles of a message belong to its receiver.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    #[cfg(not(unix))]
    let _ = request;
}
