//! Frameworks: subscribing, failing over, disconnecting, being removed.
//!
//! Mirrors `Master::subscribe`, `Master::failoverFramework`, `Master::exited` and
//! `Master::removeFramework` of Mesos 1.11 (src/master/master.cpp).

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tepui_model::allocation::{AgentKey, Fact, FilterScope, FrameworkKey};
use tepui_model::authorization::{Class, ClassKey};
use tepui_model::hash::Seed;
use tepui_model::id::{ExecutorId, FrameworkId, Role, TaskId, Uuid};
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::Wire;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::framework_info::capability::Type as Capability;
use tepui_proto::v1::{self, FrameworkInfo, TaskState, scheduler, task_status};
use tepui_view::{DoneRow, ExecutorRow, FrameworkRow, FrameworkView, Table, TaskRow};

use crate::constraints::Constraints;
use crate::counts::FrameworkCounts;
use crate::effect::bytes_of;
use crate::event::StreamKey;
use crate::history::History;
use crate::ledger::Tally;
use crate::status::{self, MasterStatus};
use crate::timers::Timer;
use crate::{Effect, MasterState, Reply, validate};

/// Where a framework is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Connected, gets offers.
    Active,
    /// Its scheduler is away since then.
    Disconnected(Mono),
    /// Known only from agents since the failover.
    Recovered,
}

/// What a framework can handle, from its capabilities.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Can {
    pub(crate) partitions: bool,
    pub(crate) many_roles: bool,
    pub(crate) refinement: bool,
    pub(crate) sharing: bool,
}

impl Can {
    fn of(info: &FrameworkInfo) -> Self {
        let has = |wanted| {
            info.capabilities
                .iter()
                .any(|capability| capability.r#type() == wanted && capability.r#type.is_some())
        };
        Self {
            partitions: has(Capability::PartitionAware),
            many_roles: has(Capability::MultiRole),
            refinement: has(Capability::ReservationRefinement),
            sharing: has(Capability::SharedResources),
        }
    }
}

/// A scheduler's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) id: Uuid,
}

/// A framework and all that is its own.
#[derive(Debug)]
pub(crate) struct Framework {
    pub(crate) key: FrameworkKey,
    pub(crate) id: FrameworkId,
    pub(crate) info: FrameworkInfo,
    pub(crate) class: ClassKey,
    /// Classes of what it ran lately, by user and role.
    pub(crate) task_classes: VecDeque<(String, String, ClassKey)>,
    pub(crate) can: Can,
    pub(crate) standing: Standing,
    pub(crate) stream: Option<Stream>,
    pub(crate) roles: BTreeSet<Role>,
    pub(crate) suppressed: BTreeSet<Role>,
    pub(crate) constraints: Option<scheduler::OfferConstraints>,
    /// The same, compiled.
    pub(crate) excluding: Constraints,
    pub(crate) registered: Wall,
    pub(crate) reregistered: Option<Wall>,
    pub(crate) unregistered: Option<Wall>,
    pub(crate) tasks: Table<TaskId, TaskRow>,
    pub(crate) unreachable: Table<TaskId, DoneRow>,
    pub(crate) completed: History,
    pub(crate) executors: Table<(AgentKey, ExecutorId), ExecutorRow>,
    pub(crate) offers: BTreeSet<u64>,
    pub(crate) used: Tally,
    pub(crate) offered: Tally,
    pub(crate) counts: FrameworkCounts,
    /// Grows with changes outside the tables.
    pub(crate) version: u64,
    pub(crate) published: Option<(u64, Arc<FrameworkView>)>,
}

impl Framework {
    fn new(key: FrameworkKey, id: FrameworkId, seed: Seed) -> Self {
        Self {
            key,
            id,
            info: FrameworkInfo::default(),
            class: ClassKey(0),
            task_classes: VecDeque::new(),
            can: Can::default(),
            standing: Standing::Recovered,
            stream: None,
            roles: BTreeSet::new(),
            suppressed: BTreeSet::new(),
            constraints: None,
            excluding: Constraints::default(),
            registered: Wall::default(),
            reregistered: None,
            unregistered: None,
            tasks: Table::new(seed),
            unreachable: Table::new(seed),
            completed: History::new(seed),
            executors: Table::new(seed),
            offers: BTreeSet::new(),
            used: Tally::default(),
            offered: Tally::default(),
            counts: FrameworkCounts::default(),
            version: 0,
            published: None,
        }
    }

