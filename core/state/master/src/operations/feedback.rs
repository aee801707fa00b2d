//! What becomes of operations: updates of agents, acknowledgements, agents that come back or leave, reconciliation.
//!
//! An agent repeats the end of an operation until it is acknowledged: by the framework, if that gave the operation an
//! id, else by the master. Of a framework that is not known the end waits for it so long, and no longer.

use std::collections::BTreeSet;
use std::time::Duration;

use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::id::{FrameworkId, OperationId, Uuid};
use tepui_model::time::Now;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::{self, OperationState, OperationStatus, scheduler};
use tepui_proto::{Message as _, convert};

use super::is_over;
use crate::counts::Count;
use crate::effect::bytes_of;
use crate::event::SessionKey;
use crate::reconcile::operation_event;
use crate::timers::Timer;
use crate::{Effect, MasterState, Reply};

/// How long the end of an operation waits for a framework that is not known: it may come back after a failover.
const ORPHANED: Duration = Duration::from_mins(10);

impl MasterState {
    /// An agent tells the state of an operation.
    pub(crate) fn operation_updated(
        &mut self,
        session: SessionKey,
        update: link::OperationUpdate,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        self.counts.add(Count::OperationUpdate);
        let uuid = Uuid::from_slice(&update.operation_uuid);
        let known = uuid.filter(|uuid| {
            let row = self.operation_rows.get(uuid);
            row.is_some_and(|row| Some(row.agent) == self.agent_of(session))
        });
        let (good, bad) = (Count::ValidOperationUpdate, Count::InvalidOperationUpdate);
        let valid = known.zip(update.status);
        self.counts.judge(valid.is_some(), good, bad);
        let Some((uuid, status)) = valid else { return };
        self.set_operation_status(uuid, &status);
        if !is_over(status.state()) {
            return;
        }
        let reply = match status.state() {
            OperationState::OperationFinished => Reply::Accepted,
            _ => Reply::Conflict(status.message().to_owned()),
        };
        self.answer_operator(uuid, reply, effects);
        self.forward(uuid, status, now, effects);
    }

    /// Notes a state that an agent tells: the newest counts, and each is listed once.
    fn set_operation_status(&mut self, uuid: Uuid, status: &OperationStatus) {
        let row = self.operation_rows.get_mut(&uuid).expect("known operation");
        let mut message = v1::Operation::decode(row.bytes.clone()).expect("encoded here");
        if message.statuses.contains(status) {
            return;
        }
        message.latest_status = status.clone();
        message.statuses.push(status.clone());
        row.bytes = bytes_of(&message);
        let (kind, old) = (row.kind, row.state);
        row.state = status.state();
        if old != status.state() {
            let counted = &mut self.operations.counted;
            *counted.entry((kind, status.state())).or_default() += 1;
            self.uncount(kind, old);
        }
    }

    /// Passes the end of an operation on to whoever acknowledges it.
    fn forward(
        &mut self,
        uuid: Uuid,
        mut status: OperationStatus,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let row = self.operation_rows.get(&uuid).expect("known operation");
        let (agent, framework) = (row.agent, row.framework.clone());
        let Some(framework) = framework.filter(|_| row.id.is_some()) else {
            return self.acknowledge_to_agent(uuid, &status, effects);
        };
        if let Some(key) = self.framework_ids.get(&framework) {
            status.agent_id = Some((&self.agent_runs[&agent].id).into());
            self.frameworks[key].send(operation_event(status), effects);
        } else if self.removed_frameworks.contains(&framework) {
            self.acknowledge_to_agent(uuid, &status, effects);
        } else {
            self.timers.set(now.mono + ORPHANED, Timer::Orphan(uuid));
        }
    }

    /// The end of an operation is known to whom it concerns: the agent may forget it.
    fn acknowledge_to_agent(
        &mut self,
        uuid: Uuid,
        status: &OperationStatus,
        effects: &mut Vec<Effect>,
    ) {
        let row = self.operation_rows.get(&uuid).expect("known operation");
        let agent = row.agent;
        if !self.agent_runs[&agent].synced {
            // It tells again when it is back.
            return;
        }
        let status_uuid = status.uuid.as_ref().map(|uuid| uuid.value.clone());
        let body = Body::AckOperation(link::AckOperation {
            operation_uuid: uuid.as_bytes().to_vec().into(),
            status_uuid: status_uuid.unwrap_or_default(),
        });
        self.to_agent(agent, body, effects);
        self.remove_operation(uuid);
    }

    /// The framework of an operation did not come back.
    pub(crate) fn operation_orphaned(&mut self, uuid: Uuid, effects: &mut Vec<Effect>) {
        let Some(row) = self.operation_rows.get(&uuid) else {
            return;
        };
        let known = row.framework.as_ref();
        if known.is_some_and(|framework| self.framework_ids.contains_key(framework)) {
            return;
        }
        let message = v1::Operation::decode(row.bytes.clone()).expect("encoded here");
        self.acknowledge_to_agent(uuid, &message.latest_status, effects);
    }

