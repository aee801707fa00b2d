//! An agent's side of its sessions with masters.

use std::time::Duration;

use tepui_proto::{Wire, v1};
use tepui_state_agent::Event;

use crate::simulation::Simulation;
use crate::step::Step;

impl Simulation {
    /// First frame of a new session, if the agent has none.
    pub(crate) fn hello(&self, index: usize) -> Option<tepui_proto::link::Hello> {
        let agent = &self.agents[index];
        let state = agent.state.as_ref()?;
        let (cluster_id, epoch_seen) = state.leadership();
        Some(tepui_proto::link::Hello {
            protocol: Some(tepui_proto::link::ProtocolRange { min: 1, max: 1 }),
            version: "1.11.0".into(),
            info: Some(state.info()),
            run_number: agent.hellos,
            address: match self.site.one_address {
                true => "10.0.0.0:5051".to_owned(),
                false => format!("10.0.0.{index}:5051"),
            },
            resource_version: bytes::Bytes::copy_from_slice(state.resource_version()),
            cluster_id: cluster_id.to_owned(),
            epoch_seen,
            has_state: state.has_state(),
            capabilities: capabilities(),
            ..Default::default()
        })
    }

    /// What the master said in a session.
    pub(crate) fn agent_told(
        &mut self,
        index: usize,
        session: u64,
        frame: tepui_proto::link::LinkFrame,
    ) -> Result<(), String> {
        use tepui_proto::link::link_frame::Body;
        use tepui_proto::link::refuse::Code;
        match frame.body {
            Some(Body::Welcome(welcome)) => {
                self.agents[index].session = Some(session);
                self.agent_event(
                    index,
                    Event::Connected {
                        session,
                        welcome: Wire(welcome),
                    },
                )
            }
            Some(Body::Refuse(refuse)) => {
                let run = self.agents[index].run;
                if refuse.code() == Code::Gone {
                    return self.agent_event(
                        index,
                        Event::Gone {
                            reason: refuse.reason,
                        },
                    );
                }
                let wait = Duration::from_millis(u64::from(refuse.retry_ms).max(100));
                self.after(wait, Step::Hello { agent: index, run });
                Ok(())
            }
            _ => {
                let frame = Wire(frame);
                self.agent_event(index, Event::FromMaster { session, frame })
            }
        }
    }
}

/// What agents of this release can do.
fn capabilities() -> Vec<v1::agent_info::Capability> {
    use v1::agent_info::capability::Type;
    [
        Type::MultiRole,
        Type::HierarchicalRole,
        Type::ReservationRefinement,
    ]
    .into_iter()
    .map(|kind| v1::agent_info::Capability {
        r#type: Some(kind as i32),
    })
    .collect()
}
