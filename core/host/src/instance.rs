//! One instance of a module: calls with lanes and deadlines, and a new instance when it is finished.
//!
//! Rules (the published contract has the same): `start` is entered on module threads only; a lane has
//! one call in flight and is free when the call *completes*, not when its deadline passes; at the
//! deadline the call is cancelled and the lane is shown as stuck; a panic finishes the instance, which
//! is then released and made again; who keeps facts in it sees a new [`Instance::generation`].

mod generations;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prost::Message as _;
use tepui_module_proto::common::{Code, Failure, ModuleManifest};
use tokio::sync::{oneshot, watch};

use crate::backend::{Answer, Backend, Events};
use crate::calls::{Calls, LaneBusy, Lanes, Pending};
use crate::child::ChildError;
use crate::config::RunIn;
use crate::error::CallError;
use crate::methods;
use crate::report::{ModuleReport, State};
use crate::threads::Threads;

/// Makes another instance of the same module with the same settings.
pub(crate) type Maker =
    Box<dyn Fn(Arc<dyn Events>) -> Result<Arc<dyn Backend>, ChildError> + Send + Sync>;

/// What does not change while an instance lives.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) selected: Vec<String>,
    pub(crate) manifest: ModuleManifest,
    pub(crate) abi: String,
    pub(crate) sdk: String,
    pub(crate) file: Option<PathBuf>,
    pub(crate) sha256: String,
    pub(crate) run_in: RunIn,
    pub(crate) timeout: Duration,
    /// After a deadline, for how long a child may still answer before it is ended.
    pub(crate) grace: Duration,
    pub(crate) directories: Vec<PathBuf>,
}

/// An instance. Cheap to clone; all clones are one instance.
#[derive(Clone)]
pub struct Instance(Arc<Slot>);

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Instance")
            .field(&self.0.identity.name)
            .finish()
    }
}

pub(crate) struct Slot {
    pub(crate) identity: Identity,
    maker: Maker,
    live: Mutex<Live>,
    /// 0 while away, else the generation.
    changed: watch::Sender<u64>,
    pub(crate) calls: Calls,
    lanes: Lanes,
    threads: Threads,
    released: AtomicBool,
}

struct Live {
    state: State,
    backend: Option<Arc<dyn Backend>>,
    generation: u64,
    since: Instant,
    restarts: u64,
    /// Why it was last finished or failed.
    trouble: Option<String>,
    /// What the instance said of its health.
    health: Option<String>,
    backoff: Duration,
}

/// Call numbers of all instances; never used twice.
static NEXT_CALL: AtomicU64 = AtomicU64::new(1);

