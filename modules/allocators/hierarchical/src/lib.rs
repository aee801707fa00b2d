//! Weighted dominant resource fairness, first over roles, then over the frameworks of a role.
//!
//! Mirrors the shares, order and ties of Mesos' `HierarchicalAllocatorProcess` with two `DRFSorter`s
//! (`src/master/allocator/mesos/hierarchical.cpp`, `sorter/drf/sorter.cpp`). Roles are flat so far: `a/b` competes with
//! `a`, and quota does not steer. Each agent is offered as a whole to whoever has the smallest share, and shares
//! change at once. All numbers are integers, so equal facts and rounds give equal proposals on every machine.

mod share;

use std::collections::BTreeMap;

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
        Rng::new(round.seed).shuffle(&mut agents);
        let mut order = Order::new(self, cluster);
        for agent in agents {
            order.offer(agent, out);
        }
        let Order {
            role_offers,
            client_offers,
            ..
        } = order;
        self.role_offers.extend(role_offers);
        self.client_offers.extend(client_offers);
    }
}

/// Place in an order: share, then offers ever got, then name.
type Place<'a> = (Share, u64, &'a str);

/// Who comes first, kept while a round goes on.
struct Order<'a> {
    cluster: &'a Cluster,
    excluded: &'a BTreeSet<String>,
    /// Roles with clients, by place.
    roles: BTreeMap<Place<'a>, RoleKey>,
    /// The clients of each role, by place.
    clients: BTreeMap<RoleKey, BTreeMap<Place<'a>, Client>>,
    /// What each has, with what this round gave.
    role_taken: BTreeMap<RoleKey, Quantities>,
    client_taken: BTreeMap<Client, Quantities>,
    /// Offers ever got, of those in the order.
    role_offers: BTreeMap<RoleKey, u64>,
    client_offers: BTreeMap<Client, u64>,
}

impl<'a> Order<'a> {
    fn new(state: &'a Hierarchical, cluster: &'a Cluster) -> Self {
        let mut order = Self {
            cluster,
            excluded: &state.config.fair_sharing_excluded_resource_names,
            roles: BTreeMap::new(),
            clients: BTreeMap::new(),
            role_taken: BTreeMap::new(),
            client_taken: BTreeMap::new(),
            role_offers: BTreeMap::new(),
            client_offers: BTreeMap::new(),
        };
        for client in cluster.clients() {
            let taken = cluster.taken(client).cloned().unwrap_or_default();
            order.client_taken.insert(*client, taken);
            order.client_offers.insert(
                *client,
                state.client_offers.get(client).copied().unwrap_or(0),
            );
            order
                .role_taken
                .insert(client.role, cluster.taken_by_role(client.role).clone());
            order.role_offers.insert(
                client.role,
                state.role_offers.get(&client.role).copied().unwrap_or(0),
            );
            let place = order.client_place(client);
            order
                .clients
                .entry(client.role)
                .or_default()
                .insert(place, *client);
        }
        for role in order.role_taken.keys().copied().collect::<Vec<_>>() {
            let place = order.role_place(role);
            order.roles.insert(place, role);
        }
        order
    }

    fn client_place(&self, client: &Client) -> Place<'a> {
        let share = share(
            &self.client_taken[client],
            self.cluster.total(),
            1000,
            self.excluded,
        );
        let framework = self.cluster.framework(client.framework);
        let id = framework.map_or("", |framework| framework.id.as_str());
        (share, self.client_offers[client], id)
    }

    fn role_place(&self, role: RoleKey) -> Place<'a> {
        let weight = self.cluster.weight(role);
        let share = share(
            &self.role_taken[&role],
            self.cluster.total(),
            weight,
            self.excluded,
        );
        (
            share,
            self.role_offers[&role],
            self.cluster.role(role).as_str(),
        )
    }

    /// Offers what is left on an agent, to the first who may have it; what is reserved for others goes on to them.
    fn offer(&mut self, agent: AgentKey, out: &mut Proposals<'_>) {
        let mut given: Vec<(Client, Quantities)> = Vec::new();
        for role in self.roles.values() {
            for client in self.clients[role].values() {
                if out.free(agent).is_empty() {
                    break;
                }
                if let Ok(resources) = out.all_free(client, agent) {
                    given.push((*client, resources.quantities()));
                }
            }
        }
        for (client, amounts) in given {
            self.charge(client, &amounts);
        }
    }

    /// Counts an offer and moves its client and role to their new places.
    fn charge(&mut self, client: Client, amounts: &Quantities) {
        let (old_role, old_client) = (self.role_place(client.role), self.client_place(&client));
        *self.client_taken.entry(client).or_default() += amounts;
        *self.role_taken.entry(client.role).or_default() += amounts;
        *self.client_offers.entry(client).or_default() += 1;
        *self.role_offers.entry(client.role).or_default() += 1;
        let clients = self.clients.entry(client.role).or_default();
        clients.remove(&old_client);
        self.roles.remove(&old_role);
        let (role, place) = (self.role_place(client.role), self.client_place(&client));
        self.clients
            .entry(client.role)
            .or_default()
            .insert(place, client);
        self.roles.insert(role, client.role);
    }
}
