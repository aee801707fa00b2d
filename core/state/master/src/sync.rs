//! What an agent tells when its session begins, compared with what the master knows.
//!
//! The agent is right about what runs. Tasks that it lacks were never launched, or are gone; tasks that
//! the master lacks are taken over (after a failover, or back from an unreachable agent); commands that
//! may have been lost with the old session are sent again, launches never.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tepui_model::allocation::{AgentKey, Fact, FrameworkKey, Holding};
use tepui_model::id::{ExecutorId, FrameworkId, TaskId};
use tepui_model::resources::Resources;
use tepui_model::time::Now;
use tepui_proto::convert;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::{self, TaskState, task_status};
use tepui_view::{ExecutorRow, TaskRow};

use crate::allocation::Back;
use crate::counts::Count;
use crate::effect::bytes_of;
use crate::event::SessionKey;
use crate::status::{self, MasterStatus};
use crate::told::Told;
use crate::{Effect, MasterState};

type Reported = BTreeMap<(FrameworkKey, TaskId), Told>;

impl MasterState {
    pub(crate) fn agent_synced(
        &mut self,
        session: SessionKey,
        sync: link::Sync,
        resource_version: Bytes,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.agent_of(session) else {
            return;
        };
        if self.agent_runs[&key].synced {
            return;
        }
        let id = &self.agent_runs[&key].id;
        let told: Option<Vec<_>> = { sync.tasks.iter() }
            .map(|task| Told::read(&task.task, id))
            .collect();
        let (Ok(total), Some(told)) = (convert::resources(&sync.total), told) else {
            effects.push(Effect::CloseAgent { session });
            return self.agent_closed(session, now, effects);
        };
        self.counts.add(Count::AgentSynced);
        let first = !self.agent_runs[&key].announced;
        self.rescind_agent(key, now, effects);
        let ended = self.adopt_frameworks(&sync.frameworks, effects);
        self.begin_service(key, total, resource_version, first, now);
        self.sync_operations(key, sync.operations, effects);

        let reported = self.reported_tasks(told);
        self.drop_missing_tasks(key, &reported, now, effects);
        self.replace_executors(key, sync.executors, now);
        let mut taken = BTreeMap::new();
        for ((framework, id), task) in reported {
            self.adopt_task(key, framework, id, task, &mut taken, now, effects);
        }
        for (framework, resources) in taken {
            self.tell_taken(framework, key, &resources);
        }
        self.agent_runs
            .get_mut(&key)
            .expect("synced agent")
            .lost
            .clear();
        self.recount_free(key);
        self.repeat_commands(key, ended, effects);
        self.allocation.want(key);
        if first {
            effects.extend(self.operators_agent_added(key));
        }
    }

    /// Frameworks that only agents remember become known again; those that ended are returned.
    fn adopt_frameworks(
        &mut self,
        frameworks: &[link::SyncFramework],
        effects: &mut Vec<Effect>,
    ) -> Vec<FrameworkId> {
        let mut ended = Vec::new();
        for framework in frameworks {
            let Some(info) = &framework.info else {
                continue;
            };
            let id = info.id.as_ref().map_or("", |id| id.value.as_str());
            if framework.completed || id.is_empty() {
                continue;
            }
            if self.removed_frameworks.contains(id) {
                ended.push(FrameworkId::from(id));
            } else if !self.framework_ids.contains_key(id) {
                let key = self.new_framework(FrameworkId::from(id));
                self.set_framework_info(key, info.clone(), BTreeSet::new(), None);
                self.tell_framework(key, true);
                self.operators_framework(key, true, effects);
            }
        }
        ended
    }

    fn begin_service(
        &mut self,
        key: AgentKey,
        total: Resources,
        resource_version: Bytes,
        first: bool,
        now: Now,
    ) {
        self.set_total(key, total);
        let row = self.agents.get_mut(&key).expect("synced agent");
        row.active = !row.deactivated;
        row.resource_version = resource_version;
        if !first {
            row.reregistered = Some(now.wall);
        }
        let run = self.agent_runs.get_mut(&key).expect("synced agent");
        run.synced = true;
        run.known = true;
        self.synced_count += 1;
        self.tell_agent(key);
        if first && self.unavailability(key).is_some() {
            self.set_unavailable(key, true, now.mono);
        }
    }

    /// Those of known frameworks.
    fn reported_tasks(&self, told: Vec<(&str, Told)>) -> Reported {
        let known = told.into_iter().filter_map(|(framework, told)| {
            let framework = self.framework_ids.get(framework)?;
            Some(((*framework, told.id.clone()), told))
        });
        known.collect()
    }

