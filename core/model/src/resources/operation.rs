//! Operations on resources: they change what resources are, never how much there is.
//!
//! An operation is a row of conversions, each of which takes resources away and puts others there, of the same
//! amounts. Master and agent apply the same conversions, so both come to the same totals
//! (`getResourceConversions` in Mesos' `common/resources_utils.cpp`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Disk, Resource, Resources, Scalar};
use crate::id::Role;

/// An operation with the resources it names, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// Reserves resources.
    Reserve {
        /// What they are before, where reservations are replaced; none: the resources without their topmost
        /// reservation.
        source: Vec<Resource>,
        /// What they become.
        resources: Vec<Resource>,
    },
    /// Takes the topmost reservation off resources.
    Unreserve(Vec<Resource>),
    /// Makes persistent volumes.
    Create(Vec<Resource>),
    /// Removes persistent volumes.
    Destroy(Vec<Resource>),
    /// Adds disk to a persistent volume.
    Grow {
        /// The volume as it is.
        volume: Resource,
        /// Disk with the same reservations.
        addition: Resource,
    },
    /// Takes disk from a persistent volume.
    Shrink {
        /// The volume as it is.
        volume: Resource,
        /// How much less it becomes, in megabytes.
        subtract: Scalar,
    },
}

/// Resources that become others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// What is taken.
    pub consumed: Resources,
    /// What is there instead.
    pub converted: Resources,
}

/// An operation consumes what is not there. The text is Mesos'.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{have} does not contain {wanted}")]
pub struct NotContained {
    /// What there is when it is wanted.
    pub have: Resources,
    /// What is missing.
    pub wanted: Resources,
}

impl Operation {
    /// What it does, step by step.
    #[must_use]
    pub fn conversions(&self) -> Vec<Conversion> {
        let one = |consumed: Resource, converted: Resource| Conversion {
            consumed: consumed.into(),
            converted: converted.into(),
        };
        let each = |all: &[Resource], convert: &dyn Fn(Resource) -> Conversion| {
            all.iter().cloned().map(convert).collect()
        };
        match self {
            Self::Reserve { source, resources } if source.is_empty() => {
                each(resources, &|r| one(r.clone().pop_reservation(), r))
            }
            Self::Reserve { source, resources } => vec![Conversion {
                consumed: source.iter().cloned().collect(),
                converted: resources.iter().cloned().collect(),
            }],
            Self::Unreserve(resources) => each(resources, &|r| one(r.clone(), r.pop_reservation())),
            Self::Create(volumes) => each(volumes, &|v| one(v.clone().without_volume(), v)),
            Self::Destroy(volumes) => each(volumes, &|v| one(v.clone(), v.without_volume())),
            Self::Grow { volume, addition } => {
                let amount = amount(volume) + amount(addition);
                vec![Conversion {
                    consumed: [volume, addition].into_iter().cloned().collect(),
                    converted: volume.clone().with_amount(amount).into(),
                }]
            }
            Self::Shrink { volume, subtract } => {
                let rest = volume.clone().with_amount(amount(volume) - *subtract);
                let freed = volume.clone().without_volume().with_amount(*subtract);
                vec![Conversion {
                    consumed: volume.clone().into(),
                    converted: [rest, freed].into_iter().collect(),
                }]
            }
        }
    }

    /// The same with every resource changed, such as to be allocated to a role.
    #[must_use]
    pub fn map(self, change: impl Fn(Resource) -> Resource) -> Self {
        let all = |resources: Vec<Resource>| resources.into_iter().map(&change).collect();
        match self {
            Self::Reserve { source, resources } => Self::Reserve {
                source: all(source),
                resources: all(resources),
            },
            Self::Unreserve(resources) => Self::Unreserve(all(resources)),
            Self::Create(volumes) => Self::Create(all(volumes)),
            Self::Destroy(volumes) => Self::Destroy(all(volumes)),
            Self::Grow { volume, addition } => Self::Grow {
                volume: change(volume),
                addition: change(addition),
            },
            Self::Shrink { volume, subtract } => Self::Shrink {
                volume: change(volume),
                subtract,
            },
        }
    }

    /// What it does as a whole: what one step makes and a later one takes again is in neither part.
    #[must_use]
    pub fn net(&self) -> Conversion {
        let (mut consumed, mut converted) = (Resources::new(), Resources::new());
        for step in self.conversions() {
            consumed += &step.consumed - &converted;
            converted -= &step.consumed;
            converted += step.converted;
        }
        Conversion {
            consumed,
            converted,
        }
    }

    /// Roles that its resources are reserved or allocated to, before and after.
    #[must_use]
    pub fn roles(&self) -> BTreeSet<Role> {
        let net = self.net();
        let all = net.consumed.iter().chain(&net.converted);
        all.flat_map(|resource| {
            let reserved = resource.reservations().iter().map(|made| &made.role);
            reserved.chain(resource.allocation_role()).cloned()
        })
        .collect()
    }
}

fn amount(resource: &Resource) -> Scalar {
    resource.amount().unwrap_or(Scalar::ZERO)
}

impl Resource {
    /// The disk that a persistent volume is made of.
    #[must_use]
    pub fn without_volume(self) -> Self {
        let source = self.disk().and_then(|disk| disk.source.clone());
        let disk = source.map(|source| Disk {
            source: Some(source),
            ..Disk::default()
        });
        self.with_disk(disk).with_shared(false)
    }
}

impl Resources {
    /// The resources after an operation; an error if one of its steps takes what is not there.
    pub fn apply(&self, operation: &Operation) -> Result<Self, NotContained> {
        let mut all = self.clone();
        for step in operation.conversions() {
            if !all.contains(&step.consumed) {
                return Err(NotContained {
                    have: all,
                    wanted: step.consumed,
                });
            }
            all -= &step.consumed;
            all += step.converted;
        }
        Ok(all)
    }

    /// What operations made of an agent's own resources, and must outlive the agent: all that is reserved while
    /// running, and all persistent volumes.
    #[must_use]
    pub fn made(&self) -> Self {
        self.filter(|r| r.is_persistent_volume() || r.reservations().iter().any(|r| r.dynamic))
    }

    /// An agent's own resources with what operations had made of them; an error if there is less than that now.
    pub fn with_made(&self, made: &Self) -> Result<Self, NotContained> {
        let own: Self = made.iter().cloned().map(as_configured).collect();
        if !self.contains(&own) {
            return Err(NotContained {
                have: self.clone(),
                wanted: own,
            });
        }
        let mut all = self - &own;
        all += made;
        Ok(all)
    }
}

/// What a resource was before all operations: with its static reservation, if it has one.
fn as_configured(resource: Resource) -> Resource {
    let fixed = resource.reservations().iter().filter(|r| !r.dynamic);
    let fixed = fixed.cloned().collect();
    resource.without_volume().with_reservations(fixed)
}
