//! An allocator that is quickly understood.

use std::collections::BTreeMap;

use tepui_model::allocation::{AgentKey, Fact, FrameworkKey, Holding, Round};
use tepui_model::id::Role;
use tepui_model::resources::Resources;
use tepui_model::time::Mono;

/// Gives everything that is free to the first framework that may have it.
#[derive(Debug, Default)]
pub struct Greedy {
    agents: BTreeMap<AgentKey, (Resources, bool)>,
    totals: BTreeMap<AgentKey, Resources>,
    frameworks: BTreeMap<FrameworkKey, (Vec<Role>, Vec<Role>, bool)>,
    filters: Vec<(Holding, Mono)>,
}

impl Greedy {
    pub fn apply(&mut self, fact: Fact) {
        match fact {
            Fact::Reset => *self = Self::default(),
            Fact::AgentAdded(agent) => {
                self.totals.insert(agent.key, agent.total.clone());
                self.agents.insert(agent.key, (agent.total, agent.active));
            }
            Fact::AgentUpdated(agent) => {
                let old = self.totals.insert(agent.key, agent.total.clone());
                let (free, active) = self.agents.get_mut(&agent.key).expect("added");
                let taken = &old.expect("added") - free;
                *free = &agent.total - &taken;
                *active = agent.active;
            }
            Fact::AgentRemoved(key) => {
                self.agents.remove(&key);
            }
            Fact::AgentActive(key, active) => {
                self.agents.get_mut(&key).expect("added").1 = active;
            }
            Fact::FrameworkAdded(framework) | Fact::FrameworkUpdated(framework) => {
                let entry = (framework.roles, framework.suppressed, framework.active);
                self.frameworks.insert(framework.key, entry);
            }
            Fact::FrameworkRemoved(key) => {
                self.frameworks.remove(&key);
            }
            Fact::FrameworkActive(key, active) => {
                self.frameworks.get_mut(&key).expect("added").2 = active;
            }
            Fact::Taken(holding) => self.book(&holding, true),
            Fact::Returned(holding) | Fact::Refused(holding) => self.book(&holding, false),
            Fact::Filter(holding, until) => self.filters.push((holding, until)),
            Fact::FiltersCleared(scope) => self.filters.retain(|(holding, _)| {
                scope.framework.is_some_and(|key| key != holding.framework)
                    || scope.agent.is_some_and(|key| key != holding.agent)
                    || !(scope.roles.is_empty() || scope.roles.contains(&holding.role))
            }),
            Fact::Suppressed(key, roles) => {
                self.frameworks
                    .get_mut(&key)
                    .expect("added")
                    .1
                    .extend(roles);
            }
            Fact::Revived(key, roles) => {
                let framework = self.frameworks.get_mut(&key).expect("added");
                framework.1.retain(|role| !roles.contains(role));
            }
            Fact::AgentUnavailable(..)
            | Fact::Requested(..)
            | Fact::Weight(..)
            | Fact::Quota(..)
            | Fact::Minimum(_) => {}
        }
    }

    fn book(&mut self, holding: &Holding, taken: bool) {
        if let Some((free, _)) = self.agents.get_mut(&holding.agent) {
            if taken {
                *free -= &holding.resources;
            } else {
                *free += &holding.resources;
            }
        }
    }

    pub fn allocate(&mut self, round: &Round) -> Vec<Holding> {
        let mut proposals = Vec::new();
        for agent in &round.candidates {
            let Some((free, true)) = self.agents.get(agent).cloned() else {
                continue;
            };
            if free.is_empty() {
                continue;
            }
            let wanted = self
                .frameworks
                .iter()
                .find_map(|(key, (roles, suppressed, active))| {
                    let role = roles.iter().find(|role| {
                        !suppressed.contains(role)
                            && !self.filters.iter().any(|(filter, until)| {
                                filter.framework == *key
                                    && filter.agent == *agent
                                    && filter.role == **role
                                    && *until > round.now
                                    && filter.resources.contains(&free)
                            })
                    })?;
                    active.then(|| (*key, role.clone()))
                });
            if let Some((framework, role)) = wanted {
                let holding = Holding {
                    framework,
                    role,
                    agent: *agent,
                    resources: free,
                };
                self.book(&holding, true);
                proposals.push(holding);
            }
        }
        proposals
    }
}
