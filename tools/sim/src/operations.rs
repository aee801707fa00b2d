//! Operations on resources in a simulated cluster: what frameworks and operators were told of them is true.
//!
//! Each reservation carries its name as a label and each volume is named by its id, so that both are found again on
//! the disks of agents. What somebody was told is done is there, in the amount he was told, until the next operation
//! on it is asked for; from then on it may be either. Operations on one thing are applied in the order in which they
//! are asked for: each is asked for with the thing in hand, which nobody else has at that time.

mod ask;

use std::collections::{BTreeMap, BTreeSet};

use tepui_model::resources::{Resource, Resources, Scalar};
use tepui_proto::convert;
use tepui_proto::v1::scheduler::{self, call::Type};
use tepui_proto::v1::{self, OperationState, OperationStatus};
use tepui_state_master::{CallId, Reply};

use crate::simulation::Simulation;

/// Key of the label that names a reservation.
const LABEL: &str = "name";

/// A reservation or a volume, as those see it who ask for operations on it.
#[derive(Debug, Default)]
struct Thing {
    /// How much there is of it since the newest operation that is known to be done; none: it is not there.
    is: Option<Scalar>,
    /// Operations that were asked for since then, in this order, and how much there is after each.
    asked: Vec<(String, Option<Scalar>)>,
}

/// What is known of the operations of a run.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    made: u64,
    things: BTreeMap<String, Thing>,
    /// What each operation is about.
    about: BTreeMap<String, String>,
    /// Those of each framework whose end it does not know, and on which agent.
    waiting: BTreeMap<(usize, String), v1::AgentId>,
    /// The last word on each that a scheduler was told.
    ends: BTreeMap<String, OperationState>,
    /// Operators that wait for an answer, and for what.
    open: BTreeMap<CallId, String>,
    /// Operations that somebody was told are done.
    done: BTreeSet<String>,
}

/// The name of a reservation.
fn label_of(resource: &Resource) -> Option<&str> {
    let labels = resource.reservations().last()?.labels.as_ref()?;
    let label = labels.0.iter().find(|label| &*label.key == LABEL)?;
    label.value.as_deref()
}

/// The id of a persistent volume.
pub(crate) fn volume_of(resource: &Resource) -> Option<&str> {
    let persistence = resource.disk()?.persistence.as_ref()?;
    Some(&persistence.id)
}

impl Operations {
    /// An operation is asked for, after which there will be so much of the thing.
    fn ask(&mut self, operation: &str, thing: &str, after: Option<Scalar>) {
        let asked = (operation.to_owned(), after);
        self.about.insert(operation.to_owned(), thing.to_owned());
        let thing = self.things.entry(thing.to_owned()).or_default();
        thing.asked.push(asked);
    }

    /// Only a part of it is taken away. Other parts may be at the same time, so how much is left is not known.
    fn lose_sight(&mut self, thing: &str) {
        self.things.remove(thing);
    }

    /// All there is of a thing, or ever was.
    fn is_all(&self, thing: &str, amount: Scalar) -> bool {
        self.things.get(thing).is_some_and(|thing| {
            let asked = thing.asked.iter().map(|(_, after)| *after);
            asked.chain([thing.is]).flatten().max() == Some(amount)
        })
    }

    /// Somebody was told that it is done: nothing that was asked for before it can come after it.
    fn is_done(&mut self, operation: &str) {
        self.done.insert(operation.to_owned());
        let about = self.about.get(operation);
        let Some(thing) = about.and_then(|thing| self.things.get_mut(thing)) else {
            return;
        };
        let at = thing.asked.iter().position(|(id, _)| id == operation);
        if let Some(at) = at {
            thing.is = thing.asked[at].1;
            thing.asked.drain(..=at);
        }
    }

    /// Somebody was told that it is not done and never will be.
    fn is_not_done(&mut self, operation: &str) {
        let about = self.about.get(operation);
        if let Some(thing) = about.and_then(|thing| self.things.get_mut(thing)) {
            thing.asked.retain(|(id, _)| id != operation);
        }
    }

