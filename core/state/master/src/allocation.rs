//! What the allocator is told and when it is asked.
//!
//! Facts go out in order at the end of each event. A round is asked for at once when somebody may gain
//! from it (a framework arrives or revives, an agent arrives, resources are returned), and at the next
//! multiple of `allocation_interval` when anything was told or a filter has ended since the last one. At
//! most one round is open; wishes made meanwhile are merged into the next. After a round that gave
//! nothing, returned resources wait a moment for others: they are mostly those that nobody wants. Nothing
//! told, no filter ended: the allocator is not asked, so an idle cluster costs nothing.
//!
//! Turnaround: what a framework returns is open to others at once. To the same framework it is open at
//! once only while its tokens last, and otherwise at the interval or when another one has had it, so
//! that a framework that declines everything does not spin both sides. What ends costs no token, and opens
//! its agent to everybody: work that was done is no spinning, and waiting would bound the rate of short tasks.

mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tepui_model::allocation::{
    AgentKey, Fact, FilterScope, FrameworkKey, Holding, Proposal, Quota, Round,
};
use tepui_model::id::Role;
use tepui_model::resources::Resources;
use tepui_model::time::{Mono, Now};

use crate::quota::Limits;
use crate::timers::Timer;
use crate::{Effect, MasterState};

/// How resources came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Back {
    /// Refused by the framework for so long.
    Refused(Duration),
    /// Refused with no filter.
    Returned,
    /// Freed by a task or an executor that is over.
    Ended,
    /// Taken away by the master, or never the framework's fault.
    Withdrawn,
}

/// How long returned resources wait for others after a round that gave nothing.
const QUIET: Duration = Duration::from_millis(5);

type Place = (FrameworkKey, Role, AgentKey);

#[derive(Debug)]
struct Filter {
    resources: Resources,
    until: Mono,
}

/// The conversation with the allocator.
#[derive(Debug, Default)]
pub(crate) struct Allocation {
    facts: Vec<Fact>,
    open: Option<u64>,
    /// So many agents have to be there before the first round of a leader that took over a cluster with quota.
    awaited: Option<usize>,
    rounds: u64,
    wanted: BTreeSet<AgentKey>,
    /// Agents where something came back: they wait while the allocator has little to give.
    returned: BTreeSet<AgentKey>,
    want_all: bool,
    /// Something was told since the last batch.
    news: bool,
    batch_at: Option<Mono>,
    /// A round for returned resources waits so long: the last one gave nothing.
    quiet_until: Option<Mono>,
    filters: BTreeMap<Place, Vec<Filter>>,
    ends: BTreeSet<(Mono, Place)>,
    /// Who may not have which agent until the next batch, because tokens ran out.
    held: BTreeMap<AgentKey, BTreeSet<(FrameworkKey, Role)>>,
    /// Until when each framework has spent its tokens.
    spent: BTreeMap<FrameworkKey, Mono>,
}

impl Allocation {
    pub(crate) fn tell(&mut self, fact: Fact) {
        self.facts.push(fact);
    }

    /// Asks for a round over all agents at once.
    pub(crate) fn want_all(&mut self) {
        self.want_all = true;
    }

    /// Asks for a round over this agent at once.
    pub(crate) fn want(&mut self, agent: AgentKey) {
        self.wanted.insert(agent);
    }

    /// Rounds are asked for from now on.
    pub(crate) fn resume(&mut self) {
        if self.awaited.take().is_some() {
            self.want_all();
        }
    }

    /// When a round may have to be asked for.
    pub(crate) fn next_round(&self) -> Option<Mono> {
        let quiet = self.quiet_until.filter(|_| !self.returned.is_empty());
        self.batch_at.into_iter().chain(quiet).min()
    }

    /// Filters that are in effect, by role.
    pub(crate) fn filters_by_role(&self) -> BTreeMap<Role, u64> {
        let mut roles: BTreeMap<Role, u64> = BTreeMap::new();
        for ((_, role, _), filters) in &self.filters {
            *roles.entry(role.clone()).or_default() += filters.len() as u64;
        }
        roles
    }

    pub(crate) fn filter(&mut self, holding: Holding, until: Mono) {
        let place = (holding.framework, holding.role.clone(), holding.agent);
        self.ends.insert((until, place.clone()));
        self.filters.entry(place).or_default().push(Filter {
            resources: holding.resources.clone(),
            until,
        });
        self.tell(Fact::Filter(holding, until));
    }

