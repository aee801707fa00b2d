//! Weighted dominant resource fairness over the tree of roles, then over the frameworks of a role.
//!
//! Mirrors the shares, order and ties of Mesos' `HierarchicalAllocatorProcess` with two `DRFSorter`s or `RandomSorter`s
//! (`src/master/allocator/mesos/hierarchical.cpp`, `sorter/{drf,random}/sorter.cpp`). Siblings in the tree compete by
//! what they and the roles below them have. Each agent is offered as a whole to whoever has the smallest share, and
//! shares change at once. While roles lack something of their guarantees they are served first, and what they lack is
//! held back from all others ([`headroom`]). All numbers are integers, so equal facts and rounds give equal proposals on
//! every machine.

mod headroom;
mod order;
mod share;

use std::collections::BTreeMap;

use order::Order;
use tepui_module_sdk::model::Rng;
use tepui_module_sdk::prelude::*;

/// Settings of `hierarchical`.
#[config]
#[derive(Default)]
pub struct Config {
    /// Names of resources that do not count in shares, such as `gpus`.
    #[serde(default)]
    fair_sharing_excluded_resource_names: BTreeSet<String>,
    /// What decides between roles.
    #[serde(default)]
    role_sorter: Sorter,
    /// What decides between the frameworks of a role.
    #[serde(default)]
    framework_sorter: Sorter,
}

/// How an order is found.
#[config]
#[derive(Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Sorter {
    /// The smallest share first.
    #[default]
    Drf,
    /// By lot, anew for each agent; what weighs more is drawn sooner.
    Random,
}

/// See the crate.
pub struct Hierarchical {
    config: Config,
    /// How many offers a role, by its name, and a client ever got: the second key of the order.
    role_offers: BTreeMap<String, u64>,
    client_offers: BTreeMap<Client, u64>,
}

impl Hierarchical {
    /// An allocator that was told nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            role_offers: BTreeMap::new(),
            client_offers: BTreeMap::new(),
        }
    }
}

impl Module for Hierarchical {
    type Config = Config;
    const NAME: &'static str = "hierarchical";
    const ALIASES: &'static [&'static str] = &["HierarchicalDRF"];
    const DESCRIPTION: &'static str = "weighted dominant resource fairness";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self::new(config))
    }
}

impl Allocator for Hierarchical {
    fn observe(&mut self, fact: &Fact, _: &Cluster) {
        if let Fact::FrameworkRemoved(framework) = fact {
            self.client_offers
                .retain(|client, _| client.framework != *framework);
        }
    }

    fn allocate(&mut self, cluster: &Cluster, round: &Round, out: &mut Proposals<'_>) {
        let mut agents = round.candidates.clone();
        let mut rng = Rng::new(round.seed);
        let mut order = Order::new(self, cluster);
        if order.headroom.is_needed() {
            rng.shuffle(&mut agents);
            for agent in &agents {
                order.guarantee(*agent, &mut rng, out);
            }
        }
        rng.shuffle(&mut agents);
        for agent in agents {
            order.offer(agent, &mut rng, out);
        }
        let (roles, clients) = (order.offers_of_roles(), order.offers_of_clients());
        self.role_offers.extend(roles);
        self.client_offers.extend(clients);
    }
}
