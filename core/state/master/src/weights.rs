//! Weights of roles: facts that the core keeps and tells; what they are worth decides the allocator.

use tepui_model::allocation::Fact;
use tepui_model::id::Role;
use tepui_proto::v1::WeightInfo;
use tepui_proto::{Message as _, Wire, disk};

use crate::MasterState;
use crate::changes::{Change, Decided};
use crate::effect::bytes_of;
use crate::event::Entry;

/// The weight as allocators get it: thousandths, never none.
fn thousandths(weight: f64) -> u64 {
    // The cast saturates.
    ((weight * 1000.0).round() as u64).max(1)
}

impl MasterState {
    pub(crate) fn recover_weight(
        &mut self,
        role: Role,
        entry: &Entry,
    ) -> Result<(), prost::DecodeError> {
        let kept = disk::RoleWeight::decode(entry.value.clone())?;
        let weight = kept.weight.unwrap_or_default().weight;
        self.weights.insert(role, weight);
        Ok(())
    }

    /// Of a role that is named twice the last weight counts.
    pub(crate) fn decide_weights(weights: Vec<Wire<WeightInfo>>) -> Option<Decided> {
        if weights.is_empty() {
            return None;
        }
        let entry = |Wire(info): &Wire<WeightInfo>| Entry {
            key: format!("weights/{}", info.role()),
            value: bytes_of(&disk::RoleWeight {
                weight: Some(info.clone()),
            }),
        };
        let puts = weights.iter().map(entry).collect();
        let weights = weights
            .into_iter()
            .map(|Wire(info)| (Role::from(info.role()), info.weight))
            .collect();
        Some(Decided {
            change: Change::Weights(weights),
            puts,
            deletes: Vec::new(),
        })
    }

    pub(crate) fn set_weights(&mut self, weights: Vec<(Role, f64)>) {
        for (role, weight) in weights {
            self.allocation
                .tell(Fact::Weight(role.clone(), thousandths(weight)));
            self.weights.insert(role, weight);
        }
    }

    pub(crate) fn tell_weights(&mut self) {
        for (role, weight) in &self.weights {
            self.allocation
                .tell(Fact::Weight(role.clone(), thousandths(*weight)));
        }
    }
}
