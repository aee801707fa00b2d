//! Agents: sessions, admission, disconnection, and the three ways of leaving.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tepui_model::allocation::{AgentKey, Fact, FrameworkKey};
use tepui_model::authorization::Class;
use tepui_model::id::{AgentId, ExecutorId, TaskId, Uuid};
use tepui_model::resources::Resources;
use tepui_model::time::{Mono, Now};
use tepui_proto::link::{self, link_frame::Body, refuse::Code};
use tepui_proto::v1::{self, AgentInfo, TaskState, task_status};
use tepui_proto::{Message as _, convert};
use tepui_view::AgentRow;

use crate::counts::Count;
use crate::effect::bytes_of;
use crate::event::SessionKey;
use crate::offers::agent_part;
use crate::registry::{Pending, agent_entry};
use crate::timers::Timer;
use crate::{Effect, MasterState, service};

/// Version of the link's protocol that this master speaks.
const PROTOCOL: u32 = 1;

/// An agent's running state: what readers need not see.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) info: AgentInfo,
    pub(crate) address: String,
    pub(crate) capabilities: Vec<v1::agent_info::Capability>,
    pub(crate) session: Option<SessionKey>,
    /// It has told everything in this session; commands may go.
    pub(crate) synced: bool,
    /// This leader has seen all of its tasks once: what it does not know now, it has removed itself.
    pub(crate) known: bool,
    /// The allocator was told of it.
    pub(crate) announced: bool,
    pub(crate) run_number: u64,
    /// Since when its session is broken.
    pub(crate) broken: Option<Mono>,
    /// Frameworks whose info it got in this session.
    pub(crate) told: BTreeSet<FrameworkKey>,
    pub(crate) tasks: BTreeSet<(FrameworkKey, TaskId)>,
    pub(crate) executors: BTreeSet<(FrameworkKey, ExecutorId)>,
    pub(crate) offers: BTreeSet<u64>,
    pub(crate) operations: BTreeSet<Uuid>,
    /// Kills that were asked for and are not answered by a terminal update.
    pub(crate) kills: BTreeMap<(FrameworkKey, TaskId), Option<v1::KillPolicy>>,
    /// Tasks reported lost when the session broke; killed if they come back.
    pub(crate) lost: BTreeSet<(FrameworkKey, TaskId)>,
    /// total - used - offered, without allocation. What is shared is free whoever has it.
    pub(crate) free: Resources,
    /// What is the same in the bytes of all its offers.
    pub(crate) offer_part: Box<[u8]>,
}

impl Agent {
    /// Its executors of a framework.
    pub(crate) fn executors_of(
        &self,
        framework: FrameworkKey,
    ) -> impl Iterator<Item = &(FrameworkKey, ExecutorId)> {
        let first = (framework, ExecutorId::from(""));
        let from_there = self.executors.range(first..);
        from_there.take_while(move |(owner, _)| *owner == framework)
    }

    /// Whether it has tasks of a framework.
    pub(crate) fn has_tasks_of(&self, framework: FrameworkKey) -> bool {
        let first = (framework, TaskId::from(""));
        let next = self.tasks.range(first..).next();
        next.is_some_and(|(owner, _)| *owner == framework)
    }

    /// Whether it has tasks or executors of a framework.
    pub(crate) fn has_of(&self, framework: FrameworkKey) -> bool {
        self.executors_of(framework).next().is_some() || self.has_tasks_of(framework)
    }
}

/// A session of the link.
#[derive(Debug)]
pub(crate) enum Session {
    /// Its hello waits until fewer agents sync.
    Queued,
    /// Its agent's record is being written.
    Waiting,
    /// Welcomed.
    Open(AgentKey),
}

fn refuse(code: Code, reason: &str, retry_ms: u32) -> link::Refuse {
    link::Refuse {
        code: code as i32,
        reason: reason.into(),
        retry_ms,
    }
}

/// Whether an agent has never registered.
fn is_new(hello: &link::Hello) -> bool {
    let id = hello.info.as_ref().and_then(|info| info.id.as_ref());
    id.is_none_or(|id| id.value.is_empty())
}