    /// A scheduler hears of an operation. What is done is not undone by words, nor the other way round.
    fn told(&mut self, index: usize, status: &OperationStatus) -> Result<(), String> {
        let Some(id) = &status.operation_id else {
            return Ok(());
        };
        let state = status.state();
        match state {
            OperationState::OperationFinished => self.is_done(&id.value),
            OperationState::OperationDropped
            | OperationState::OperationError
            | OperationState::OperationFailed => self.is_not_done(&id.value),
            // It never came to the master, or its end is acknowledged.
            OperationState::OperationUnknown => {
                self.waiting.remove(&(index, id.value.clone()));
                return Ok(());
            }
            _ => return Ok(()),
        }
        self.waiting.remove(&(index, id.value.clone()));
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

    /// An operator is answered.
    pub(crate) fn answer(&mut self, call: CallId, reply: &Reply) {
        let Some(operation) = self.open.remove(&call) else {
            return;
        };
        match reply {
            Reply::Accepted => self.is_done(&operation),
            // The outcome is open.
            Reply::Unavailable(_) => {}
            _ => self.is_not_done(&operation),
        }
    }

    /// The master died: nobody is answered any more.
    pub(crate) fn unanswered(&mut self) {
        self.open.clear();
    }

    /// How many operations somebody was told are done.
    pub(crate) fn done(&self) -> u64 {
        self.done.len() as u64
    }

    /// Compares with what is on the disks of agents.
    fn check(&self, found: &BTreeMap<String, Scalar>) -> Result<(), String> {
        for (name, thing) in &self.things {
            let there = found.get(name).copied();
            let known = there == thing.is || thing.asked.iter().any(|(_, after)| *after == there);
            if !known {
                return Err(format!(
                    "R4: of {name} there is {there:?} on the disks of agents, expected {thing:?}"
                ));
            }
        }
        Ok(())
    }
}

impl Simulation {
    /// What an operation leaves of resources.
    pub(crate) fn left_by(offered: &Resources, operation: &v1::offer::Operation) -> Resources {
        let converted = convert::operation(operation).ok().flatten();
        let bare = converted.map(|operation| operation.map(Resource::unallocated));
        let left = bare.and_then(|operation| offered.apply(&operation).ok());
        left.unwrap_or_else(|| offered.clone())
    }

    /// Takes note, and acknowledges; now and then the acknowledgement is forgotten.
    pub(crate) fn operation_told(
        &mut self,
        index: usize,
        status: OperationStatus,
    ) -> Result<(), String> {
        self.operations.told(index, &status)?;
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

    /// Asks for the operations whose end it does not know; now and then for all that the master knows.
    pub(crate) fn reconcile_operations(&mut self, index: usize) {
        let mut operations = Vec::new();
        if self.rng.below(4) > 0 {
            let own = (index, String::new())..(index + 1, String::new());
            let waiting = self.operations.waiting.range(own);
            operations.extend(waiting.map(|((_, id), agent)| {
                scheduler::call::reconcile_operations::Operation {
                    operation_id: v1::OperationId { value: id.clone() },
                    agent_id: Some(agent.clone()),
                    ..Default::default()
                }
            }));
            if operations.is_empty() {
                return;
            }
        }
        self.send_call(
            index,
            scheduler::Call {
                r#type: Some(Type::ReconcileOperations.into()),
                reconcile_operations: Some(scheduler::call::ReconcileOperations { operations }),
                ..Default::default()
            },
        );
    }

    /// What was reported done is on the disks of agents, and the data of every volume is there.
    pub(crate) fn check_disks(&self) -> Result<(), String> {
        let mut found: BTreeMap<String, Scalar> = BTreeMap::new();
        for (index, agent) in self.agents.iter().enumerate() {
            for resource in agent.disk.resources.made.iter() {
                let amount = resource.amount().unwrap_or_default();
                for name in [label_of(resource), volume_of(resource)]
                    .into_iter()
                    .flatten()
                {
                    let sum = found.entry(name.to_owned()).or_default();
                    *sum += amount;
                }
                if let Some(volume) = volume_of(resource)
                    && !agent.volumes.contains(volume)
                {
                    return Err(format!(
                        "R4: agent {index} has volume {volume} without its data"
                    ));
                }
            }
        }
        self.operations.check(&found)
    }

    /// After a run every agent has as much as it was given, knows what is on its disk, and so does the master.
    pub(crate) fn check_resources(&mut self) -> Result<(), String> {
        self.check_disks()?;
        let view = self.master.as_mut().map(|master| master.state.view());
        for (index, agent) in self.agents.iter().enumerate() {
            let made = &agent.disk.resources.made;
            let given = convert::resources(&agent.resources).unwrap_or_default();
            let Some(state) = &agent.state else { continue };
            let total = state.resources();
            if total.quantities() != given.quantities() {
                return Err(format!(
                    "R1: agent {index} was given {given} and has {total}"
                ));
            }
            if total.made() != *made {
                return Err(format!(
                    "R4: the disk of agent {index} has {made}, its state {total}"
                ));
            }
            let mut rows = view.iter().flat_map(|view| view.agents.iter());
            let row = rows.find(|row| Some(&row.id) == state.agent_id());
            if let Some(row) = row.filter(|row| row.total != *total) {
                return Err(format!(
                    "R1: agent {index} has {total}, the master takes it for {}",
                    row.total
                ));
            }
        }
        Ok(())
    }
}
