//! What an allocator is told of frameworks and agents, one by one or all anew.

use std::collections::BTreeMap;

use tepui_model::allocation::{self, AgentKey, Fact, FrameworkKey, Holding};
use tepui_model::id::Role;
use tepui_model::resources::{Name, Quantities, Resources, Scalar};
use tepui_proto::convert;

use super::Place;
use crate::MasterState;
use crate::framework::Framework;

impl MasterState {
    /// Tells what the allocator has to know about a framework.
    pub(crate) fn tell_framework(&mut self, key: FrameworkKey, new: bool) {
        let fact = self.framework_fact(&self.frameworks[&key]);
        self.allocation.tell(if new {
            Fact::FrameworkAdded(fact)
        } else {
            Fact::FrameworkUpdated(fact)
        });
    }

    /// Tells what the allocator has to know about an agent.
    pub(crate) fn tell_agent(&mut self, key: AgentKey) {
        let fact = self.agent_fact(key);
        let run = self.agent_runs.get_mut(&key).expect("known agent");
        let fact = if run.announced {
            Fact::AgentUpdated(fact)
        } else {
            Fact::AgentAdded(fact)
        };
        let new = !std::mem::replace(&mut run.announced, true);
        self.allocation.tell(fact);
        if new && self.unavailability(key).is_some() {
            self.tell_unavailability(key);
        }
    }

    fn agent_fact(&self, key: AgentKey) -> allocation::Agent {
        let run = &self.agent_runs[&key];
        let row = self.agents.get(&key).expect("rows go with runs");
        let domain = run.info.domain.as_ref();
        let fault = domain.and_then(|domain| domain.fault_domain.as_ref());
        let region = fault.map(|fault| fault.region.name.clone());
        let remote = region.is_some() && region != self.region();
        allocation::Agent {
            key,
            id: run.id.clone(),
            hostname: row.hostname.clone(),
            total: row.total.clone(),
            attributes: convert::attributes(&run.info.attributes).unwrap_or_default(),
            active: self.is_in_service(key),
            capabilities: row.capabilities.clone(),
            domain: run
                .info
                .domain
                .as_ref()
                .and_then(|domain| domain.fault_domain.as_ref())
                .map(|fault| (fault.region.name.clone(), fault.zone.name.clone())),
            remote,
        }
    }

    /// Feeds an allocator that knows nothing.
    pub(crate) fn tell_everything(&mut self) {
        self.allocation.open = None;
        self.allocation.facts.clear();
        self.allocation.tell(Fact::Reset);
        self.tell_minimum();
        self.tell_weights();
        self.tell_quotas();
        let agents: Vec<AgentKey> = self.agent_runs.keys().collect();
        for key in agents {
            if self.agent_runs[&key].announced {
                let fact = self.agent_fact(key);
                self.allocation.tell(Fact::AgentAdded(fact));
                if self.unavailability(key).is_some() {
                    self.tell_unavailability(key);
                }
            }
        }
        let mut holdings: BTreeMap<Place, Resources> = BTreeMap::new();
        for (key, framework) in &self.frameworks {
            let fact = self.framework_fact(framework);
            self.allocation.facts.push(Fact::FrameworkAdded(fact));
            let tasks = framework.tasks.iter().filter(|task| !task.terminal);
            let used = tasks.map(|task| (task.agent, &task.resources)).chain(
                framework
                    .executors
                    .iter()
                    .map(|row| (row.agent, &row.resources)),
            );
            let offered = framework
                .offers
                .iter()
                .filter_map(|offer| self.offers.get(offer))
                .map(|offer| (offer.agent, &offer.resources));
            for (agent, resources) in used.chain(offered) {
                for (role, part) in resources.allocations() {
                    *holdings.entry((*key, role, agent)).or_default() += part.into_unallocated();
                }
            }
        }
        for ((framework, role, agent), resources) in holdings {
            self.allocation.facts.push(Fact::Taken(Holding {
                framework,
                role,
                agent,
                resources,
            }));
        }
        for ((framework, role, agent), filters) in &self.allocation.filters {
            for filter in filters {
                self.allocation.facts.push(Fact::Filter(
                    Holding {
                        framework: *framework,
                        role: role.clone(),
                        agent: *agent,
                        resources: filter.resources.clone(),
                    },
                    filter.until,
                ));
            }
        }
        self.allocation.held.clear();
        self.allocation.want_all();
    }

    fn framework_fact(&self, framework: &Framework) -> allocation::Framework {
        let capabilities = framework.info.capabilities.iter();
        let named = capabilities
            .filter(|capability| capability.r#type.is_some())
            .map(|capability| capability.r#type().as_str_name().to_owned());
        // Everybody is told as one who can use gpus, where agents with gpus are for everybody.
        let gpus = (!self.settings.filter_gpu_resources).then(|| "GPU_RESOURCES".to_owned());
        let named = named.chain(gpus);
        allocation::Framework {
            key: framework.key,
            id: framework.id.clone(),
            principal: framework.info.principal.as_deref().map(Into::into),
            roles: framework.roles.iter().cloned().collect(),
            suppressed: framework.suppressed.iter().cloned().collect(),
            active: framework.is_active(),
            capabilities: named.collect(),
            minimums: minimums(framework),
        }
    }

    /// `min_allocatable_resources`.
    pub(crate) fn tell_minimum(&mut self) {
        let minimum = self.settings.min_allocatable.clone();
        self.allocation.tell(Fact::Minimum(minimum));
    }
}

/// `FrameworkInfo.offer_filters`: an empty list of alternatives is no minimum, none is the master's own.
fn minimums(framework: &Framework) -> Vec<(Role, Quantities)> {
    let mut minimums = Vec::new();
    for (role, filters) in &framework.info.offer_filters {
        let Some(alternatives) = &filters.min_allocatable_resources else {
            continue;
        };
        let role = Role::from(role.as_str());
        if alternatives.quantities.is_empty() {
            minimums.push((role, Quantities::new()));
            continue;
        }
        for alternative in &alternatives.quantities {
            let amounts = alternative.quantities.iter();
            let amounts = amounts
                .map(|(name, amount)| (Name::from(name.as_str()), Scalar::from_f64(amount.value)));
            minimums.push((role.clone(), amounts.collect()));
        }
    }
    minimums
}
