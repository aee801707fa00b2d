//! The generations of an instance: one is made and activated, and when it is finished the next one, later each time it
//! fails again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use prost::Message as _;
use tepui_module_proto::common::{
    Code, CommonMethod, Failure, HealthRequest, HostMethod, LogRequest, MetricsRequest,
    ProgressRequest,
};
use tokio::sync::oneshot;

use super::{NEXT_CALL, Slot};
use crate::backend::{Answer, Backend, Events};
use crate::calls::Pending;
use crate::child::ChildError;
use crate::log;
use crate::report::State;

pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LAST_BACKOFF: Duration = Duration::from_secs(30);
/// An instance that lived this long begins with the first back-off again.
const STEADY: Duration = Duration::from_secs(60);

impl Slot {
    /// Creates an instance, makes its directories, and activates it.
    pub(super) fn make(self: &Arc<Self>) -> Result<(), ChildError> {
        let generation = self.live().generation + 1;
        let events = Arc::new(Told {
            slot: self.clone(),
            generation,
        });
        let backend = (self.maker)(events)?;
        for dir in &self.identity.directories {
            if let Err(error) = std::fs::create_dir_all(dir) {
                tracing::warn!(module = %self.identity.name, dir = %dir.display(), %error, "no directory for a module");
            }
        }
        self.activate(&backend, generation)?;
        let mut live = self.live();
        live.generation = generation;
        live.backend = Some(backend.clone());
        live.state = State::Active;
        live.health = None;
        live.since = Instant::now();
        drop(live);
        self.changed.send_replace(generation);
        // It may have ended since, and told so before it was known here.
        if backend.is_gone() {
            self.finished(generation, "the process ended");
        }
        Ok(())
    }

    fn activate(
        self: &Arc<Self>,
        backend: &Arc<dyn Backend>,
        generation: u64,
    ) -> Result<(), ChildError> {
        let id = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        let method = CommonMethod::Activate as u32;
        let limit = self.identity.timeout;
        self.calls.begin(
            id,
            Pending::started(method, generation, None, None, Some(limit), sender),
        );
        self.calls.enter(id);
        let (entered, millis) = (backend.clone(), limit.as_millis() as u64);
        self.threads
            .run(move || entered.start(id, method, millis, Vec::new()));
        match wait(receiver, limit) {
            Some(Answer { code: 0, .. }) => Ok(()),
            // Kinds and older modules that have nothing to begin.
            Some(answer) if answer.code == Code::Unimplemented as u32 => Ok(()),
            Some(answer) => {
                backend.release();
                let failure = Failure::decode(answer.bytes.as_slice()).unwrap_or_default();
                Err(ChildError::Create(Box::new(failure)))
            }
            None => {
                backend.cancel(id);
                backend.kill("it hung in Activate");
                Err(ChildError::Ended(format!(
                    "it hung for {limit:?} in Activate"
                )))
            }
        }
    }

    /// The instance of this generation answers no more calls: make another.
    pub(super) fn finished(self: &Arc<Self>, generation: u64, why: &str) {
        let mut live = self.live();
        if live.generation != generation || live.backend.is_none() {
            return;
        }
        let old = live.backend.take();
        live.state = State::Failed;
        live.trouble = Some(why.into());
        live.restarts += 1;
        if live.since.elapsed() > STEADY {
            live.backoff = FIRST_BACKOFF;
        }
        let backoff = live.backoff;
        live.backoff = (backoff * 2).min(LAST_BACKOFF);
        drop(live);
        self.changed.send_replace(0);
        if self.released.load(Ordering::SeqCst) {
            return;
        }
        tracing::error!(module = %self.identity.name, why, ?backoff, "a module's instance is finished; another is made");
        let slot = self.clone();
        let work = move || {
            if let Some(old) = old {
                old.release();
            }
            slot.remake(backoff);
        };
        let name = format!("module {}", self.identity.name);
        if let Err(error) = std::thread::Builder::new().name(name).spawn(work) {
            tracing::error!(module = %self.identity.name, %error, "no thread to make another instance");
        }
    }

    fn remake(self: &Arc<Self>, mut backoff: Duration) {
        loop {
            std::thread::sleep(backoff);
            if self.released.load(Ordering::SeqCst) {
                return;
            }
            match self.make() {
                Ok(()) => {
                    tracing::info!(module = %self.identity.name, "a module has a new instance");
                    return;
                }
                Err(error) => {
                    let why = error.to_string();
                    tracing::error!(module = %self.identity.name, why, "a module cannot be started again");
                    let mut live = self.live();
                    live.trouble = Some(why);
                    backoff = live.backoff;
                    live.backoff = (backoff * 2).min(LAST_BACKOFF);
                }
            }
        }
    }

    pub(super) fn release(self: &Arc<Self>) {
        self.released.store(true, Ordering::SeqCst);
        let mut live = self.live();
        live.state = State::Released;
        live.trouble = Some("it was released".into());
        let backend = live.backend.take();
        drop(live);
        self.changed.send_replace(0);
        if let Some(backend) = backend {
            backend.release();
        }
    }
}

/// What one generation says.
struct Told {
    slot: Arc<Slot>,
    generation: u64,
}

impl Events for Told {
    fn host_call(&self, method: u32, request: &[u8]) {
        let slot = &self.slot;
        let name = &slot.identity.name;
        match HostMethod::try_from(method as i32) {
            Ok(HostMethod::Log) => {
                if let Ok(event) = LogRequest::decode(request) {
                    log::emit(name, &event);
                }
            }
            Ok(HostMethod::Metrics) => {
                if let Ok(metrics) = MetricsRequest::decode(request) {
                    slot.calls.metrics(metrics.samples);
                }
            }
            Ok(HostMethod::Health) => {
                if let Ok(health) = HealthRequest::decode(request) {
                    slot.live().health = (!health.healthy).then_some(health.message);
                }
            }
            Ok(HostMethod::Progress) => {
                if let Ok(progress) = ProgressRequest::decode(request) {
                    slot.calls.progress(progress.call, progress.message);
                }
            }
            // A newer module: what it asks for does not exist here.
            _ => {}
        }
    }

    fn complete(&self, call: u64, answer: Answer) {
        let finished = answer.code != 0
            && Failure::decode(answer.bytes.as_slice()).is_ok_and(|failure| failure.finished);
        let why = finished.then(|| {
            let failure = Failure::decode(answer.bytes.as_slice()).unwrap_or_default();
            if !failure.backtrace.is_empty() {
                tracing::error!(module = %self.slot.identity.name, backtrace = %failure.backtrace, "a module panicked");
            }
            failure.chain()
        });
        // First the state, so that whoever gets the answer sees that the instance is away.
        if let Some(why) = why {
            self.slot.finished(self.generation, &why);
        }
        self.slot.complete_now(call, answer);
    }

    fn lost(&self, why: &str) {
        self.slot.finished(self.generation, why);
        for id in self.slot.calls.of_generation(self.generation) {
            self.slot
                .complete_now(id, Answer::failure(Code::Unavailable, why));
        }
    }
}

/// Waits on this thread, which is none of a runtime's.
fn wait<T>(mut receiver: oneshot::Receiver<T>, limit: Duration) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(50);
    loop {
        match receiver.try_recv() {
            Ok(value) => return Some(value),
            Err(oneshot::error::TryRecvError::Closed) => return None,
            Err(oneshot::error::TryRecvError::Empty) if Instant::now() > end => return None,
            Err(oneshot::error::TryRecvError::Empty) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}
