//! Who comes first: roles by their tree, then the frameworks of a role. Kept while a round goes on.
//!
//! Only roles that somebody wants offers for are in the tree, with those above them. What others have counts in the
//! shares of the roles above.

use std::collections::BTreeMap;

use tepui_module_sdk::model::Rng;
use tepui_module_sdk::model::roles::up;
use tepui_module_sdk::prelude::*;

use crate::headroom::Headroom;
use crate::share::{Share, WHOLE, share};
use crate::{Config, Hierarchical, Sorter};

/// Place among siblings: share, then offers ever got, then name.
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
    fn settle(&mut self, cluster: &Cluster, config: &Config) {
        let excluded = &config.fair_sharing_excluded_resource_names;
        self.place.0 = share(&self.taken, cluster.total(), self.weight, excluded);
    }

    /// Counts an offer; its place before and after.
    fn charge(
        &mut self,
        amounts: &Quantities,
        cluster: &Cluster,
        config: &Config,
    ) -> [Place<'a>; 2] {
        let old = self.place;
        self.taken += amounts;
        self.place.1 += 1;
        self.settle(cluster, config);
        [old, self.place]
    }
}

/// A role in the tree, or what stands for its own frameworks beside the roles below it.
struct Node<'a> {
    /// The role's name; with [`OWN`] behind it what was said last.
    path: &'a str,
    parent: usize,
    standing: Standing<'a>,
    /// Offers before the round.
    before: u64,
    children: BTreeMap<Place<'a>, usize>,
    /// Where the role is, whose frameworks are offered to here. A node has either this or children.
    role: Option<usize>,
}

/// A role that somebody wants offers for.
struct Role<'a> {
    key: RoleKey,
    /// Its top-level role, where quota is kept.
    top: Option<RoleKey>,
    /// The node where its frameworks are offered to.
    leaf: usize,
    /// Where its clients are, by place.
    clients: BTreeMap<Place<'a>, usize>,
}

/// Who wants offers.
struct Wanting<'a> {
    client: Client,
    /// Where its role is.
    role: usize,
    standing: Standing<'a>,
}

/// Name of the node of a role's own frameworks, as in Mesos.
const OWN: &str = ".";

const ROOT: usize = 0;

/// See the module.
pub(crate) struct Order<'a> {
    cluster: &'a Cluster,
    config: &'a Config,
    nodes: Vec<Node<'a>>,
    roles: Vec<Role<'a>>,
    clients: Vec<Wanting<'a>>,
    pub(crate) headroom: Headroom,
}

impl<'a> Order<'a> {
    pub(crate) fn new(state: &'a Hierarchical, cluster: &'a Cluster) -> Self {
        let root = Node {
            path: "",
            parent: ROOT,
            standing: Standing::new(Quantities::new(), WHOLE, 0, ""),
            before: 0,
            children: BTreeMap::new(),
            role: None,
        };
        let mut order = Self {
            cluster,
            config: &state.config,
            nodes: vec![root],
            roles: Vec::new(),
            clients: Vec::new(),
            headroom: Headroom::new(cluster),
        };
        order.list_clients(state);
        order.grow_tree(state);
        order
    }

    fn list_clients(&mut self, state: &Hierarchical) {
        let mut keys: Vec<RoleKey> = self.cluster.clients().iter().map(|one| one.role).collect();
        keys.sort_unstable();
        keys.dedup();
        let role = |key: RoleKey| Role {
            key,
            top: self.cluster.top(key),
            leaf: ROOT,
            clients: BTreeMap::new(),
        };
        self.roles = keys.iter().copied().map(role).collect();
        for client in self.cluster.clients() {
            let framework = self.cluster.framework(client.framework);
            let mut standing = Standing::new(
                self.cluster.taken(client).cloned().unwrap_or_default(),
                WHOLE,
                state.client_offers.get(client).copied().unwrap_or(0),
                framework.map_or("", |framework| framework.id.as_str()),
            );
            standing.settle(self.cluster, self.config);
            let role = keys.binary_search(&client.role).expect("listed above");
            let clients = &mut self.roles[role].clients;
            clients.insert(standing.place, self.clients.len());
            self.clients.push(Wanting {
                client: *client,
                role,
                standing,
            });
        }
    }