    /// Ends filters of a framework, of all its roles or of some.
    pub(crate) fn clear_filters(&mut self, framework: FrameworkKey, roles: &[Role]) {
        let first = (framework, Role::from(""), AgentKey(0));
        let after = (FrameworkKey(framework.0 + 1), Role::from(""), AgentKey(0));
        let hit = |place: &Place| roles.is_empty() || roles.contains(&place.1);
        let places: Vec<Place> = self
            .filters
            .range(first..after)
            .map(|(place, _)| place.clone())
            .filter(hit)
            .collect();
        let mut lifted = false;
        self.held.retain(|_, who| {
            let before = who.len();
            who.retain(|(owner, role)| {
                *owner != framework || !(roles.is_empty() || roles.contains(role))
            });
            lifted |= who.len() != before;
            !who.is_empty()
        });
        if places.is_empty() && !lifted {
            return;
        }
        for place in places {
            self.drop_filters(&place);
        }
        self.tell(Fact::FiltersCleared(FilterScope {
            framework: Some(framework),
            roles: roles.to_vec(),
            agent: None,
        }));
    }

    /// Opens an agent to those from whom it was held, but for a framework that has just returned it.
    fn lift_holds(&mut self, agent: AgentKey, returning: Option<FrameworkKey>) {
        let Some(held) = self.held.get_mut(&agent) else {
            return;
        };
        let (kept, lifted) = std::mem::take(held)
            .into_iter()
            .partition(|(framework, _)| Some(*framework) == returning);
        *held = kept;
        if held.is_empty() {
            self.held.remove(&agent);
        }
        for (framework, role) in lifted {
            self.tell(Fact::FiltersCleared(FilterScope {
                framework: Some(framework),
                roles: vec![role.clone()],
                agent: Some(agent),
            }));
            // Those that the framework has set itself stay.
            for filter in self
                .filters
                .get(&(framework, role.clone(), agent))
                .into_iter()
                .flatten()
            {
                let holding = Holding {
                    framework,
                    role: role.clone(),
                    agent,
                    resources: filter.resources.clone(),
                };
                self.facts.push(Fact::Filter(holding, filter.until));
            }
        }
    }

    fn drop_filters(&mut self, place: &Place) {
        for filter in self.filters.remove(place).into_iter().flatten() {
            self.ends.remove(&(filter.until, place.clone()));
        }
    }

    pub(crate) fn forget_framework(&mut self, framework: FrameworkKey) {
        self.clear_filters(framework, &[]);
        self.spent.remove(&framework);
    }

    /// Ends all filters on an agent.
    pub(crate) fn clear_agent_filters(&mut self, agent: AgentKey) {
        self.drop_agent_filters(agent);
        self.tell(Fact::FiltersCleared(FilterScope {
            agent: Some(agent),
            ..FilterScope::default()
        }));
    }

    fn drop_agent_filters(&mut self, agent: AgentKey) {
        let places: Vec<Place> = self
            .filters
            .keys()
            .filter(|place| place.2 == agent)
            .cloned()
            .collect();
        for place in places {
            self.drop_filters(&place);
        }
        self.held.remove(&agent);
    }

    pub(crate) fn forget_agent(&mut self, agent: AgentKey) {
        self.drop_agent_filters(agent);
        self.wanted.remove(&agent);
        self.returned.remove(&agent);
    }

    /// Whether the framework may get back at once what it returns; takes one of its tokens.
    fn spend(&mut self, framework: FrameworkKey, now: Mono, per_second: u32) -> bool {
        let Some(each) = Duration::from_secs(1).checked_div(per_second) else {
            return false;
        };
        let spent = self.spent.entry(framework).or_default();
        let spent_to = (*spent).max(now);
        if spent_to.since(now) >= Duration::from_secs(1) {
            return false;
        }
        *spent = spent_to + each;
        true
    }

    fn batch(&mut self, now: Mono) {
        self.batch_at = None;
        self.news = false;
        self.held.clear();
        self.want_all = true;
        while let Some((until, place)) = self.ends.first().cloned() {
            if until > now {
                break;
            }
            self.ends.remove(&(until, place.clone()));
            if let Some(filters) = self.filters.get_mut(&place) {
                filters.retain(|filter| filter.until > now);
                if filters.is_empty() {
                    self.filters.remove(&place);
                }
            }
        }
    }

    fn arm(&mut self, now: Mono, interval: Duration) {
        let next = if self.news || !self.held.is_empty() {
            Some(multiple_after(now, interval))
        } else {
            // The first multiple that is not before the end.
            let end = self.ends.first();
            end.map(|(until, _)| multiple_after(*until - Duration::from_nanos(1), interval))
        };
        // A batch that waits for the end of a filter comes earlier when there are news.
        self.batch_at = self.batch_at.into_iter().chain(next).min();
    }
}