impl Instance {
    /// Creates the first instance and activates it.
    pub(crate) fn begin(identity: Identity, maker: Maker) -> Result<Self, ChildError> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let slot = Arc::new(Slot {
            threads: Threads::new(&identity.name, processors.clamp(2, 16), 16),
            lanes: Lanes::default(),
            calls: Calls::default(),
            changed: watch::Sender::new(0),
            live: Mutex::new(Live {
                state: State::Checked,
                backend: None,
                generation: 0,
                since: Instant::now(),
                restarts: 0,
                trouble: None,
                health: None,
                backoff: generations::FIRST_BACKOFF,
            }),
            released: AtomicBool::new(false),
            identity,
            maker,
        });
        slot.make()?;
        Ok(Instance(slot))
    }

    pub(crate) fn slot(&self) -> &Arc<Slot> {
        &self.0
    }

    /// Name of the module.
    pub fn name(&self) -> &str {
        &self.0.identity.name
    }

    /// Names of the configuration that selected it: its own or aliases.
    pub fn selected(&self) -> &[String] {
        &self.0.identity.selected
    }

    /// What the module says about itself.
    pub fn manifest(&self) -> &ModuleManifest {
        &self.0.identity.manifest
    }

    /// The file, unless it is linked into this program.
    pub fn file(&self) -> Option<&Path> {
        self.0.identity.file.as_deref()
    }

    /// Grows with each new instance, which knows nothing of what was told to older ones.
    pub fn generation(&self) -> u64 {
        self.0.live().generation
    }

    /// Whether it can be called now.
    pub fn is_active(&self) -> bool {
        self.0.live().backend.is_some()
    }

    /// Waits until there is an instance of a later generation than `seen`, and gives its generation.
    pub async fn newer_than(&self, seen: u64) -> u64 {
        let mut changed = self.0.changed.subscribe();
        let generation = changed
            .wait_for(|generation| *generation > seen)
            .await
            .map(|generation| *generation);
        match generation {
            Ok(generation) => generation,
            // The sender lives in the slot, which `self` keeps.
            Err(_) => std::future::pending().await,
        }
    }

    /// The deadline of a call for which the caller has none of its own.
    pub fn timeout(&self) -> Duration {
        self.0.identity.timeout
    }

    /// A synchronous call, on this thread. For methods that answer at once.
    pub fn call(&self, method: u32, request: &[u8]) -> Result<Vec<u8>, CallError> {
        let slot = &self.0;
        let (backend, generation) = slot.backend()?;
        let id = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        slot.calls
            .begin(id, Pending::synchronous(method, slot.identity.timeout));
        let answer = backend.call(method, request);
        slot.calls.end(id, answer.code);
        let result = slot.answer(method, answer);
        if let Err(error) = &result
            && error.is_lost()
        {
            slot.finished(generation, &error.to_string());
        }
        result
    }

    /// A call that may take time. `lane` orders calls about one thing; without a `timeout` it is a long
    /// poll. Dropping the future cancels the call.
    pub async fn start(
        &self,
        method: u32,
        lane: Option<&str>,
        timeout: Option<Duration>,
        request: Vec<u8>,
    ) -> Result<Vec<u8>, CallError> {
        let slot = &self.0;
        let permit = match lane {
            None => None,
            Some(lane) => Some(slot.lanes.enter(lane, timeout).await.map_err(
                |LaneBusy { behind, age }| CallError::Busy {
                    module: slot.identity.name.clone(),
                    method: slot.method(method),
                    lane: lane.into(),
                    behind: slot.method(behind),
                    age,
                },
            )?),
        };
        let (backend, generation) = slot.backend()?;
        let id = NEXT_CALL.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        if let Some(permit) = &permit {
            permit.holds(method);
        }
        slot.calls.begin(
            id,
            Pending::started(method, generation, lane, permit, timeout, sender),
        );
        let mut guard = CancelOnDrop {
            slot,
            id,
            armed: true,
        };
        let millis = timeout.map_or(0, |t| t.as_millis() as u64);
        let entered = slot.clone();
        slot.threads.run(move || {
            // Cancelled before a thread was free: the module never sees it.
            if entered.calls.enter(id) {
                backend.start(id, method, millis, request);
            } else {
                entered.complete_now(
                    id,
                    Answer::failure(Code::Cancelled, "cancelled before it began"),
                );
            }
        });
        let answer = match timeout {
            None => receiver.await,
            Some(timeout) => match tokio::time::timeout(timeout, receiver).await {
                Ok(answer) => answer,
                Err(_) => {
                    guard.armed = false;
                    slot.overdue(id);
                    return Err(CallError::Deadline {
                        module: slot.identity.name.clone(),
                        method: slot.method(method),
                        after: timeout,
                    });
                }
            },
        };
        guard.armed = false;
        match answer {
            Ok(answer) => slot.answer(method, answer),
            Err(_) => Err(slot.away("the call was lost")),
        }
    }

    /// What the call of this method for this container has said of how far it is.
    pub fn progress(&self, method: u32, container: &str) -> Option<String> {
        self.0.calls.progress_of(method, container)
    }

    /// The last call: the instance is shown as released. Its library stays loaded.
    pub fn release(&self) {
        self.0.release();
    }

    /// What to show.
    pub fn report(&self) -> ModuleReport {
        self.0.report()
    }
}

/// Cancels a call whose caller went away; the lane stays taken until the call completes.
struct CancelOnDrop<'a> {
    slot: &'a Arc<Slot>,
    id: u64,
    armed: bool,
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.slot.cancel(self.id);
        }
    }
}

