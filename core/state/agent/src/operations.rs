//! Operations on the agent's resources: applied, made durable, told to the master until that acknowledges.
//!
//! One that was recorded is done, whatever happens to the agent process afterwards; one that was not never was. The
//! data of a volume is made before that is recorded, and removed after it.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tepui_model::id::{FrameworkId, Uuid};
use tepui_model::resources::{Operation, Resource, Resources};
use tepui_model::time::{Mono, Now};
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{AckOperation, ApplyOperation, OperationUpdate};
use tepui_proto::v1::{self, OperationState, OperationStatus, offer};
use tepui_proto::{Wire, convert};

use crate::Effect;
use crate::rows::{RETRY_MAX, RETRY_MIN};
use crate::state::AgentState;

/// What an agent has, and what operations made of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Owned {
    /// All of it, reservations and volumes included.
    pub(crate) total: Resources,
    /// The same before the newest operation.
    pub(crate) before: Resources,
    /// Operations that ended here and are not acknowledged, oldest first.
    pub(crate) ended: Vec<Ended>,
}

/// An operation whose end is told until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) message: Wire<v1::Operation>,
    /// When its end is told again; none while no master listens.
    pub(crate) retry_at: Option<Mono>,
    interval: Duration,
}

impl Ended {
    pub(crate) fn new(message: Wire<v1::Operation>) -> Self {
        Self {
            message,
            retry_at: None,
            interval: RETRY_MIN,
        }
    }

    fn is(&self, uuid: &[u8]) -> bool {
        *self.message.uuid.value == *uuid
    }

    /// Its end, to be told; sets its timer.
    fn tell(&mut self, now: Now) -> Body {
        self.retry_at = Some(now.mono + self.interval);
        self.interval = (self.interval * 2).min(RETRY_MAX);
        Body::OperationUpdate(OperationUpdate {
            framework_id: self.message.framework_id.clone(),
            status: Some(self.message.latest_status.clone()),
            operation_uuid: self.message.uuid.value.clone(),
        })
    }
}

/// What has to outlive the agent, of its resources and operations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResourceRecord {
    /// What operations made of the resources that the agent was given: reservations and volumes.
    pub made: Resources,
    /// Operations that ended and are not acknowledged.
    pub operations: Vec<Wire<v1::Operation>>,
    /// Volumes that are there no more; their data is removed after this is written.
    pub removed: Vec<Resource>,
}

/// Why an operation is not performed.
struct NotDone {
    state: OperationState,
    message: String,
}

impl AgentState {
    /// The master wants an operation performed; one that is known is only told of again.
    pub(crate) fn apply_operation(
        &mut self,
        apply: ApplyOperation,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let uuid = apply.operation_uuid.clone();
        if let Some(known) = self.owned.ended.iter_mut().find(|one| one.is(&uuid)) {
            let body = known.tell(now);
            return self.to_master(body, effects);
        }
        let info = apply.operation.map(|info| *info).unwrap_or_default();
        let done = self.convert(&info, &apply.resource_version);
        let status = self.operation_status(&info, done.as_ref().err());
        let message = v1::Operation {
            framework_id: apply.framework_id,
            agent_id: status.agent_id.clone(),
            latest_status: status.clone(),
            statuses: vec![status],
            uuid: v1::Uuid { value: uuid },
            info,
        };
        self.owned.ended.push(Ended::new(Wire(message)));
        match done {
            Ok(operation) => {
                let uuid = self.last_ended();
                let mut removed = Vec::new();
                match operation {
                    Operation::Create(volumes) => effects.push(Effect::MakeVolumes {
                        operation: uuid,
                        volumes,
                    }),
                    Operation::Destroy(volumes) => removed = volumes,
                    _ => {}
                }
                self.record_resources(Some(uuid), removed.clone(), effects);
                if !removed.is_empty() {
                    effects.push(Effect::RemoveVolumes { volumes: removed });
                }
                self.tell_last(now, effects);
            }
            Err(not_done) => {
                self.record_resources(None, Vec::new(), effects);
                self.tell_last(now, effects);
                if not_done.state != OperationState::OperationDropped {
                    self.resync(not_done.message, effects);
                }
            }
        }
    }