impl MasterState {
    pub(crate) fn agent_hello(
        &mut self,
        session: SessionKey,
        hello: link::Hello,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let new = is_new(&hello);
        self.counts.add(if new {
            Count::AgentNew
        } else {
            Count::AgentAgain
        });
        self.register(session, hello, now, effects);
    }

    /// Takes an agent in, now or when it is its turn.
    pub(crate) fn register(
        &mut self,
        session: SessionKey,
        hello: link::Hello,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(refuse) = self.may_register(session, &hello) {
            return self.refuse_agent(session, refuse, effects);
        }
        let Some(mut hello) = self.queue_agent(session, hello) else {
            return;
        };
        let new = is_new(&hello);
        self.counts.add(if new {
            Count::Registered
        } else {
            Count::Reregistered
        });
        let mut info = hello.info.take().unwrap_or_default();
        let mut deletes = Vec::new();
        let id = match info.id.as_ref().filter(|id| !id.value.is_empty()) {
            Some(id) => AgentId::from(id.value.as_str()),
            None => {
                // Mesos removes a disconnected agent when a new one registers at its address.
                for old in self.broken_agents_at(&hello.address) {
                    deletes.extend([format!("agents/{old}"), service::key(&old)]);
                    self.out_of_service.remove(&old);
                    self.counts.add(Count::Removed);
                    self.counts.add(Count::RemovedRegistered);
                    self.agent_removed(&old, now, effects);
                }
                let id = AgentId::from(format!("{}-S{}", self.master_id, self.next_agent));
                self.next_agent += 1;
                id
            }
        };
        info.id = Some(v1::AgentId {
            value: id.to_string(),
        });
        let bytes = bytes_of(&info);
        let same = match self.agent_ids.get(&id) {
            Some(key) => self.agents.get(key).is_some_and(|row| row.info == bytes),
            None => self.recovered.get(&id).is_some_and(|old| old.info == bytes),
        };
        hello.info = Some(info);
        self.sessions.insert(session, Session::Waiting);
        if same && deletes.is_empty() {
            return self.admit(session, id, hello, now, effects);
        }
        if self.unreachable.contains_key(&id) {
            deletes.push(format!("unreachable/{id}"));
        }
        self.transitioning.insert(id.clone());
        if new {
            self.admitting.insert(hello.address.clone());
        }
        let entry = agent_entry(&id, hello.info.as_ref().expect("put in above"));
        let pending = Pending::Admit {
            session,
            id,
            hello: Box::new(hello),
            new,
        };
        self.store(vec![entry], deletes, pending, effects);
    }

    fn may_register(&self, session: SessionKey, hello: &link::Hello) -> Result<(), link::Refuse> {
        let protocol = hello.protocol.unwrap_or_default();
        if protocol.min > PROTOCOL || protocol.max < PROTOCOL {
            return Err(refuse(
                Code::TooOld,
                &format!(
                    "protocol {}..{} does not include {PROTOCOL}",
                    protocol.min, protocol.max
                ),
                0,
            ));
        }
        if self.elected.is_none() {
            return Err(refuse(Code::Busy, "the master has not recovered yet", 500));
        }
        if hello.cluster_id == self.cluster_id && hello.epoch_seen > self.epoch {
            return Err(refuse(
                Code::StaleEpoch,
                &format!(
                    "epoch {} is behind the agent's {}",
                    self.epoch, hello.epoch_seen
                ),
                1000,
            ));
        }
        if self.sessions.contains_key(&session) {
            return Err(refuse(Code::Denied, "a session says hello once", 0));
        }
        self.may_stand_there(hello)?;
        let hostname = hello.info.as_ref().map_or("", |info| &info.hostname);
        if self.is_down(hostname, &hello.address) {
            return Err(refuse(
                Code::Denied,
                &format!("machine {hostname} is down for maintenance"),
                1000,
            ));
        }
        let id = hello.info.as_ref().and_then(|info| info.id.as_ref());
        let Some(id) = id.filter(|id| !id.value.is_empty()) else {
            // It may be the same one, after its connection broke: a record for each try would stay when this leader ends.
            if self.admitting.contains(&hello.address) {
                let address = &hello.address;
                let reason = format!("the record of a new agent at {address} is being written");
                return Err(refuse(Code::Busy, &reason, 200));
            }
            return Ok(());
        };
        let id = AgentId::from(id.value.as_str());
        if self.gone.contains_key(&id) {
            return Err(refuse(
                Code::Gone,
                &format!("agent {id} was marked gone by an operator"),
                0,
            ));
        }
        if self.transitioning.contains(&id) {
            return Err(refuse(
                Code::Busy,
                &format!("the record of agent {id} is being written"),
                200,
            ));
        }
        if let Some(key) = self.agent_ids.get(&id) {
            let agent = &self.agent_runs[key];
            if agent.session.is_some() && agent.run_number > hello.run_number {
                return Err(refuse(
                    Code::Busy,
                    &format!("a newer session of agent {id} is open"),
                    1000,
                ));
            }
        }
        Ok(())
    }

