//! Suite of kind `allocator`.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use tepui_host::kinds::allocator::AllocatorClient;
use tepui_model::Rng;
use tepui_model::allocation::{
    Agent, AgentKey, Fact, FilterScope, Framework, FrameworkKey, Holding, Proposal, Round,
};
use tepui_model::attributes::Attributes;
use tepui_model::id::Role;
use tepui_model::resources::{Ranges, Reservation, Resource, Resources, Scalar};
use tepui_model::time::Mono;
use tepui_module_proto::allocator::Method;
use tepui_module_proto::kind;

use crate::Subject;
use crate::common::{block_on, common};

const HISTORIES: u64 = 12;
const STEPS: u32 = 60;

/// Checks an allocator: it offers what there is; all it offers is free, on a candidate, to a framework that is there in
/// a role it has and not filtered; equal facts and rounds give equal proposals, also of another instance; and a
/// snapshot is all that a new instance needs.
pub fn allocator(subject: &Subject) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::ALLOCATOR)?;
        let called = [Method::Apply, Method::Allocate, Method::Explain].map(|method| method as u32);
        common(&instance, &[], &called).await?;
        let mut allocators = Vec::new();
        for _ in 0..3 {
            allocators.push(AllocatorClient::new(subject.load(kind::ALLOCATOR)?));
        }
        everything_is_offered(&mut allocators[0])?;
        for seed in 0..HISTORIES {
            history(&mut allocators, seed)
                .map_err(|error| error.context(format!("history of seed {seed}")))?;
        }
        Ok(())
    })
}

/// A framework that wants offers, and free agents: after a few rounds nothing is left.
fn everything_is_offered(allocator: &mut AllocatorClient) -> Result<()> {
    let mut ledger = Ledger::default();
    let facts = ledger.tell(vec![
        Fact::Reset,
        Fact::AgentAdded(agent(1)),
        Fact::AgentAdded(agent(2)),
        Fact::FrameworkAdded(framework(1, &["*"])),
    ]);
    allocator.apply(&facts)?;
    for now in 1..=10 {
        let round = Round {
            now: Mono(now),
            seed: now,
            candidates: vec![AgentKey(1), AgentKey(2)],
        };
        for proposal in allocator.allocate(&round)? {
            ledger.check(&proposal, &round)?;
            ledger.take(&proposal);
        }
    }
    let left = |key| {
        ledger
            .free(AgentKey(key))
            .filter(|resource| !resource.is_reserved())
    };
    ensure!(
        left(1).is_empty() && left(2).is_empty(),
        "free agents are not offered to the only framework"
    );
    Ok(())
}

/// A random history, told to two instances; in its middle a third one, and the first anew, begin with a snapshot.
fn history(allocators: &mut [AllocatorClient], seed: u64) -> Result<()> {
    let mut rng = Rng::new(seed);
    let (mut one, mut other) = (0, 1);
    let mut ledger = Ledger::default();
    let minimum = |cpus, mem| Resources::cpus_mem(cpus, mem).quantities();
    let mut facts = vec![
        Fact::Reset,
        Fact::Minimum(vec![minimum(0.01, 0.0), minimum(0.0, 32.0)]),
        Fact::Weight(Role::from("b"), 2500),
    ];
    for step in 0..STEPS {
        for _ in 0..=rng.below(4) {
            facts.extend(ledger.random(&mut rng));
        }
        if step == STEPS / 2 {
            (one, other) = (2, 0);
            facts = ledger.snapshot();
        }
        let told = std::mem::take(&mut facts);
        allocators[one].apply(&told)?;
        allocators[other].apply(&told)?;
        ledger.now += 1_000;
        let candidates = ledger
            .agents
            .keys()
            .copied()
            .filter(|_| rng.below(4) > 0)
            .collect();
        let round = Round {
            now: Mono(ledger.now),
            seed: rng.next_u64(),
            candidates,
        };
        let proposals = allocators[one].allocate(&round)?;
        ensure!(
            proposals == allocators[other].allocate(&round)?,
            "another instance with the same facts proposes otherwise"
        );
        for proposal in proposals {
            ledger.check(&proposal, &round)?;
            if rng.below(8) == 0 {
                facts.push(Fact::Refused(proposal));
            } else {
                ledger.take(&proposal);
            }
        }
    }
    Ok(())
}