fn multiple_after(now: Mono, interval: Duration) -> Mono {
    let interval = (interval.as_nanos() as u64).max(1);
    Mono(
        (now.0 / interval)
            .saturating_add(1)
            .saturating_mul(interval),
    )
}

impl MasterState {
    /// End of an event: facts go out, and a round is asked for if somebody wants one.
    pub(crate) fn flush_allocation(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let interval = self.settings.allocation_interval;
        let there = self.agent_runs.len();
        if self
            .allocation
            .awaited
            .is_some_and(|awaited| there >= awaited)
        {
            self.allocation.resume();
        }
        if self.allocation.batch_at.is_some_and(|at| at <= now.mono) {
            self.allocation.batch(now.mono);
        }
        if !self.allocation.facts.is_empty() {
            self.allocation.news = true;
            let mut facts = std::mem::take(&mut self.allocation.facts);
            let exclusions = self.exclusions(&facts);
            facts.extend(exclusions);
            effects.push(Effect::Facts(facts));
        }
        self.allocation.arm(now.mono, interval);
        let allocation = &mut self.allocation;
        if allocation
            .quiet_until
            .is_some_and(|until| until <= now.mono)
        {
            allocation.quiet_until = None;
        }
        let returned = allocation.quiet_until.is_none() && !allocation.returned.is_empty();
        let wanted = allocation.want_all || !allocation.wanted.is_empty() || returned;
        let may_ask = self.allocation.open.is_none() && self.allocation.awaited.is_none();
        if wanted && may_ask {
            self.ask(now, effects);
        }
    }

    /// With the first agents that come back alone, a role without guarantee could get what others are guaranteed: nothing
    /// is offered before most are there.
    pub(crate) fn await_agents(&mut self, now: Now) {
        let share = self.settings.allocator_agent_recovery_factor;
        let awaited = (self.recovered.len() as f64 * share).floor() as usize;
        let quota = |quota: &Quota| !quota.guarantees.is_empty() || !quota.limits.is_empty();
        if awaited > 0 && self.quotas.values().any(quota) {
            self.allocation.awaited = Some(awaited);
            let end = now.mono + self.settings.allocator_recovery_timeout;
            self.timers.set(end, Timer::AllocatorRecoveryEnds);
        }
    }

    fn ask(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let somebody = self.frameworks.values().any(|framework| {
            framework.is_active() && framework.roles.len() > framework.suppressed.len()
        });
        if !somebody {
            // Whoever comes next wants all agents anyway.
            self.allocation.want_all = false;
            self.allocation.wanted.clear();
            self.allocation.returned.clear();
            return;
        }
        let returned = std::mem::take(&mut self.allocation.returned);
        self.allocation.wanted.extend(returned);
        let open = |key: &AgentKey| {
            let agent = &self.agent_runs[key];
            self.is_in_service(*key) && !agent.free.is_empty()
        };
        let candidates: Vec<AgentKey> = if self.allocation.want_all {
            self.agent_runs.keys().filter(open).collect()
        } else {
            self.allocation
                .wanted
                .iter()
                .copied()
                .filter(open)
                .collect()
        };
        self.allocation.want_all = false;
        self.allocation.wanted.clear();
        if candidates.is_empty() {
            return;
        }
        let number = self.allocation.rounds;
        self.allocation.rounds += 1;
        self.allocation.open = Some(number);
        let round = Round {
            now: now.mono,
            seed: self.rng.next_u64(),
            candidates,
        };
        effects.push(Effect::Allocate { number, round });
    }

    /// The allocator answered.
    pub(crate) fn proposals(
        &mut self,
        round: u64,
        proposals: Vec<Proposal>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        if self.allocation.open != Some(round) {
            return;
        }
        self.allocation.open = None;
        if proposals.is_empty() {
            self.allocation.quiet_until = Some(now.mono + QUIET);
        }
        let mut offers: Vec<(FrameworkKey, Vec<Bytes>)> = Vec::new();
        let mut at: BTreeMap<FrameworkKey, usize> = BTreeMap::new();
        let mut limits = Limits::default();
        for proposal in proposals {
            if !self.is_acceptable(&proposal) || !limits.allow(self, &proposal) {
                self.allocation.tell(Fact::Refused(proposal));
                continue;
            }
            let framework = proposal.framework;
            let offer = self.make_offer(proposal, now);
            let index = *at.entry(framework).or_insert_with(|| {
                offers.push((framework, Vec::new()));
                offers.len() - 1
            });
            offers[index].1.push(offer);
        }
        for (framework, offers) in offers {
            self.send_offers(framework, offers, effects);
        }
        self.send_inverse_offers(now, effects);
    }