impl Slot {
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn method(&self, number: u32) -> &'static str {
        methods::name(&self.identity.manifest.kinds, number)
    }

    fn away(&self, why: &str) -> CallError {
        CallError::Away {
            module: self.identity.name.clone(),
            why: why.into(),
        }
    }

    fn backend(&self) -> Result<(Arc<dyn Backend>, u64), CallError> {
        let live = self.live();
        match &live.backend {
            Some(backend) => Ok((backend.clone(), live.generation)),
            None => Err(self.away(live.trouble.as_deref().unwrap_or("it is starting"))),
        }
    }

    fn answer(&self, method: u32, answer: Answer) -> Result<Vec<u8>, CallError> {
        if answer.code == 0 {
            return Ok(answer.bytes);
        }
        let failure = Failure::decode(answer.bytes.as_slice()).unwrap_or_default();
        let code = Code::try_from(answer.code as i32).unwrap_or(Code::Unknown);
        Err(CallError::Failed {
            module: self.identity.name.clone(),
            method: self.method(method),
            code,
            failure: Box::new(failure),
        })
    }

    fn cancel(&self, id: u64) {
        let Some(entered) = self.calls.cancel(id) else {
            return;
        };
        if !entered {
            return;
        }
        if let Ok((backend, _)) = self.backend() {
            // Not on the caller's thread, which may be an I/O worker.
            self.threads.run(move || backend.cancel(id));
        }
    }

    /// The deadline of a call has passed: cancel it and say whose it is.
    fn overdue(&self, id: u64) {
        if let Some(stuck) = self.calls.stuck(id) {
            tracing::warn!(
                module = %self.identity.name,
                method = self.method(stuck.method),
                container = stuck.lane.as_deref().unwrap_or_default(),
                age = ?stuck.age,
                "a module's call is stuck"
            );
            self.cancel(id);
        }
    }

    /// Called now and then: deadlines of calls that nobody waits for, calls that get no thread, and children
    /// that do not answer.
    pub(crate) fn watch(&self) {
        self.threads.watch();
        for id in self.calls.overdue(Duration::ZERO) {
            self.overdue(id);
        }
        if self.identity.run_in == RunIn::Process
            && let Some(id) = self.calls.overdue_stuck(self.identity.grace)
            && let Ok((backend, _)) = self.backend()
        {
            let method = self
                .calls
                .method_of(id)
                .map_or("a call", |m| self.method(m));
            backend.kill(&format!("{method} did not end after its deadline"));
        }
    }

    fn complete_now(self: &Arc<Self>, id: u64, answer: Answer) {
        match self.calls.end(id, answer.code) {
            Some(Some(waiting)) => {
                if let Err(late) = waiting.send(answer) {
                    tracing::debug!(module = %self.identity.name, call = id, code = late.code, "a late answer");
                }
            }
            Some(None) => {}
            None => tracing::warn!(module = %self.identity.name, call = id, "an answer to no call"),
        }
    }

    pub(crate) fn report(&self) -> ModuleReport {
        let calls = self.calls.report(|number| self.method(number));
        let live = self.live();
        let stuck = live.state == State::Active && calls.pending.iter().any(|call| call.stuck);
        let id = &self.identity;
        ModuleReport {
            name: id.name.clone(),
            kinds: id.manifest.kinds.clone(),
            selected: id.selected.clone(),
            state: if stuck { State::Stuck } else { live.state },
            version: id.manifest.version.clone(),
            description: id.manifest.description.clone(),
            abi: id.abi.clone(),
            sdk: id.sdk.clone(),
            file: id.file.as_ref().map(|file| file.display().to_string()),
            sha256: id.sha256.clone(),
            run_in: id.run_in,
            instance: live.generation,
            restarts: live.restarts,
            trouble: live.trouble.clone(),
            health: live.health.clone(),
            methods: calls.methods,
            pending: calls.pending,
            metrics: calls.metrics,
        }
    }
}