    /// Tasks that the agent does not have: never launched, or gone with what the agent has lost.
    fn drop_missing_tasks(
        &mut self,
        key: AgentKey,
        reported: &Reported,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let missing: Vec<_> = self.agent_runs[&key]
            .tasks
            .iter()
            .filter(|task| !reported.contains_key(*task))
            .cloned()
            .collect();
        for (framework, id) in missing {
            let owner = &self.frameworks[&framework];
            let row = owner.tasks.get(&id).expect("listed tasks have rows");
            if row.terminal {
                self.say_ended(framework, &id, now, effects);
                self.remove_task(framework, &id, now);
                continue;
            }
            let state = if row.update.is_none() {
                TaskState::TaskDropped
            } else {
                TaskState::TaskGone
            };
            let said = owner.spoken(state);
            self.end_task(
                framework,
                &id,
                said,
                task_status::Reason::Reconciliation,
                "Reconciliation: Task is unknown to the agent".into(),
                now,
                effects,
            );
        }
    }

    /// The end of a task that was not acknowledged, and which its agent does not tell of any more (its machine was
    /// started anew, say): nobody else will. It is told once more and asks for no acknowledgement.
    fn say_ended(&self, framework: FrameworkKey, id: &TaskId, now: Now, effects: &mut Vec<Effect>) {
        let owner = &self.frameworks[&framework];
        let row = owner.tasks.get(id).expect("caller found it");
        let mut said = self.latest(row, now);
        said.state = row.state.into();
        owner.send(status::update_event(said), effects);
    }

    fn replace_executors(&mut self, key: AgentKey, executors: Vec<link::SyncExecutor>, now: Now) {
        let mut reported = BTreeMap::new();
        for executor in executors {
            let (Some(framework), Some(info)) = (executor.framework_id, executor.info) else {
                continue;
            };
            if let Some(framework) = self.framework_ids.get(framework.value.as_str()) {
                let id = ExecutorId::from(info.executor_id.value.as_str());
                reported.insert((*framework, id), info);
            }
        }
        let gone: Vec<_> = self.agent_runs[&key]
            .executors
            .iter()
            .filter(|executor| !reported.contains_key(*executor))
            .cloned()
            .collect();
        for (framework, id) in gone {
            self.remove_executor(framework, key, &id, now);
        }
        for ((framework, id), info) in reported {
            let owner = &self.frameworks[&framework];
            if !owner.executors.contains(&(key, id)) {
                let row = self.executor_row(framework, key, &info);
                self.tell_taken(framework, key, &row.resources);
                self.add_executor(framework, row);
            }
        }
    }

    /// Row of an executor whose info was checked, or came from an agent.
    pub(crate) fn executor_row(
        &mut self,
        framework: FrameworkKey,
        agent: AgentKey,
        info: &v1::ExecutorInfo,
    ) -> ExecutorRow {
        let resources = convert::resources(&info.resources).unwrap_or_default();
        let role = role_of(&resources);
        let user = info
            .command
            .as_ref()
            .and_then(|command| command.user.as_deref());
        ExecutorRow {
            id: ExecutorId::from(info.executor_id.value.as_str()),
            agent,
            agent_id: self.agent_runs[&agent].id.clone(),
            class: self.class_of(framework, user, &role),
            info: bytes_of(info),
            resources,
        }
    }

    pub(crate) fn tell_taken(
        &mut self,
        framework: FrameworkKey,
        agent: AgentKey,
        resources: &Resources,
    ) {
        for (role, part) in resources.allocations() {
            self.allocation.tell(Fact::Taken(Holding {
                framework,
                role,
                agent,
                resources: part.into_unallocated(),
            }));
        }
    }

