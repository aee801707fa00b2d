//! The table of calls that have not completed, the lanes, and what was counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tepui_module_proto::common::Code;
use tepui_module_proto::common::metrics_request::Sample;
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::backend::Answer;
use crate::report::{MethodReport, MetricReport, PendingReport};

/// Calls of one instance.
#[derive(Default)]
pub(crate) struct Calls(Mutex<Table>);

#[derive(Default)]
struct Table {
    pending: HashMap<u64, Pending>,
    methods: BTreeMap<u32, Counted>,
    metrics: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

#[derive(Default, Clone, Copy)]
struct Counted {
    calls: u64,
    failed: u64,
    overdue: u64,
    total: Duration,
    longest: Duration,
}

/// A call that has not completed.
pub(crate) struct Pending {
    method: u32,
    generation: u64,
    lane: Option<String>,
    /// Keeps the lane taken until the call completes.
    permit: Option<Permit>,
    since: Instant,
    deadline: Option<Instant>,
    waiting: Option<oneshot::Sender<Answer>>,
    entered: bool,
    cancelled: bool,
    stuck: bool,
    progress: Option<String>,
}

impl Pending {
    pub(crate) fn synchronous(method: u32, patience: Duration) -> Self {
        let mut pending = Self::new(method, 0, Some(patience));
        pending.entered = true;
        // There is no way to cancel it.
        pending.cancelled = true;
        pending
    }

    pub(crate) fn started(
        method: u32,
        generation: u64,
        lane: Option<&str>,
        permit: Option<Permit>,
        timeout: Option<Duration>,
        waiting: oneshot::Sender<Answer>,
    ) -> Self {
        Pending {
            lane: lane.map(String::from),
            permit,
            waiting: Some(waiting),
            ..Self::new(method, generation, timeout)
        }
    }

    fn new(method: u32, generation: u64, timeout: Option<Duration>) -> Self {
        let since = Instant::now();
        Pending {
            method,
            generation,
            lane: None,
            permit: None,
            since,
            deadline: timeout.map(|timeout| since + timeout),
            waiting: None,
            entered: false,
            cancelled: false,
            stuck: false,
            progress: None,
        }
    }
}

/// What is told about a call that is stuck.
pub(crate) struct Stuck {
    pub(crate) method: u32,
    pub(crate) lane: Option<String>,
    pub(crate) age: Duration,
}

/// What is shown of the table.
pub(crate) struct CallsReport {
    pub(crate) methods: Vec<MethodReport>,
    pub(crate) pending: Vec<PendingReport>,
    pub(crate) metrics: Vec<MetricReport>,
}

impl Calls {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self, id: u64, pending: Pending) {
        self.table().pending.insert(id, pending);
    }

    /// A thread is about to enter the call. Not, if it was cancelled before.
    pub(crate) fn enter(&self, id: u64) -> bool {
        match self.table().pending.get_mut(&id) {
            Some(pending) if !pending.cancelled => {
                pending.entered = true;
                true
            }
            _ => false,
        }
    }

    /// The call has completed with a code. `None`: there is no such call.
    pub(crate) fn end(&self, id: u64, code: u32) -> Option<Option<oneshot::Sender<Answer>>> {
        let mut table = self.table();
        let pending = table.pending.remove(&id)?;
        let took = pending.since.elapsed();
        let counted = table.methods.entry(pending.method).or_default();
        counted.calls += 1;
        counted.failed += u64::from(![Code::Ok as u32, Code::Unimplemented as u32].contains(&code));
        counted.overdue += u64::from(pending.stuck);
        counted.total += took;
        counted.longest = counted.longest.max(took);
        drop(table);
        drop(pending.permit);
        Some(pending.waiting)
    }

    /// Marks a call cancelled. `None`: it has completed or was cancelled before; else whether it was entered.
    pub(crate) fn cancel(&self, id: u64) -> Option<bool> {
        let mut table = self.table();
        let pending = table
            .pending
            .get_mut(&id)
            .filter(|pending| !pending.cancelled)?;
        pending.cancelled = true;
        Some(pending.entered)
    }

    /// Marks a call stuck; tells about it the first time.
    pub(crate) fn stuck(&self, id: u64) -> Option<Stuck> {
        let mut table = self.table();
        let pending = table
            .pending
            .get_mut(&id)
            .filter(|pending| !pending.stuck)?;
        pending.stuck = true;
        Some(Stuck {
            method: pending.method,
            lane: pending.lane.clone(),
            age: pending.since.elapsed(),
        })
    }

    /// Calls past their deadline by more than `grace` that are not marked yet.
    pub(crate) fn overdue(&self, grace: Duration) -> Vec<u64> {
        let now = Instant::now();
        let over = |p: &Pending| p.deadline.is_some_and(|deadline| now > deadline + grace);
        self.table()
            .pending
            .iter()
            .filter(|(_, p)| !p.stuck && over(p))
            .map(|(id, _)| *id)
            .collect()
    }

    /// A marked call that is past its deadline by more than `grace`.
    pub(crate) fn overdue_stuck(&self, grace: Duration) -> Option<u64> {
        let now = Instant::now();
        let over = |p: &Pending| p.deadline.is_some_and(|deadline| now > deadline + grace);
        self.table()
            .pending
            .iter()
            .find(|(_, p)| p.stuck && over(p))
            .map(|(id, _)| *id)
    }