    /// Whether the agent is where this master knows how to tell near from far.
    fn may_stand_there(&self, hello: &link::Hello) -> Result<(), link::Refuse> {
        let domain = hello.info.as_ref().and_then(|info| info.domain.as_ref());
        let reason = match domain.and_then(|domain| domain.fault_domain.as_ref()) {
            Some(_) if self.region().is_none() => {
                "the agent has a domain and this master has none: start the master with --domain"
            }
            None if self.settings.require_agent_domain => {
                "the agent has no domain, which --require_agent_domain of this master asks for: start it with --domain"
            }
            _ => return Ok(()),
        };
        // A leader that is started otherwise may take it.
        Err(refuse(Code::Denied, reason, 10_000))
    }

    /// The region of this master.
    pub(crate) fn region(&self) -> Option<String> {
        let info = v1::MasterInfo::decode(self.settings.master_info.clone()).ok()?;
        Some(info.domain?.fault_domain?.region.name)
    }

    /// A disconnected agent at an address, and all that were lost there before they told anything.
    fn broken_agents_at(&self, address: &str) -> Vec<AgentId> {
        let there = self.agents_at.get(address).into_iter().flatten();
        let runs = there.map(|key| &self.agent_runs[key]);
        let broken =
            runs.filter(|run| run.session.is_none() && !self.transitioning.contains(&run.id));
        let (known, unknown): (Vec<_>, Vec<_>) = broken.partition(|run| run.known);
        let all = known.into_iter().take(1).chain(unknown);
        all.map(|run| run.id.clone()).collect()
    }

    /// Notes where an agent can be reached.
    fn set_address(&mut self, key: AgentKey, address: &str) {
        let run = self.agent_runs.get_mut(&key).expect("known agent");
        let old = std::mem::replace(&mut run.address, address.to_owned());
        self.leave_address(key, &old);
        let there = self.agents_at.entry(address.to_owned()).or_default();
        there.insert(key);
    }

    /// The agent is not at this address any more.
    pub(crate) fn leave_address(&mut self, key: AgentKey, address: &str) {
        if let Some(there) = self.agents_at.get_mut(address) {
            there.remove(&key);
            if there.is_empty() {
                self.agents_at.swap_remove(address);
            }
        }
    }

    /// The agent's record is in the registry: its session becomes the agent's only one.
    pub(crate) fn admit(
        &mut self,
        session: SessionKey,
        id: AgentId,
        hello: link::Hello,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let key = match self.agent_ids.get(&id).copied() {
            Some(key) => {
                if let Some(old) = self.agent_runs[&key].session {
                    self.sessions.remove(&old);
                    effects.push(Effect::CloseAgent { session: old });
                    self.session_ended(key, now, effects);
                }
                key
            }
            None => self.new_agent(id.clone(), now),
        };
        self.spare(&id);
        if self.recovered.remove(&id).is_some() {
            self.globals_version += 1;
        }
        self.sessions.insert(session, Session::Open(key));
        self.set_agent_info(key, &hello);
        let run = self.agent_runs.get_mut(&key).expect("just found or made");
        run.session = Some(session);
        run.run_number = hello.run_number;
        run.broken = None;
        self.agents
            .get_mut(&key)
            .expect("rows go with runs")
            .connected = true;
        let welcome = self.welcome(&id);
        effects.push(Effect::to_agent(session, Body::Welcome(welcome)));
    }

