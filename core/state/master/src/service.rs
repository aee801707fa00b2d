//! Agents that an operator took out of service. A deactivated one keeps its tasks and gets no new ones; a
//! draining one loses them within a grace, and is drained when nothing is left.

use tepui_model::allocation::{AgentKey, Fact};
use tepui_model::id::AgentId;
use tepui_model::time::{Now, Wall};
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::{DrainConfig, DrainInfo, DrainState};
use tepui_proto::{Message as _, disk};

use crate::changes::{Change, Decided};
use crate::effect::bytes_of;
use crate::event::Entry;
use crate::registry::Pending;
use crate::{Effect, MasterState, Reply};

pub(crate) fn key(id: &AgentId) -> String {
    format!("drain/{id}")
}

/// How an agent is out of service.
#[derive(Clone, Debug, Default)]
pub(crate) struct OutOfService {
    /// Set while it drains or is drained.
    drain: Option<DrainInfo>,
    /// When the drain began, as far as this leader knows.
    since: Option<Wall>,
    /// That it is drained is being written.
    ending: bool,
}

impl OutOfService {
    fn is_draining(&self) -> bool {
        self.drain
            .as_ref()
            .is_some_and(|drain| drain.state() == DrainState::Draining)
    }

    fn entry(&self, id: &AgentId) -> Entry {
        Entry {
            key: key(id),
            value: bytes_of(&disk::AgentDrain {
                drain: self.drain,
                deactivated: true,
            }),
        }
    }

    fn decided(self, id: AgentId) -> Decided {
        Decided {
            puts: vec![self.entry(&id)],
            deletes: Vec::new(),
            change: Change::Service(id, Some(self)),
        }
    }
}

impl MasterState {
    pub(crate) fn recover_service(
        &mut self,
        id: AgentId,
        entry: &Entry,
    ) -> Result<(), prost::DecodeError> {
        let kept = disk::AgentDrain::decode(entry.value.clone())?;
        let service = OutOfService {
            since: kept.drain.as_ref().and(self.elected),
            drain: kept.drain,
            ending: false,
        };
        self.out_of_service.insert(id, service);
        Ok(())
    }

    fn is_known_agent(&self, id: &AgentId) -> bool {
        self.agent_ids.contains_key(id)
            || self.recovered.contains_key(id)
            || self.unreachable.contains_key(id)
    }

    pub(crate) fn decide_deactivate(&self, id: AgentId) -> Result<Decided, Reply> {
        if !self.is_known_agent(&id) {
            return Err(Reply::BadRequest("Unknown agent".into()));
        }
        // It goes on draining if it does.
        let service = self.out_of_service.get(&id).cloned().unwrap_or_default();
        Ok(service.decided(id))
    }

    pub(crate) fn decide_reactivate(&self, id: AgentId) -> Result<Decided, Reply> {
        let Some(service) = self.out_of_service.get(&id) else {
            return Err(Reply::BadRequest("Agent is not deactivated".into()));
        };
        if service.is_draining() {
            let text = "Agent is still in the DRAINING state";
            return Err(Reply::BadRequest(text.into()));
        }
        Ok(Decided {
            puts: Vec::new(),
            deletes: vec![key(&id)],
            change: Change::Service(id, None),
        })
    }

    /// DRAIN_AGENT; asked for again, it begins again.
    pub(crate) fn decide_drain(&self, id: AgentId, config: DrainConfig) -> Result<Decided, Reply> {
        if !self.is_known_agent(&id) {
            return Err(Reply::BadRequest("Unknown agent".into()));
        }
        if self.transitioning.contains(&id) {
            let text = "Agent is currently transitioning";
            return Err(Reply::Conflict(text.into()));
        }
        let service = OutOfService {
            drain: Some(DrainInfo {
                state: DrainState::Draining.into(),
                config,
            }),
            ..OutOfService::default()
        };
        Ok(service.decided(id))
    }

