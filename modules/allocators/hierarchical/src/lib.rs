//! Weighted dominant resource fairness, first over roles, then over the frameworks of a role.
//!
//! Mirrors the shares, order and ties of Mesos' `HierarchicalAllocatorProcess` with two `DRFSorter`s
//! (`src/master/allocator/mesos/hierarchical.cpp`, `sorter/drf/sorter.cpp`). Roles are flat so far: `a/b` competes with
//! `a`. Each agent is offered as a whole to whoever has the smallest share, and shares change at once. While roles lack
//! something of their guarantees they are served first, and what they lack is held back from all others ([`headroom`]).
//! All numbers are integers, so equal facts and rounds give equal proposals on every machine.

mod headroom;
mod share;

use std::collections::BTreeMap;

use headroom::Headroom;
use share::{Share, share};
use tepui_module_sdk::model::Rng;
use tepui_module_sdk::prelude::*;

/// Settings of `hierarchical`.
#[config]
#[derive(Default)]
pub struct Config {
    /// Names of resources that do not count in shares, such as `gpus`.
    #[serde(default)]
    fair_sharing_excluded_resource_names: BTreeSet<String>,
}

/// See the crate.
pub struct Hierarchical {
    config: Config,
    /// How many offers a role and a client ever got: the second key of the order.
    role_offers: BTreeMap<RoleKey, u64>,
    client_offers: BTreeMap<Client, u64>,
}

impl Hierarchical {
    /// An allocator that was told nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            role_offers: BTreeMap::new(),
            client_offers: BTreeMap::new(),
        }
    }
}

impl Module for Hierarchical {
    type Config = Config;
    const NAME: &'static str = "hierarchical";
    const ALIASES: &'static [&'static str] = &["HierarchicalDRF"];
    const DESCRIPTION: &'static str = "weighted dominant resource fairness";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self::new(config))
    }
}

impl Allocator for Hierarchical {
    fn observe(&mut self, fact: &Fact, _: &Cluster) {
        if let Fact::FrameworkRemoved(framework) = fact {
            self.client_offers
                .retain(|client, _| client.framework != *framework);
        }
    }

    fn allocate(&mut self, cluster: &Cluster, round: &Round, out: &mut Proposals<'_>) {
        let mut agents = round.candidates.clone();
        let mut rng = Rng::new(round.seed);
        let mut order = Order::new(self, cluster);
        if order.headroom.is_needed() {
            rng.shuffle(&mut agents);
            for agent in &agents {
                order.guarantee(*agent, out);
            }
        }
        rng.shuffle(&mut agents);
        for agent in agents {
            order.offer(agent, out);
        }
        // The order borrows the counts that it began with.
        let roles = order.of_roles.iter();
        let roles: Vec<_> = roles
            .map(|(role, standing)| (*role, standing.offers()))
            .collect();
        let clients = order.of_clients.iter();
        let clients: Vec<_> = clients
            .map(|(client, standing)| (*client, standing.offers()))
            .collect();
        self.role_offers.extend(roles);
        self.client_offers.extend(clients);
    }
}

/// Place in an order: share, then offers ever got, then name.
type Place<'a> = (Share, u64, &'a str);

/// What a role or a client has, with what this round gave, and its place by that.
struct Standing<'a> {
    taken: Quantities,
    weight: u64,
    place: Place<'a>,
}

impl<'a> Standing<'a> {
    fn new(taken: Quantities, weight: u64, offers: u64, name: &'a str) -> Self {
        Self {
            taken,
            weight,
            place: (0, offers, name),
        }
    }

    fn offers(&self) -> u64 {
        self.place.1
    }

    /// Finds its place anew, after `taken` or the offers changed.
    fn settle(&mut self, cluster: &Cluster, excluded: &BTreeSet<String>) {
        self.place.0 = share(&self.taken, cluster.total(), self.weight, excluded);
    }
}

/// Who comes first, kept while a round goes on.
struct Order<'a> {
    cluster: &'a Cluster,
    excluded: &'a BTreeSet<String>,
    /// Roles with clients, by place.
    roles: BTreeMap<Place<'a>, RoleKey>,
    /// The clients of each role, by place.
    clients: BTreeMap<RoleKey, BTreeMap<Place<'a>, Client>>,
    of_roles: BTreeMap<RoleKey, Standing<'a>>,
    of_clients: BTreeMap<Client, Standing<'a>>,
    headroom: Headroom,
}