    fn welcome(&self, id: &AgentId) -> link::Welcome {
        let interval = self.settings.agent_ping_timeout.as_millis() as u32;
        let mut master_info =
            v1::MasterInfo::decode(self.settings.master_info.clone()).unwrap_or_default();
        master_info.id = self.master_id.clone();
        link::Welcome {
            protocol: PROTOCOL,
            agent_id: Some(v1::AgentId {
                value: id.to_string(),
            }),
            cluster_id: self.cluster_id.clone(),
            epoch: self.epoch,
            ping_interval_ms: interval,
            ping_timeout_ms: interval.saturating_mul(self.settings.max_agent_ping_timeouts),
            features: Vec::new(),
            master_info: Some(master_info),
        }
    }

    fn new_agent(&mut self, id: AgentId, now: Now) -> AgentKey {
        let key = AgentKey(self.next_agent_key);
        self.next_agent_key += 1;
        let class = self.class_key(Class::default());
        let row = AgentRow {
            key,
            id: id.clone(),
            class,
            info: Bytes::new(),
            hostname: String::new(),
            port: 0,
            pid: String::new(),
            version: String::new(),
            capabilities: Vec::new(),
            active: false,
            deactivated: false,
            connected: true,
            registered: now.wall,
            reregistered: None,
            total: Resources::new(),
            used: Resources::new(),
            offered: Resources::new(),
            resource_version: Bytes::new(),
            drain: None,
            drain_started: None,
        };
        let run = Agent {
            id: id.clone(),
            info: AgentInfo::default(),
            address: String::new(),
            session: None,
            synced: false,
            known: false,
            announced: false,
            capabilities: Vec::new(),
            run_number: 0,
            broken: None,
            told: BTreeSet::new(),
            tasks: BTreeSet::new(),
            executors: BTreeSet::new(),
            offers: BTreeSet::new(),
            operations: BTreeSet::new(),
            kills: BTreeMap::new(),
            lost: BTreeSet::new(),
            free: Resources::new(),
            offer_part: Box::default(),
        };
        self.agents.insert(key, row);
        self.agent_runs.insert(key, run);
        self.agent_ids.insert(id, key);
        self.show_service(key);
        key
    }

