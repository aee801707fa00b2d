//! The allocator contract as plain data: what the ledger tells an allocator, and what it proposes.
//!
//! The ledger's owner has the facts and decides; an allocator only derives and proposes. So the facts since the
//! last reset, in their order, are all an allocator may depend on. Agents and frameworks are numbers that are
//! given once and never used again for another; resources carry no allocation, since facts name the role.
//!
//! Booking: a proposal counts as taken from the moment it is made. The ledger tells only what it did *not* take,
//! as [`Fact::Refused`]; a proposal that becomes an offer is not told again, and neither is an offer that
//! becomes tasks. [`Fact::Taken`] tells what was taken in any other way.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attributes::Attributes;
use crate::id::{AgentId, FrameworkId, Principal, Role};
use crate::resources::{Name, Quantities, Resources, Scalar};
use crate::time::{Mono, Wall};

/// Number of a framework.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct FrameworkKey(pub u32);

impl From<u32> for FrameworkKey {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<FrameworkKey> for u32 {
    fn from(key: FrameworkKey) -> Self {
        key.0
    }
}

/// Number of an agent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct AgentKey(pub u32);

impl From<u32> for AgentKey {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<AgentKey> for u32 {
    fn from(key: AgentKey) -> Self {
        key.0
    }
}

/// One thing that happened to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// A snapshot follows: whatever was told before is void, numbers of agents and frameworks included.
    Reset,
    /// An agent with nothing taken yet.
    AgentAdded(Agent),
    /// Anything about an agent changed; what is taken there stays. Filters on it are cleared apart.
    AgentUpdated(Agent),
    /// An agent is gone. Facts about what was taken there may still follow and mean nothing.
    AgentRemoved(AgentKey),
    /// An agent is reachable and may be offered from, or not (disconnected, deactivated, draining).
    AgentActive(AgentKey, bool),
    /// An agent will not be there, from a time on and perhaps for a duration; none: it will.
    AgentUnavailable(AgentKey, Option<Unavailability>),
    /// A framework with nothing taken yet.
    FrameworkAdded(Framework),
    /// Anything about a framework changed; what it has stays. A role it left out has no offers any more.
    FrameworkUpdated(Framework),
    /// A framework is gone. What it has is returned by facts of its own, before or after this one.
    FrameworkRemoved(FrameworkKey),
    /// A framework is connected and may get offers, or not. What it has still counts in its share.
    FrameworkActive(FrameworkKey, bool),
    /// Resources were taken other than by a proposal: by a snapshot, an agent's report, an operator.
    Taken(Holding),
    /// Resources are free again: declined, unused, finished, rescinded, converted to others.
    Returned(Holding),
    /// A proposal that the ledger did not take.
    Refused(Holding),
    /// A framework refused resources: nothing that they contain is offered to it until a time.
    Filter(Holding, Mono),
    /// Filters end early.
    FiltersCleared(FilterScope),
    /// A framework wants no offers for these roles; none named: for all it has.
    Suppressed(FrameworkKey, Vec<Role>),
    /// It wants offers again. Filters are cleared by a fact of their own.
    Revived(FrameworkKey, Vec<Role>),
    /// A framework asked for resources: a hint, told once, after the other facts of its time. Nothing follows from it
    /// unless the allocator wants it to.
    Requested(FrameworkKey, Vec<Wanted>),
    /// Weight of a role in thousandths; 1000 is the default.
    Weight(Role, u64),
    /// Quota of a top-level role; both empty: none.
    Quota(Role, Quota),
    /// What resources must hold to be offered at all: one of these alternatives; none: anything.
    Minimum(Vec<Quantities>),
}

/// An agent, as far as offering goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Its number.
    pub key: AgentKey,
    /// Its id, for explanations and tie-breaking.
    pub id: AgentId,
    /// Its host.
    pub hostname: String,
    /// All it has, also what is taken.
    pub total: Resources,
    /// Its attributes.
    pub attributes: Attributes,
    /// May be offered from.
    pub active: bool,
    /// Names of its capabilities, as in `AgentInfo.Capability.Type`.
    pub capabilities: Vec<String>,
    /// Region and zone, when it has a domain.
    pub domain: Option<(String, String)>,
    /// Is in another region than the master.
    pub remote: bool,
}

/// A framework, as far as offering goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Framework {
    /// Its number.
    pub key: FrameworkKey,
    /// Its id, for explanations and tie-breaking.
    pub id: FrameworkId,
    /// Its principal.
    pub principal: Option<Principal>,
    /// Roles it is subscribed to, each once.
    pub roles: Vec<Role>,
    /// Those of them it wants no offers for.
    pub suppressed: Vec<Role>,
    /// May get offers.
    pub active: bool,
    /// Names of its capabilities, as in `FrameworkInfo.Capability.Type`.
    pub capabilities: Vec<String>,
    /// What resources must hold to be offered to a role of it, where it set that; empty: anything. Of several entries for
    /// one role they must hold one.
    pub minimums: Vec<(Role, Quantities)>,
}

/// Resources of one agent in the hands of one framework, for one of its roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Who has them.
    pub framework: FrameworkKey,
    /// For which role.
    pub role: Role,
    /// Where they are.
    pub agent: AgentKey,
    /// What they are, without allocation.
    pub resources: Resources,
}

/// What a framework asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Of this agent; none: of any.
    pub agent: Option<AgentKey>,
    /// Whatever the framework names.
    pub resources: Resources,
}

/// When an agent will not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailability {
    /// Since when.
    pub from: Wall,
    /// For how long; none: for good.
    pub duration: Option<Duration>,
}

/// Which filters end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterScope {
    /// Only this framework's.
    pub framework: Option<FrameworkKey>,
    /// Only those of these roles; empty: of all.
    pub roles: Vec<Role>,
    /// Only those on this agent.
    pub agent: Option<AgentKey>,
}

/// What a role is promised, and what it may have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// At least this.
    pub guarantees: Quantities,
    /// At most this; a name that is not there has no limit, one with an amount of zero may have nothing.
    pub limits: Vec<(Name, Scalar)>,
}

/// A request for proposals. Equal facts and rounds since a reset give equal proposals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// The only clock of an allocator.
    pub now: Mono,
    /// Its only randomness.
    pub seed: u64,
    /// Agents to offer from: those touched since the last round, or all.
    pub candidates: Vec<AgentKey>,
}

/// Offer these resources.
pub type Proposal = Holding;
