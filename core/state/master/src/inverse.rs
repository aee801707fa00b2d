//! Inverse offers: frameworks that use an agent whose machine goes into maintenance are asked whether that suits them.
//!
//! Whoever has something there, or is offered it, gets one; another after it has answered and its filter is over. The
//! newest answer of each is shown with the machine. Nothing follows from it: the operator decides.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use tepui_model::allocation::{AgentKey, FrameworkKey};
use tepui_model::filters;
use tepui_model::time::{Mono, Now};
use tepui_proto::v1::allocator::InverseOfferStatus;
use tepui_proto::v1::allocator::inverse_offer_status::Status;
use tepui_proto::v1::{self, InverseOffer, scheduler};

use crate::effect::bytes_of;
use crate::maintenance::MachineKey;
use crate::offers::agent_url;
use crate::registry::time;
use crate::timers::Timer;
use crate::{Effect, MasterState};

/// What was asked and answered.
#[derive(Debug, Default)]
pub(crate) struct Inverse {
    /// Agents that will not be there.
    agents: BTreeSet<AgentKey>,
    /// Open ones, by the number in their id.
    open: BTreeMap<u64, Open>,
    answers: BTreeMap<(AgentKey, FrameworkKey), Answer>,
    armed: bool,
}

#[derive(Debug)]
struct Open {
    agent: AgentKey,
    framework: FrameworkKey,
    /// `mesos.v1.InverseOffer` as it was sent.
    bytes: Bytes,
}

#[derive(Debug)]
struct Answer {
    status: InverseOfferStatus,
    /// Until when it is not asked again.
    until: Mono,
}

impl Inverse {
    fn of_agent(&self, agent: AgentKey) -> Vec<u64> {
        let open = self.open.iter().filter(|(_, open)| open.agent == agent);
        open.map(|(number, _)| *number).collect()
    }
}

impl MasterState {
    /// Another schedule for the agent's machine: what was asked and answered was about something else.
    pub(crate) fn set_unavailable(&mut self, agent: AgentKey, unavailable: bool, now: Mono) {
        self.inverse.answers.retain(|(of, _), _| *of != agent);
        self.globals_version += 1;
        if !unavailable {
            self.inverse.agents.remove(&agent);
            return;
        }
        self.inverse.agents.insert(agent);
        self.arm_inverse(now);
    }

    fn arm_inverse(&mut self, now: Mono) {
        if !std::mem::replace(&mut self.inverse.armed, true) {
            let next = now + self.settings.allocation_interval;
            self.timers.set(next, Timer::InverseOffers);
        }
    }

    /// Looked at as often as offers are made, while there is maintenance.
    pub(crate) fn inverse_offers_due(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.inverse.armed = false;
        if !self.inverse.agents.is_empty() {
            self.send_inverse_offers(now, effects);
            self.arm_inverse(now.mono);
        }
    }

    /// Asks everybody who has to be asked.
    pub(crate) fn send_inverse_offers(&mut self, now: Now, effects: &mut Vec<Effect>) {
        if self.inverse.agents.is_empty() {
            return;
        }
        let open = self.inverse.open.values();
        let asked: BTreeSet<_> = open.map(|open| (open.agent, open.framework)).collect();
        let mut new: BTreeMap<FrameworkKey, Vec<InverseOffer>> = BTreeMap::new();
        for agent in self.inverse.agents.clone() {
            for framework in self.users(agent) {
                let answer = self.inverse.answers.get(&(agent, framework));
                let filtered = answer.is_some_and(|answer| answer.until > now.mono);
                let active = self.frameworks[&framework].is_active();
                if filtered || !active || asked.contains(&(agent, framework)) {
                    continue;
                }
                let Some(unavailability) = self.unavailability(agent) else {
                    continue;
                };
                // Offers and inverse offers are numbered together.
                let number = self.next_offer;
                self.next_offer += 1;
                let row = self
                    .agents
                    .get(&agent)
                    .expect("agents that go are removed here");
                let offer = InverseOffer {
                    id: self.inverse_id(number),
                    url: agent_url(&row.hostname, &self.agent_runs[&agent].address),
                    framework_id: self.frameworks[&framework].proto_id(),
                    agent_id: Some(v1::AgentId {
                        value: row.id.to_string(),
                    }),
                    unavailability,
                    resources: Vec::new(),
                };
                let open = Open {
                    agent,
                    framework,
                    bytes: bytes_of(&offer),
                };
                self.inverse.open.insert(number, open);
                self.globals_version += 1;
                new.entry(framework).or_default().push(offer);
            }
        }
        for (framework, inverse_offers) in new {
            let event = scheduler::Event {
                r#type: Some(scheduler::event::Type::InverseOffers as i32),
                inverse_offers: Some(scheduler::event::InverseOffers { inverse_offers }),
                ..Default::default()
            };
            self.frameworks[&framework].send(event, effects);
        }
    }

