//! What the registry holds, and what waits for it: said only after it is written.

use bytes::Bytes;
use tepui_model::id::{AgentId, Role};
use tepui_model::time::{Now, Wall};
use tepui_proto::v1::{AgentInfo, TimeInfo};
use tepui_proto::{Message as _, disk, link};

use crate::changes::Change;
use crate::counts::Count;
use crate::effect::bytes_of;
use crate::event::{CallId, Entry, SessionKey, StoreId};
use crate::timers::Timer;
use crate::{Effect, MasterState, Reply};

/// What goes on when a batch is written.
#[derive(Debug)]
pub(crate) enum Pending {
    /// The agent of the session is welcomed.
    Admit {
        session: SessionKey,
        id: AgentId,
        hello: Box<link::Hello>,
        /// It has the id from this master, and does not know it yet.
        new: bool,
    },
    /// The agent is unreachable, and its tasks with it.
    Unreachable { id: AgentId, since: Wall },
    /// Agents that were unreachable or gone for long are forgotten.
    Pruned {
        unreachable: Vec<AgentId>,
        gone: Vec<AgentId>,
    },
    /// The agent left by itself.
    Removed { id: AgentId },
    /// The agent is gone by an operator, who is answered if he waits.
    Gone {
        id: AgentId,
        since: Wall,
        /// None: it was drained first.
        call: Option<CallId>,
    },
    /// The agent is drained.
    Drained { id: AgentId },
    /// Something that an operator decided is so, and he is answered.
    Change { call: CallId, change: Change },
}

/// An agent that is in the registry and has not come back.
#[derive(Clone, Debug)]
pub(crate) struct Recovered {
    pub(crate) info: Bytes,
}

pub(crate) fn agent_entry(id: &AgentId, info: &AgentInfo) -> Entry {
    Entry {
        key: format!("agents/{id}"),
        value: bytes_of(&disk::RegisteredAgent {
            info: Some(info.clone()),
        }),
    }
}

pub(crate) fn time(at: Wall) -> TimeInfo {
    TimeInfo { nanoseconds: at.0 }
}

fn since(time: Option<TimeInfo>) -> Wall {
    Wall(time.map_or(0, |time| time.nanoseconds))
}

impl MasterState {
    /// Takes over what the registry held when this leader was elected.
    pub(crate) fn recover(
        &mut self,
        cluster_id: String,
        epoch: u64,
        entries: Vec<Entry>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.cluster_id = cluster_id;
        self.epoch = epoch;
        self.elected = Some(now.wall);
        for entry in entries {
            if let Err(error) = self.recover_entry(&entry) {
                self.stopped = true;
                effects.push(Effect::StepDown {
                    reason: format!("registry entry '{}' cannot be read: {error}", entry.key),
                });
                return;
            }
        }
        self.globals_version += 1;
        self.tell_minimum();
        self.recovered_at_first = self.recovered.len();
        self.await_agents(now);
        self.timers
            .set(now.mono + self.registry_gc_interval(), Timer::RegistryGc);
        if !self.recovered.is_empty() {
            self.timers.set(
                now.mono + self.settings.agent_reregister_timeout,
                Timer::RecoveryEnds,
            );
        }
    }

    fn recover_entry(&mut self, entry: &Entry) -> Result<(), prost::DecodeError> {
        let (kind, name) = entry.key.split_once('/').unwrap_or((&entry.key, ""));
        let id = AgentId::from(name);
        match kind {
            "agents" => {
                let agent = disk::RegisteredAgent::decode(entry.value.clone())?;
                let info = bytes_of(&agent.info.unwrap_or_default());
                self.recovered.insert(id, Recovered { info });
            }
            "unreachable" => {
                let agent = disk::UnreachableAgent::decode(entry.value.clone())?;
                self.unreachable.insert(id, since(agent.since));
            }
            "gone" => {
                let agent = disk::GoneAgent::decode(entry.value.clone())?;
                self.gone.insert(id, since(agent.since));
            }
            "drain" => self.recover_service(id, entry)?,
            "weights" => self.recover_weight(Role::from(name), entry)?,
            "quota" => self.recover_quota(Role::from(name), entry)?,
            "maintenance" => self.recover_maintenance(entry)?,
            // Of a later release; it stays.
            _ => {}
        }
        Ok(())
    }