    fn set_agent_info(&mut self, key: AgentKey, hello: &link::Hello) {
        let info = hello.info.clone().unwrap_or_default();
        let row = self.agents.get_mut(&key).expect("known agent");
        row.hostname = info.hostname.clone();
        row.port = u16::try_from(info.port()).unwrap_or_default();
        row.pid = format!("slave(1)@{}", hello.address);
        row.version = hello.version.clone();
        row.capabilities = hello
            .capabilities
            .iter()
            .filter(|capability| capability.r#type.is_some())
            .map(|capability| capability.r#type().as_str_name().to_owned())
            .collect();
        row.info = bytes_of(&info);
        row.resource_version = hello.resource_version.clone();
        let run = self.agent_runs.get_mut(&key).expect("known agent");
        // Mesos drops what was refused of an agent with other attributes: it may be of interest now.
        let unfilter = run.announced && run.info.attributes != info.attributes;
        run.offer_part = agent_part(&run.id, &info, &hello.address);
        run.info = info;
        run.capabilities = hello.capabilities.clone();
        self.set_address(key, &hello.address);
        if unfilter {
            self.allocation.clear_agent_filters(key);
        }
    }

    /// The agent that a session of the link belongs to, once it is welcomed.
    pub(crate) fn agent_of(&self, session: SessionKey) -> Option<AgentKey> {
        match self.sessions.get(&session) {
            Some(Session::Open(key)) => Some(*key),
            _ => None,
        }
    }

    /// Sends a command, if the agent has synced. What is lost here is derived again after the next sync.
    pub(crate) fn to_agent(&self, key: AgentKey, body: Body, effects: &mut Vec<Effect>) {
        if let Some(agent) = self.agent_runs.get(&key)
            && agent.synced
            && let Some(session) = agent.session
        {
            effects.push(Effect::to_agent(session, body));
        }
    }

    pub(crate) fn agent_closed(
        &mut self,
        session: SessionKey,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(Session::Open(key)) = self.remove_session(session) {
            self.session_ended(key, now, effects);
            self.lose_uncheckpointed(key, now, effects);
        }
    }

    /// No command reaches the agent any more.
    pub(crate) fn session_ended(&mut self, key: AgentKey, now: Now, effects: &mut Vec<Effect>) {
        let run = self
            .agent_runs
            .get_mut(&key)
            .expect("session of a known agent");
        if run.synced {
            self.synced_count -= 1;
        }
        run.session = None;
        run.synced = false;
        run.told.clear();
        run.broken = Some(now.mono);
        let row = self.agents.get_mut(&key).expect("rows go with runs");
        row.connected = false;
        if row.active {
            row.active = false;
            self.allocation.tell(Fact::AgentActive(key, false));
        }
        self.timers.set(
            now.mono + self.settings.agent_reregister_timeout,
            Timer::AgentGone(key, now.mono),
        );
        self.rescind_agent(key, now, effects);
    }

    /// A broken connection is the end of what is not checkpointed, as in Mesos; what is waits for its agent.
    /// Not so when the agent is back already, or is given up altogether.
    fn lose_uncheckpointed(&mut self, key: AgentKey, now: Now, effects: &mut Vec<Effect>) {
        let run = &self.agent_runs[&key];
        let tasks: Vec<(FrameworkKey, TaskId)> = run
            .tasks
            .iter()
            .filter(|(framework, _)| !self.frameworks[framework].info.checkpoint())
            .cloned()
            .collect();
        let executors: Vec<(FrameworkKey, ExecutorId)> = run
            .executors
            .iter()
            .filter(|(framework, _)| !self.frameworks[framework].info.checkpoint())
            .cloned()
            .collect();
        let message = format!("Agent {} disconnected", run.info.hostname);
        for (framework, task) in tasks {
            let terminal = self.frameworks[&framework]
                .tasks
                .get(&task)
                .is_some_and(|row| row.terminal);
            if !terminal {
                self.end_task(
                    framework,
                    &task,
                    TaskState::TaskLost,
                    task_status::Reason::AgentDisconnected,
                    message.clone(),
                    now,
                    effects,
                );
                let run = self.agent_runs.get_mut(&key).expect("known agent");
                run.lost.insert((framework, task));
            }
        }
        for (framework, executor) in executors {
            self.remove_executor(framework, key, &executor, now);
        }
    }

    pub(crate) fn reregister_timeout(
        &mut self,
        key: AgentKey,
        since: Mono,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(run) = self.agent_runs.get(&key) else {
            return;
        };
        if run.session.is_none() && run.broken == Some(since) {
            let id = run.id.clone();
            self.give_up(&id, now, effects);
        }
    }

    /// Missed pings: the agent is unreachable, whatever its connection says.
    pub(crate) fn agent_silent(
        &mut self,
        session: SessionKey,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match self.remove_session(session) {
            None => return,
            Some(Session::Queued | Session::Waiting) => {}
            Some(Session::Open(key)) => {
                self.session_ended(key, now, effects);
                let id = self.agent_runs[&key].id.clone();
                self.give_up(&id, now, effects);
            }
        }
        effects.push(Effect::CloseAgent { session });
    }

    pub(crate) fn agent_resources(
        &mut self,
        session: SessionKey,
        resources: link::AgentResources,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Some(key) = self.agent_of(session) else {
            return;
        };
        if !self.agent_runs[&key].synced {
            return;
        }
        let Ok(total) = convert::resources(&resources.total) else {
            effects.push(Effect::CloseAgent { session });
            self.agent_closed(session, now, effects);
            return;
        };
        self.rescind_agent(key, now, effects);
        self.set_total(key, total);
        let row = self.agents.get_mut(&key).expect("known agent");
        row.resource_version = resources.resource_version;
        self.recount_free(key);
        self.tell_agent(key);
        self.allocation.want(key);
    }
}
