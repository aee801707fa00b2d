//! Offers: made of proposals, answered, rescinded.

use bytes::Bytes;
use tepui_model::allocation::{AgentKey, FrameworkKey, Holding, Proposal};
use tepui_model::filters;
use tepui_model::id::{AgentId, OfferId, Role};
use tepui_model::resources::{Resource, Resources, Value};
use tepui_model::time::Now;
use tepui_proto::convert::{self, Format};
use tepui_proto::put;
use tepui_proto::v1::{self, scheduler};
use tepui_view::OfferRow;

use crate::allocation::Back;
use crate::timers::Timer;
use crate::{Effect, MasterState, Offers, counts};

/// Offers in one event, so that a record stays below a megabyte or two: clients read them whole.
const EVENT_OFFERS: usize = 1000;

impl MasterState {
    /// Turns an acceptable proposal into an open offer, which is to be sent with its siblings.
    pub(crate) fn make_offer(&mut self, mut proposal: Proposal, now: Now) -> Bytes {
        let number = self.next_offer;
        self.next_offer += 1;
        let total = &self.agents.get(&proposal.agent).expect("checked").total;
        let mut resources = std::mem::take(&mut proposal.resources).into_allocated(&proposal.role);
        in_offer_order(&mut resources, total);
        let id = OfferId::from(format!("{}-O{number}", self.master_id));
        let bytes = self.offer_bytes(&id, &proposal, &resources);
        self.offer_out(proposal.framework, proposal.agent, &resources);
        let framework = self.touch(proposal.framework);
        framework.offers.insert(number);
        let agent = self.agent_runs.get_mut(&proposal.agent);
        agent.expect("checked").offers.insert(number);
        self.offers.insert(
            number,
            OfferRow {
                id,
                framework: proposal.framework,
                agent: proposal.agent,
                role: proposal.role,
                resources,
                bytes: bytes.clone(),
            },
        );
        if let Some(timeout) = self.settings.offer_timeout {
            self.timers.set(now.mono + timeout, Timer::Offer(number));
        }
        bytes
    }

    /// The bytes of a `mesos.v1.Offer`. Most of an offer is the same for all of an agent, and there may be very many at
    /// once, so no message is built of them.
    fn offer_bytes(&self, id: &OfferId, proposal: &Proposal, resources: &Resources) -> Bytes {
        let framework = &self.frameworks[&proposal.framework];
        let agent = &self.agent_runs[&proposal.agent];
        let format = if framework.can.refinement {
            Format::Post
        } else {
            Format::Pre
        };
        // Frameworks that know one role only are not told for which role an offer is.
        let role = framework.can.many_roles.then_some(&proposal.role);
        let mut out = Vec::with_capacity(agent.offer_part.len() + 64 * (resources.len() + 3));
        put::text(1, id.as_str(), &mut out);
        put::text(2, framework.id.as_str(), &mut out);
        out.extend_from_slice(&agent.offer_part);
        for resource in resources {
            convert::put_resource(5, resource, format, role, &mut out);
        }
        for (_, executor) in agent.executors_of(proposal.framework) {
            put::text(6, executor.as_str(), &mut out);
        }
        if let Some(unavailability) = self.unavailability(proposal.agent) {
            put::message(9, &unavailability, &mut out);
        }
        if let Some(role) = role {
            put::text(10, role.as_str(), &mut out);
        }
        out.into()
    }

    /// OFFERS with all offers that a round made for a framework: one event unless they are very many.
    pub(crate) fn send_offers(
        &mut self,
        framework: FrameworkKey,
        mut offers: Vec<Bytes>,
        effects: &mut Vec<Effect>,
    ) {
        let framework = &self.frameworks[&framework];
        framework.counts.offers(counts::Offers::Sent, offers.len());
        let Some(stream) = framework.stream else {
            return;
        };
        while !offers.is_empty() {
            let rest = offers.split_off(offers.len().min(EVENT_OFFERS));
            let offers = Offers(std::mem::replace(&mut offers, rest));
            framework.counts.event(scheduler::event::Type::Offers);
            let stream = stream.key;
            effects.push(Effect::Offers { stream, offers });
        }
    }

