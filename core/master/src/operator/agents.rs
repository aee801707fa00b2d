//! Agents out of service: DEACTIVATE_AGENT, REACTIVATE_AGENT, DRAIN_AGENT, MARK_AGENT_GONE.

use tepui_http::Response;
use tepui_model::authorization::Action;
use tepui_model::id::AgentId;
use tepui_proto::v1::{self, master};
use tepui_state_master::OperatorCall;

use super::Caller;
use crate::clock;
use crate::refusal::Refusal;

impl Caller<'_> {
    pub(crate) async fn deactivate(&self, id: &v1::AgentId) -> Result<Response, Refusal> {
        self.require(Action::DeactivateAgent).await?;
        let agent_id = AgentId::from(id);
        self.change(OperatorCall::Deactivate { agent_id }).await
    }

    pub(crate) async fn reactivate(&self, id: &v1::AgentId) -> Result<Response, Refusal> {
        self.require(Action::ReactivateAgent).await?;
        let agent_id = AgentId::from(id);
        self.change(OperatorCall::Reactivate { agent_id }).await
    }

    pub(crate) async fn drain(&self, call: master::call::DrainAgent) -> Result<Response, Refusal> {
        self.require(Action::DrainAgent).await?;
        if call.mark_gone() {
            self.require(Action::MarkAgentGone).await?;
        }
        let period = call.max_grace_period.as_ref();
        let period = period.map(|period| grace(period.seconds, period.nanos));
        let config = v1::DrainConfig {
            max_grace_period: period.transpose()?,
            mark_gone: Some(call.mark_gone()),
        };
        let (agent_id, config) = (AgentId::from(&call.agent_id), config.into());
        self.change(OperatorCall::Drain { agent_id, config }).await
    }

    pub(crate) async fn mark_gone(&self, id: &v1::AgentId) -> Result<Response, Refusal> {
        self.require(Action::MarkAgentGone).await?;
        let (agent_id, at) = (AgentId::from(id), clock::wall());
        self.change(OperatorCall::MarkGone { agent_id, at }).await
    }
}

/// A period of an operator, which is not negative.
fn grace(seconds: i64, nanos: i32) -> Result<v1::DurationInfo, Refusal> {
    let nanoseconds = seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos.into());
    if nanoseconds < 0 {
        let text = "Expecting 'max_grace_period' not to be negative";
        return Err(Refusal::bad_request(text));
    }
    Ok(v1::DurationInfo { nanoseconds })
}