impl<'a> Order<'a> {
    fn new(state: &'a Hierarchical, cluster: &'a Cluster) -> Self {
        let mut order = Self {
            cluster,
            excluded: &state.config.fair_sharing_excluded_resource_names,
            roles: BTreeMap::new(),
            clients: BTreeMap::new(),
            of_roles: BTreeMap::new(),
            of_clients: BTreeMap::new(),
            headroom: Headroom::new(cluster),
        };
        for client in cluster.clients() {
            let role = client.role;
            order.of_roles.entry(role).or_insert_with(|| {
                Standing::new(
                    cluster.taken_by_role(role).clone(),
                    cluster.weight(role),
                    state.role_offers.get(&role).copied().unwrap_or(0),
                    cluster.role(role).as_str(),
                )
            });
            let framework = cluster.framework(client.framework);
            let mut standing = Standing::new(
                cluster.taken(client).cloned().unwrap_or_default(),
                1000,
                state.client_offers.get(client).copied().unwrap_or(0),
                framework.map_or("", |framework| framework.id.as_str()),
            );
            standing.settle(cluster, order.excluded);
            let clients = order.clients.entry(role).or_default();
            clients.insert(standing.place, *client);
            order.of_clients.insert(*client, standing);
        }
        for (role, standing) in &mut order.of_roles {
            standing.settle(cluster, order.excluded);
            order.roles.insert(standing.place, *role);
        }
        order
    }

    /// Offers what roles lack of their guarantees, with what else may go with it.
    fn guarantee(&mut self, agent: AgentKey, out: &mut Proposals<'_>) {
        let mut given = Vec::new();
        for role in self.roles.values() {
            let top = self.cluster.top(*role);
            for client in self.clients[role].values() {
                let Some(unmet) = top.and_then(|top| self.headroom.unmet(top)) else {
                    break;
                };
                let free = self.cluster.offerable(client, agent, out.free(agent));
                let serves = |free: Resources| {
                    let free = Cluster::charged(&free);
                    unmet.iter().any(|(name, _)| free.get(name).0 > 0)
                };
                if free.is_ok_and(serves) {
                    let bounds = self.headroom.bounds(Some(unmet));
                    if let Ok(resources) = out.free_within(client, agent, &bounds) {
                        self.headroom.book(top, resources);
                        given.push((*client, resources.quantities()));
                    }
                }
            }
        }
        self.charge_all(given);
    }

    /// Offers what is left on an agent, to the first who may have it; what is reserved for others goes on to them.
    fn offer(&mut self, agent: AgentKey, out: &mut Proposals<'_>) {
        let mut given = Vec::new();
        'all: for role in self.roles.values() {
            for client in self.clients[role].values() {
                if out.free(agent).is_empty() {
                    break 'all;
                }
                let bounds = self.headroom.bounds(None);
                if let Ok(resources) = out.free_within(client, agent, &bounds) {
                    self.headroom.book(self.cluster.top(*role), resources);
                    given.push((*client, resources.quantities()));
                }
            }
        }
        self.charge_all(given);
    }

    fn charge_all(&mut self, given: Vec<(Client, Quantities)>) {
        for (client, amounts) in given {
            self.charge(client, &amounts);
        }
    }

    /// Counts an offer and moves its client and role to their new places.
    fn charge(&mut self, client: Client, amounts: &Quantities) {
        const LISTED: &str = "only who is in the order is offered to";
        let (cluster, excluded) = (self.cluster, self.excluded);
        let more = |standing: &mut Standing<'a>| {
            let old = standing.place;
            standing.taken += amounts;
            standing.place.1 += 1;
            standing.settle(cluster, excluded);
            (old, standing.place)
        };
        let (old, new) = more(self.of_clients.get_mut(&client).expect(LISTED));
        let clients = self.clients.get_mut(&client.role).expect(LISTED);
        clients.remove(&old);
        clients.insert(new, client);
        let (old, new) = more(self.of_roles.get_mut(&client.role).expect(LISTED));
        self.roles.remove(&old);
        self.roles.insert(new, client.role);
    }
}
