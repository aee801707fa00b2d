//! Who has what on which agent. The ledger alone decides what is free; an allocator only proposes.
//!
//! Resources that are offered or used are kept in allocated form (each names its role); what is free is
//! kept without. A change is always made on the agent and on the framework together. What can be shared is free
//! however many have it.

use std::collections::BTreeMap;

use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::resources::Resources;

use crate::MasterState;

/// Sum of resources over many agents. Ranges and sets cannot be added over agents without losing
/// which is whose, so they are kept by agent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    scalars: Resources,
    others: BTreeMap<AgentKey, Resources>,
}

impl Tally {
    pub(crate) fn add(&mut self, agent: AgentKey, resources: &Resources) {
        for resource in resources {
            if resource.amount().is_some() {
                self.scalars.add_one(resource);
            } else {
                self.others.entry(agent).or_default().add_one(resource);
            }
        }
    }

    pub(crate) fn sub(&mut self, agent: AgentKey, resources: &Resources) {
        let mut others = self.others.get_mut(&agent);
        for resource in resources {
            if resource.amount().is_some() {
                self.scalars.sub_one(resource);
            } else if let Some(others) = &mut others {
                others.sub_one(resource);
            }
        }
        if others.is_some_and(|others| others.is_empty()) {
            self.others.remove(&agent);
        }
    }

    /// The sum, for readers.
    pub(crate) fn total(&self) -> Resources {
        let mut total = self.scalars.clone();
        for others in self.others.values() {
            total += others;
        }
        total
    }

    pub(crate) fn scalars(&self) -> &Resources {
        &self.scalars
    }
}

impl MasterState {
    /// Moves free resources into an offer.
    pub(crate) fn offer_out(&mut self, framework: FrameworkKey, agent: AgentKey, what: &Resources) {
        let row = self.agents.get_mut(&agent).expect("agent of an offer");
        row.offered += what;
        let run = self.agent_runs.get_mut(&agent).expect("agent of an offer");
        run.free.sub_unallocated(what);
        self.touch(framework).offered.add(agent, what);
    }

    /// Takes resources out of offers; they are free.
    pub(crate) fn offer_back(
        &mut self,
        framework: FrameworkKey,
        agent: AgentKey,
        what: &Resources,
    ) {
        let row = self.agents.get_mut(&agent).expect("agent of an offer");
        row.offered -= what;
        let run = self.agent_runs.get_mut(&agent).expect("agent of an offer");
        run.free.add_unallocated(what);
        self.touch(framework).offered.sub(agent, what);
    }

    /// Gives free resources to a task or an executor.
    pub(crate) fn take(&mut self, framework: FrameworkKey, agent: AgentKey, what: &Resources) {
        let row = self.agents.get_mut(&agent).expect("agent of a task");
        row.used += what;
        let run = self.agent_runs.get_mut(&agent).expect("agent of a task");
        run.free.sub_unallocated(what);
        self.touch(framework).used.add(agent, what);
    }

    /// Takes resources back from a task or an executor.
    pub(crate) fn give_back(&mut self, framework: FrameworkKey, agent: AgentKey, what: &Resources) {
        self.touch(framework).used.sub(agent, what);
        if let Some(row) = self.agents.get_mut(&agent) {
            row.used -= what;
            let run = self.agent_runs.get_mut(&agent).expect("runs go with rows");
            run.free.add_unallocated(what);
        }
    }

    /// Replaces what an agent has, and with it what is reserved to whom.
    pub(crate) fn set_total(&mut self, agent: AgentKey, total: Resources) {
        let row = self.agents.get_mut(&agent).expect("known agent");
        let old = std::mem::replace(&mut row.total, total);
        let new = row.total.reserved();
        for (role, resources) in old.reserved() {
            if let Some(sum) = self.reserved.get_mut(&role) {
                *sum -= &resources.quantities();
            }
        }
        for (role, resources) in new {
            *self.reserved.entry(role).or_default() += &resources.quantities();
        }
        self.reserved.retain(|_, sum| !sum.is_empty());
    }

    /// Computes anew what is free, after the agent's total changed.
    pub(crate) fn recount_free(&mut self, agent: AgentKey) {
        let row = self.agents.get(&agent).expect("known agent");
        let mut free = row.total.clone();
        free.sub_unallocated(&row.used);
        free.sub_unallocated(&row.offered);
        let run = self.agent_runs.get_mut(&agent).expect("runs go with rows");
        run.free = free;
    }
}