    /// Writes a batch; `pending` goes on when it is there.
    pub(crate) fn store(
        &mut self,
        puts: Vec<Entry>,
        deletes: Vec<String>,
        pending: Pending,
        effects: &mut Vec<Effect>,
    ) {
        let id = StoreId(self.next_store);
        self.next_store += 1;
        self.stores.insert(id, pending);
        effects.push(Effect::Store { id, puts, deletes });
    }

    pub(crate) fn stored(&mut self, id: StoreId, now: Now, effects: &mut Vec<Effect>) {
        match self.stores.remove(&id) {
            None => {}
            Some(Pending::Admit {
                session,
                id,
                hello,
                new,
            }) => {
                self.transitioning.remove(&id);
                if new {
                    self.admitting.remove(&hello.address);
                }
                if self.unreachable.remove(&id).is_some() {
                    self.globals_version += 1;
                }
                if self.sessions.contains_key(&session) {
                    self.admit(session, id.clone(), *hello, now, effects);
                    // Its machine may have gone down while it was written.
                    self.take_down_if_down(self.agent_ids[&id], effects);
                } else if new {
                    // Nobody has learned the id, so nobody will come back by it.
                    let forgotten = Pending::Pruned {
                        unreachable: Vec::new(),
                        gone: Vec::new(),
                    };
                    self.store(Vec::new(), vec![format!("agents/{id}")], forgotten, effects);
                } else if !self.agent_ids.contains_key(&id) {
                    // Its session broke meanwhile: admitted, not back yet.
                    let info = bytes_of(&hello.info.unwrap_or_default());
                    self.recovered.insert(id, Recovered { info });
                    self.globals_version += 1;
                    self.timers.set(
                        now.mono + self.settings.agent_reregister_timeout,
                        Timer::RecoveryEnds,
                    );
                }
            }
            Some(Pending::Unreachable { id, since }) => {
                self.transitioning.remove(&id);
                self.counts.add(Count::UnreachableCompleted);
                self.counts.add(Count::Removed);
                self.counts.add(match self.recovered.remove(&id) {
                    Some(_) => Count::RecoveryRemovals,
                    None => Count::RemovedUnhealthy,
                });
                self.globals_version += 1;
                self.unreachable.insert(id.clone(), since);
                self.agent_unreachable(&id, since, now, effects);
            }
            Some(Pending::Pruned { unreachable, gone }) => self.pruned(&unreachable, &gone),
            Some(Pending::Removed { id }) => {
                self.transitioning.remove(&id);
                self.globals_version += 1;
                self.counts.add(Count::Removed);
                self.counts.add(Count::RemovedUnregistered);
                self.out_of_service.remove(&id);
                self.agent_removed(&id, now, effects);
            }
            Some(Pending::Gone { id, since, call }) => {
                self.transitioning.remove(&id);
                self.counts.add(Count::Removed);
                self.recovered.remove(&id);
                self.unreachable.remove(&id);
                self.out_of_service.remove(&id);
                self.globals_version += 1;
                self.gone.insert(id.clone(), since);
                self.agent_gone(&id, now, effects);
                effects.extend(call.map(|call| Effect::Reply {
                    call,
                    reply: Reply::Ok,
                }));
            }
            Some(Pending::Drained { id }) => self.drained(id, now, effects),
            Some(Pending::Change { call, change }) => self.changed(call, change, now, effects),
        }
    }

    /// The agent is unreachable as soon as the registry says so.
    pub(crate) fn mark_unreachable(&mut self, id: &AgentId, now: Now, effects: &mut Vec<Effect>) {
        if !self.transitioning.insert(id.clone()) {
            return;
        }
        let entry = Entry {
            key: format!("unreachable/{id}"),
            value: bytes_of(&disk::UnreachableAgent {
                since: Some(time(now.wall)),
            }),
        };
        let pending = Pending::Unreachable {
            id: id.clone(),
            since: now.wall,
        };
        self.store(vec![entry], vec![format!("agents/{id}")], pending, effects);
    }
}