    pub(crate) fn set_service(
        &mut self,
        id: &AgentId,
        service: Option<OutOfService>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        // It may have left for good meanwhile; what it was is of no use then.
        let old = match service {
            Some(mut service) if self.is_known_agent(id) => {
                if service.drain.is_some() {
                    service.since.get_or_insert(now.wall);
                }
                self.out_of_service.insert(id.clone(), service)
            }
            _ => self.out_of_service.remove(id),
        };
        let Some(key) = self.agent_ids.get(id).copied() else {
            return;
        };
        self.show_service(key);
        let deactivated = self.out_of_service.contains_key(id);
        let row = self.agents.get_mut(&key).expect("rows go with runs");
        let active = self.agent_runs[&key].synced && !deactivated;
        if row.active != active {
            row.active = active;
            let offered = self.is_in_service(key);
            self.allocation.tell(Fact::AgentActive(key, offered));
        }
        if deactivated {
            self.rescind_agent(key, now, effects);
            self.send_drain(key, effects);
        } else {
            if old.is_some_and(|old| old.drain.is_some()) {
                self.to_agent(key, Body::Reactivate(link::Reactivate {}), effects);
            }
            self.allocation.want(key);
        }
    }

    /// Writes to the agent's row how it is out of service.
    pub(crate) fn show_service(&mut self, key: AgentKey) {
        let row = self.agents.get_mut(&key).expect("known agent");
        let service = self.out_of_service.get(&row.id);
        row.deactivated = service.is_some();
        row.drain = service.and_then(|service| service.drain.as_ref().map(bytes_of));
        row.drain_started = service.and_then(|service| service.since);
    }

    /// Tells an agent that it is to drain, if it is; again after each sync.
    pub(crate) fn send_drain(&self, key: AgentKey, effects: &mut Vec<Effect>) {
        let service = self.out_of_service.get(&self.agent_runs[&key].id);
        if let Some(drain) = service.and_then(|service| service.drain.as_ref()) {
            let config = Some(drain.config);
            self.to_agent(key, Body::Drain(link::Drain { config }), effects);
        }
    }

    /// Writes of draining agents on which nothing is left that they are drained.
    pub(crate) fn end_drains(&mut self, effects: &mut Vec<Effect>) {
        let is_over = |(id, service): &(&AgentId, &OutOfService)| {
            let run = self.agent_ids.get(*id).map(|key| &self.agent_runs[key]);
            let is_empty = run.is_some_and(|run| {
                let idle = run.tasks.is_empty() && run.executors.is_empty();
                run.synced && idle && run.operations.is_empty()
            });
            is_empty && service.is_draining() && !service.ending
        };
        let over: Vec<AgentId> = self
            .out_of_service
            .iter()
            .filter(is_over)
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            let service = self.out_of_service.get_mut(&id).expect("just listed");
            service.ending = true;
            let mut drained = service.clone();
            if let Some(drain) = &mut drained.drain {
                drain.set_state(DrainState::Drained);
            }
            let entry = drained.entry(&id);
            self.store(vec![entry], Vec::new(), Pending::Drained { id }, effects);
        }
    }

    /// It is written that the agent is drained.
    pub(crate) fn drained(&mut self, id: AgentId, now: Now, effects: &mut Vec<Effect>) {
        // Another drain may have begun meanwhile: its end is written, too.
        let service = self.out_of_service.get_mut(&id).filter(|one| one.ending);
        let Some(service) = service else { return };
        service.ending = false;
        let Some(drain) = &mut service.drain else {
            return;
        };
        drain.set_state(DrainState::Drained);
        let gone = drain.config.mark_gone();
        if let Some(key) = self.agent_ids.get(&id).copied() {
            self.show_service(key);
        }
        if gone && self.transitioning.insert(id.clone()) {
            self.mark_gone(None, id, now, effects);
        }
    }
}
