//! What is held back while roles lack something of their guarantees.
//!
//! Of what is free for any role, others get only what all unmet guarantees together leave over. What is reserved or
//! revocable is neither counted nor held back. A cluster without unmet guarantees pays for none of this.

use std::collections::BTreeMap;

use tepui_module_sdk::model::resources::{Name, Scalar};
use tepui_module_sdk::prelude::*;

/// Kept while a round goes on.
pub(crate) struct Headroom {
    /// What top-level roles lack.
    unmet: BTreeMap<RoleKey, Quantities>,
    /// The sum of that.
    required: Quantities,
    /// What is free for any role.
    room: Quantities,
}

impl Headroom {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let unmet = cluster.unmet();
        let mut required = Quantities::new();
        unmet.values().for_each(|lacking| required += lacking);
        let room = if unmet.is_empty() {
            Quantities::new()
        } else {
            cluster.room().clone()
        };
        Self {
            unmet,
            required,
            room,
        }
    }

    /// Whether anybody lacks anything.
    pub(crate) fn is_needed(&self) -> bool {
        !self.unmet.is_empty()
    }

    /// What a top-level role lacks.
    pub(crate) fn unmet(&self, top: RoleKey) -> Option<&Quantities> {
        self.unmet.get(&top)
    }

    /// How much may be offered at most of what is lacking anywhere: what is left over, and what the role itself lacks.
    pub(crate) fn bounds(&self, own: Option<&Quantities>) -> Vec<(Name, Scalar)> {
        let bound = |(name, required): (&Name, Scalar)| {
            let surplus = (self.room.get(name) - required).max(Scalar::ZERO);
            let own = own.map_or(Scalar::ZERO, |own| own.get(name));
            (name.clone(), surplus + own)
        };
        self.required.iter().map(bound).collect()
    }

    /// Counts an offer to a role below `top`.
    pub(crate) fn book(&mut self, top: Option<RoleKey>, resources: &Resources) {
        let amounts = Cluster::charged(resources);
        self.room -= &amounts;
        let Some(top) = top else { return };
        if let Some(lacking) = self.unmet.get_mut(&top) {
            self.required -= lacking;
            *lacking -= &amounts;
            self.required += lacking;
            if lacking.is_empty() {
                self.unmet.remove(&top);
            }
        }
    }
}
