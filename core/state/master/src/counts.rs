//! Numbers for metrics: how often something has happened since this master was elected.
//!
//! Counting decides nothing, so it does not change the state: a number can be raised through a
//! shared reference, and no effect depends on one.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tepui_model::id::{FrameworkId, Role};
use tepui_proto::v1::task_status::{Reason, Source};
use tepui_proto::v1::{OperationState, TaskState, TaskStatus, offer, scheduler};

use crate::MasterState;
use crate::framework::Framework;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What is counted once for the whole master.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Count { $($(#[$doc])* $name,)* }

        /// Names of the counts, as Mesos' metrics have them below `master/`.
        const NAMES: &[&str] = &[$($text,)*];
    };
}

counts! {
    SubscribedNew = "messages_register_framework",
    SubscribedAgain = "messages_reregister_framework",
    Teardown = "messages_unregister_framework",
    Kill = "messages_kill_task",
    Acknowledge = "messages_status_update_acknowledgement",
    Request = "messages_resource_request",
    Launch = "messages_launch_tasks",
    Decline = "messages_decline_offers",
    Revive = "messages_revive_offers",
    Suppress = "messages_suppress_offers",
    ReconcileOperations = "messages_reconcile_operations",
    Reconcile = "messages_reconcile_tasks",
    ToExecutor = "messages_framework_to_executor",
    AcknowledgeOperation = "messages_operation_status_update_acknowledgement",
    FromExecutor = "messages_executor_to_framework",
    AgentNew = "messages_register_slave",
    AgentAgain = "messages_reregister_slave",
    AgentUnregister = "messages_unregister_slave",
    Update = "messages_status_update",
    OperationUpdate = "messages_operation_status_update",
    ValidOperationUpdate = "valid_operation_status_updates",
    InvalidOperationUpdate = "invalid_operation_status_updates",
    ValidOperationAcknowledge = "valid_operation_status_update_acknowledgements",
    InvalidOperationAcknowledge = "invalid_operation_status_update_acknowledgements",
    ExecutorEnded = "messages_exited_executor",
    AgentSynced = "messages_update_slave",
    ValidToExecutor = "valid_framework_to_executor_messages",
    InvalidToExecutor = "invalid_framework_to_executor_messages",
    ValidFromExecutor = "valid_executor_to_framework_messages",
    InvalidFromExecutor = "invalid_executor_to_framework_messages",
    ValidUpdate = "valid_status_updates",
    InvalidUpdate = "invalid_status_updates",
    ValidAcknowledge = "valid_status_update_acknowledgements",
    InvalidAcknowledge = "invalid_status_update_acknowledgements",
    /// Agents that the registry listed and that did not come back after the election.
    RecoveryRemovals = "recovery_slave_removals",
    Registered = "slave_registrations",
    Reregistered = "slave_reregistrations",
    Removed = "slave_removals",
    RemovedUnhealthy = "slave_removals/reason_unhealthy",
    RemovedUnregistered = "slave_removals/reason_unregistered",
    /// Another agent came at the address of one that was away.
    RemovedRegistered = "slave_removals/reason_registered",
    UnreachableScheduled = "slave_unreachable_scheduled",
    /// It came back while it waited for its turn.
    UnreachableCanceled = "slave_unreachable_canceled",
    UnreachableCompleted = "slave_unreachable_completed",
}

/// A number that grows through a shared reference.
type Number = Cell<u64>;

fn add(number: &Number, n: u64) {
    number.set(number.get() + n);
}

/// A number for each value of a protobuf enum. What a newer release knows beyond it is not counted.
#[derive(Clone, Debug)]
struct Each<const N: usize>([Number; N]);

impl<const N: usize> Default for Each<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Number::default()))
    }
}

impl<const N: usize> Each<N> {
    fn add(&self, kind: i32) {
        if let Some(number) = usize::try_from(kind).ok().and_then(|at| self.0.get(at)) {
            add(number, 1);
        }
    }

    fn values(&self) -> Vec<u64> {
        self.0.iter().map(Number::get).collect()
    }
}

/// Numbers of the master.
#[derive(Debug)]
pub(crate) struct Counts {
    master: [Number; NAMES.len()],
    ended: Each<{ TaskState::TaskUnknown as usize + 1 }>,
    reasons: RefCell<BTreeMap<(TaskState, i32, i32), u64>>,
    principals: RefCell<BTreeMap<String, u64>>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            master: std::array::from_fn(|_| Number::default()),
            ended: Each::default(),
            reasons: RefCell::default(),
            principals: RefCell::default(),
        }
    }
}

impl Counts {
    pub(crate) fn add(&self, count: Count) {
        add(&self.master[count as usize], 1);
    }

    /// `valid` or `invalid`.
    pub(crate) fn judge(&self, valid: bool, good: Count, bad: Count) {
        self.add(if valid { good } else { bad });
    }

    /// A call of a framework with this principal.
    pub(crate) fn principal(&self, principal: &str) {
        let mut principals = self.principals.borrow_mut();
        match principals.get_mut(principal) {
            Some(number) => *number += 1,
            None => {
                principals.insert(principal.to_owned(), 1);
            }
        }
    }
}