fn agent(key: u32) -> Agent {
    let mut total = Resources::cpus_mem(4.0, 4096.0);
    total.push(Resource::ranges("ports", Ranges::one(31_000, 32_000)));
    let reservation = Reservation {
        role: Role::from("b"),
        dynamic: true,
        principal: None,
        labels: None,
    };
    if key.is_multiple_of(3) {
        total.push(Resource::scalar("cpus", Scalar::units(2)).with_reservations(vec![reservation]));
    }
    Agent {
        key: AgentKey(key),
        id: format!("S{key}").into(),
        hostname: format!("host{key}"),
        total,
        attributes: Attributes::default(),
        active: true,
        capabilities: ["MULTI_ROLE", "HIERARCHICAL_ROLE"]
            .map(str::to_owned)
            .to_vec(),
        domain: None,
        remote: false,
    }
}

fn framework(key: u32, roles: &[&str]) -> Framework {
    Framework {
        key: FrameworkKey(key),
        id: format!("F{key}").into(),
        principal: None,
        roles: roles.iter().map(|role| Role::from(*role)).collect(),
        suppressed: Vec::new(),
        active: true,
        capabilities: ["MULTI_ROLE", "RESERVATION_REFINEMENT"]
            .map(str::to_owned)
            .to_vec(),
        minimums: Vec::new(),
    }
}

/// The facts, kept apart from any module.
#[derive(Default)]
struct Ledger {
    agents: BTreeMap<AgentKey, Agent>,
    frameworks: BTreeMap<FrameworkKey, Framework>,
    /// What was taken, in the order it was.
    taken: Vec<Holding>,
    filters: Vec<(Holding, u64)>,
    now: u64,
    next: u32,
}

impl Ledger {
    /// Takes in facts and gives them back.
    fn tell(&mut self, facts: Vec<Fact>) -> Vec<Fact> {
        for fact in &facts {
            match fact {
                Fact::AgentAdded(agent) => drop(self.agents.insert(agent.key, agent.clone())),
                Fact::FrameworkAdded(framework) => {
                    self.frameworks.insert(framework.key, framework.clone());
                }
                _ => {}
            }
        }
        facts
    }

    fn free(&self, agent: AgentKey) -> Resources {
        let mut free = self
            .agents
            .get(&agent)
            .map(|agent| agent.total.clone())
            .unwrap_or_default();
        for holding in self.taken.iter().filter(|holding| holding.agent == agent) {
            holding
                .resources
                .iter()
                .for_each(|resource| free.sub_one(resource));
        }
        free
    }

    fn take(&mut self, proposal: &Proposal) {
        self.taken.push(proposal.clone());
    }

    /// What the master checks, and what was promised to the framework.
    fn check(&self, proposal: &Proposal, round: &Round) -> Result<()> {
        let Proposal {
            framework,
            role,
            agent,
            resources,
        } = proposal;
        ensure!(!resources.is_empty(), "a proposal of nothing");
        ensure!(
            round.candidates.contains(agent),
            "a proposal of {agent:?}, which is no candidate"
        );
        let known = self.frameworks.get(framework);
        let wanted = known.is_some_and(|known| {
            known.active && known.roles.contains(role) && !known.suppressed.contains(role)
        });
        ensure!(
            wanted,
            "a proposal to {framework:?} for role {role}, which wants none"
        );
        let active = self.agents.get(agent).is_some_and(|agent| agent.active);
        ensure!(active, "a proposal of {agent:?}, which is not active");
        ensure!(
            self.free(*agent).contains(resources),
            "a proposal of more than is free on {agent:?}: {resources}"
        );
        let allocatable = resources
            .iter()
            .all(|resource| resource.is_allocatable_to(role.as_str()));
        ensure!(
            allocatable,
            "a proposal to role {role} of what is reserved for another"
        );
        let refused = |(filter, until): &(Holding, u64)| {
            let same =
                filter.framework == *framework && filter.role == *role && filter.agent == *agent;
            same && *until > self.now && filter.resources.contains(resources)
        };
        ensure!(
            !self.filters.iter().any(refused),
            "a proposal that the framework refused before"
        );
        Ok(())
    }