    /// Number of an offer of this master, from its id.
    pub(crate) fn offer_number(&self, id: &str) -> Option<u64> {
        let number = id
            .strip_prefix(self.master_id.as_str())?
            .strip_prefix("-O")?;
        number.parse().ok()
    }

    /// The open offer with this id, if it is this framework's.
    fn own_offer(&self, framework: FrameworkKey, id: &str) -> Result<u64, String> {
        let number = self.offer_number(id);
        let (number, row) = number
            .and_then(|number| Some((number, self.offers.get(&number)?)))
            .ok_or_else(|| format!("Offer {id} is no longer valid"))?;
        if row.framework != framework {
            return Err(format!(
                "Offer {id} has invalid framework {} while framework {} is expected",
                self.frameworks[&row.framework].id, self.frameworks[&framework].id
            ));
        }
        Ok(number)
    }

    /// Checks the offers of an ACCEPT: all open, the caller's, of one agent and role, each once.
    pub(crate) fn offers_for_accept(
        &self,
        framework: FrameworkKey,
        ids: &[v1::OfferId],
    ) -> Result<(AgentKey, Role), String> {
        let mut first: Option<(&OfferRow, u64)> = None;
        let mut seen = std::collections::BTreeSet::new();
        for id in ids {
            if !seen.insert(id.value.as_str()) {
                return Err(format!("Duplicate offer {} in offer list", id.value));
            }
        }
        for id in ids {
            let number = self.own_offer(framework, &id.value)?;
            let row = self.offers.get(&number).expect("own_offer found it");
            match first {
                None => first = Some((row, number)),
                Some((other, _)) if other.agent != row.agent => {
                    let name = |key| &self.agent_runs[&key].id;
                    return Err(format!(
                        "Aggregated offers must belong to one single agent. Offer {} uses agent {} and agent {}",
                        id.value,
                        name(row.agent),
                        name(other.agent)
                    ));
                }
                Some((other, _)) if other.role != row.role => {
                    return Err(format!(
                        "Aggregated offers must be allocated to the same role. Offer {} uses role {} but another is using role {}",
                        id.value, row.role, other.role
                    ));
                }
                Some(_) => {}
            }
        }
        let (row, _) = first.ok_or_else(|| "No offers specified".to_owned())?;
        Ok((row.agent, row.role.clone()))
    }

    /// Takes an offer off the books without a word to anybody.
    pub(crate) fn close_offer(&mut self, number: u64) -> OfferRow {
        let row = self.offers.remove(&number).expect("open offer");
        let row = std::sync::Arc::unwrap_or_clone(row);
        self.offer_back(row.framework, row.agent, &row.resources);
        self.touch(row.framework).offers.remove(&number);
        if let Some(agent) = self.agent_runs.get_mut(&row.agent) {
            agent.offers.remove(&number);
        }
        row
    }

    /// Closes those of the offers that are open and the framework's.
    pub(crate) fn close_own(
        &mut self,
        framework: FrameworkKey,
        ids: &[v1::OfferId],
    ) -> Vec<OfferRow> {
        let mut rows = Vec::new();
        for id in ids {
            if let Ok(number) = self.own_offer(framework, &id.value) {
                rows.push(self.close_offer(number));
            }
        }
        rows
    }

    /// How resources that a framework refuses come back.
    pub(crate) fn refusal(&self, filters: Option<&v1::Filters>) -> Back {
        let seconds = filters.and_then(|filters| filters.refuse_seconds);
        match filters::refuse_time(seconds, self.settings.allocation_interval) {
            Some(time) => Back::Refused(time),
            None => Back::Returned,
        }
    }

    pub(crate) fn decline(
        &mut self,
        framework: FrameworkKey,
        call: &scheduler::call::Decline,
        now: Now,
    ) {
        let back = self.refusal(call.filters.as_ref());
        let counts = &self.frameworks[&framework].counts;
        counts.offers(counts::Offers::Declined, call.offer_ids.len());
        for row in self.close_own(framework, &call.offer_ids) {
            self.release_holding(holding(row), back, now);
        }
    }

