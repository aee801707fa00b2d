//! Operations on resources in a simulated cluster: frameworks reserve and unreserve, and what they were told is true.
//!
//! Each reservation carries the id of its operation as a label, so that it is found again on the disk of an agent.

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::resources::Resources;
use tepui_proto::v1::offer::{self, operation};
use tepui_proto::v1::resource::{ReservationInfo, reservation_info};
use tepui_proto::v1::scheduler::{self, call::Type};
use tepui_proto::v1::{self, OperationState, OperationStatus};
use tepui_proto::{convert, v1::value};

use crate::simulation::Simulation;

/// Key of the label that names the operation.
const LABEL: &str = "operation";

/// What is known of the operations of a run.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    made: u64,
    /// The last word on each that a scheduler was told.
    ends: BTreeMap<String, OperationState>,
    /// Reservations that somebody asked to take back.
    taken_back: BTreeSet<String>,
}

fn label_of(resource: &v1::Resource) -> Option<&str> {
    let labels = resource.reservations.last()?.labels.as_ref()?;
    let label = labels.labels.iter().find(|label| label.key == LABEL)?;
    label.value.as_deref()
}

impl Operations {
    /// A scheduler hears of an operation. What is done is not undone by words, nor the other way round.
    fn told(&mut self, status: &OperationStatus) -> Result<(), String> {
        let Some(id) = &status.operation_id else {
            return Ok(());
        };
        let state = status.state();
        let over = matches!(
            state,
            OperationState::OperationFinished
                | OperationState::OperationDropped
                | OperationState::OperationError
                | OperationState::OperationFailed
        );
        if !over {
            return Ok(());
        }
        match self.ends.insert(id.value.clone(), state) {
            Some(before) if before != state => Err(format!(
                "R4: operation {} was reported {} and then {}",
                id.value,
                before.as_str_name(),
                state.as_str_name()
            )),
            _ => Ok(()),
        }
    }

    /// Operations whose reservation must be there.
    fn kept(&self) -> impl Iterator<Item = &String> {
        let finished = self
            .ends
            .iter()
            .filter(|(_, state)| **state == OperationState::OperationFinished);
        let reserved = finished.filter(|(id, _)| id.starts_with("reserve-"));
        reserved
            .map(|(id, _)| id)
            .filter(|id| !self.taken_back.contains(*id))
    }
}

impl Simulation {
    /// Now and then an operation on what is offered: a reservation, or the end of one.
    pub(crate) fn some_operation(&mut self, offer: &v1::Offer) -> Option<offer::Operation> {
        if !self.faulty || self.rng.below(4) > 0 {
            return None;
        }
        self.operations.made += 1;
        let number = self.operations.made;
        let reserved = offer.resources.iter().find(|r| label_of(r).is_some());
        if let Some(resource) = reserved.filter(|_| number.is_multiple_of(2)) {
            let label = label_of(resource).unwrap_or_default().to_owned();
            self.operations.taken_back.insert(label);
            return Some(offer::Operation {
                r#type: Some(operation::Type::Unreserve.into()),
                id: Some(v1::OperationId {
                    value: format!("unreserve-{number}"),
                }),
                unreserve: Some(operation::Unreserve {
                    resources: vec![resource.clone()],
                }),
                ..Default::default()
            });
        }
        let id = format!("reserve-{number}");
        let label = v1::Label {
            key: LABEL.into(),
            value: Some(id.clone()),
        };
        let reservation = ReservationInfo {
            r#type: Some(reservation_info::Type::Dynamic.into()),
            role: offer.allocation_info.as_ref()?.role.clone(),
            labels: Some(v1::Labels {
                labels: vec![label],
            }),
            ..Default::default()
        };
        let resource = v1::Resource {
            name: "cpus".into(),
            r#type: value::Type::Scalar.into(),
            scalar: Some(value::Scalar { value: 0.1 }),
            reservations: vec![reservation],
            ..Default::default()
        };
        Some(offer::Operation {
            r#type: Some(operation::Type::Reserve.into()),
            id: Some(v1::OperationId { value: id }),
            reserve: Some(operation::Reserve {
                resources: vec![resource],
                ..Default::default()
            }),
            ..Default::default()
        })
    }

    /// What an operation leaves of an offer for tasks that use nothing reserved.
    pub(crate) fn left_by(offered: &Resources, operation: Option<&offer::Operation>) -> Resources {
        let converted = operation.and_then(|message| convert::operation(message).ok().flatten());
        let bare = converted.map(|operation| operation.map(|resource| resource.unallocated()));
        let left = bare.and_then(|operation| offered.apply(&operation).ok());
        left.unwrap_or_else(|| offered.clone())
    }

    /// Takes note, and acknowledges; now and then the acknowledgement is forgotten.
    pub(crate) fn operation_told(
        &mut self,
        index: usize,
        status: OperationStatus,
    ) -> Result<(), String> {
        self.operations.told(&status)?;
        let (Some(uuid), Some(operation_id)) = (status.uuid, status.operation_id) else {
            return Ok(());
        };
        if self.faulty && self.rng.below(20) == 0 {
            return Ok(());
        }
        let acknowledge = scheduler::call::AcknowledgeOperationStatus {
            agent_id: status.agent_id,
            uuid: uuid.value,
            operation_id,
            ..Default::default()
        };
        self.send_call(
            index,
            scheduler::Call {
                r#type: Some(Type::AcknowledgeOperationStatus.into()),
                acknowledge_operation_status: Some(acknowledge),
                ..Default::default()
            },
        );
        Ok(())
    }

    /// After a run every agent has as much as it was given, and what was reported done is on a disk.
    pub(crate) fn check_operations(&self) -> Result<(), String> {
        let mut labels: BTreeSet<String> = BTreeSet::new();
        for (index, agent) in self.agents.iter().enumerate() {
            let made = &agent.disk.resources.made;
            let messages = convert::to_proto(made);
            labels.extend(messages.iter().filter_map(label_of).map(str::to_owned));
            let given = convert::resources(&agent.resources).unwrap_or_default();
            let Some(state) = &agent.state else { continue };
            if state.resources().quantities() != given.quantities() {
                return Err(format!(
                    "R1: agent {index} was given {given} and has {}",
                    state.resources()
                ));
            }
            if state.resources().made() != *made {
                return Err(format!(
                    "R4: the disk of agent {index} has {made}, its state {}",
                    state.resources()
                ));
            }
        }
        match self.operations.kept().find(|id| !labels.contains(*id)) {
            Some(id) => Err(format!("R4: {id} was reported done and is on no disk")),
            None => Ok(()),
        }
    }
}