    /// Everything, for an instance that knows nothing.
    fn snapshot(&self) -> Vec<Fact> {
        let mut facts = vec![Fact::Reset];
        facts.extend(self.agents.values().cloned().map(Fact::AgentAdded));
        facts.extend(self.frameworks.values().cloned().map(Fact::FrameworkAdded));
        facts.extend(self.taken.iter().cloned().map(Fact::Taken));
        let filters = self.filters.iter().filter(|(_, until)| *until > self.now);
        facts.extend(filters.map(|(filter, until)| Fact::Filter(filter.clone(), Mono(*until))));
        facts
    }

    /// Something happens.
    fn random(&mut self, rng: &mut Rng) -> Vec<Fact> {
        let some = |rng: &mut Rng, length: usize| rng.below(length.max(1) as u64) as usize;
        let framework = self
            .frameworks
            .keys()
            .nth(some(rng, self.frameworks.len()))
            .copied();
        let agent = self
            .agents
            .keys()
            .nth(some(rng, self.agents.len()))
            .copied();
        self.next += 1;
        match (rng.below(10), framework, agent) {
            (0 | 1, ..) => self.tell(vec![Fact::AgentAdded(self::agent(self.next))]),
            (2, ..) => {
                let roles: &[&str] = [&["a"][..], &["b"], &["a", "b"], &["b/c"]][some(rng, 4)];
                self.tell(vec![Fact::FrameworkAdded(self::framework(
                    self.next, roles,
                ))])
            }
            (3, Some(key), _) if rng.below(4) == 0 => {
                self.frameworks.remove(&key);
                self.filters.retain(|(filter, _)| filter.framework != key);
                let (gone, left) = self
                    .taken
                    .drain(..)
                    .partition(|holding| holding.framework == key);
                self.taken = left;
                let gone: Vec<Holding> = gone;
                gone.into_iter()
                    .map(Fact::Returned)
                    .chain([Fact::FrameworkRemoved(key)])
                    .collect()
            }
            (4, _, Some(key)) if rng.below(4) == 0 => {
                self.agents.remove(&key);
                self.taken.retain(|holding| holding.agent != key);
                self.filters.retain(|(filter, _)| filter.agent != key);
                vec![Fact::AgentRemoved(key)]
            }
            (5, Some(key), _) => {
                let framework = self.frameworks.get_mut(&key).expect("chosen from the map");
                framework.active = !framework.active;
                vec![Fact::FrameworkActive(key, framework.active)]
            }
            (6, _, Some(key)) => {
                let agent = self.agents.get_mut(&key).expect("chosen from the map");
                agent.active = !agent.active;
                vec![Fact::AgentActive(key, agent.active)]
            }
            (7, Some(key), _) if rng.below(3) == 0 => {
                self.filters.retain(|(filter, _)| filter.framework != key);
                let scope = FilterScope {
                    framework: Some(key),
                    ..FilterScope::default()
                };
                let framework = self.frameworks.get_mut(&key).expect("chosen from the map");
                framework.suppressed.clear();
                vec![Fact::Revived(key, Vec::new()), Fact::FiltersCleared(scope)]
            }
            (7, Some(key), _) => {
                let framework = self.frameworks.get_mut(&key).expect("chosen from the map");
                let role = framework.roles[0].clone();
                framework.suppressed = vec![role.clone()];
                // Only this one: an earlier suppression of the other role ends.
                vec![
                    Fact::Revived(key, Vec::new()),
                    Fact::Suppressed(key, vec![role]),
                ]
            }
            _ if !self.taken.is_empty() => {
                let at = some(rng, self.taken.len());
                let back = self.taken.remove(at);
                let mut facts = vec![Fact::Returned(back.clone())];
                if rng.below(2) == 0 && self.frameworks.contains_key(&back.framework) {
                    let until = self.now + 1_000 * rng.below(8);
                    self.filters.push((back.clone(), until));
                    facts.push(Fact::Filter(back, Mono(until)));
                }
                facts
            }
            _ => Vec::new(),
        }
    }
}
