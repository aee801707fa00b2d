//! Agents that are given up: no faster than the site allows, and not too many of them after a change of leaders.
//! And what the registry forgets in time of those that were.

use std::collections::VecDeque;
use std::time::Duration;

use tepui_model::id::AgentId;
use tepui_model::time::{Mono, Now, Wall};

use crate::counts::Count;
use crate::registry::Pending;
use crate::timers::Timer;
use crate::{Effect, MasterState, service};

/// Agents that wait to be marked unreachable.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    waiting: VecDeque<AgentId>,
    /// The earliest time for the next one.
    next: Mono,
    armed: Option<Mono>,
}

impl MasterState {
    /// Gives up an agent, when it is its turn; not if it comes back before.
    pub(crate) fn give_up(&mut self, id: &AgentId, now: Now, effects: &mut Vec<Effect>) {
        if self.transitioning.contains(id) || self.removals.waiting.contains(id) {
            return;
        }
        self.counts.add(Count::UnreachableScheduled);
        if self.settings.agent_removal_rate_limit.is_none() {
            return self.mark_unreachable(id, now, effects);
        }
        self.removals.waiting.push_back(id.clone());
        self.remove_when_allowed(now, effects);
    }

    /// The agent is back, or was dealt with in another way.
    pub(crate) fn spare(&mut self, id: &AgentId) {
        let before = self.removals.waiting.len();
        self.removals.waiting.retain(|waiting| waiting != id);
        if self.removals.waiting.len() < before {
            self.counts.add(Count::UnreachableCanceled);
        }
    }

    pub(crate) fn removal_due(&mut self, at: Mono, now: Now, effects: &mut Vec<Effect>) {
        if self.removals.armed == Some(at) {
            self.removals.armed = None;
            self.remove_when_allowed(now, effects);
        }
    }

    fn remove_when_allowed(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Some((count, duration)) = self.settings.agent_removal_rate_limit else {
            return;
        };
        let each = duration.checked_div(count).unwrap_or(Duration::ZERO);
        while self.removals.next <= now.mono
            && let Some(id) = self.removals.waiting.pop_front()
        {
            self.removals.next = now.mono + each;
            self.mark_unreachable(&id, now, effects);
        }
        if !self.removals.waiting.is_empty() && self.removals.armed.is_none() {
            let next = self.removals.next;
            self.removals.armed = Some(next);
            self.timers.set(next, Timer::Removal);
        }
    }

    /// Agents that the registry lists did not come back in time. Where that is a larger share of them than the site
    /// thinks possible, it is more likely that they cannot reach this leader, which steps down.
    pub(crate) fn recovery_ends(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let missing: Vec<AgentId> = self.recovered.keys().cloned().collect();
        let all = std::mem::take(&mut self.recovered_at_first);
        let limit = self.settings.recovery_agent_removal_limit;
        if all > 0 && missing.len() as f64 > all as f64 * limit {
            let share = missing.len() as f64 / all as f64 * 100.0;
            self.stopped = true;
            effects.push(Effect::StepDown {
                reason: format!(
                    "{} of {all} agents in the registry ({share:.0}%) did not come back within {:?}, more than \
                     --recovery_agent_removal_limit ({:.0}%) lets go: bring them back, or raise the limit",
                    missing.len(),
                    self.settings.agent_reregister_timeout,
                    limit * 100.0
                ),
            });
            return;
        }
        for id in missing {
            self.give_up(&id, now, effects);
        }
    }

    pub(crate) fn registry_gc_interval(&self) -> Duration {
        self.settings
            .registry_gc_interval
            .max(Duration::from_secs(1))
    }

    /// Lets the registry forget agents that have been unreachable or gone for too long, or are too many.
    pub(crate) fn prune_registry(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.timers
            .set(now.mono + self.registry_gc_interval(), Timer::RegistryGc);
        let settings = &self.settings;
        let old = |list: &std::collections::BTreeMap<AgentId, Wall>| {
            let mut listed: Vec<(Wall, AgentId)> = list
                .iter()
                .map(|(id, since)| (*since, id.clone()))
                .collect();
            listed.sort();
            let excess = listed
                .len()
                .saturating_sub(settings.registry_max_agent_count);
            let is_old = |(at, (since, _)): &(usize, (Wall, AgentId))| {
                *at < excess || now.wall.since(*since) > settings.registry_max_agent_age
            };
            let old = listed.into_iter().enumerate().filter(is_old);
            old.map(|(_, (_, id))| id).collect::<Vec<_>>()
        };
        let mut unreachable = old(&self.unreachable);
        unreachable.retain(|id| !self.transitioning.contains(id));
        let gone = old(&self.gone);
        if unreachable.is_empty() && gone.is_empty() {
            return;
        }
        let mut deletes: Vec<String> = Vec::new();
        for id in &unreachable {
            deletes.extend([format!("unreachable/{id}"), service::key(id)]);
        }
        deletes.extend(gone.iter().map(|id| format!("gone/{id}")));
        self.transitioning.extend(unreachable.iter().cloned());
        let pending = Pending::Pruned { unreachable, gone };
        self.store(Vec::new(), deletes, pending, effects);
    }

    /// The registry has forgotten them.
    pub(crate) fn pruned(&mut self, unreachable: &[AgentId], gone: &[AgentId]) {
        for id in unreachable {
            self.transitioning.remove(id);
            self.unreachable.remove(id);
            self.out_of_service.remove(id);
        }
        for id in gone {
            self.gone.remove(id);
        }
        self.globals_version += 1;
    }
}