    /// Applies an operation to what the agent has.
    fn convert(
        &mut self,
        info: &offer::Operation,
        resource_version: &[u8],
    ) -> Result<Operation, NotDone> {
        let not_done = |state, message| NotDone { state, message };
        if !resource_version.is_empty() && *resource_version != *self.resource_version {
            let message = "Operation assumes outdated resource state".to_owned();
            return Err(not_done(OperationState::OperationDropped, message));
        }
        let error = |message| not_done(OperationState::OperationError, message);
        let operation = convert::operation(info)
            .map_err(|invalid| error(invalid.to_string()))?
            .ok_or_else(|| {
                let kind = info.r#type().as_str_name();
                error(format!("operation {kind} is not supported by this agent"))
            })?
            .map(Resource::unallocated);
        let total = self.owned.total.apply(&operation);
        let total = total.map_err(|missing| error(missing.to_string()))?;
        self.owned.before = std::mem::replace(&mut self.owned.total, total);
        Ok(operation)
    }

    fn operation_status(
        &mut self,
        info: &offer::Operation,
        not_done: Option<&NotDone>,
    ) -> OperationStatus {
        let uuid = self.rng.uuid();
        let state = not_done.map_or(OperationState::OperationFinished, |why| why.state);
        OperationStatus {
            operation_id: info.id.clone(),
            state: state.into(),
            message: not_done.map(|why| why.message.clone()),
            uuid: Some(v1::Uuid {
                value: Bytes::copy_from_slice(uuid.as_bytes()),
            }),
            agent_id: Some(v1::AgentId {
                value: self.agent().to_owned(),
            }),
            ..OperationStatus::default()
        }
    }

    fn last_ended(&self) -> Uuid {
        let last = self.owned.ended.last().expect("just pushed");
        Uuid::from_slice(&last.message.uuid.value).unwrap_or_default()
    }

    fn tell_last(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.session.is_some() {
            let last = self.owned.ended.last_mut().expect("just pushed");
            let body = last.tell(now);
            self.to_master(body, effects);
        }
    }

    fn record_resources(
        &self,
        operation: Option<Uuid>,
        removed: Vec<Resource>,
        effects: &mut Vec<Effect>,
    ) {
        let ended = self.owned.ended.iter();
        effects.push(Effect::CheckpointResources {
            operation,
            record: ResourceRecord {
                made: self.owned.total.made(),
                operations: ended.map(|one| one.message.clone()).collect(),
                removed,
            },
        });
    }

    /// The master has another idea of the resources: it learns what there is when the agent is back.
    fn resync(&self, reason: String, effects: &mut Vec<Effect>) {
        if let Some(session) = self.session {
            effects.push(Effect::CloseSession { session, reason });
        }
    }

    /// The volumes of an operation could not be made, or its record not be written: nothing of it is done. It comes
    /// before any other event, so the operation is the last one.
    pub(crate) fn operation_failed(
        &mut self,
        uuid: Uuid,
        message: String,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let state = OperationState::OperationFailed;
        let Some(last) = self.owned.ended.last() else {
            return;
        };
        if !last.is(uuid.as_bytes()) {
            return;
        }
        let info = last.message.info.clone();
        self.owned.total = self.owned.before.clone();
        let not_done = NotDone {
            state,
            message: message.clone(),
        };
        let status = self.operation_status(&info, Some(&not_done));
        let last = self.owned.ended.last_mut().expect("looked at above");
        last.message.latest_status = status.clone();
        last.message.statuses = vec![status];
        // Not recorded: that would fail again, and nothing has changed.
        self.tell_last(now, effects);
        self.resync(message, effects);
    }

    /// Somebody has the end of an operation.
    pub(crate) fn operation_acknowledged(&mut self, ack: &AckOperation, effects: &mut Vec<Effect>) {
        let meant = |one: &Ended| {
            let status = one.message.latest_status.uuid.as_ref();
            one.is(&ack.operation_uuid) && status.is_some_and(|own| own.value == ack.status_uuid)
        };
        let before = self.owned.ended.len();
        self.owned.ended.retain(|one| !meant(one));
        if self.owned.ended.len() != before {
            self.record_resources(None, Vec::new(), effects);
        }
    }

    /// Tells of operations again: of one framework's, or of all, with fresh timers.
    pub(crate) fn resend_operations(
        &mut self,
        only: Option<&FrameworkId>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        for one in &mut self.owned.ended {
            let of = one.message.framework_id.as_ref();
            if only.is_none_or(|id| of.is_some_and(|of| of.value == id.as_str())) {
                one.interval = RETRY_MIN;
                one.retry_at = Some(now.mono);
            }
        }
        self.operations_due(now, effects);
    }

    /// Tells again what has waited long enough.
    pub(crate) fn operations_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let due = |one: &&mut Ended| one.retry_at.is_some_and(|at| at <= now.mono);
        let ended = self.owned.ended.iter_mut();
        let bodies: Vec<Body> = ended.filter(due).map(|one| one.tell(now)).collect();
        for body in bodies {
            self.to_master(body, effects);
        }
    }
}
