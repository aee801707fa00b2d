//! The cluster as its master sees it: a pure, deterministic state machine.
//!
//! [`MasterState::apply`] takes one [`Event`] and appends what has to be done as [`Effect`]s. It does no
//! I/O, reads no clock, and draws all ids, uuids and shuffles from one seeded generator, so that equal
//! seeds and events give equal effects; a run can be recorded, replayed and compared.
//!
//! What it owns: frameworks, agents, offers, tasks, executors, and the ledger of who has which
//! resources. What it decides: everything but the order and size of offers, which an allocator proposes
//! ([`ledger`]). What it does not do: authorize (the lane has asked before), encode, wait.
//!
//! Invariants, checked by [`MasterState::check`]:
//! - on each agent, free + offered + used = total; offered is the sum of its open offers, used the sum
//!   of its tasks that are not terminal and of its executors;
//! - every open offer is of an active framework and an active agent;
//! - every task row is listed with its agent, and the other way round.

#![deny(clippy::disallowed_types)]

mod accept;
mod admission;
mod agent;
mod allocation;
mod calls;
mod changes;
mod check;
mod constraints;
mod counts;
mod effect;
mod event;
mod framework;
mod groups;
mod history;
mod inverse;
mod leaving;
mod ledger;
mod maintenance;
mod offers;
mod operations;
mod operators;
mod publish;
mod quota;
mod reconcile;
mod registry;
mod removal;
mod service;
mod settings;
mod status;
mod subscribe;
mod sync;
mod tasks;
mod timers;
mod told;
pub mod validate;
mod weights;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use tepui_model::allocation::{AgentKey, FrameworkKey, Quota};
use tepui_model::authorization::{Class, ClassKey};
use tepui_model::hash::{Map, Seed, Set};
use tepui_model::id::{AgentId, FrameworkId, Role, Uuid};
use tepui_model::resources::Quantities;
use tepui_model::rng::Rng;
use tepui_model::slots::Slots;
use tepui_model::time::{Mono, Now, Wall};
use tepui_view::{AgentRow, FrameworkView, OfferRow, OperationRow, Table};

pub use constraints::{Excluded, excluded};
pub use counts::{Counted, CountedFramework};
pub use effect::{Effect, Offers, Reply};
pub use event::{CallId, Entry, Event, OperatorCall, Refused, SessionKey, StoreId, StreamKey};
pub use operations::check_asked;
pub use settings::Settings;

use agent::{Agent, Session};
use allocation::Allocation;
use framework::Framework;
use operations::Operations;
use registry::Pending;
use timers::Timers;

/// The whole state of a leading master.
#[derive(Debug)]
pub struct MasterState {
    settings: Settings,
    master_id: String,
    rng: Rng,
    seed: Seed,
    /// Events applied so far; the version of the view.
    applied: u64,
    cluster_id: String,
    epoch: u64,
    elected: Option<Wall>,

    frameworks: BTreeMap<FrameworkKey, Framework>,
    framework_ids: Map<FrameworkId, FrameworkKey>,
    /// Frameworks with offer constraints.
    constrained: BTreeSet<FrameworkKey>,
    completed: VecDeque<Arc<FrameworkView>>,
    /// Ids of removed frameworks; more of them than are shown.
    removed_frameworks: Set<FrameworkId>,
    next_framework: u32,
    next_framework_key: u32,

    agents: Table<AgentKey, AgentRow>,
    agent_runs: Slots<AgentKey, Agent>,
    agent_ids: Map<AgentId, AgentKey>,
    /// Agents by the address that they said last.
    agents_at: Map<String, BTreeSet<AgentKey>>,
    sessions: BTreeMap<SessionKey, Session>,
    recovered: BTreeMap<AgentId, registry::Recovered>,
    /// How many agents the registry listed, until their time to come back is over.
    recovered_at_first: usize,
    removals: removal::Removals,
    /// Hosts that may be offered from; all without.
    whitelist: Option<BTreeSet<String>>,
    unreachable: BTreeMap<AgentId, Wall>,
    gone: BTreeMap<AgentId, Wall>,
    /// Agents that an operator took out of service.
    out_of_service: BTreeMap<AgentId, service::OutOfService>,
    /// Agents with a registry batch on its way that decides their fate.
    transitioning: BTreeSet<AgentId>,
    /// Addresses of new agents whose records are being written.
    admitting: BTreeSet<String>,
    next_agent: u64,
    next_agent_key: u32,
    /// Sessions that are synced.
    synced_count: usize,
    /// Sessions that wait for their admission.
    queued_count: usize,
    queue: admission::Queue,
    /// Grows when the recovered, unreachable or gone agents change.
    globals_version: u64,

