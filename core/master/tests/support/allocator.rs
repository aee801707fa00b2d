//! Offers each agent's free resources to the framework that has the fewest agents.

use std::collections::BTreeMap;

use tepui_core_master::Allocator;
use tepui_model::allocation::{AgentKey, Fact, Framework, FrameworkKey, Holding, Proposal, Round};
use tepui_model::resources::Resources;
use tepui_model::time::Mono;

#[derive(Default)]
pub struct Fair {
    free: BTreeMap<AgentKey, (Resources, bool)>,
    frameworks: BTreeMap<FrameworkKey, Framework>,
    held: BTreeMap<FrameworkKey, i64>,
    filters: Vec<(Holding, Mono)>,
}

impl Fair {
    fn book(&mut self, holding: &Holding, sign: i64) {
        *self.held.entry(holding.framework).or_default() += sign;
        if let Some((free, _)) = self.free.get_mut(&holding.agent) {
            if sign > 0 {
                *free -= &holding.resources;
            } else {
                *free += &holding.resources;
            }
        }
    }

    fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::Reset => *self = Fair::default(),
            Fact::AgentAdded(agent) => {
                self.free.insert(agent.key, (agent.total, agent.active));
            }
            Fact::AgentRemoved(key) => {
                self.free.remove(&key);
            }
            Fact::AgentActive(key, active) => {
                if let Some(agent) = self.free.get_mut(&key) {
                    agent.1 = active;
                }
            }
            Fact::FrameworkAdded(framework) | Fact::FrameworkUpdated(framework) => {
                self.frameworks.insert(framework.key, framework);
            }
            Fact::FrameworkRemoved(key) => {
                self.frameworks.remove(&key);
            }
            Fact::FrameworkActive(key, active) => {
                if let Some(framework) = self.frameworks.get_mut(&key) {
                    framework.active = active;
                }
            }
            Fact::Taken(holding) => self.book(&holding, 1),
            Fact::Returned(holding) | Fact::Refused(holding) => self.book(&holding, -1),
            Fact::Filter(holding, until) => self.filters.push((holding, until)),
            Fact::FiltersCleared(scope) => {
                self.filters.retain(|(holding, _)| {
                    scope.framework.is_some_and(|key| key != holding.framework)
                });
            }
            Fact::Suppressed(key, roles) => {
                if let Some(framework) = self.frameworks.get_mut(&key) {
                    framework.suppressed.extend(roles);
                }
            }
            Fact::Revived(key, roles) => {
                if let Some(framework) = self.frameworks.get_mut(&key) {
                    framework.suppressed.retain(|role| !roles.contains(role));
                }
            }
            _ => {}
        }
    }
}

impl Allocator for Fair {
    fn apply(&mut self, facts: Vec<Fact>) -> Result<(), String> {
        facts.into_iter().for_each(|fact| self.fact(fact));
        Ok(())
    }

    fn allocate(&mut self, round: &Round) -> Result<Vec<Proposal>, String> {
        let mut proposals = Vec::new();
        for agent in &round.candidates {
            let Some((free, true)) = self.free.get(agent).cloned() else {
                continue;
            };
            if free.cpus().to_f64() == 0.0 {
                continue;
            }
            let wanted = self
                .frameworks
                .values()
                .filter(|framework| framework.active)
                .filter_map(|framework| {
                    let filtered = self.filters.iter().any(|(holding, until)| {
                        holding.framework == framework.key
                            && holding.agent == *agent
                            && *until > round.now
                    });
                    let role = framework
                        .roles
                        .iter()
                        .find(|role| !framework.suppressed.contains(role))?;
                    (!filtered).then(|| {
                        (
                            self.held.get(&framework.key).copied().unwrap_or(0),
                            framework.key,
                            role.clone(),
                        )
                    })
                });
            if let Some((_, framework, role)) = wanted.min() {
                let holding = Holding {
                    framework,
                    role,
                    agent: *agent,
                    resources: free,
                };
                self.book(&holding, 1);
                proposals.push(holding);
            }
        }
        Ok(proposals)
    }
}
