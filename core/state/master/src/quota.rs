//! Quota of top-level roles: what each is guaranteed and limited to.
//!
//! Limits are kept by the ledger, whatever an allocator proposes. Guarantees are told to the allocator,
//! which alone can leave room for them. Reservations count as consumed while nothing runs on them.

use std::collections::BTreeMap;

use tepui_model::allocation::{Fact, Proposal, Quota};
use tepui_model::hash::Map;
use tepui_model::id::Role;
use tepui_model::resources::{Name, Quantities, Resource, Resources, Scalar};
use tepui_model::roles;
use tepui_model::time::Now;
use tepui_proto::v1::quota::{QuotaConfig, QuotaRequest};
use tepui_proto::v1::value;
use tepui_proto::{Message as _, Wire, disk};

use crate::changes::{Change, Decided};
use crate::effect::bytes_of;
use crate::event::Entry;
use crate::{Effect, MasterState, Reply};

/// The role at the top of the tree that this one is in: quota is set there.
fn top(role: &Role) -> &str {
    roles::up(role.as_str())
        .last()
        .expect("a role is above itself")
}

/// What counts against a quota of what is offered or used: reservations are counted where they are made.
fn is_charged(resource: &Resource) -> bool {
    !resource.is_reserved() && !resource.is_revocable()
}

fn charged(resources: &Resources) -> Quantities {
    resources.filter(is_charged).quantities()
}

/// Whether what is offered counts as consumed: a framework may take it at any time, but may leave it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    Too,
    Apart,
}

fn is_none(quota: &Quota) -> bool {
    quota.guarantees.is_empty() && quota.limits.is_empty()
}

/// A config that was checked.
fn quota_of(config: &QuotaConfig) -> Quota {
    let amounts = |amounts: &BTreeMap<String, value::Scalar>| {
        amounts
            .iter()
            .map(|(name, amount)| (Name::from(name.as_str()), Scalar::from_f64(amount.value)))
            .collect::<Vec<_>>()
    };
    Quota {
        guarantees: amounts(&config.guarantees).into_iter().collect(),
        limits: amounts(&config.limits),
    }
}

fn entry(role: &Role, quota: &Quota) -> Entry {
    let amount = |(name, amount): (&Name, Scalar)| {
        let value = amount.to_f64();
        (name.as_str().to_owned(), value::Scalar { value })
    };
    let config = QuotaConfig {
        role: role.to_string(),
        guarantees: quota.guarantees.iter().map(amount).collect(),
        limits: quota
            .limits
            .iter()
            .map(|(name, limit)| amount((name, *limit)))
            .collect(),
    };
    Entry {
        key: key(role),
        value: bytes_of(&disk::RoleQuota {
            config: Some(config),
        }),
    }
}

fn key(role: &Role) -> String {
    format!("quota/{role}")
}

impl MasterState {
    pub(crate) fn recover_quota(
        &mut self,
        role: Role,
        entry: &Entry,
    ) -> Result<(), prost::DecodeError> {
        let kept = disk::RoleQuota::decode(entry.value.clone())?;
        let quota = quota_of(&kept.config.unwrap_or_default());
        self.quotas.insert(role, quota);
        Ok(())
    }

    /// UPDATE_QUOTA: all of the configs or none. Of a role that is named twice the last one counts.
    pub(crate) fn decide_quotas(
        &self,
        configs: Vec<Wire<QuotaConfig>>,
        force: bool,
    ) -> Result<Option<Decided>, Reply> {
        let mut new = Map::with_hasher(self.seed);
        for config in &configs {
            new.insert(Role::from(config.role.as_str()), quota_of(config));
        }
        if new.is_empty() {
            return Ok(None);
        }
        if !force {
            self.check_quotas(&new).map_err(|why| {
                Reply::BadRequest(format!(
                    "Invalid QuotaConfig: {why} (use 'force' flag to bypass this check)"
                ))
            })?;
        }
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for (role, quota) in &new {
            if is_none(quota) {
                deletes.push(key(role));
            } else {
                puts.push(entry(role, quota));
            }
        }
        // A quota without any amount stays listed until it is removed, as in Mesos.
        let quotas = new
            .into_iter()
            .map(|(role, quota)| (role, Some(quota)))
            .collect();
        Ok(Some(Decided {
            change: Change::Quotas(quotas),
            puts,
            deletes,
        }))
    }

    fn check_quotas(&self, new: &Map<Role, Quota>) -> Result<(), String> {
        let (guaranteed, capacity) = (self.guaranteed(new), self.capacity());
        if !capacity.contains(&guaranteed) {
            return Err(format!(
                "total quota guarantees '{guaranteed}' exceed cluster capacity '{capacity}'"
            ));
        }
        for (role, quota) in new {
            let consumed = self.consumed(role.as_str(), Offered::Apart);
            if let Some((name, limit)) = quota
                .limits
                .iter()
                .find(|(name, limit)| consumed.get(name) > *limit)
            {
                return Err(format!(
                    "role '{role}' consumes '{consumed}' already, more than its limit '{name}:{limit}'"
                ));
            }
        }
        Ok(())
    }

