//! Operations that operators ask for: offers are taken back as far as needed, and the answer waits for the agent.

use std::time::Duration;

use tepui_model::allocation::AgentKey;
use tepui_model::id::{AgentId, Uuid};
use tepui_model::resources::{Operation, Resources};
use tepui_model::time::Now;
use tepui_proto::convert;
use tepui_proto::v1::offer;
use tepui_view::AgentRow;

use crate::event::CallId;
use crate::timers::Timer;
use crate::validate::{self, Asker};
use crate::{Effect, MasterState, Reply};

/// How long an operator waits for the agent, before he is told that the outcome is open.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checks an operator's operation against an agent. The words are Mesos'.
pub fn check_asked(
    operation: &Operation,
    kind: &str,
    principal: Option<&str>,
    agent: &AgentRow,
) -> Result<(), String> {
    let asker = Asker {
        principal,
        framework: None,
    };
    let used = agent.used.unallocate();
    validate::operation(operation, asker, &agent.total, &used).map_err(|why| match operation {
        // As recorded: these do not say where.
        Operation::Destroy(_) => format!("Invalid {kind} operation: {why}"),
        _ => format!(
            "Invalid {kind} operation on agent {} at {} ({}): {why}",
            agent.id, agent.pid, agent.hostname
        ),
    })
}

impl MasterState {
    /// Performs an operation, or says why not. Answered when the agent has made it durable.
    pub(crate) fn operator_operation(
        &mut self,
        call: CallId,
        principal: Option<&str>,
        agent_id: &AgentId,
        message: offer::Operation,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Option<Reply> {
        let Some(agent) = self.agent_ids.get(agent_id).copied() else {
            let text = "No agent found with specified ID";
            return Some(Reply::BadRequest(text.into()));
        };
        match self.check_operator(agent, principal, &message) {
            Err(refusal) => Some(refusal),
            Ok(operation) => {
                self.free_for(agent, &operation, now, effects);
                self.spare_volumes(agent, &operation, now, effects);
                self.convert(agent, None, &operation);
                let uuid = self.send_operation(agent, None, message, &operation, effects);
                self.operations.asked.insert(uuid, call);
                self.timers.set(now.mono + PATIENCE, Timer::Operation(uuid));
                self.allocation.want(agent);
                None
            }
        }
    }

    fn check_operator(
        &self,
        agent: AgentKey,
        principal: Option<&str>,
        message: &offer::Operation,
    ) -> Result<Operation, Reply> {
        let row = self.agents.get(&agent).expect("known agent");
        let operation = convert::operation(message)
            .map_err(|error| Reply::BadRequest(error.to_string()))?
            .ok_or_else(|| Reply::BadRequest("Not an operation on resources".into()))?;
        let kind = message.r#type().as_str_name();
        check_asked(&operation, kind, principal, row).map_err(Reply::BadRequest)?;
        if !self.agent_runs[&agent].synced {
            return Err(Reply::Unavailable(format!(
                "Agent {} is not connected",
                row.id
            )));
        }
        self.reachable(agent)
            .apply(&operation)
            .map_err(|error| Reply::Conflict(error.to_string()))?;
        Ok(operation)
    }

    /// What is free on the agent, or offered: all that is not used.
    fn reachable(&self, agent: AgentKey) -> Resources {
        let row = self.agents.get(&agent).expect("known agent");
        let mut all = row.total.clone();
        all -= &row.used.unallocate().non_shared();
        all
    }

    /// Rescinds offers until what the operation takes is free: only such as hold some of it.
    fn free_for(
        &mut self,
        agent: AgentKey,
        operation: &Operation,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let wanted = operation.net().consumed;
        let offers: Vec<u64> = self.agent_runs[&agent].offers.iter().copied().collect();
        for number in offers {
            let free = &self.agent_runs[&agent].free;
            if free.apply(operation).is_ok() {
                return;
            }
            let missing = &wanted - free;
            let offer = self.offers.get(&number).expect("open offer");
            if &missing - &offer.resources.unallocate() != missing {
                self.rescind(number, now, effects);
            }
        }
    }

    /// The operator has waited long enough.
    pub(crate) fn operation_timeout(&mut self, uuid: Uuid, effects: &mut Vec<Effect>) {
        let text = "The agent has not confirmed the operation yet: its outcome is open";
        self.answer_operator(uuid, Reply::Unavailable(text.into()), effects);
    }

    /// Answers the operator who waits for an operation, if one does.
    pub(super) fn answer_operator(&mut self, uuid: Uuid, reply: Reply, effects: &mut Vec<Effect>) {
        if let Some(call) = self.operations.asked.remove(&uuid) {
            effects.push(Effect::Reply { call, reply });
        }
    }
}
