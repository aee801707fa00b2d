//! Operations of operators on an agent's resources: reservations and persistent volumes.
//!
//! They are checked and authorized by a view; the state checks them again, performs them, and answers when the agent
//! has made them durable.

use tepui_http::Response;
use tepui_model::id::AgentId;
use tepui_proto::v1::offer::{self, operation};
use tepui_proto::v1::{self, master};
use tepui_proto::{Wire, convert};
use tepui_state_master::{OperatorCall, check_asked};

use super::Caller;
use crate::operation::questions;
use crate::refusal::Refusal;

/// An operation as an operator asks for it.
pub(crate) struct Asked {
    pub(crate) agent: String,
    pub(crate) operation: offer::Operation,
}

impl Asked {
    /// An operation on nothing, to be filled in.
    fn new(kind: operation::Type, agent: v1::AgentId) -> Self {
        Self {
            agent: agent.value,
            operation: offer::Operation {
                r#type: Some(kind.into()),
                ..Default::default()
            },
        }
    }

    /// One of the older endpoints: RESERVE, UNRESERVE, CREATE or DESTROY of these resources.
    pub(crate) fn with(kind: operation::Type, agent: String, resources: Vec<v1::Resource>) -> Self {
        let mut asked = Self::new(kind, v1::AgentId { value: agent });
        let operation = &mut asked.operation;
        match kind {
            operation::Type::Reserve => {
                operation.reserve = Some(operation::Reserve {
                    resources,
                    ..Default::default()
                });
            }
            operation::Type::Unreserve => {
                operation.unreserve = Some(operation::Unreserve { resources });
            }
            operation::Type::Create => {
                let volumes = resources;
                operation.create = Some(operation::Create { volumes });
            }
            _ => {
                let volumes = resources;
                operation.destroy = Some(operation::Destroy { volumes });
            }
        }
        asked
    }

    /// The operation of a v1 call; none if it is another call.
    pub(crate) fn of(call: &mut master::Call) -> Option<Self> {
        use operation::Type;
        if let Some(call) = call.reserve_resources.take() {
            let mut asked = Self::with(Type::Reserve, call.agent_id.value, call.resources);
            if let Some(reserve) = &mut asked.operation.reserve {
                reserve.source = call.source;
            }
            return Some(asked);
        }
        if let Some(call) = call.unreserve_resources.take() {
            let (agent, resources) = (call.agent_id.value, call.resources);
            return Some(Self::with(Type::Unreserve, agent, resources));
        }
        if let Some(call) = call.create_volumes.take() {
            return Some(Self::with(Type::Create, call.agent_id.value, call.volumes));
        }
        if let Some(call) = call.destroy_volumes.take() {
            return Some(Self::with(Type::Destroy, call.agent_id.value, call.volumes));
        }
        if let Some(call) = call.grow_volume.take() {
            let mut asked = Self::new(Type::GrowVolume, call.agent_id.unwrap_or_default());
            asked.operation.grow_volume = Some(Box::new(operation::GrowVolume {
                volume: call.volume,
                addition: call.addition,
            }));
            return Some(asked);
        }
        let call = call.shrink_volume.take()?;
        let mut asked = Self::new(Type::ShrinkVolume, call.agent_id.unwrap_or_default());
        asked.operation.shrink_volume = Some(Box::new(operation::ShrinkVolume {
            volume: call.volume,
            subtract: call.subtract,
        }));
        Some(asked)
    }
}

impl Caller<'_> {
    /// Performs an operation. `prefix` stands before what is wrong with the resources by themselves.
    pub(crate) async fn operate(&self, asked: Asked, prefix: &str) -> Result<Response, Refusal> {
        let kind = asked.operation.r#type().as_str_name();
        let operation = convert::operation(&asked.operation)
            .map_err(|error| Refusal::bad_request(format!("{prefix}{error}")))?
            .ok_or_else(Refusal::not_implemented)?;
        let view = self.owner.view().await?;
        let agent_id = AgentId::from(asked.agent);
        let agent = view
            .agents
            .iter()
            .find(|row| row.id == agent_id)
            .ok_or_else(|| Refusal::bad_request("No agent found with specified ID"))?;
        let principal = self
            .subject
            .and_then(|subject| subject.principal.as_deref());
        check_asked(&operation, kind, principal, agent).map_err(Refusal::bad_request)?;
        for (action, object) in questions(&operation) {
            self.require_all(action, [object]).await?;
        }
        let operation = Box::new(Wire(asked.operation));
        self.change(OperatorCall::Operate {
            agent_id,
            operation,
        })
        .await
    }
}