    /// Sends an event, if a scheduler is there.
    pub(crate) fn send(&self, event: scheduler::Event, effects: &mut Vec<Effect>) {
        if let Some(stream) = self.stream {
            self.counts.event(event.r#type());
            effects.push(Effect::ToScheduler {
                stream: stream.key,
                event: Wire(event),
            });
        }
    }

    /// The state that a framework without PARTITION_AWARE is told instead.
    pub(crate) fn spoken(&self, state: TaskState) -> TaskState {
        match state {
            TaskState::TaskDropped
            | TaskState::TaskUnreachable
            | TaskState::TaskGone
            | TaskState::TaskGoneByOperator
            | TaskState::TaskUnknown
                if !self.can.partitions =>
            {
                TaskState::TaskLost
            }
            other => other,
        }
    }

    pub(crate) fn proto_id(&self) -> v1::FrameworkId {
        v1::FrameworkId {
            value: self.id.to_string(),
        }
    }

    /// Whether an id is free: not of a task that runs, or may come back.
    pub(crate) fn is_new_task(&self, task: &v1::TaskInfo) -> Result<(), String> {
        let id = TaskId::from(task.task_id.value.as_str());
        if self.tasks.contains(&id) || self.unreachable.contains(&id) {
            return Err(format!("Task has duplicate ID: {id}"));
        }
        Ok(())
    }

    pub(crate) fn is_active(&self) -> bool {
        self.standing == Standing::Active
    }

    pub(crate) fn row(&self) -> FrameworkRow {
        FrameworkRow {
            key: self.key,
            id: self.id.clone(),
            class: self.class,
            info: bytes_of(&self.info),
            active: self.is_active(),
            connected: self.stream.is_some(),
            recovered: self.standing == Standing::Recovered,
            registered: self.registered,
            reregistered: self.reregistered,
            unregistered: self.unregistered,
            roles: self.roles.iter().cloned().collect(),
            suppressed: self.suppressed.iter().cloned().collect(),
            constraints: self.constraints.as_ref().map(bytes_of),
            used: self.used.total(),
            offered: self.offered.total(),
        }
    }
}

/// `failover_timeout`; negative ones are taken as none, as recorded.
fn failover(info: &FrameworkInfo) -> Duration {
    let seconds = info.failover_timeout.unwrap_or(0.0);
    if seconds.is_finite() && seconds > 0.0 {
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    } else {
        Duration::ZERO
    }
}

/// Roles of a framework: `roles`, or the old `role`.
fn roles_of(info: &FrameworkInfo, can: Can) -> BTreeSet<Role> {
    if can.many_roles {
        info.roles
            .iter()
            .map(|role| Role::from(role.as_str()))
            .collect()
    } else {
        BTreeSet::from([Role::from(info.role())])
    }
}

impl MasterState {
    /// Makes a framework's row; its info is set afterwards.
    pub(crate) fn new_framework(&mut self, id: FrameworkId) -> FrameworkKey {
        let key = FrameworkKey(self.next_framework_key);
        self.next_framework_key += 1;
        let framework = Framework::new(key, id.clone(), self.seed);
        self.frameworks.insert(key, framework);
        self.framework_ids.insert(id, key);
        key
    }

    /// Takes over an info that was checked, with its id put in.
    pub(crate) fn set_framework_info(
        &mut self,
        key: FrameworkKey,
        mut info: FrameworkInfo,
        suppressed: BTreeSet<Role>,
        constraints: Option<scheduler::OfferConstraints>,
    ) {
        let framework = &self.frameworks[&key];
        info.id = Some(framework.proto_id());
        let can = Can::of(&info);
        let roles = roles_of(&info, can);
        let class = self.class_key(Class {
            principal: info.principal.clone(),
            user: info.user.clone(),
            task_user: info.user.clone(),
            roles: roles.iter().map(ToString::to_string).collect(),
        });
        let framework = self.frameworks.get_mut(&key).expect("framework exists");
        framework.info = info;
        framework.can = can;
        framework.roles = roles;
        framework.suppressed = suppressed;
        framework.excluding = constraints
            .as_ref()
            .map_or_else(Constraints::default, Constraints::of);
        framework.constraints = constraints;
        framework.class = class;
        framework.task_classes.clear();
        framework.version += 1;
        if framework.constraints.is_some() {
            self.constrained.insert(key);
        } else {
            self.constrained.remove(&key);
        }
    }

    /// The scheduler's connection ended: no offers until it is back, and only so long.
    pub(crate) fn stream_closed(&mut self, stream: StreamKey, now: Now) {
        let Some(key) = self.streams.remove(&stream) else {
            return;
        };
        let framework = self.frameworks.get_mut(&key).expect("streams have owners");
        framework.stream = None;
        framework.standing = Standing::Disconnected(now.mono);
        framework.version += 1;
        let wait = failover(&framework.info);
        self.allocation.tell(Fact::FrameworkActive(key, false));
        self.discard_offers_of_framework(key, now);
        self.timers
            .set(now.mono + wait, Timer::Failover(key, now.mono));
    }