/// Numbers of a framework.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameworkCounts {
    calls: Each<{ scheduler::call::Type::UpdateFramework as usize + 1 }>,
    events: Each<{ scheduler::event::Type::UpdateOperationStatus as usize + 1 }>,
    operations: Each<{ offer::operation::Type::DestroyDisk as usize + 1 }>,
    ended: Each<{ TaskState::TaskUnknown as usize + 1 }>,
    offers: [Number; 4],
}

/// What becomes of offers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offers {
    Sent,
    Accepted,
    Declined,
    Rescinded,
}

impl FrameworkCounts {
    pub(crate) fn call(&self, kind: scheduler::call::Type) {
        self.calls.add(kind as i32);
    }

    pub(crate) fn event(&self, kind: scheduler::event::Type) {
        self.events.add(kind as i32);
    }

    pub(crate) fn operation(&self, kind: offer::operation::Type) {
        self.operations.add(kind as i32);
    }

    pub(crate) fn offers(&self, what: Offers, n: usize) {
        add(&self.offers[what as usize], n as u64);
    }

    fn counted(&self, id: &FrameworkId, name: &str) -> CountedFramework {
        let offer = |what: Offers| self.offers[what as usize].get();
        CountedFramework {
            id: id.clone(),
            name: name.to_owned(),
            calls: self.calls.values(),
            events: self.events.values(),
            operations: self.operations.values(),
            ended: self.ended.values(),
            offers_sent: offer(Offers::Sent),
            offers_accepted: offer(Offers::Accepted),
            offers_declined: offer(Offers::Declined),
            offers_rescinded: offer(Offers::Rescinded),
        }
    }
}

/// A copy of all numbers.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// By the names that Mesos' metrics have below `master/`.
    pub master: Vec<(&'static str, u64)>,
    /// Tasks that ended, indexed by the number of their `TaskState`.
    pub ended: Vec<u64>,
    /// Tasks that ended with a reason, by state, source and reason.
    pub reasons: Vec<(TaskState, Source, Reason, u64)>,
    /// Calls of frameworks that have a principal.
    pub principals: BTreeMap<String, u64>,
    /// Operations on resources: how many ended in a state, or are in it now, by type.
    pub operations: Vec<(offer::operation::Type, OperationState, u64)>,
    /// Filters that are in effect, by role.
    pub filters: BTreeMap<Role, u64>,
    /// Of each framework that is known, or completed and not forgotten.
    pub frameworks: Vec<CountedFramework>,
}

/// The numbers of one framework.
#[derive(Clone, Debug)]
pub struct CountedFramework {
    /// Its id.
    pub id: FrameworkId,
    /// Its name.
    pub name: String,
    /// Calls, indexed by the number of `scheduler.Call.Type`.
    pub calls: Vec<u64>,
    /// Events sent, indexed by the number of `scheduler.Event.Type`.
    pub events: Vec<u64>,
    /// Operations accepted (of a LAUNCH: its tasks), indexed by the number of `Offer.Operation.Type`.
    pub operations: Vec<u64>,
    /// Tasks that ended, indexed by the number of their `TaskState`.
    pub ended: Vec<u64>,
    /// Offers that it got.
    pub offers_sent: u64,
    /// Offers that it used.
    pub offers_accepted: u64,
    /// Offers that it gave back.
    pub offers_declined: u64,
    /// Offers that were taken away from it.
    pub offers_rescinded: u64,
}

impl MasterState {
    /// A copy of all numbers, for metrics.
    pub fn counted(&self) -> Counted {
        let counts = &self.counts;
        let names = NAMES.iter().copied();
        let reasons = counts.reasons.borrow();
        let live = self.frameworks.values();
        let live = live.map(|framework| {
            framework
                .counts
                .counted(&framework.id, &framework.info.name)
        });
        Counted {
            master: names.zip(counts.master.iter().map(Number::get)).collect(),
            ended: counts.ended.values(),
            reasons: reasons
                .iter()
                .map(|((state, source, reason), n)| {
                    let source = Source::try_from(*source).unwrap_or_default();
                    (
                        *state,
                        source,
                        Reason::try_from(*reason).unwrap_or_default(),
                        *n,
                    )
                })
                .collect(),
            principals: counts.principals.borrow().clone(),
            operations: self.counted_operations(),
            filters: self.allocation.filters_by_role(),
            frameworks: self.completed_counts.iter().cloned().chain(live).collect(),
        }
    }

    /// A task has ended, or was refused.
    pub(crate) fn count_end(&self, framework: &Framework, state: TaskState, status: &TaskStatus) {
        if !state.is_terminal() {
            return;
        }
        framework.counts.ended.add(state as i32);
        self.counts.ended.add(state as i32);
        // As in Mesos, an end without a reason is in the sums only.
        if let (Some(source), Some(reason)) = (status.source, status.reason) {
            let mut reasons = self.counts.reasons.borrow_mut();
            *reasons.entry((state, source, reason)).or_default() += 1;
        }
    }

    /// Keeps the numbers of a framework that is completed as long as its row.
    pub(crate) fn keep_counts(&mut self, framework: &Framework) {
        let counted = framework
            .counts
            .counted(&framework.id, &framework.info.name);
        self.completed_counts.push_back(counted);
        while self.completed_counts.len() > self.settings.max_completed_frameworks {
            self.completed_counts.pop_front();
        }
    }
}
