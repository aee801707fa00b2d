//! What frameworks and operators ask for: reservations, volumes, and their ends.

use std::sync::Arc;

use tepui_model::id::Role;
use tepui_model::labels::{Label, Labels};
use tepui_model::resources::{
    Disk, Name, Persistence, Reservation, Resource, Resources, Scalar, Volume,
};
use tepui_proto::Wire;
use tepui_proto::v1::offer::{self, operation};
use tepui_proto::v1::{self, value};
use tepui_state_master::{CallId, OperatorCall};
use tepui_view::AgentRow;

use super::{LABEL, label_of, volume_of};
use crate::simulation::Simulation;

/// What is reserved at once of cpus and of disk.
const AMOUNTS: [(Name, Scalar); 2] = [(Name::CPUS, Scalar(100)), (Name::DISK, Scalar::units(64))];

/// Disk below this is not divided.
const SMALL: Scalar = Scalar::units(8);

/// Something that can be done with resources.
enum Idea {
    Reserve(Name, Scalar),
    Unreserve(Resource),
    Create(Resource),
    Destroy(Resource),
    Grow(Resource, Resource),
    Shrink(Resource),
}

/// Everything that can be done with free resources.
fn ideas(free: &Resources) -> Vec<Idea> {
    let plain = free.unreserved();
    let mut ideas: Vec<Idea> = AMOUNTS
        .into_iter()
        .filter(|(name, amount)| plain.scalar(name) >= *amount)
        .map(|(name, amount)| Idea::Reserve(name, amount))
        .collect();
    for resource in free.iter().filter(|one| label_of(one).is_some()) {
        if volume_of(resource).is_none() {
            ideas.push(Idea::Unreserve(resource.clone()));
            if *resource.name() == Name::DISK {
                ideas.push(Idea::Create(resource.clone()));
            }
            continue;
        }
        ideas.push(Idea::Destroy(resource.clone()));
        if resource.is_shared() {
            continue;
        }
        let more =
            |one: &&Resource| volume_of(one).is_none() && label_of(one) == label_of(resource);
        if let Some(addition) = free.iter().find(more) {
            ideas.push(Idea::Grow(resource.clone(), addition.clone()));
        }
        if resource.amount() > Some(SMALL) {
            ideas.push(Idea::Shrink(resource.clone()));
        }
    }
    ideas
}

fn half(amount: Scalar) -> Scalar {
    Scalar(amount.0 / 2)
}

impl Simulation {
    /// Asks for something to be done with free resources. The operation, and its name.
    fn some_operation(
        &mut self,
        free: &Resources,
        role: &str,
    ) -> Option<(String, offer::Operation)> {
        let mut ideas = ideas(free);
        if ideas.is_empty() {
            return None;
        }
        let idea = ideas.swap_remove(self.rng.below(ideas.len() as u64) as usize);
        self.operations.made += 1;
        let number = self.operations.made;
        Some(match idea {
            Idea::Reserve(name, amount) => self.reserve(number, role, name, amount),
            Idea::Unreserve(resource) => self.unreserve(number, &resource),
            Idea::Create(disk) => self.create(number, disk),
            Idea::Destroy(volume) => self.destroy(number, &volume),
            Idea::Grow(volume, addition) => self.grow(number, &volume, &addition),
            Idea::Shrink(volume) => self.shrink(number, &volume),
        })
    }

    fn reserve(
        &mut self,
        number: u64,
        role: &str,
        name: Name,
        amount: Scalar,
    ) -> (String, offer::Operation) {
        let id = format!("reserve-{number}");
        let reservation = Reservation {
            role: Role::from(role),
            dynamic: true,
            principal: None,
            labels: Some(Labels(vec![Label {
                key: LABEL.into(),
                value: Some(Arc::from(&*id)),
            }])),
        };
        let resource = Resource::scalar(name, amount).push_reservation(reservation);
        self.operations.ask(&id, &id, Some(amount));
        let operation = offer::Operation {
            r#type: Some(operation::Type::Reserve.into()),
            reserve: Some(operation::Reserve {
                resources: vec![(&resource).into()],
                ..Default::default()
            }),
            ..Default::default()
        };
        (id, operation)
    }

    fn unreserve(&mut self, number: u64, resource: &Resource) -> (String, offer::Operation) {
        let id = format!("unreserve-{number}");
        let label = label_of(resource).unwrap_or_default();
        let amount = resource.amount().unwrap_or_default();
        if self.operations.is_all(label, amount) {
            self.operations.ask(&id, label, None);
        } else {
            self.operations.lose_sight(label);
        }
        let operation = offer::Operation {
            r#type: Some(operation::Type::Unreserve.into()),
            unreserve: Some(operation::Unreserve {
                resources: vec![resource.into()],
            }),
            ..Default::default()
        };
        (id, operation)
    }

