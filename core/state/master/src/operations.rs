//! Operations on resources: RESERVE, UNRESERVE, CREATE, DESTROY, GROW_VOLUME, SHRINK_VOLUME.
//!
//! An operation is applied to the ledger at once and sent to the agent, which makes it durable and says so until it
//! is acknowledged. What comes after it, also in the same ACCEPT, rests on its result. An agent that cannot
//! perform an operation ends its session, and its next Sync replaces the ledger's idea of it.
//!
//! Mirrors `Master::_accept`, `Master::updateOperationStatus` and `Master::acknowledgeOperationStatus` of Mesos 1.11;
//! other than there, GROW_VOLUME and SHRINK_VOLUME are applied at once, too.

mod asked;
mod feedback;

use std::collections::BTreeMap;

use tepui_model::allocation::{AgentKey, Fact, FrameworkKey, Holding};
use tepui_model::id::{FrameworkId, OperationId, Role, Uuid};
use tepui_model::resources::{Operation, Resource};
use tepui_model::time::Now;
use tepui_proto::convert;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::{self, OperationState, OperationStatus, offer, offer::operation::Type};
use tepui_view::OperationRow;

use crate::accept::Accepted;
use crate::effect::bytes_of;
use crate::event::CallId;
use crate::reconcile::operation_event;
use crate::validate::{self, Asker};
use crate::{Effect, MasterState};

pub use asked::check_asked;

/// What the state keeps of operations beside their rows.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    /// Ids that frameworks gave to operations which are not acknowledged.
    named: BTreeMap<(FrameworkId, OperationId), Uuid>,
    /// Operators that wait for the end of an operation.
    asked: BTreeMap<Uuid, CallId>,
    /// All that ended or is under way, by type and state, for metrics.
    counted: BTreeMap<(Type, OperationState), u64>,
}

/// Whether an operation in this state has ended.
pub(crate) fn is_over(state: OperationState) -> bool {
    !matches!(
        state,
        OperationState::OperationPending
            | OperationState::OperationUnreachable
            | OperationState::OperationRecovering
    )
}

impl MasterState {
    /// One operation of an ACCEPT; its result is among what the next ones may use.
    pub(crate) fn operate(
        &mut self,
        accepted: &mut Accepted,
        operation: offer::Operation,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        match self.check_operation(accepted, &operation) {
            Ok((checked, left)) => {
                accepted.left = left;
                self.spare_volumes(accepted.agent, &checked, now, effects);
                let role = Some((accepted.framework, accepted.role.clone()));
                let framework = self.frameworks[&accepted.framework].id.clone();
                self.convert(accepted.agent, role, &checked);
                self.send_operation(
                    accepted.agent,
                    Some(framework),
                    operation,
                    &checked,
                    effects,
                );
            }
            Err(message) => {
                self.refuse_operation(accepted.framework, &operation, message, effects);
            }
        }
    }