    /// The ledger decides: whatever the allocator thinks, nothing is offered twice.
    fn is_acceptable(&self, proposal: &Proposal) -> bool {
        let Some(framework) = self.frameworks.get(&proposal.framework) else {
            return false;
        };
        let Some(agent) = self.agent_runs.get(&proposal.agent) else {
            return false;
        };
        framework.is_active()
            && framework.roles.contains(&proposal.role)
            && !framework.suppressed.contains(&proposal.role)
            && self.is_in_service(proposal.agent)
            && !self.transitioning.contains(&agent.id)
            && !proposal.resources.is_empty()
            && !self.is_excluded(proposal.framework, &proposal.role, proposal.agent)
            && proposal.resources.iter().all(|resource| {
                resource.allocation_role().is_none()
                    && resource.is_allocatable_to(proposal.role.as_str())
            })
            && agent.free.contains(&proposal.resources)
    }

    /// Whether the agent may be offered from.
    pub(crate) fn is_in_service(&self, agent: AgentKey) -> bool {
        let listed = |hostname: &str| {
            let whitelist = self.whitelist.as_ref();
            whitelist.is_none_or(|hostnames| hostnames.contains(hostname))
        };
        self.agents
            .get(&agent)
            .is_some_and(|row| row.active && listed(&row.hostname))
    }

    /// Hosts that may be offered from have changed. What was offered stays so, as in Mesos.
    pub(crate) fn set_whitelist(&mut self, hostnames: Option<BTreeSet<String>>) {
        let agents: Vec<AgentKey> = self.agent_runs.keys().collect();
        let before: Vec<bool> = agents.iter().map(|key| self.is_in_service(*key)).collect();
        self.whitelist = hostnames;
        for (key, before) in agents.into_iter().zip(before) {
            let now = self.is_in_service(key);
            if now != before {
                self.allocation.tell(Fact::AgentActive(key, now));
                self.allocation.want(key);
            }
        }
    }

    /// Tells the allocator what came back, and decides who may get it at once.
    pub(crate) fn release(
        &mut self,
        framework: FrameworkKey,
        agent: AgentKey,
        what: &Resources,
        back: Back,
        now: Now,
    ) {
        for (role, resources) in what.allocations() {
            let holding = Holding {
                framework,
                role,
                agent,
                resources: resources.into_unallocated(),
            };
            self.release_holding(holding, back, now);
        }
    }

    /// The same of what a framework had in one role.
    pub(crate) fn release_holding(&mut self, holding: Holding, back: Back, now: Now) {
        let Holding {
            framework, agent, ..
        } = holding;
        match back {
            Back::Refused(refuse) => {
                self.allocation.tell(Fact::Returned(holding.clone()));
                self.allocation.filter(holding, now.mono + refuse);
            }
            Back::Returned => {
                let role = holding.role.clone();
                self.allocation.tell(Fact::Returned(holding));
                self.hold_unless_tokens(framework, role, agent, now);
            }
            Back::Ended | Back::Withdrawn => self.allocation.tell(Fact::Returned(holding)),
        }
        match back {
            Back::Refused(_) | Back::Returned => {
                self.allocation.lift_holds(agent, Some(framework));
            }
            Back::Ended => self.allocation.lift_holds(agent, None),
            Back::Withdrawn => {}
        }
        self.allocation.returned.insert(agent);
    }

    fn hold_unless_tokens(
        &mut self,
        framework: FrameworkKey,
        role: Role,
        agent: AgentKey,
        now: Now,
    ) {
        let per_second = self.settings.returns_per_second;
        let who = (framework, role.clone());
        let allocation = &mut self.allocation;
        let held = allocation.held.get(&agent);
        if held.is_some_and(|held| held.contains(&who))
            || allocation.spend(framework, now.mono, per_second)
        {
            return;
        }
        let Some(row) = self.agents.get(&agent) else {
            return;
        };
        let batch = *allocation
            .batch_at
            .get_or_insert_with(|| multiple_after(now.mono, self.settings.allocation_interval));
        allocation.held.entry(agent).or_default().insert(who);
        let holding = Holding {
            framework,
            role,
            agent,
            resources: row.total.clone(),
        };
        allocation.tell(Fact::Filter(holding, batch));
    }
}