    /// ACKNOWLEDGE_OPERATION_STATUS.
    pub(crate) fn acknowledge_operation(
        &mut self,
        framework: FrameworkKey,
        call: scheduler::call::AcknowledgeOperationStatus,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.frameworks[&framework].id.clone();
        let key = (id, OperationId::from(&call.operation_id));
        let uuid = self.operations.named.get(&key).copied();
        let acknowledged = uuid.and_then(|uuid| {
            let row = self.operation_rows.get(&uuid)?;
            let run = &self.agent_runs[&row.agent];
            let message = v1::Operation::decode(row.bytes.clone()).expect("encoded here");
            let status = message.latest_status;
            let agent = call.agent_id.as_ref();
            let meant = agent.is_none_or(|agent| agent.value == run.id.as_str())
                && status
                    .uuid
                    .as_ref()
                    .is_some_and(|own| own.value == call.uuid);
            (meant && run.synced).then_some((uuid, status))
        });
        let good = Count::ValidOperationAcknowledge;
        let bad = Count::InvalidOperationAcknowledge;
        self.counts.judge(acknowledged.is_some(), good, bad);
        if let Some((uuid, status)) = acknowledged {
            self.acknowledge_to_agent(uuid, &status, effects);
        }
    }

    /// What a synced agent knows of operations is what there is: one that it lacks never reached it.
    pub(crate) fn sync_operations(
        &mut self,
        agent: AgentKey,
        reported: Vec<v1::Operation>,
        effects: &mut Vec<Effect>,
    ) {
        let mut known = BTreeSet::new();
        for message in reported {
            let Some(uuid) = Uuid::from_slice(&message.uuid.value) else {
                continue;
            };
            known.insert(uuid);
            if self.operation_rows.contains(&uuid) {
                self.set_operation_status(uuid, &message.latest_status);
            } else if let Ok(Some(operation)) = convert::operation(&message.info) {
                let framework = message.framework_id.as_ref().map(FrameworkId::from);
                self.add_operation(agent, uuid, framework, &operation, &message);
            }
        }
        let lost: Vec<Uuid> = self.agent_runs[&agent]
            .operations
            .iter()
            .filter(|uuid| !known.contains(*uuid))
            .copied()
            .collect();
        for uuid in lost {
            let text = "Operation is unknown to the agent";
            self.end_operation(uuid, OperationState::OperationDropped, text, effects);
        }
    }

    /// An agent leaves: its operations are in this state, and nothing is acknowledged.
    pub(crate) fn end_operations(
        &mut self,
        agent: AgentKey,
        state: OperationState,
        message: &str,
        effects: &mut Vec<Effect>,
    ) {
        for uuid in self.agent_runs[&agent].operations.clone() {
            self.end_operation(uuid, state, message, effects);
        }
    }

    /// An operation is over by the master's word. One whose end its framework was told stays as it was told.
    fn end_operation(
        &mut self,
        uuid: Uuid,
        state: OperationState,
        message: &str,
        effects: &mut Vec<Effect>,
    ) {
        let row = self.operation_rows.get(&uuid).expect("known operation");
        let told = is_over(row.state);
        let owner = row.framework.as_ref();
        let owner = owner.and_then(|framework| self.framework_ids.get(framework));
        if let (Some(id), Some(owner), false) = (&row.id, owner, told) {
            let status = OperationStatus {
                operation_id: Some(id.into()),
                state: state.into(),
                message: Some(message.to_owned()),
                agent_id: Some((&self.agent_runs[&row.agent].id).into()),
                ..Default::default()
            };
            self.frameworks[owner].send(operation_event(status), effects);
        }
        if !told && is_over(state) {
            let kind = row.kind;
            *self.operations.counted.entry((kind, state)).or_default() += 1;
        }
        let reply = match state {
            OperationState::OperationDropped => Reply::Conflict(message.to_owned()),
            _ => Reply::Unavailable(format!("{message}: the outcome of the operation is open")),
        };
        self.answer_operator(uuid, reply, effects);
        self.remove_operation(uuid);
    }

    /// The operations of a framework that ends: what has ended needs nobody's acknowledgement any more.
    pub(crate) fn release_operations(
        &mut self,
        framework: &FrameworkId,
        effects: &mut Vec<Effect>,
    ) {
        let over: Vec<(Uuid, OperationStatus)> = self
            .operation_rows
            .iter()
            .filter(|row| row.framework.as_ref() == Some(framework) && is_over(row.state))
            .map(|row| {
                let message = v1::Operation::decode(row.bytes.clone()).expect("encoded here");
                (row.uuid, message.latest_status)
            })
            .collect();
        for (uuid, status) in over {
            self.acknowledge_to_agent(uuid, &status, effects);
        }
    }

    /// The newest state of an operation of the framework that is known, or of all of them.
    pub(crate) fn known_operations(
        &self,
        framework: FrameworkKey,
        only: Option<&v1::OperationId>,
    ) -> Vec<OperationStatus> {
        let owner = &self.frameworks[&framework].id;
        let of = |row: &&tepui_view::OperationRow| {
            let named =
                only.is_none_or(|id| row.id.as_ref().is_some_and(|own| own.as_str() == id.value));
            row.framework.as_ref() == Some(owner) && row.id.is_some() && named
        };
        let rows = self.operation_rows.iter().filter(of);
        rows.map(|row| OperationStatus {
            operation_id: row.id.as_ref().map(Into::into),
            state: row.state.into(),
            message: Some("Reconciliation: Latest operation state".to_owned()),
            agent_id: Some((&self.agent_runs[&row.agent].id).into()),
            ..Default::default()
        })
        .collect()
    }
}
