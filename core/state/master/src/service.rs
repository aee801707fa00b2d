//! Agents that an operator took out of service: they keep their tasks and get no new ones.

use tepui_model::allocation::Fact;
use tepui_model::id::AgentId;
use tepui_model::time::Now;
use tepui_proto::{Message as _, disk};

use crate::changes::{Change, Decided};
use crate::effect::bytes_of;
use crate::event::Entry;
use crate::{Effect, MasterState, Reply};

pub(crate) fn key(id: &AgentId) -> String {
    format!("drain/{id}")
}

impl MasterState {
    pub(crate) fn recover_service(
        &mut self,
        id: AgentId,
        entry: &Entry,
    ) -> Result<(), prost::DecodeError> {
        if disk::AgentDrain::decode(entry.value.clone())?.deactivated {
            self.deactivated.insert(id);
        }
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
        let entry = Entry {
            key: key(&id),
            value: bytes_of(&disk::AgentDrain {
                drain: None,
                deactivated: true,
            }),
        };
        Ok(Decided {
            change: Change::Deactivated(id, true),
            puts: vec![entry],
            deletes: Vec::new(),
        })
    }

    pub(crate) fn decide_reactivate(&self, id: AgentId) -> Result<Decided, Reply> {
        if !self.deactivated.contains(&id) {
            return Err(Reply::BadRequest("Agent is not deactivated".into()));
        }
        Ok(Decided {
            puts: Vec::new(),
            deletes: vec![key(&id)],
            change: Change::Deactivated(id, false),
        })
    }

    /// Bad ones are refused as Mesos does; agents cannot drain yet.
    pub(crate) fn refuse_drain(&self, id: &AgentId) -> Reply {
        if self.is_known_agent(id) {
            Reply::NotImplemented("DRAIN_AGENT is not supported yet: agents cannot drain".into())
        } else {
            Reply::BadRequest("Unknown agent".into())
        }
    }

    pub(crate) fn set_deactivated(
        &mut self,
        id: AgentId,
        deactivated: bool,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        // It may have left for good meanwhile; what it was is of no use then.
        if deactivated && self.is_known_agent(&id) {
            self.deactivated.insert(id.clone());
        } else {
            self.deactivated.remove(&id);
        }
        let Some(key) = self.agent_ids.get(&id).copied() else {
            return;
        };
        let row = self.agents.get_mut(&key).expect("rows go with runs");
        row.deactivated = deactivated;
        let active = self.agent_runs[&key].synced && !deactivated;
        if row.active != active {
            row.active = active;
            self.allocation.tell(Fact::AgentActive(key, active));
        }
        if deactivated {
            self.rescind_agent(key, now, effects);
        } else {
            self.allocation.want(key);
        }
    }
}
