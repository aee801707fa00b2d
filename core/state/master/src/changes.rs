//! What operators decide and the registry keeps: weights, quota, maintenance, agents out of service.
//!
//! One change is made at a time: each is checked against everything that was decided before it, written,
//! then it holds and its operator is answered. The next waits until then.

use std::collections::VecDeque;

use tepui_model::allocation::Quota;
use tepui_model::id::{AgentId, Role};
use tepui_model::time::Now;

use crate::event::{CallId, Entry, OperatorCall};
use crate::maintenance::Machines;
use crate::registry::Pending;
use crate::service::OutOfService;
use crate::{Effect, MasterState, Reply};

/// A change that holds as soon as it is written.
#[derive(Debug)]
pub(crate) enum Change {
    Weights(Vec<(Role, f64)>),
    /// New quotas; none: it is removed.
    Quotas(Vec<(Role, Option<Quota>)>),
    /// The same by the old call, which makes room for the guarantee at once.
    OldQuota(Role, Quota),
    Machines(Machines),
    /// The agent is out of service, or not any more.
    Service(AgentId, Option<OutOfService>),
}

/// A checked change, and how it is written.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) change: Change,
    pub(crate) puts: Vec<Entry>,
    pub(crate) deletes: Vec<String>,
}

/// Changes under way.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// One is being written.
    busy: bool,
    waiting: VecDeque<(CallId, OperatorCall)>,
}

impl MasterState {
    /// Makes a change when it is its turn; answered at once only if nothing is to be written.
    pub(crate) fn change(
        &mut self,
        call: CallId,
        request: OperatorCall,
        effects: &mut Vec<Effect>,
    ) -> Option<Reply> {
        if self.changes.busy {
            self.changes.waiting.push_back((call, request));
            return None;
        }
        match self.decide(request) {
            Err(refusal) => Some(refusal),
            Ok(None) => Some(Reply::Ok),
            Ok(Some(decided)) => {
                self.changes.busy = true;
                let Decided {
                    change,
                    puts,
                    deletes,
                } = decided;
                self.store(puts, deletes, Pending::Change { call, change }, effects);
                None
            }
        }
    }

    /// Checks a change against the state. `None`: there is nothing to change.
    fn decide(&self, request: OperatorCall) -> Result<Option<Decided>, Reply> {
        match request {
            OperatorCall::UpdateWeights { weights } => Ok(Self::decide_weights(weights)),
            OperatorCall::UpdateQuota { configs, force } => self.decide_quotas(configs, force),
            OperatorCall::SetQuota { request } => self.decide_old_quota(request.0).map(Some),
            OperatorCall::RemoveQuota { role } => self.decide_no_quota(role).map(Some),
            OperatorCall::UpdateMaintenance { schedule } => {
                self.decide_schedule(schedule.0).map(Some)
            }
            OperatorCall::StartMaintenance { machines } => self.decide_down(machines).map(Some),
            OperatorCall::StopMaintenance { machines } => self.decide_up(machines).map(Some),
            OperatorCall::Deactivate { agent_id } => self.decide_deactivate(agent_id).map(Some),
            OperatorCall::Reactivate { agent_id } => self.decide_reactivate(agent_id).map(Some),
            OperatorCall::Drain { agent_id, config } => {
                self.decide_drain(agent_id, config.0).map(Some)
            }
            OperatorCall::Teardown { .. }
            | OperatorCall::MarkGone { .. }
            | OperatorCall::Operate { .. } => Ok(None),
        }
    }

    /// The change is in the registry: it holds, and the next one's turn has come.
    pub(crate) fn changed(
        &mut self,
        call: CallId,
        change: Change,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match change {
            Change::Weights(weights) => self.set_weights(weights),
            Change::Quotas(quotas) => self.set_quotas(quotas),
            Change::OldQuota(role, quota) => {
                self.set_quotas(vec![(role.clone(), Some(quota))]);
                self.make_room(&role, now, effects);
            }
            Change::Machines(machines) => self.set_machines(machines, now, effects),
            Change::Service(agent, service) => self.set_service(&agent, service, now, effects),
        }
        self.globals_version += 1;
        effects.push(Effect::Reply {
            call,
            reply: Reply::Ok,
        });
        self.changes.busy = false;
        while !self.changes.busy
            && let Some((call, request)) = self.changes.waiting.pop_front()
        {
            if let Some(reply) = self.change(call, request, effects) {
                effects.push(Effect::Reply { call, reply });
            }
        }
    }
}