    pub(crate) fn failover_timeout(
        &mut self,
        key: FrameworkKey,
        since: Mono,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let waiting = self
            .frameworks
            .get(&key)
            .is_some_and(|framework| framework.standing == Standing::Disconnected(since));
        if waiting {
            self.remove_framework(key, now, effects);
        }
    }

    /// Ends a framework: its tasks, executors and offers go, its agents are told, history keeps it.
    pub(crate) fn remove_framework(
        &mut self,
        key: FrameworkKey,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.discard_offers_of_framework(key, now);
        self.shut_down_on_agents(key, effects);
        self.kill_all_tasks(key, now, effects);
        self.remove_all_executors(key, now);
        let mut framework = self.frameworks.remove(&key).expect("caller found it");
        self.framework_ids.swap_remove(&framework.id);
        self.constrained.remove(&key);
        if let Some(stream) = framework.stream.take() {
            effects.push(Effect::CloseStream { stream: stream.key });
            self.streams.remove(&stream.key);
        }
        framework.standing = Standing::Disconnected(now.mono);
        framework.unregistered = Some(now.wall);
        self.allocation.forget_framework(key);
        self.forget_inverse_framework(key);
        self.allocation.tell(Fact::FrameworkRemoved(key));
        effects.extend(self.operators_framework_removed(&framework));
        self.keep_counts(&framework);
        let view = self.framework_view(&mut framework);
        self.completed.push_back(view);
        while self.completed.len() > self.settings.max_completed_frameworks {
            self.completed.pop_front();
        }
        // More ids than rows: an agent may come back late with tasks of a removed framework.
        let id = framework.id;
        self.removed_frameworks.insert(id.clone());
        self.release_operations(&id, effects);
        if self.removed_frameworks.len() > 100_000 {
            self.removed_frameworks.shift_remove_index(0);
        }
    }

    fn shut_down_on_agents(&mut self, key: FrameworkKey, effects: &mut Vec<Effect>) {
        let framework = &self.frameworks[&key];
        let agents: BTreeSet<AgentKey> = framework
            .tasks
            .iter()
            .map(|task| task.agent)
            .chain(framework.executors.iter().map(|executor| executor.agent))
            .collect();
        let id = framework.proto_id();
        for agent in agents {
            self.to_agent(
                agent,
                Body::ShutdownFramework(link::ShutdownFramework {
                    framework_id: Some(id.clone()),
                }),
                effects,
            );
        }
    }

    fn kill_all_tasks(&mut self, key: FrameworkKey, now: Now, effects: &mut Vec<Effect>) {
        let tasks: Vec<TaskId> = self.frameworks[&key]
            .tasks
            .iter()
            .map(|task| task.id.clone())
            .collect();
        for id in tasks {
            let task = self.frameworks[&key].tasks.get(&id).expect("just listed");
            // Also of tasks that have ended and whose end was not acknowledged; their state stays.
            let status = status::by_master(
                MasterStatus {
                    task: &id,
                    state: TaskState::TaskKilled,
                    reason: task_status::Reason::FrameworkRemoved,
                    message: format!("Framework {} removed", self.frameworks[&key].id),
                    agent: self.agents.get(&task.agent).map(|agent| &agent.id),
                },
                now,
            );
            self.set_task_status(key, &id, TaskState::TaskKilled, &status, now, effects);
            self.remove_task(key, &id, now);
        }
    }

    fn remove_all_executors(&mut self, key: FrameworkKey, now: Now) {
        let executors: Vec<(AgentKey, ExecutorId)> = self.frameworks[&key]
            .executors
            .iter()
            .map(|executor| (executor.agent, executor.id.clone()))
            .collect();
        for (agent, id) in executors {
            self.remove_executor(key, agent, &id, now);
        }
    }

    /// The framework is back: its agents resend at once what it has not acknowledged.
    pub(crate) fn resend_updates(&mut self, key: FrameworkKey, effects: &mut Vec<Effect>) {
        let framework = &self.frameworks[&key];
        let with_tasks = framework.tasks.iter().map(|task| task.agent);
        let operations = self.operation_rows.iter();
        let own = operations.filter(|row| row.framework.as_ref() == Some(&framework.id));
        let agents: BTreeSet<AgentKey> = with_tasks.chain(own.map(|row| row.agent)).collect();
        let id = framework.proto_id();
        for agent in agents {
            self.to_agent(
                agent,
                Body::ResendUpdates(link::ResendUpdates {
                    framework_id: Some(id.clone()),
                }),
                effects,
            );
        }
    }