    /// Closes all offers of a framework whose scheduler is not there to be told.
    pub(crate) fn discard_offers_of_framework(&mut self, framework: FrameworkKey, now: Now) {
        self.discard_inverse_offers(framework);
        let offers: Vec<u64> = self.frameworks[&framework].offers.iter().copied().collect();
        for number in offers {
            let row = self.close_offer(number);
            self.release_holding(holding(row), Back::Withdrawn, now);
        }
    }

    /// Takes an offer away and says so.
    pub(crate) fn rescind(&mut self, number: u64, now: Now, effects: &mut Vec<Effect>) {
        let row = self.close_offer(number);
        let (framework, id) = (row.framework, row.id.to_string());
        self.release_holding(holding(row), Back::Withdrawn, now);
        let event = scheduler::Event {
            r#type: Some(scheduler::event::Type::Rescind as i32),
            rescind: Some(scheduler::event::Rescind {
                offer_id: v1::OfferId { value: id },
            }),
            ..Default::default()
        };
        let framework = &self.frameworks[&framework];
        framework.counts.offers(counts::Offers::Rescinded, 1);
        framework.send(event, effects);
    }

    /// Rescinds all offers of an agent, and what was asked about its maintenance.
    pub(crate) fn rescind_agent(&mut self, agent: AgentKey, now: Now, effects: &mut Vec<Effect>) {
        let offers: Vec<u64> = self.agent_runs[&agent].offers.iter().copied().collect();
        for number in offers {
            self.rescind(number, now, effects);
        }
        self.rescind_inverse_offers(agent, effects);
    }

    /// Rescinds offers for roles that the framework has left.
    pub(crate) fn rescind_foreign_roles(
        &mut self,
        framework: FrameworkKey,
        now: Now,
        effects: &mut Vec<Effect>,
    ) {
        let owner = &self.frameworks[&framework];
        let offers: Vec<u64> = owner
            .offers
            .iter()
            .copied()
            .filter(|number| {
                let role = self.offers.get(number).map(|row| &row.role);
                role.is_some_and(|role| !owner.roles.contains(role))
            })
            .collect();
        for number in offers {
            self.rescind(number, now, effects);
        }
    }

    pub(crate) fn offer_timeout(&mut self, number: u64, now: Now, effects: &mut Vec<Effect>) {
        if self.offers.contains(&number) {
            self.rescind(number, now, effects);
        }
    }
}

/// Resources in the order in which an offer of Mesos lists them: what is not an amount, then what is
/// reserved, then the rest, each as the agent's own list has them.
fn in_offer_order(resources: &mut Resources, total: &Resources) {
    let key = |resource: &Resource| {
        let is_amount = matches!(resource.value(), Value::Scalar(_));
        let place = total
            .iter()
            .position(|other| other.name() == resource.name());
        (is_amount, !resource.is_reserved(), place)
    };
    if !resources.iter().is_sorted_by_key(&key) {
        resources.sort_by_key(key);
    }
}

/// What comes back of a closed offer.
fn holding(row: OfferRow) -> Holding {
    Holding {
        framework: row.framework,
        role: row.role,
        agent: row.agent,
        resources: row.resources.into_unallocated(),
    }
}

/// What is the same in the bytes of all offers of an agent.
pub(crate) fn agent_part(id: &AgentId, info: &v1::AgentInfo, address: &str) -> Box<[u8]> {
    let mut out = Vec::new();
    put::text(3, id.as_str(), &mut out);
    put::bytes(4, info.hostname.as_bytes(), &mut out);
    for attribute in &info.attributes {
        put::message(7, attribute, &mut out);
    }
    if let Some(url) = agent_url(&info.hostname, address) {
        put::message(8, &url, &mut out);
    }
    if let Some(domain) = &info.domain {
        put::message(11, domain, &mut out);
    }
    out.into()
}

/// Where the agent's endpoints are, as offers tell it.
pub(crate) fn agent_url(hostname: &str, address: &str) -> Option<v1::Url> {
    let (ip, port) = address.rsplit_once(':')?;
    Some(v1::Url {
        scheme: "http".into(),
        address: v1::Address {
            hostname: Some(hostname.to_owned()),
            ip: Some(ip.to_owned()),
            port: port.parse().ok()?,
        },
        path: Some("/slave(1)".into()),
        query: Vec::new(),
        fragment: None,
    })
}