    /// Frameworks with tasks, executors or offers of an agent that is in service.
    fn users(&self, agent: AgentKey) -> BTreeSet<FrameworkKey> {
        if !self.is_in_service(agent) {
            return BTreeSet::new();
        }
        let run = &self.agent_runs[&agent];
        let tasks = run.tasks.iter().map(|(framework, _)| *framework);
        let executors = run.executors.iter().map(|(framework, _)| *framework);
        let offers = run
            .offers
            .iter()
            .filter_map(|number| self.offers.get(number));
        let offers = offers.map(|offer| offer.framework);
        tasks.chain(executors).chain(offers).collect()
    }

    fn inverse_id(&self, number: u64) -> v1::OfferId {
        v1::OfferId {
            value: format!("{}-O{number}", self.master_id),
        }
    }

    /// ACCEPT_INVERSE_OFFERS, DECLINE_INVERSE_OFFERS. Those that are not open any more are passed over.
    pub(crate) fn answer_inverse_offers(
        &mut self,
        framework: FrameworkKey,
        ids: &[v1::OfferId],
        status: Status,
        filters: Option<&v1::Filters>,
        now: Now,
    ) {
        let seconds = filters.and_then(|filters| filters.refuse_seconds);
        let refuse = filters::refuse_time(seconds, self.settings.allocation_interval);
        for id in ids {
            let number = self.offer_number(&id.value);
            let open = number.and_then(|number| self.inverse.open.get(&number));
            let Some(agent) = open
                .filter(|open| open.framework == framework)
                .map(|open| open.agent)
            else {
                continue;
            };
            self.inverse
                .open
                .retain(|_, open| (open.agent, open.framework) != (agent, framework));
            let status = InverseOfferStatus {
                status: status.into(),
                framework_id: self.frameworks[&framework].proto_id(),
                timestamp: time(now.wall),
            };
            let until = now.mono + refuse.unwrap_or_default();
            let answer = Answer { status, until };
            self.inverse.answers.insert((agent, framework), answer);
            self.globals_version += 1;
        }
    }

    /// Takes back what was asked about an agent.
    pub(crate) fn rescind_inverse_offers(&mut self, agent: AgentKey, effects: &mut Vec<Effect>) {
        for number in self.inverse.of_agent(agent) {
            let Some(Open { framework, .. }) = self.inverse.open.remove(&number) else {
                continue;
            };
            self.globals_version += 1;
            let event = scheduler::Event {
                r#type: Some(scheduler::event::Type::RescindInverseOffer as i32),
                rescind_inverse_offer: Some(scheduler::event::RescindInverseOffer {
                    inverse_offer_id: self.inverse_id(number),
                }),
                ..Default::default()
            };
            self.frameworks[&framework].send(event, effects);
        }
    }

    /// The framework's scheduler is not there to be told.
    pub(crate) fn discard_inverse_offers(&mut self, framework: FrameworkKey) {
        self.inverse
            .open
            .retain(|_, open| open.framework != framework);
        self.globals_version += 1;
    }

    /// The framework is over.
    pub(crate) fn forget_inverse_framework(&mut self, framework: FrameworkKey) {
        self.discard_inverse_offers(framework);
        self.inverse.answers.retain(|(_, of), _| *of != framework);
    }

    /// The agent is over.
    pub(crate) fn forget_inverse_agent(&mut self, agent: AgentKey) {
        self.inverse.agents.remove(&agent);
        self.inverse.answers.retain(|(of, _), _| *of != agent);
    }

    /// The open ones, by whom they ask, oldest first.
    pub(crate) fn inverse_offers(&self) -> BTreeMap<FrameworkKey, Vec<Bytes>> {
        let mut offers: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for open in self.inverse.open.values() {
            offers
                .entry(open.framework)
                .or_default()
                .push(open.bytes.clone());
        }
        offers
    }

    /// The newest answers, by machine.
    pub(crate) fn inverse_answers(&self) -> BTreeMap<MachineKey, Vec<InverseOfferStatus>> {
        let mut answers: BTreeMap<MachineKey, Vec<InverseOfferStatus>> = BTreeMap::new();
        for ((agent, _), answer) in &self.inverse.answers {
            let machine = crate::maintenance::machine_of(&self.agent_runs[agent]);
            answers
                .entry(machine)
                .or_default()
                .push(answer.status.clone());
        }
        answers
    }
}
