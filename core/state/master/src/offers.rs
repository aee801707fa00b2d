//! Offers: made of proposals, answered, rescinded.

use tepui_model::allocation::{AgentKey, FrameworkKey, Proposal};
use tepui_model::filters;
use tepui_model::id::{OfferId, Role};
use tepui_model::resources::{Resources, Value};
use tepui_model::time::Now;
use tepui_proto::convert::{self, Format};
use tepui_proto::v1::{self, scheduler};
use tepui_view::OfferRow;

use crate::allocation::Back;
use crate::counts::Offers;
use crate::effect::bytes_of;
use crate::timers::Timer;
use crate::{Effect, MasterState};

/// Offers in one event, so that a record stays below a megabyte or two: clients read them whole.
const EVENT_OFFERS: usize = 1000;

impl MasterState {
    /// Turns an acceptable proposal into an open offer, which is to be sent with its siblings.
    pub(crate) fn make_offer(&mut self, mut proposal: Proposal, now: Now) -> v1::Offer {
        let number = self.next_offer;
        self.next_offer += 1;
        let total = &self.agents.get(&proposal.agent).expect("checked").total;
        let mut resources = std::mem::take(&mut proposal.resources).into_allocated(&proposal.role);
        in_offer_order(&mut resources, total);
        let id = OfferId::from(format!("{}-O{number}", self.master_id));
        let message = self.offer_message(&id, &proposal, &resources);
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
                bytes: bytes_of(&message),
            },
        );
        if let Some(timeout) = self.settings.offer_timeout {
            self.timers.set(now.mono + timeout, Timer::Offer(number));
        }
        message
    }

    fn offer_message(&self, id: &OfferId, proposal: &Proposal, resources: &Resources) -> v1::Offer {
        let framework = &self.frameworks[&proposal.framework];
        let agent = &self.agent_runs[&proposal.agent];
        let row = self.agents.get(&proposal.agent).expect("checked");
        let format = if framework.can.refinement {
            Format::Post
        } else {
            Format::Pre
        };
        // Frameworks that know one role only are not told for which role an offer is.
        let told = if framework.can.many_roles {
            convert::to_proto_as(resources, format)
        } else {
            convert::to_proto_as(&resources.unallocate(), format)
        };
        v1::Offer {
            id: v1::OfferId {
                value: id.to_string(),
            },
            framework_id: framework.proto_id(),
            agent_id: v1::AgentId {
                value: agent.id.to_string(),
            },
            hostname: row.hostname.clone(),
            url: agent_url(&row.hostname, &agent.address),
            domain: agent.info.domain.clone(),
            resources: told,
            attributes: agent.info.attributes.clone(),
            executor_ids: agent
                .executors
                .iter()
                .filter(|(owner, _)| *owner == proposal.framework)
                .map(|(_, executor)| v1::ExecutorId {
                    value: executor.to_string(),
                })
                .collect(),
            unavailability: self.unavailability(proposal.agent),
            allocation_info: framework
                .can
                .many_roles
                .then(|| v1::resource::AllocationInfo {
                    role: Some(proposal.role.to_string()),
                }),
        }
    }

    /// OFFERS with all offers that a round made for a framework: one event unless they are very many.
    pub(crate) fn send_offers(
        &mut self,
        framework: FrameworkKey,
        mut offers: Vec<v1::Offer>,
        effects: &mut Vec<Effect>,
    ) {
        let counts = &self.frameworks[&framework].counts;
        counts.offers(Offers::Sent, offers.len());
        while !offers.is_empty() {
            let rest = offers.split_off(offers.len().min(EVENT_OFFERS));
            let offers = std::mem::replace(&mut offers, rest);
            let event = scheduler::Event {
                r#type: Some(scheduler::event::Type::Offers as i32),
                offers: Some(scheduler::event::Offers { offers }),
                ..Default::default()
            };
            self.frameworks[&framework].send(event, effects);
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
        let number = self
            .offer_number(id)
            .filter(|number| self.offers.contains(number))
            .ok_or_else(|| format!("Offer {id} is no longer valid"))?;
        let row = self.offers.get(&number).expect("just looked up");
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
        counts.offers(Offers::Declined, call.offer_ids.len());
        for row in self.close_own(framework, &call.offer_ids) {
            self.release(framework, row.agent, &row.resources, back, now);
        }
    }

    /// Closes all offers of a framework whose scheduler is not there to be told.
    pub(crate) fn discard_offers_of_framework(&mut self, framework: FrameworkKey, now: Now) {
        self.discard_inverse_offers(framework);
        let offers: Vec<u64> = self.frameworks[&framework].offers.iter().copied().collect();
        for number in offers {
            let row = self.close_offer(number);
            self.release(framework, row.agent, &row.resources, Back::Withdrawn, now);
        }
    }

    /// Takes an offer away and says so.
    pub(crate) fn rescind(&mut self, number: u64, now: Now, effects: &mut Vec<Effect>) {
        let row = self.close_offer(number);
        self.release(
            row.framework,
            row.agent,
            &row.resources,
            Back::Withdrawn,
            now,
        );
        let event = scheduler::Event {
            r#type: Some(scheduler::event::Type::Rescind as i32),
            rescind: Some(scheduler::event::Rescind {
                offer_id: v1::OfferId {
                    value: row.id.to_string(),
                },
            }),
            ..Default::default()
        };
        let framework = &self.frameworks[&row.framework];
        framework.counts.offers(Offers::Rescinded, 1);
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
    resources.sort_by_key(|resource| {
        let is_amount = matches!(resource.value(), Value::Scalar(_));
        let place = total
            .iter()
            .position(|other| other.name() == resource.name());
        (is_amount, !resource.is_reserved(), place)
    });
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