    /// Takes a task over, unless it is known; what it uses is added to what its framework has taken.
    #[expect(clippy::too_many_arguments, reason = "one task of one event")]
    fn adopt_task(
        &mut self,
        agent: AgentKey,
        framework: FrameworkKey,
        id: TaskId,
        task: Told,
        taken: &mut BTreeMap<FrameworkKey, Resources>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = &self.frameworks[&framework];
        match owner.tasks.get(&id) {
            Some(row) if row.agent == agent => {
                return self.refresh_task(framework, &id, &task, now);
            }
            Some(_) => {
                // The framework has started it anew elsewhere since.
                return self.send_kill(framework, agent, &id, None, effects);
            }
            None => {}
        }
        let terminal = task.state.is_terminal();
        let agent_id = self.agent_runs[&agent].id.as_str();
        let was_ended = owner.completed.contains(&id, agent_id);
        if terminal && was_ended {
            return;
        }
        let was_lost = self.agent_runs[&agent]
            .lost
            .contains(&(framework, id.clone()));
        let was_unreachable = owner.unreachable.contains(&id);
        let row = self.row_of(agent, framework, task);
        if !row.terminal {
            // Each user of what is shared is told by itself.
            self.tell_taken(framework, agent, &row.resources.shared());
            *taken.entry(framework).or_default() += row.resources.non_shared();
        }
        self.add_task(row);
        if was_unreachable {
            self.touch(framework).unreachable.remove(&id);
        }
        if was_ended {
            // Its agent was removed (for another one at its address, say) and is back: so is the task.
            let agent_id = self.agent_runs[&agent].id.clone();
            let owner = self.touch(framework);
            owner.completed.remove(&id, agent_id.as_str());
        }
        if terminal || !(was_unreachable || was_ended || was_lost) {
            return;
        }
        self.say_reregistered(framework, &id, now, effects);
        if was_lost {
            // It was reported lost for good: its framework does not expect it any more.
            let run = self.agent_runs.get_mut(&agent).expect("synced agent");
            run.kills.insert((framework, id), None);
        }
    }

    fn say_reregistered(
        &mut self,
        framework: FrameworkKey,
        id: &TaskId,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = &self.frameworks[&framework];
        let row = owner.tasks.get(id).expect("just added");
        let status = status::by_master(
            MasterStatus {
                task: id,
                state: row.state,
                reason: task_status::Reason::AgentReregistered,
                message: "Unreachable agent re-reregistered".into(),
                agent: self.agents.get(&row.agent).map(|agent| &agent.id),
            },
            now,
        );
        owner.send(status::update_event(status.clone()), effects);
        let (class, state) = (row.class, row.state);
        effects.extend(self.operators_task_updated(framework, class, state, &status));
    }

    /// The agent's word on a task that is known: it may have ended meanwhile.
    fn refresh_task(&mut self, framework: FrameworkKey, id: &TaskId, task: &Told, now: Now) {
        let state = task.state;
        let owner = self.touch(framework);
        let row = owner.tasks.get_mut(id).expect("caller found it");
        if row.terminal || row.state == state {
            return;
        }
        row.state = state;
        if state.is_terminal() {
            row.terminal = true;
            let (agent, resources) = (row.agent, row.resources.clone());
            let said = task.last_status();
            self.count_end(&self.frameworks[&framework], state, &said);
            self.give_back(framework, agent, &resources);
            self.release(framework, agent, &resources, Back::Ended, now);
        }
    }

    fn row_of(&mut self, agent: AgentKey, framework: FrameworkKey, told: Told) -> TaskRow {
        // Generated executors are the agent's own business: masters do not name them.
        let executors = &self.frameworks[&framework].executors;
        let named = |id: &ExecutorId| executors.contains(&(agent, id.clone()));
        let executor = told.executor.clone().filter(named);
        let class = self.class_of(framework, told.user.as_deref(), &role_of(&told.resources));
        TaskRow {
            id: told.id.clone(),
            framework,
            agent,
            class,
            state: told.state,
            spec: told.spec(executor.as_ref()),
            executor,
            resources: told.resources,
            statuses: told.statuses,
            update: told.update,
            terminal: told.state.is_terminal(),
        }
    }

    /// Commands that the old session may have lost: ends of frameworks and kills.
    fn repeat_commands(
        &mut self,
        key: AgentKey,
        ended: Vec<FrameworkId>,
        effects: &mut Vec<Effect>,
    ) {
        for id in ended {
            let framework_id = Some(v1::FrameworkId {
                value: id.to_string(),
            });
            let body = Body::ShutdownFramework(link::ShutdownFramework { framework_id });
            self.to_agent(key, body, effects);
        }
        self.send_drain(key, effects);
        let run = &self.agent_runs[&key];
        for ((framework, id), policy) in run.kills.clone() {
            self.send_kill(framework, key, &id, policy, effects);
        }
    }
}

/// The role that resources are allocated to; one for all of a task or an executor.
pub(crate) fn role_of(resources: &Resources) -> String {
    resources
        .iter()
        .find_map(|resource| resource.allocation_role())
        .map_or_else(|| "*".to_owned(), ToString::to_string)
}