    /// SET_QUOTA and POST /quota: the guarantee is the limit too.
    pub(crate) fn decide_old_quota(&self, request: QuotaRequest) -> Result<Decided, Reply> {
        let role = Role::from(request.role());
        if self.quotas.get(&role).is_some_and(|quota| !is_none(quota)) {
            return Err(Reply::BadRequest(format!(
                "Failed to validate set quota request: Cannot set quota for role '{role}' which already has quota"
            )));
        }
        let guarantees: Quantities = request
            .guarantee
            .iter()
            .filter_map(|resource| {
                let amount = resource.scalar.as_ref()?.value;
                Some((Name::from(resource.name.as_str()), Scalar::from_f64(amount)))
            })
            .collect();
        let limits = guarantees
            .iter()
            .map(|(name, amount)| (name.clone(), amount))
            .collect();
        let quota = Quota { guarantees, limits };
        let mut new = Map::with_hasher(self.seed);
        new.insert(role.clone(), quota.clone());
        let guaranteed = self.guaranteed(&new);
        let capacity = self.capacity();
        if !request.force() && !capacity.contains(&guaranteed) {
            return Err(Reply::Conflict(format!(
                "Quota guarantees overcommit the cluster (use 'force' to bypass this check): Total quota guarantees '{guaranteed}' exceed cluster capacity '{capacity}'"
            )));
        }
        Ok(Decided {
            puts: vec![entry(&role, &quota)],
            deletes: Vec::new(),
            change: Change::OldQuota(role, quota),
        })
    }

    /// REMOVE_QUOTA and DELETE /quota/ROLE.
    pub(crate) fn decide_no_quota(&self, role: Role) -> Result<Decided, Reply> {
        if self.quotas.get(&role).is_none_or(is_none) {
            return Err(Reply::BadRequest(format!(
                "Failed to remove quota: Role '{role}' has no quota set"
            )));
        }
        Ok(Decided {
            puts: Vec::new(),
            deletes: vec![key(&role)],
            change: Change::Quotas(vec![(role, None)]),
        })
    }

    pub(crate) fn set_quotas(&mut self, quotas: Vec<(Role, Option<Quota>)>) {
        for (role, quota) in quotas {
            let told = quota.clone().unwrap_or_default();
            self.allocation.tell(Fact::Quota(role.clone(), told));
            match quota {
                Some(quota) => self.quotas.insert(role, quota),
                None => self.quotas.shift_remove(&role),
            };
        }
    }

    pub(crate) fn tell_quotas(&mut self) {
        for (role, quota) in &self.quotas {
            self.allocation
                .tell(Fact::Quota(role.clone(), quota.clone()));
        }
    }

    /// All guarantees together, with these in place of the present ones.
    fn guaranteed(&self, new: &Map<Role, Quota>) -> Quantities {
        let kept = self
            .quotas
            .iter()
            .filter(|(role, _)| !new.contains_key(*role));
        let mut sum = Quantities::new();
        for (_, quota) in kept.chain(new) {
            sum += &quota.guarantees;
        }
        sum
    }

    /// What the registered agents have for good.
    fn capacity(&self) -> Quantities {
        let mut sum = Quantities::new();
        for agent in self.agents.iter() {
            sum += &agent.total.non_revocable().quantities();
        }
        sum
    }

    /// What a role and the roles below it consume. Walks over the frameworks.
    fn consumed(&self, role: &str, offered: Offered) -> Quantities {
        let mut sum = Quantities::new();
        for (of, reserved) in &self.reserved {
            if roles::is_at_or_below(of.as_str(), role) {
                sum += reserved;
            }
        }
        let tallies = self.frameworks.values().flat_map(|framework| {
            let open = (offered == Offered::Too).then_some(&framework.offered);
            std::iter::once(&framework.used).chain(open)
        });
        for resource in tallies.flat_map(|tally| tally.scalars()) {
            let of = resource.allocation_role();
            if of.is_some_and(|of| roles::is_at_or_below(of.as_str(), role))
                && is_charged(resource)
                && let Some(amount) = resource.amount()
            {
                sum.add(resource.name(), amount);
            }
        }
        sum
    }

    /// Takes offers of others away until what the role is guaranteed can be offered to it.
    pub(crate) fn make_room(&mut self, role: &Role, now: Now, effects: &mut Vec<Effect>) {
        let Some(quota) = self.quotas.get(role) else {
            return;
        };
        let mut missing = quota.guarantees.clone();
        missing -= &self.consumed(role.as_str(), Offered::Too);
        for agent in self.agent_runs.values() {
            missing -= &charged(&agent.free);
        }
        let open: Vec<u64> = self
            .offers
            .iter()
            .filter(|offer| !roles::is_at_or_below(offer.role.as_str(), role.as_str()))
            .filter_map(|offer| self.offer_number(offer.id.as_str()))
            .collect();
        for number in open {
            if missing.is_empty() {
                break;
            }
            let offer = self.offers.get(&number).expect("just listed");
            missing -= &charged(&offer.resources);
            self.rescind(number, now, effects);
        }
    }
}

/// What proposals may still take of the limits, while a round's proposals are looked at.
#[derive(Debug, Default)]
pub(crate) struct Limits(BTreeMap<Role, Quantities>);

impl Limits {
    /// Whether the proposal stays within its role's limits; counted if it does.
    pub(crate) fn allow(&mut self, state: &MasterState, proposal: &Proposal) -> bool {
        let top = top(&proposal.role);
        let Some(quota) = state.quotas.get(top) else {
            return true;
        };
        if quota.limits.is_empty() {
            return true;
        }
        let wanted = charged(&proposal.resources);
        let consumed = self
            .0
            .entry(Role::from(top))
            .or_insert_with_key(|top| state.consumed(top.as_str(), Offered::Too));
        let within = quota.limits.iter().all(|(name, limit)| {
            let more = wanted.get(name);
            more.is_zero() || consumed.get(name) + more <= *limit
        });
        if within {
            *consumed += &wanted;
        }
        within
    }
}