    /// Everything that can be wrong with an operation of a framework; else what the offers hold after it.
    fn check_operation(
        &self,
        accepted: &Accepted,
        message: &offer::Operation,
    ) -> Result<(Operation, tepui_model::Resources), String> {
        let owner = &self.frameworks[&accepted.framework];
        let row = self.agents.get(&accepted.agent).expect("agent of an offer");
        let run = &self.agent_runs[&accepted.agent];
        let on_agent = |why: String| {
            format!(
                "{why}; on agent {} at {} ({})",
                row.id, row.pid, row.hostname
            )
        };
        if let Some(id) = &message.id {
            let key = (owner.id.clone(), OperationId::from(id));
            if self.operations.named.contains_key(&key) {
                return Err(on_agent(format!(
                    "Operation ID '{}' is in use by an operation that is not acknowledged",
                    id.value
                )));
            }
        }
        if !run.synced {
            return Err(on_agent("The agent is not connected".to_owned()));
        }
        let operation = convert::operation(message)
            .map_err(|error| on_agent(format!("Invalid resources: {error}")))?
            .ok_or_else(|| on_agent(not_performed(message.r#type())))?;
        let role = &accepted.role;
        let operation = operation.map(|resource| match resource.allocation_role() {
            Some(_) => resource,
            None => resource.allocated(role.clone()),
        });
        let asker = Asker {
            principal: owner.info.principal.as_deref(),
            framework: Some((owner.id.as_str(), owner.can.sharing)),
        };
        let used = row.used.unallocate();
        validate::operation(&operation, asker, &row.total, &used).map_err(on_agent)?;
        let left = accepted
            .left
            .apply(&operation)
            .map_err(|error| error.to_string())?;
        Ok((operation, left))
    }

    /// Takes a shared volume that is about to go out of the offers of others.
    fn spare_volumes(
        &mut self,
        agent: AgentKey,
        operation: &Operation,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let Operation::Destroy(volumes) = operation else {
            return;
        };
        let bare: Vec<Resource> = volumes
            .iter()
            .filter(|volume| volume.is_shared())
            .map(|volume| volume.clone().unallocated())
            .collect();
        let holds = |number: &u64| {
            let row = self.offers.get(number).expect("open offer");
            let mut held = row.resources.iter();
            held.any(|resource| bare.contains(&resource.clone().unallocated()))
        };
        let offers = self.agent_runs[&agent].offers.iter().copied();
        let holding: Vec<u64> = offers.filter(holds).collect();
        for number in holding {
            self.rescind(number, now, effects);
        }
    }

    /// Applies a checked operation to the ledger: to what the agent has and to what is free there. `holder` has what
    /// it takes, as far as the allocator knows, and gets what it makes.
    fn convert(
        &mut self,
        agent: AgentKey,
        holder: Option<(FrameworkKey, Role)>,
        operation: &Operation,
    ) {
        let bare = operation.clone().map(Resource::unallocated);
        let holding = |(framework, role): &(FrameworkKey, Role), resources| Holding {
            framework: *framework,
            role: role.clone(),
            agent,
            resources,
        };
        if let Some(holder) = &holder {
            let returned = holding(holder, bare.net().consumed);
            self.allocation.tell(Fact::Returned(returned));
        }
        let row = self.agents.get(&agent).expect("agent of an operation");
        let total = row.total.apply(&bare).expect("checked to be there");
        self.set_total(agent, total);
        self.recount_free(agent);
        self.tell_agent(agent);
        if let Some(holder) = &holder {
            let taken = holding(holder, bare.net().converted);
            self.allocation.tell(Fact::Taken(taken));
        }
    }

    /// Lists an operation that is applied, and tells its agent.
    fn send_operation(
        &mut self,
        agent: AgentKey,
        framework: Option<FrameworkId>,
        info: offer::Operation,
        operation: &Operation,
        effects: &mut Vec<Effect>,
    ) -> Uuid {
        let uuid = self.rng.uuid();
        let framework_id = framework.as_ref().map(Into::into);
        let message = v1::Operation {
            framework_id: framework_id.clone(),
            agent_id: Some((&self.agent_runs[&agent].id).into()),
            latest_status: OperationStatus {
                operation_id: info.id.clone(),
                state: OperationState::OperationPending.into(),
                ..Default::default()
            },
            statuses: Vec::new(),
            uuid: v1::Uuid {
                value: uuid.as_bytes().to_vec().into(),
            },
            info: info.clone(),
        };
        self.add_operation(agent, uuid, framework, operation, &message);
        let resource_version = self.agents.get(&agent).map(|row| &row.resource_version);
        let body = Body::ApplyOperation(link::ApplyOperation {
            framework_id,
            operation: Some(Box::new(info)),
            operation_uuid: uuid.as_bytes().to_vec().into(),
            resource_version: resource_version.cloned().unwrap_or_default(),
        });
        self.to_agent(agent, body, effects);
        uuid
    }

    fn add_operation(
        &mut self,
        agent: AgentKey,
        uuid: Uuid,
        framework: Option<FrameworkId>,
        operation: &Operation,
        message: &v1::Operation,
    ) {
        let id = message.info.id.as_ref().map(OperationId::from);
        if let (Some(framework), Some(id)) = (&framework, &id) {
            let key = (framework.clone(), id.clone());
            self.operations.named.insert(key, uuid);
        }
        let run = self.agent_runs.get_mut(&agent).expect("known agent");
        run.operations.insert(uuid);
        let (kind, state) = (message.info.r#type(), message.latest_status.state());
        *self.operations.counted.entry((kind, state)).or_default() += 1;
        self.operation_rows.insert(
            uuid,
            OperationRow {
                uuid,
                id,
                framework,
                agent,
                kind,
                state,
                roles: operation.roles().into_iter().collect(),
                bytes: bytes_of(message),
            },
        );
    }

    /// Forgets an operation that nobody waits for any more.
    fn remove_operation(&mut self, uuid: Uuid) {
        let Some(row) = self.operation_rows.remove(&uuid) else {
            return;
        };
        if let Some(run) = self.agent_runs.get_mut(&row.agent) {
            run.operations.remove(&uuid);
        }
        if let (Some(framework), Some(id)) = (&row.framework, &row.id) {
            let key = (framework.clone(), id.clone());
            self.operations.named.remove(&key);
        }
        if !is_over(row.state) {
            self.uncount(row.kind, row.state);
        }
    }

    /// What is under way is a gauge; what has ended stays counted.
    fn uncount(&mut self, kind: Type, state: OperationState) {
        if let Some(number) = self.operations.counted.get_mut(&(kind, state)) {
            *number -= 1;
        }
    }

    /// OPERATION_ERROR for operations that asked for feedback; the others are dropped, as in Mesos.
    pub(crate) fn refuse_operation(
        &self,
        framework: FrameworkKey,
        operation: &offer::Operation,
        message: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = &operation.id else { return };
        let status = OperationStatus {
            operation_id: Some(id.clone()),
            state: OperationState::OperationError as i32,
            message: Some(message),
            ..Default::default()
        };
        self.frameworks[&framework].send(operation_event(status), effects);
    }

    /// How many operations there are in each state (of those that ended: were), by type.
    pub(crate) fn counted_operations(&self) -> Vec<(Type, OperationState, u64)> {
        let counted = self.operations.counted.iter();
        counted
            .map(|((kind, state), number)| (*kind, *state, *number))
            .collect()
    }
}

/// Why an operation that is none on the agent's own resources is refused.
fn not_performed(kind: Type) -> String {
    match kind {
        Type::CreateDisk | Type::DestroyDisk => {
            "'source' is not managed by a resource provider".to_owned()
        }
        other => format!("Operation {} is not supported", other.as_str_name()),
    }
}