    /// Whether all roles are on the list of those that there are.
    pub(crate) fn may_have_roles(&self, info: &FrameworkInfo) -> Result<(), String> {
        let Some(known) = &self.settings.roles else {
            return Ok(());
        };
        let roles = roles_of(info, Can::of(info));
        let unknown: Vec<&str> = roles
            .iter()
            .map(Role::as_str)
            .filter(|role| *role != "*" && !known.contains(*role))
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(format!(
            "Roles '{}' are not present in the master's --roles",
            unknown.join(", ")
        ))
    }

    /// UPDATE_FRAMEWORK: 200, or 400 with the reason.
    pub(crate) fn update_framework(
        &mut self,
        key: FrameworkKey,
        call: scheduler::call::UpdateFramework,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Reply {
        let framework = &self.frameworks[&key];
        let mut info = call.framework_info;
        let checked = validate::framework_info(&info)
            .and_then(|()| self.may_have_roles(&info))
            .and_then(|()| validate::framework_update(&framework.info, &info))
            .and_then(|()| validate::suppressed_roles(&info, &call.suppressed_roles))
            .and_then(|()| match &call.offer_constraints {
                Some(constraints) => validate::offer_constraints(constraints),
                None => Ok(()),
            });
        if let Err(message) = checked {
            return Reply::BadRequest(message);
        }
        if info.principal.is_none() {
            info.principal = framework.info.principal.clone();
        }
        let suppressed = call
            .suppressed_roles
            .iter()
            .map(|role| Role::from(role.as_str()))
            .collect();
        let changed = framework.info != info;
        self.change_framework(key, info, suppressed, call.offer_constraints);
        self.rescind_foreign_roles(key, now, effects);
        self.tell_framework(key, false);
        // Neither agents nor operators are told of suppressed roles and offer constraints.
        if changed {
            self.framework_changed_on_agents(key, effects);
            self.operators_framework(key, false, effects);
        }
        Reply::Ok
    }

    /// Another info for a framework that is known; the allocator is to be told. What it refused for roles that it left is forgotten, and
    /// roles that it wants offers for again are revived.
    pub(crate) fn change_framework(
        &mut self,
        key: FrameworkKey,
        info: FrameworkInfo,
        suppressed: BTreeSet<Role>,
        constraints: Option<scheduler::OfferConstraints>,
    ) {
        let framework = &self.frameworks[&key];
        let (old_roles, old_suppressed) = (framework.roles.clone(), framework.suppressed.clone());
        let constrained = framework.constraints != constraints;
        self.set_framework_info(key, info, suppressed, constraints);
        let framework = &self.frameworks[&key];
        let left = old_roles.difference(&framework.roles);
        let wanted =
            |role: &&Role| framework.roles.contains(*role) && !framework.suppressed.contains(*role);
        let revived: Vec<Role> = old_suppressed.iter().filter(wanted).cloned().collect();
        let unfiltered: Vec<Role> = left.chain(&revived).cloned().collect();
        if constrained {
            // Agents that were excluded are told as filtered: all of a framework's filters end.
            self.allocation.clear_filters(key, &[]);
            self.allocation.tell(Fact::FiltersCleared(FilterScope {
                framework: Some(key),
                ..FilterScope::default()
            }));
            self.allocation.want_all();
        } else if !unfiltered.is_empty() {
            self.allocation.clear_filters(key, &unfiltered);
        }
        if !revived.is_empty() {
            self.allocation.want_all();
        }
    }

    /// Agents that have something of the framework get its new info; the others have forgotten it.
    fn framework_changed_on_agents(&mut self, key: FrameworkKey, effects: &mut Vec<Effect>) {
        let info = self.frameworks[&key].info.clone();
        let agents: Vec<AgentKey> = self
            .agent_runs
            .iter()
            .filter(|(_, agent)| agent.told.contains(&key) && agent.has_of(key))
            .map(|(agent, _)| agent)
            .collect();
        for agent in agents {
            self.to_agent(
                agent,
                Body::Framework(link::Framework {
                    info: Some(info.clone()),
                }),
                effects,
            );
        }
    }

    /// Frameworks' counters are kept beside the tables.
    pub(crate) fn touch(&mut self, key: FrameworkKey) -> &mut Framework {
        let framework = self.frameworks.get_mut(&key).expect("framework exists");
        framework.version += 1;
        framework
    }
}
