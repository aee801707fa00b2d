//! Deadlines as data. A timer that is no longer wanted is left in place; its handler sees that.

use std::collections::BTreeMap;

use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::id::Uuid;
use tepui_model::time::{Mono, Now};

use crate::event::StreamKey;
use crate::{Effect, MasterState};

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The stream is due a HEARTBEAT.
    Heartbeat(StreamKey),
    /// The framework, disconnected since then, is given up.
    Failover(FrameworkKey, Mono),
    /// The agent, disconnected since then, is given up.
    AgentGone(AgentKey, Mono),
    /// Agents that the registry lists and that have not come back are given up.
    RecoveryEnds,
    /// What came back by now is offered, though quota may not be kept.
    AllocatorRecoveryEnds,
    /// The next of those agents may be given up.
    Removal,
    /// The registry is looked through for what is too old.
    RegistryGc,
    /// Those who use agents that will not be there are asked.
    InverseOffers,
    /// The offer was open long enough.
    Offer(u64),
    /// An operator has waited long enough for the operation.
    Operation(Uuid),
    /// The operation's framework did not come back.
    Orphan(Uuid),
}

/// All deadlines, ordered by time and then by the order in which they were set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    at: BTreeMap<(Mono, u64), Timer>,
    set: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Mono, timer: Timer) {
        self.set += 1;
        self.at.insert((at, self.set), timer);
    }

    pub(crate) fn next(&self) -> Option<Mono> {
        self.at.keys().next().map(|(at, _)| *at)
    }

    fn take_due(&mut self, now: Mono) -> Option<(Mono, Timer)> {
        let entry = self.at.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let ((at, _), timer) = entry.remove_entry();
        Some((at, timer))
    }
}

impl MasterState {
    /// Runs everything that is due.
    pub(crate) fn fire(&mut self, now: Now, effects: &mut Vec<Effect>) {
        while let Some((at, timer)) = self.timers.take_due(now.mono) {
            match timer {
                Timer::Heartbeat(stream) => self.heartbeat(stream, at, now, effects),
                Timer::Failover(framework, since) => {
                    self.failover_timeout(framework, since, now, effects)
                }
                Timer::AgentGone(agent, since) => {
                    self.reregister_timeout(agent, since, now, effects)
                }
                Timer::Removal => self.removal_due(at, now, effects),
                Timer::RegistryGc => self.prune_registry(now, effects),
                Timer::RecoveryEnds => self.recovery_ends(now, effects),
                Timer::AllocatorRecoveryEnds => self.allocation.resume(),
                Timer::InverseOffers => self.inverse_offers_due(now, effects),
                Timer::Offer(offer) => self.offer_timeout(offer, now, effects),
                Timer::Operation(uuid) => self.operation_timeout(uuid, effects),
                Timer::Orphan(uuid) => self.operation_orphaned(uuid, effects),
            }
        }
    }
}