    fn grow_tree(&mut self, state: &Hierarchical) {
        let cluster = self.cluster;
        let mut paths: BTreeMap<&'a str, usize> = BTreeMap::new();
        for role in &self.roles {
            // From the top on, so that parents are there before.
            let above: Vec<&'a str> = up(cluster.role(role.key).as_str()).collect();
            let mut parent = ROOT;
            for path in above.into_iter().rev() {
                parent = *paths.entry(path).or_insert_with(|| {
                    let name = path.rsplit('/').next().unwrap_or(path);
                    add(&mut self.nodes, state, cluster, path, name, parent)
                });
            }
        }
        for (role, name) in cluster.roles() {
            let taken = cluster.taken_by_role(role);
            for node in up(name.as_str()).filter_map(|path| paths.get(path)) {
                self.nodes[*node].standing.taken += taken;
            }
        }
        let inner: Vec<bool> = {
            let mut inner = vec![false; self.nodes.len()];
            self.nodes.iter().for_each(|node| inner[node.parent] = true);
            inner
        };
        for (at, role) in self.roles.iter_mut().enumerate() {
            let path = cluster.role(role.key).as_str();
            let mut leaf = paths[path];
            if inner[leaf] {
                leaf = add(&mut self.nodes, state, cluster, path, OWN, leaf);
                self.nodes[leaf].standing.taken = cluster.taken_by_role(role.key).clone();
            }
            self.nodes[leaf].role = Some(at);
            role.leaf = leaf;
        }
        for node in ROOT + 1..self.nodes.len() {
            self.nodes[node].standing.settle(cluster, self.config);
            let (place, parent) = (self.nodes[node].standing.place, self.nodes[node].parent);
            self.nodes[parent].children.insert(place, node);
        }
    }

    /// Offers what roles lack of their guarantees, with what else may go with it.
    pub(crate) fn guarantee(&mut self, agent: AgentKey, rng: &mut Rng, out: &mut Proposals<'_>) {
        let mut given = Vec::new();
        'all: for role in roles(&self.nodes, self.config.role_sorter, rng) {
            let top = self.roles[role].top;
            if top.is_none_or(|top| self.headroom.unmet(top).is_none()) {
                continue;
            }
            for at in clients(&self.roles[role].clients, self.config.framework_sorter, rng) {
                if out.free(agent).is_empty() {
                    break 'all;
                }
                let client = &self.clients[at].client;
                let Some(unmet) = top.and_then(|top| self.headroom.unmet(top)) else {
                    break;
                };
                let free = self.cluster.offerable(client, agent, out.free(agent));
                let serves = |free: Resources| {
                    let free = Cluster::charged(&free);
                    unmet.iter().any(|(name, _)| free.get(name).0 > 0)
                };
                if !free.is_ok_and(serves) {
                    continue;
                }
                let bounds = self.headroom.bounds(Some(unmet));
                if let Ok(resources) = out.free_within(client, agent, &bounds) {
                    self.headroom.book(top, resources);
                    given.push((at, resources.quantities()));
                }
            }
        }
        self.charge_all(given);
    }

    /// Offers what is left on an agent, to the first who may have it; what is reserved for others goes on to them.
    pub(crate) fn offer(&mut self, agent: AgentKey, rng: &mut Rng, out: &mut Proposals<'_>) {
        let mut given = Vec::new();
        'all: for role in roles(&self.nodes, self.config.role_sorter, rng) {
            for at in clients(&self.roles[role].clients, self.config.framework_sorter, rng) {
                if out.free(agent).is_empty() {
                    break 'all;
                }
                let bounds = self.headroom.bounds(None);
                let client = &self.clients[at].client;
                if let Ok(resources) = out.free_within(client, agent, &bounds) {
                    if self.headroom.is_needed() {
                        self.headroom.book(self.roles[role].top, resources);
                    }
                    given.push((at, resources.quantities()));
                }
            }
        }
        self.charge_all(given);
    }

    fn charge_all(&mut self, given: Vec<(usize, Quantities)>) {
        for (client, amounts) in given {
            self.charge(client, &amounts);
        }
    }

    /// Counts an offer and moves its client and the roles above to their new places.
    fn charge(&mut self, at: usize, amounts: &Quantities) {
        let (cluster, config) = (self.cluster, self.config);
        let client = &mut self.clients[at];
        let [old, new] = client.standing.charge(amounts, cluster, config);
        let role = &mut self.roles[client.role];
        role.clients.remove(&old);
        role.clients.insert(new, at);
        let mut node = role.leaf;
        while node != ROOT {
            let [old, new] = self.nodes[node].standing.charge(amounts, cluster, config);
            let parent = self.nodes[node].parent;
            let siblings = &mut self.nodes[parent].children;
            siblings.remove(&old);
            siblings.insert(new, node);
            node = parent;
        }
    }

    /// How many offers each role has got by now, where that changed.
    pub(crate) fn offers_of_roles(&self) -> Vec<(String, u64)> {
        let changed = |node: &&Node<'_>| node.standing.offers() != node.before;
        let offers = |node: &Node<'_>| {
            let name = key(node.path, node.standing.place.2);
            (name, node.standing.offers())
        };
        self.nodes.iter().filter(changed).map(offers).collect()
    }

    /// How many offers each client has got, where there are any.
    pub(crate) fn offers_of_clients(&self) -> Vec<(Client, u64)> {
        let clients = self.clients.iter();
        let offers = clients.map(|one| (one.client, one.standing.offers()));
        offers.filter(|(_, offers)| *offers > 0).collect()
    }
}