    weights: BTreeMap<Role, f64>,
    /// In the order in which they were set first.
    quotas: Map<Role, Quota>,
    /// What is reserved on all agents, by role.
    reserved: BTreeMap<Role, Quantities>,
    machines: maintenance::Machines,
    inverse: inverse::Inverse,
    changes: changes::Changes,

    offers: Table<u64, OfferRow>,
    next_offer: u64,
    operation_rows: Table<Uuid, OperationRow>,
    operations: Operations,

    streams: BTreeMap<StreamKey, FrameworkKey>,
    next_stream: u64,

    stores: BTreeMap<StoreId, Pending>,
    next_store: u64,

    /// Operators that ever subscribed.
    watchers: u64,
    /// Somebody may read the events of operators: only then they are made.
    watched: bool,

    allocation: Allocation,
    timers: Timers,
    classes: Vec<Arc<Class>>,
    class_keys: Map<Class, ClassKey>,
    published: publish::Published,
    counts: counts::Counts,
    completed_counts: VecDeque<CountedFramework>,
    stopped: bool,
}

impl MasterState {
    /// State of a master that has just been elected. The first event must be [`Event::Recovered`].
    pub fn new(settings: Settings) -> Self {
        let mut rng = Rng::new(settings.seed);
        let seed = rng.seed();
        let master_id = if settings.master_id.is_empty() {
            rng.uuid().to_string()
        } else {
            settings.master_id.clone()
        };
        Self {
            master_id,
            rng,
            seed,
            applied: 0,
            cluster_id: String::new(),
            epoch: 0,
            elected: None,
            frameworks: BTreeMap::new(),
            framework_ids: Map::with_hasher(seed),
            constrained: BTreeSet::new(),
            completed: VecDeque::new(),
            removed_frameworks: Set::with_hasher(seed),
            next_framework: 0,
            next_framework_key: 0,
            agents: Table::new(seed),
            agent_runs: Slots::default(),
            agent_ids: Map::with_hasher(seed),
            agents_at: Map::with_hasher(seed),
            sessions: BTreeMap::new(),
            recovered: BTreeMap::new(),
            recovered_at_first: 0,
            removals: removal::Removals::default(),
            whitelist: None,
            unreachable: BTreeMap::new(),
            gone: BTreeMap::new(),
            out_of_service: BTreeMap::new(),
            transitioning: BTreeSet::new(),
            admitting: BTreeSet::new(),
            next_agent: 0,
            next_agent_key: 0,
            synced_count: 0,
            queued_count: 0,
            queue: admission::Queue::default(),
            globals_version: 0,
            weights: BTreeMap::new(),
            quotas: Map::with_hasher(seed),
            reserved: BTreeMap::new(),
            machines: maintenance::Machines::default(),
            inverse: inverse::Inverse::default(),
            changes: changes::Changes::default(),
            offers: Table::new(seed),
            next_offer: 0,
            operation_rows: Table::new(seed),
            operations: Operations::default(),
            streams: BTreeMap::new(),
            next_stream: 0,
            stores: BTreeMap::new(),
            next_store: 0,
            watchers: 0,
            watched: false,
            allocation: Allocation::default(),
            timers: Timers::default(),
            classes: Vec::new(),
            class_keys: Map::with_hasher(seed),
            published: publish::Published::default(),
            counts: counts::Counts::default(),
            completed_counts: VecDeque::new(),
            stopped: false,
            settings,
        }
    }

    /// Id of this master run.
    pub fn master_id(&self) -> &str {
        &self.master_id
    }

