//! The real allocator modules, linked into the simulator.

use serde::{Deserialize, Serialize};
use tepui_allocator_hierarchical::Hierarchical;
use tepui_allocator_round_robin::RoundRobin;
use tepui_model::allocation::{Fact, Proposal, Round};
use tepui_module_sdk::{Allocator as Module, Cluster, Proposals};

/// Which allocator a run uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Weighted dominant resource fairness.
    Hierarchical,
    /// In turn.
    RoundRobin,
}

/// An allocator with the cluster that the kit keeps for it.
pub(crate) struct Allocator {
    cluster: Cluster,
    module: Linked,
}

enum Linked {
    Hierarchical(Hierarchical),
    RoundRobin(RoundRobin),
}

impl Allocator {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            cluster: Cluster::default(),
            module: match kind {
                Kind::Hierarchical => Linked::Hierarchical(Hierarchical::new(Default::default())),
                Kind::RoundRobin => Linked::RoundRobin(RoundRobin::default()),
            },
        }
    }

    pub(crate) fn apply(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.cluster.apply(fact);
            match &mut self.module {
                Linked::Hierarchical(module) => module.observe(fact, &self.cluster),
                Linked::RoundRobin(module) => module.observe(fact, &self.cluster),
            }
        }
    }

    pub(crate) fn allocate(&mut self, round: &Round) -> Vec<Proposal> {
        self.cluster.set_now(round.now);
        let mut proposals = Proposals::new(&self.cluster);
        match &mut self.module {
            Linked::Hierarchical(module) => module.allocate(&self.cluster, round, &mut proposals),
            Linked::RoundRobin(module) => module.allocate(&self.cluster, round, &mut proposals),
        }
        let made = proposals.into_vec();
        self.cluster.book(&made);
        made
    }
}