/// What the offers of a node are kept under.
fn key(path: &str, name: &str) -> String {
    if name == OWN {
        format!("{path}/{OWN}")
    } else {
        path.to_owned()
    }
}

fn add<'a>(
    nodes: &mut Vec<Node<'a>>,
    state: &Hierarchical,
    cluster: &Cluster,
    path: &'a str,
    name: &'a str,
    parent: usize,
) -> usize {
    let before = state.role_offers.get(&key(path, name)).copied();
    let before = before.unwrap_or_default();
    // A role's own frameworks compete with the roles below it by the usual weight.
    let weight = if name == OWN {
        WHOLE
    } else {
        cluster.weight_of(path)
    };
    nodes.push(Node {
        path,
        parent,
        standing: Standing::new(Quantities::new(), weight, before, name),
        before,
        children: BTreeMap::new(),
        role: None,
    });
    nodes.len() - 1
}

/// Where the roles are, in their order, which is made as far as it is asked for.
fn roles<'o>(
    nodes: &'o [Node<'_>],
    sorter: Sorter,
    rng: &mut Rng,
) -> Box<dyn Iterator<Item = usize> + 'o> {
    if sorter == Sorter::Random {
        let mut leaves = Vec::new();
        weigh(nodes, ROOT, ALL, &mut leaves);
        return Box::new(drawn(leaves, Rng::new(rng.next_u64())));
    }
    let mut stack = vec![nodes[ROOT].children.values()];
    Box::new(std::iter::from_fn(move || {
        loop {
            let Some(node) = stack.last_mut()?.next() else {
                stack.pop();
                continue;
            };
            match nodes[*node].role {
                Some(role) => return Some(role),
                None => stack.push(nodes[*node].children.values()),
            }
        }
    }))
}

/// Where the clients of a role are, in their order.
fn clients<'o>(
    clients: &'o BTreeMap<Place<'_>, usize>,
    sorter: Sorter,
    rng: &mut Rng,
) -> Box<dyn Iterator<Item = usize> + 'o> {
    if sorter == Sorter::Random {
        let clients = clients.values().map(|client| (*client, 1));
        return Box::new(drawn(clients.collect(), Rng::new(rng.next_u64())));
    }
    Box::new(clients.values().copied())
}

/// The weight of all roles together.
const ALL: u64 = 1 << 40;

/// What each role weighs: siblings share what their parent weighs.
fn weigh(nodes: &[Node<'_>], node: usize, whole: u64, leaves: &mut Vec<(usize, u64)>) {
    if let Some(role) = nodes[node].role {
        leaves.push((role, whole.max(1)));
    }
    let children = || nodes[node].children.values().copied();
    let sum: u128 = children()
        .map(|child| u128::from(nodes[child].standing.weight))
        .sum();
    for child in children() {
        let part = u128::from(whole) * u128::from(nodes[child].standing.weight) / sum.max(1);
        weigh(nodes, child, u64::try_from(part).unwrap_or(whole), leaves);
    }
}

/// Draws one after the other by weight, until none is left.
fn drawn<T: Copy>(mut left: Vec<(T, u64)>, mut rng: Rng) -> impl Iterator<Item = T> {
    std::iter::from_fn(move || {
        let total: u64 = left.iter().map(|(_, weight)| weight).sum();
        if total == 0 {
            return None;
        }
        let mut at = rng.below(total);
        let found = left.iter().position(|(_, weight)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        });
        Some(left.swap_remove(found.expect("less than the total")).0)
    })
}
