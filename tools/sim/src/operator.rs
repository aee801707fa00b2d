//! What the operator of a simulated cluster does.

use tepui_model::id::AgentId;
use tepui_proto::Wire;
use tepui_proto::v1::{self, quota, value};
use tepui_state_master::{CallId, Event, OperatorCall};

use crate::simulation::Simulation;

/// A role of simulated frameworks.
const ROLE: &str = "a";

impl Simulation {
    fn operate(&mut self, request: OperatorCall) -> Result<(), String> {
        self.calls += 1;
        self.master_event(Event::Operator {
            call: CallId(self.calls),
            principal: None,
            request,
            class: None,
        })
    }

    /// Agents that the leader knows; those out of service with true.
    fn known_agents(&mut self) -> Vec<(AgentId, bool)> {
        let Some(master) = &mut self.master else {
            return Vec::new();
        };
        let view = master.state.view();
        let agents = view.agents.iter();
        agents
            .map(|row| (row.id.clone(), row.deactivated))
            .collect()
    }

    /// Takes an agent out of service in one of the ways, or brings it back; limits a role.
    pub(crate) fn operator_acts(&mut self) -> Result<(), String> {
        let agents = self.known_agents();
        if agents.is_empty() {
            return Ok(());
        }
        let chosen = self.rng.below(agents.len() as u64) as usize;
        let (agent_id, _) = agents[chosen].clone();
        let request = match self.rng.below(6) {
            0 => OperatorCall::Deactivate { agent_id },
            1 | 2 => OperatorCall::Drain {
                agent_id,
                config: Wire(v1::DrainConfig::default()),
            },
            3 => limit(Some(1.0)),
            _ => OperatorCall::Reactivate { agent_id },
        };
        self.operate(request)
    }

    /// After the last fault everything is in service and without limits, and frameworks whose scheduler is gone for
    /// good are ended: a new leader knows them from agents again, and keeps them until somebody does.
    pub(crate) fn clear_away(&mut self) -> Result<(), String> {
        for (agent_id, is_out) in self.known_agents() {
            if is_out {
                self.operate(OperatorCall::Reactivate { agent_id })?;
            }
        }
        self.operate(limit(None))?;
        let over: Vec<String> = self
            .schedulers
            .iter()
            .filter(|scheduler| scheduler.over)
            .filter_map(|scheduler| scheduler.framework_id())
            .collect();
        for framework_id in over {
            self.operate(OperatorCall::Teardown { framework_id })?;
        }
        Ok(())
    }
}

/// Limits the cpus of the first role, or does not any more.
fn limit(cpus: Option<f64>) -> OperatorCall {
    let limits = cpus.map(|value| ("cpus".to_owned(), value::Scalar { value }));
    OperatorCall::UpdateQuota {
        configs: vec![Wire(quota::QuotaConfig {
            role: ROLE.to_owned(),
            guarantees: Default::default(),
            limits: limits.into_iter().collect(),
        })],
        force: true,
    }
}