    pub(crate) fn method_of(&self, id: u64) -> Option<u32> {
        self.table().pending.get(&id).map(|pending| pending.method)
    }

    /// Started calls of one generation.
    pub(crate) fn of_generation(&self, generation: u64) -> Vec<u64> {
        let table = self.table();
        table
            .pending
            .iter()
            .filter(|(_, p)| p.generation == generation)
            .map(|(id, _)| *id)
            .collect()
    }

    pub(crate) fn progress(&self, id: u64, message: String) {
        if let Some(pending) = self.table().pending.get_mut(&id) {
            pending.progress = Some(message);
        }
    }

    /// What a call of this method on this lane has said of itself.
    pub(crate) fn progress_of(&self, method: u32, lane: &str) -> Option<String> {
        let table = self.table();
        let mut pending = table.pending.values();
        pending
            .find(|p| p.method == method && p.lane.as_deref() == Some(lane))
            .and_then(|p| p.progress.clone())
    }

    pub(crate) fn metrics(&self, samples: Vec<Sample>) {
        let mut table = self.table();
        for sample in samples {
            let key = (sample.name, sample.labels.into_iter().collect());
            // A module that invents names without end must not fill the daemon.
            if table.metrics.len() >= 10_000 && !table.metrics.contains_key(&key) {
                continue;
            }
            let value = table.metrics.entry(key).or_default();
            *value = if sample.add {
                *value + sample.value
            } else {
                sample.value
            };
        }
    }

    pub(crate) fn report(&self, name: impl Fn(u32) -> &'static str) -> CallsReport {
        let table = self.table();
        let millis = |d: Duration| (d.as_secs_f64() * 1e6).round() / 1e3;
        let methods = table.methods.iter().map(|(number, counted)| MethodReport {
            method: name(*number).into(),
            calls: counted.calls,
            failed: counted.failed,
            overdue: counted.overdue,
            total_ms: millis(counted.total),
            longest_ms: millis(counted.longest),
        });
        let mut pending: Vec<PendingReport> = table
            .pending
            .iter()
            .map(|(id, p)| PendingReport {
                call: *id,
                method: name(p.method).into(),
                container: p.lane.clone(),
                age_ms: millis(p.since.elapsed()),
                long_poll: p.deadline.is_none(),
                stuck: p.stuck,
                progress: p.progress.clone(),
            })
            .collect();
        pending.sort_by_key(|p| p.call);
        let metrics = table
            .metrics
            .iter()
            .map(|((name, labels), value)| MetricReport {
                name: name.clone(),
                labels: labels.clone(),
                value: *value,
            });
        CallsReport {
            methods: methods.collect(),
            pending,
            metrics: metrics.collect(),
        }
    }
}

/// Who holds a lane, and since when.
#[derive(Default)]
struct Holder {
    method: u32,
    since: Option<Instant>,
}

type Lane = tokio::sync::Mutex<()>;

/// One call in flight for each key, first in, first out.
#[derive(Default)]
pub(crate) struct Lanes(Mutex<HashMap<String, Weak<LaneState>>>);

struct LaneState {
    lock: Arc<Lane>,
    holder: Mutex<Holder>,
}

/// A taken lane.
pub(crate) struct Permit {
    _guard: OwnedMutexGuard<()>,
    state: Arc<LaneState>,
}

impl Permit {
    /// Names the call that has the lane now.
    pub(crate) fn holds(&self, method: u32) {
        let mut holder = self
            .state
            .holder
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *holder = Holder {
            method,
            since: Some(Instant::now()),
        };
    }
}

/// A lane did not become free in time.
pub(crate) struct LaneBusy {
    pub(crate) behind: u32,
    pub(crate) age: Duration,
}

impl Lanes {
    /// Waits for the lane.
    pub(crate) async fn enter(
        &self,
        key: &str,
        timeout: Option<Duration>,
    ) -> Result<Permit, LaneBusy> {
        let state = self.state(key);
        let locked = state.lock.clone().lock_owned();
        let guard = match timeout {
            None => locked.await,
            Some(timeout) => match tokio::time::timeout(timeout, locked).await {
                Ok(guard) => guard,
                Err(_) => {
                    let holder = state.holder.lock().unwrap_or_else(PoisonError::into_inner);
                    let age = holder.since.map_or(timeout, |since| since.elapsed());
                    return Err(LaneBusy {
                        behind: holder.method,
                        age,
                    });
                }
            },
        };
        Ok(Permit {
            _guard: guard,
            state,
        })
    }

    fn state(&self, key: &str) -> Arc<LaneState> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(state) = lanes.get(key).and_then(Weak::upgrade) {
            return state;
        }
        // Lanes nobody uses any more go when as many new ones have come.
        if lanes.len() >= 64 && lanes.len().is_power_of_two() {
            lanes.retain(|_, state| state.strong_count() > 0);
        }
        let state = Arc::new(LaneState {
            lock: Arc::default(),
            holder: Mutex::default(),
        });
        lanes.insert(key.into(), Arc::downgrade(&state));
        state
    }
}