    /// Number of events applied: a view with this version contains all of them.
    pub fn version(&self) -> u64 {
        self.applied
    }

    /// Operators that ever subscribed.
    pub fn watchers(&self) -> u64 {
        self.watchers
    }

    /// Applies one event and appends its effects, in order.
    pub fn apply(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        if self.stopped {
            return;
        }
        self.applied += 1;
        self.fire(now, effects);
        self.dispatch(event, now, effects);
        self.end_drains(effects);
        self.admit_queued(now, effects);
        self.flush_allocation(now, effects);
    }

    fn dispatch(&mut self, event: Event, now: Now, effects: &mut Vec<Effect>) {
        match event {
            Event::Recovered {
                cluster_id,
                epoch,
                entries,
            } => self.recover(cluster_id, epoch, entries, now, effects),
            Event::Subscribe {
                call,
                principal,
                request,
                refused,
            } => self.subscribe(call, principal, request.0, refused, now, effects),
            Event::SchedulerCall {
                call,
                principal,
                stream_id,
                request,
                refused,
            } => {
                let reply =
                    self.scheduler_call(principal, &stream_id, request.0, &refused, now, effects);
                effects.push(Effect::Reply { call, reply });
            }
            Event::StreamClosed { stream } => self.stream_closed(stream, now),
            Event::AgentHello {
                session,
                principal: _,
                hello,
            } => self.agent_hello(session, hello.0, now, effects),
            Event::AgentSynced {
                session,
                sync,
                resource_version,
            } => self.agent_synced(session, sync.0, resource_version, now, effects),
            Event::AgentUpdates { session, updates } => {
                self.agent_updates(session, updates.0, now, effects)
            }
            Event::AgentOperationUpdate { session, update } => {
                self.operation_updated(session, update.0, now, effects)
            }
            Event::AgentExecutorEnded { session, ended } => {
                self.executor_ended(session, ended.0, now, effects)
            }
            Event::AgentExecutorMessage { session, message } => {
                self.executor_message(session, message.0, effects)
            }
            Event::AgentResources { session, resources } => {
                self.agent_resources(session, resources.0, now, effects)
            }
            Event::AgentUnregister { session } => self.agent_unregister(session, now, effects),
            Event::AgentClosed { session } => self.agent_closed(session, now, effects),
            Event::AgentSilent { session } => self.agent_silent(session, now, effects),
            Event::Proposals { round, proposals } => self.proposals(round, proposals, now, effects),
            Event::AllocatorRestarted => self.tell_everything(),
            Event::Stored { id } => self.stored(id, now, effects),
            Event::StoreFailed { id, message } => {
                self.stores.remove(&id);
                self.stopped = true;
                effects.push(Effect::StepDown {
                    reason: format!("cannot write to the registry: {message}"),
                });
            }
            Event::Operator {
                call,
                principal,
                request,
                class,
            } => {
                let principal = principal.as_deref();
                let reply = self.operator_call(call, principal, request, class, now, effects);
                if let Some(reply) = reply {
                    effects.push(Effect::Reply { call, reply });
                }
            }
            Event::Whitelist { hostnames } => self.set_whitelist(hostnames),
            Event::Watched => {
                self.watchers += 1;
                self.watched = true;
            }
            Event::Unwatched { watchers } => self.watched &= watchers != self.watchers,
            Event::Tick => {}
        }
    }

    /// Next time at which `apply` must be called, with [`Event::Tick`] if nothing else happens.
    pub fn next_deadline(&self) -> Option<Mono> {
        match (self.timers.next(), self.allocation.next_round()) {
            (Some(timer), Some(batch)) => Some(timer.min(batch)),
            (timer, batch) => timer.or(batch),
        }
    }

    /// Key of a visibility class, made when it is new.
    fn class_key(&mut self, class: Class) -> ClassKey {
        if let Some(key) = self.class_keys.get(&class) {
            return *key;
        }
        let key = ClassKey(self.classes.len() as u32);
        self.classes.push(Arc::new(class.clone()));
        self.class_keys.insert(class, key);
        key
    }
}
