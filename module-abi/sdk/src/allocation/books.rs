//! Who has what of each agent, and what is free there.

use tepui_model::allocation::{Agent, AgentKey, Holding, Unavailability};
use tepui_model::resources::Resources;

use super::capabilities::Asks;
use super::limits::Amounts;
use super::{Client, Cluster};

#[derive(Debug)]
pub(super) struct AgentState {
    pub(super) agent: Agent,
    pub(super) asks: Asks,
    taken: Resources,
    /// Total less taken. What can be shared is free however many have it.
    pub(super) free: Resources,
    /// Scalars by who has them, in the order of these.
    held: Vec<(Client, Amounts)>,
    /// More is taken than there is, so `free` cannot be kept by adding and taking away.
    over: bool,
    pub(super) unavailable: Option<Unavailability>,
}

impl AgentState {
    fn new(agent: Agent) -> Self {
        Self {
            asks: Asks::of(&agent),
            taken: Resources::new(),
            free: agent.total.clone(),
            held: Vec::new(),
            over: false,
            unavailable: None,
            agent,
        }
    }

    fn recount(&mut self) {
        let taken = self.taken.non_shared();
        self.over = !self.agent.total.contains(&taken);
        self.free = &self.agent.total - &taken;
    }

    fn hold(&mut self, client: Client, amounts: &Amounts) {
        match self.held.binary_search_by_key(&client, |held| held.0) {
            Ok(at) => self.held[at].1.add(amounts),
            Err(at) => {
                // Most agents are in one hand, and there are many agents.
                self.held.reserve_exact(1);
                self.held.insert(at, (client, amounts.clone()));
            }
        }
    }

    fn release(&mut self, client: Client, amounts: &Amounts) {
        if let Ok(at) = self.held.binary_search_by_key(&client, |held| held.0) {
            self.held[at].1.sub(amounts);
            if self.held[at].1.all.is_empty() {
                self.held.remove(at);
            }
        }
    }

    /// Moves all that is free to what is taken, if that is what `wanted` is: most offers are of a whole agent.
    fn take_whole(&mut self, wanted: &Resources) -> bool {
        let whole = self.taken.is_empty() && !self.over && self.free.is_all_of(wanted);
        if whole {
            std::mem::swap(&mut self.free, &mut self.taken);
        }
        whole
    }

    /// Moves all that is taken to what is free, if that is what comes back.
    fn give_back_whole(&mut self, returned: &Resources) -> bool {
        let whole = self.free.is_empty() && !self.over && self.taken.is_all_of(returned);
        if whole {
            std::mem::swap(&mut self.free, &mut self.taken);
        }
        whole
    }
}

impl Cluster {
    /// Changes an agent, and with it what is free for all.
    fn change_agent(&mut self, agent: AgentKey, change: impl FnOnce(&mut AgentState)) {
        let Some(state) = self.agents.get_mut(&agent) else {
            return;
        };
        self.room -= &Self::charged(&state.free);
        change(state);
        self.room += &Self::charged(&state.free);
    }

    pub(super) fn agent_added(&mut self, agent: &Agent) {
        self.agent_removed(agent.key);
        self.total += &agent.total.quantities();
        self.reserve(&agent.total, true);
        let state = AgentState::new(agent.clone());
        self.room += &Self::charged(&state.free);
        self.agents.insert(agent.key, state);
    }

    pub(super) fn agent_updated(&mut self, agent: &Agent) {
        let Some(state) = self.agents.get(&agent.key) else {
            return self.agent_added(agent);
        };
        let old = state.agent.total.clone();
        self.change_agent(agent.key, |state| {
            state.agent.clone_from(agent);
            state.asks = Asks::of(agent);
            state.recount();
        });
        self.total -= &old.quantities();
        self.total += &agent.total.quantities();
        self.reserve(&old, false);
        self.reserve(&agent.total, true);
    }

    pub(super) fn agent_removed(&mut self, agent: AgentKey) {
        let Some(state) = self.agents.remove(&agent) else {
            return;
        };
        self.room -= &Self::charged(&state.free);
        self.total -= &state.agent.total.quantities();
        self.reserve(&state.agent.total, false);
        for (client, amounts) in &state.held {
            self.charge(*client, amounts, false);
        }
        self.filters.retain(|(_, of), _| *of != agent);
    }

    pub(super) fn take(&mut self, holding: &Holding) {
        let client = self.client_of(holding);
        // Facts about an agent that is gone mean nothing, for the shares too.
        let Some(state) = self.agents.get_mut(&holding.agent) else {
            return;
        };
        let amounts = Amounts::of(&holding.resources);
        state.hold(client, &amounts);
        if state.take_whole(&holding.resources) {
            self.room -= &amounts.charged;
            return self.charge(client, &amounts, true);
        }
        for resource in &holding.resources {
            state.taken.add_one(resource);
        }
        if !state.over && state.free.contains(&holding.resources) {
            for resource in holding.resources.iter().filter(|one| !one.is_shared()) {
                state.free.sub_one(resource);
            }
            // What can be shared is reserved, so it is not part of either.
            self.room -= &amounts.charged;
        } else {
            self.change_agent(holding.agent, AgentState::recount);
        }
        self.charge(client, &amounts, true);
    }

    pub(super) fn give_back(&mut self, holding: &Holding) {
        let client = self.client_of(holding);
        let Some(state) = self.agents.get_mut(&holding.agent) else {
            return;
        };
        let amounts = Amounts::of(&holding.resources);
        state.release(client, &amounts);
        if state.give_back_whole(&holding.resources) {
            self.room += &amounts.charged;
            return self.charge(client, &amounts, false);
        }
        for resource in &holding.resources {
            state.taken.sub_one(resource);
        }
        if state.over {
            self.change_agent(holding.agent, AgentState::recount);
        } else {
            for resource in holding.resources.iter().filter(|one| !one.is_shared()) {
                state.free.add_one(resource);
            }
            self.room += &amounts.charged;
        }
        self.charge(client, &amounts, false);
    }

    /// Adds to what a client and its role have, or takes from it.
    fn charge(&mut self, client: Client, amounts: &Amounts, more: bool) {
        let of_role = &mut self.roles[client.role.0 as usize].taken;
        let of_client = self.taken.entry(client).or_default();
        if more {
            of_role.add(amounts);
            *of_client += &amounts.all;
        } else {
            of_role.sub(amounts);
            *of_client -= &amounts.all;
            if of_client.is_empty() {
                self.taken.remove(&client);
            }
        }
    }

    /// Counts the reservations of an agent, or counts them no more.
    fn reserve(&mut self, total: &Resources, more: bool) {
        for (role, resources) in total.reserved() {
            let key = self.key_of(&role);
            let reserved = &mut self.roles[key.0 as usize].reserved;
            if more {
                *reserved += &resources.quantities();
            } else {
                *reserved -= &resources.quantities();
            }
        }
    }
}