    fn create(&mut self, number: u64, disk: Resource) -> (String, offer::Operation) {
        let id = format!("create-{number}");
        let name = format!("volume-{number}");
        let all = disk.amount().unwrap_or_default();
        let amount = match self.rng.below(2) {
            0 if all > SMALL => half(all),
            _ => all,
        };
        let volume = disk
            .with_amount(amount)
            .with_disk(Some(Disk {
                source: None,
                persistence: Some(Persistence {
                    id: Arc::from(&*name),
                    principal: None,
                }),
                volume: Some(Volume {
                    container_path: "data".into(),
                    host_path: None,
                    read_only: false,
                }),
            }))
            .with_shared(self.rng.below(4) == 0);
        self.operations.ask(&id, &name, Some(amount));
        let operation = offer::Operation {
            r#type: Some(operation::Type::Create.into()),
            create: Some(operation::Create {
                volumes: vec![(&volume).into()],
            }),
            ..Default::default()
        };
        (id, operation)
    }

    fn destroy(&mut self, number: u64, volume: &Resource) -> (String, offer::Operation) {
        let id = format!("destroy-{number}");
        let name = volume_of(volume).unwrap_or_default();
        self.operations.ask(&id, name, None);
        let operation = offer::Operation {
            r#type: Some(operation::Type::Destroy.into()),
            destroy: Some(operation::Destroy {
                volumes: vec![volume.into()],
            }),
            ..Default::default()
        };
        (id, operation)
    }

    fn grow(
        &mut self,
        number: u64,
        volume: &Resource,
        addition: &Resource,
    ) -> (String, offer::Operation) {
        let id = format!("grow-{number}");
        let name = volume_of(volume).unwrap_or_default();
        let amounts = volume.amount().zip(addition.amount());
        self.operations
            .ask(&id, name, amounts.map(|(volume, more)| volume + more));
        let operation = offer::Operation {
            r#type: Some(operation::Type::GrowVolume.into()),
            grow_volume: Some(Box::new(operation::GrowVolume {
                volume: volume.into(),
                addition: addition.into(),
            })),
            ..Default::default()
        };
        (id, operation)
    }

    fn shrink(&mut self, number: u64, volume: &Resource) -> (String, offer::Operation) {
        let id = format!("shrink-{number}");
        let name = volume_of(volume).unwrap_or_default();
        let amount = volume.amount().unwrap_or_default();
        let subtract = half(amount);
        self.operations.ask(&id, name, Some(amount - subtract));
        let operation = offer::Operation {
            r#type: Some(operation::Type::ShrinkVolume.into()),
            shrink_volume: Some(Box::new(operation::ShrinkVolume {
                volume: volume.into(),
                subtract: value::Scalar {
                    value: subtract.to_f64(),
                },
            })),
            ..Default::default()
        };
        (id, operation)
    }

    /// Now and then a framework operates on what it is offered, up to three times; `free` is what that leaves.
    pub(crate) fn framework_operates(
        &mut self,
        index: usize,
        offer: &v1::Offer,
        free: &mut Resources,
    ) -> Vec<offer::Operation> {
        let mut operations = Vec::new();
        let role = offer
            .allocation_info
            .as_ref()
            .map(v1::resource::AllocationInfo::role);
        let Some(role) = role.filter(|_| self.faulty && self.rng.below(4) == 0) else {
            return operations;
        };
        for _ in 0..1 + self.rng.below(3) {
            let Some((id, operation)) = self.some_operation(free, role) else {
                break;
            };
            *free = Self::left_by(free, &operation);
            let waiting = &mut self.operations.waiting;
            waiting.insert((index, id.clone()), offer.agent_id.clone());
            operations.push(offer::Operation {
                id: Some(v1::OperationId { value: id }),
                ..operation
            });
        }
        operations
    }

    /// Now and then something reserved for a task to use, such as a volume.
    pub(crate) fn something_reserved(&mut self, free: &Resources) -> Resources {
        let mut reserved: Vec<&Resource> = free.iter().filter(|one| one.is_reserved()).collect();
        if reserved.is_empty() || self.rng.below(2) == 0 {
            return Resources::new();
        }
        let chosen = self.rng.below(reserved.len() as u64) as usize;
        reserved.swap_remove(chosen).clone().into()
    }

    /// The operator operates on what tasks do not use of an agent; now and then on what they use, too.
    pub(crate) fn operator_operates(&mut self, agent: &AgentRow, role: &str) -> Result<(), String> {
        let mut free = agent.total.clone();
        if self.rng.below(8) > 0 {
            free -= &agent.used.unallocate();
        }
        let Some((id, operation)) = self.some_operation(&free, role) else {
            return Ok(());
        };
        let agent_id = agent.id.clone();
        let operation = Box::new(Wire(operation));
        // The number of the call that is made now.
        self.operations.open.insert(CallId(self.calls + 1), id);
        self.operate(
            None,
            OperatorCall::Operate {
                agent_id,
                operation,
            },
        )
    }
}
