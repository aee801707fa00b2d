//! Where proposals are put, and what is left after them.

use std::collections::{BTreeMap, HashMap};

use tepui_model::allocation::{AgentKey, Proposal};
use tepui_model::resources::{Name, Quantities, Resources, Scalar};

use super::limits::cut;
use super::{Client, Cluster, NotOffered, RoleKey};

/// Where an allocator puts its proposals.
///
/// [`Cluster::free`] stays what it was at the round's start; [`Self::free`] is what is left after the proposals
/// made so far.
#[derive(Debug)]
pub struct Proposals<'a> {
    cluster: &'a Cluster,
    left: HashMap<AgentKey, Resources>,
    /// What counts against quota of what was proposed, by top-level role that has limits.
    given: BTreeMap<RoleKey, Quantities>,
    made: Vec<Proposal>,
}

impl<'a> Proposals<'a> {
    /// No proposals yet. The kit makes this for each round; useful in tests.
    pub fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            left: HashMap::new(),
            given: BTreeMap::new(),
            made: Vec::new(),
        }
    }

    /// What is left on an agent.
    pub fn free(&self, agent: AgentKey) -> &Resources {
        self.left
            .get(&agent)
            .unwrap_or_else(|| self.cluster.free(agent))
    }

    /// Offers all that is left and may be offered to the client there, cut to the limits of its role's quota. Says
    /// what, or why nothing.
    pub fn all_free(&mut self, client: &Client, agent: AgentKey) -> Result<&Resources, NotOffered> {
        self.free_within(client, agent, &[])
    }

    /// As [`Self::all_free`], and of these names no more than that of what counts against a quota ([`Cluster::charged`]).
    pub fn free_within(
        &mut self,
        client: &Client,
        agent: AgentKey,
        bounds: &[(Name, Scalar)],
    ) -> Result<&Resources, NotOffered> {
        let mut most = self.cluster.below_limits(client.role, &self.given);
        for (name, bound) in bounds {
            match most.iter_mut().find(|(limited, _)| *limited == name) {
                Some((_, limit)) => *limit = (*limit).min(*bound),
                None => most.push((name, *bound)),
            }
        }
        let free = self.free(agent);
        let (part, whole) = if most.is_empty() {
            let part = self.cluster.offerable(client, agent, free)?;
            // Entries are left out, but not made less.
            let whole = part.len() == free.len();
            (part, whole)
        } else {
            let cut = cut(free, &mut most);
            let part = self.cluster.offerable(client, agent, &cut)?;
            let whole = is_whole(&part, free);
            (part, whole)
        };
        self.push(client, agent, part, whole);
        Ok(&self.made.last().expect("just pushed").resources)
    }

    /// Offers these resources. Returns false, and proposes nothing, if they are not all left on the agent.
    pub fn offer(&mut self, client: &Client, agent: AgentKey, resources: Resources) -> bool {
        let fits = !resources.is_empty() && self.free(agent).contains(&resources);
        if fits {
            let whole = is_whole(&resources, self.free(agent));
            self.push(client, agent, resources, whole);
        }
        fits
    }

    /// Offers without a look at what is free: the master refuses what does not hold. To test that it does.
    #[doc(hidden)]
    pub fn unchecked(&mut self, client: &Client, agent: AgentKey, resources: Resources) {
        let whole = is_whole(&resources, self.free(agent));
        self.push(client, agent, resources, whole);
    }

    /// The proposals made so far.
    pub fn made(&self) -> &[Proposal] {
        &self.made
    }

    /// Notes a proposal, of the `whole` of what was left or of a part.
    fn push(&mut self, client: &Client, agent: AgentKey, resources: Resources, whole: bool) {
        if whole {
            self.left.insert(agent, Resources::new());
        } else {
            let left = self
                .left
                .entry(agent)
                .or_insert_with(|| self.cluster.free(agent).clone());
            for resource in &resources {
                left.sub_one(resource);
            }
        }
        if let Some(top) = self.cluster.limited_top(client.role) {
            *self.given.entry(top).or_default() += &Cluster::charged(&resources);
        }
        let role = self.cluster.role(client.role).clone();
        self.made.push(Proposal {
            framework: client.framework,
            role,
            agent,
            resources,
        });
    }

    /// The proposals, at the end of a round.
    pub fn into_vec(self) -> Vec<Proposal> {
        self.made
    }
}

/// Whether it is all that is free, as most proposals are.
fn is_whole(resources: &Resources, free: &Resources) -> bool {
    resources.len() == free.len() && resources.contains(free)
}
