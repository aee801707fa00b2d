//! The resource algebra of Mesos: collections of resources that can be added, taken away and
//! compared.
//!
//! A [`Resources`] never holds anything empty or negative, nor two entries that could be one. Its
//! order is that of Mesos (new entries at the end; the last one moves into the place of one that is
//! used up), because clients see it in messages.

mod name;
mod operation;
mod quantities;
mod ranges;
mod resource;
mod scalar;
mod set;
mod text;

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub, SubAssign};

use serde::{Deserialize, Serialize};

pub use name::Name;
pub use operation::{Conversion, NotContained, Operation};
pub use quantities::Quantities;
pub use ranges::{Range, Ranges};
pub use resource::{Disk, Persistence, Reservation, Resource, Source, SourceKind, Value, Volume};
pub use scalar::Scalar;
pub use set::Set;
pub use text::{ParseError, parse_value};

use crate::id::Role;

/// A collection of resources.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Resources(Vec<Resource>);

impl Resources {
    /// No resources.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Plain cpus and mem, what most tasks ask for.
    #[must_use]
    pub fn cpus_mem(cpus: f64, mem: f64) -> Self {
        [
            Resource::scalar(Name::CPUS, Scalar::from_f64(cpus)),
            Resource::scalar(Name::MEM, Scalar::from_f64(mem)),
        ]
        .into_iter()
        .collect()
    }

    /// The resources, in the order that clients see.
    pub fn iter(&self) -> std::slice::Iter<'_, Resource> {
        self.0.iter()
    }

    /// How many different ones there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    pub fn add_one(&mut self, resource: &Resource) {
        if resource.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|have| have.can_add(resource)) {
            Some(have) => have.add(resource),
            None => self.0.push(resource.clone()),
        }
    }

    /// Adds one, without copying it if it is new here.
    pub fn push(&mut self, resource: Resource) {
        if resource.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|have| have.can_add(&resource)) {
            Some(have) => have.add(&resource),
            None => self.0.push(resource),
        }
    }

    /// Takes one away as far as it is here.
    pub fn sub_one(&mut self, resource: &Resource) {
        if let Some(at) = self.0.iter().position(|have| have.can_sub(resource))
            && self.0[at].sub(resource)
        {
            self.0.swap_remove(at);
        }
    }

    /// Takes all of `other` away, if it is all here.
    #[must_use]
    pub fn try_sub(&self, other: &Self) -> Option<Self> {
        self.contains(other).then(|| self - other)
    }

    /// Whether all of `other` is here.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        // Entries of `other` are different things, so each can be looked up by itself; only
        // equal volumes and whole disks may stand there twice and need counting.
        let once = |wanted: &Resource| self.0.iter().any(|have| have.contains(wanted));
        if !other.0.iter().any(Resource::is_indivisible) {
            return other.0.iter().all(once);
        }
        let mut left = self.clone();
        other.0.iter().all(|wanted| {
            let there = left.0.iter().any(|have| have.contains(wanted));
            left.sub_one(wanted);
            there
        })
    }

    /// Whether both hold the same in the same order, and nothing that several may use at once.
    #[must_use]
    pub fn is_all_of(&self, other: &Self) -> bool {
        let same = |(have, other): (&Resource, &Resource)| have == other && !have.is_shared();
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(same)
    }

    /// Whether this one is here.
    #[must_use]
    pub fn contains_one(&self, wanted: &Resource) -> bool {
        wanted.is_empty() || self.0.iter().any(|have| have.contains(wanted))
    }

    /// The total amount under this name, whatever it is reserved for.
    #[must_use]
    pub fn scalar(&self, name: &Name) -> Scalar {
        self.iter()
            .filter(|resource| resource.name() == name)
            .filter_map(Resource::amount)
            .sum()
    }

    /// All cpus.
    #[must_use]
    pub fn cpus(&self) -> Scalar {
        self.scalar(&Name::CPUS)
    }

    /// All memory, in megabytes.
    #[must_use]
    pub fn mem(&self) -> Scalar {
        self.scalar(&Name::MEM)
    }

    /// All disk, in megabytes.
    #[must_use]
    pub fn disk(&self) -> Scalar {
        self.scalar(&Name::DISK)
    }

    /// All gpus.
    #[must_use]
    pub fn gpus(&self) -> Scalar {
        self.scalar(&Name::GPUS)
    }

    /// All ports.
    #[must_use]
    pub fn ports(&self) -> Ranges {
        let mut all = Ranges::default();
        for resource in self.iter().filter(|r| *r.name() == Name::PORTS) {
            if let Value::Ranges(ranges) = resource.value() {
                all.add(ranges);
            }
        }
        all
    }

    /// Those for which `keep` is true.
    pub fn filter(&self, keep: impl Fn(&Resource) -> bool) -> Self {
        Self(self.iter().filter(|r| keep(r)).cloned().collect())
    }

    /// Those of this name.
    #[must_use]
    pub fn named(&self, name: &Name) -> Self {
        self.filter(|r| r.name() == name)
    }

    /// Those that are reserved to nobody.
    #[must_use]
    pub fn unreserved(&self) -> Self {
        self.filter(|r| !r.is_reserved())
    }

    /// Those whose topmost reservation is for exactly this role.
    #[must_use]
    pub fn reserved_to(&self, role: &Role) -> Self {
        self.filter(|r| r.reservation_role() == Some(role))
    }

    /// The reserved ones by the role of their topmost reservation.
    #[must_use]
    pub fn reserved(&self) -> BTreeMap<Role, Self> {
        let mut by_role: BTreeMap<Role, Self> = BTreeMap::new();
        for resource in self {
            if let Some(role) = resource.reservation_role() {
                by_role.entry(role.clone()).or_default().add_one(resource);
            }
        }
        by_role
    }

    /// Those that frameworks of this role may have: unreserved, or reserved to it or above it.
    #[must_use]
    pub fn allocatable_to(&self, role: &Role) -> Self {
        self.filter(|r| r.is_allocatable_to(role.as_str()))
    }

    /// Those that may be taken away at any time.
    #[must_use]
    pub fn revocable(&self) -> Self {
        self.filter(Resource::is_revocable)
    }

    /// Those that stay.
    #[must_use]
    pub fn non_revocable(&self) -> Self {
        self.filter(|r| !r.is_revocable())
    }

    /// Those that several may use at once.
    #[must_use]
    pub fn shared(&self) -> Self {
        self.filter(Resource::is_shared)
    }

    /// Those that only one may use.
    #[must_use]
    pub fn non_shared(&self) -> Self {
        self.filter(|r| !r.is_shared())
    }

    /// The persistent volumes.
    #[must_use]
    pub fn persistent_volumes(&self) -> Self {
        self.filter(Resource::is_persistent_volume)
    }

    /// The amounts.
    #[must_use]
    pub fn scalars(&self) -> Self {
        self.filter(|r| r.amount().is_some())
    }

    /// All of it, allocated to this role.
    #[must_use]
    pub fn allocate(&self, role: &Role) -> Self {
        self.iter()
            .map(|r| r.clone().allocated(role.clone()))
            .collect()
    }

    /// All of it, allocated to nobody.
    #[must_use]
    pub fn unallocate(&self) -> Self {
        self.iter().map(|r| r.clone().unallocated()).collect()
    }

    /// [`Self::allocate`] without copying it.
    #[must_use]
    pub fn into_allocated(mut self, role: &Role) -> Self {
        if !self.is_of_one_role() {
            return self.allocate(role);
        }
        for resource in &mut self.0 {
            resource.set_allocation(Some(role.clone()));
        }
        self
    }

    /// [`Self::unallocate`] without copying it.
    #[must_use]
    pub fn into_unallocated(mut self) -> Self {
        if !self.is_of_one_role() {
            return self.unallocate();
        }
        for resource in &mut self.0 {
            resource.set_allocation(None);
        }
        self
    }

    /// Whether all is allocated to the same role, or all to none: then no two become one when that changes.
    fn is_of_one_role(&self) -> bool {
        let mut pairs = self.0.windows(2);
        pairs.all(|pair| pair[0].allocation_role() == pair[1].allocation_role())
    }

    /// Adds all of `other` that cannot be shared, as allocated to nobody.
    pub fn add_unallocated(&mut self, other: &Self) {
        for resource in other.iter().filter(|one| !one.is_shared()) {
            match self.0.iter_mut().find(|have| have.can_add_free(resource)) {
                Some(have) => have.add(resource),
                None => self.push(resource.clone().unallocated()),
            }
        }
    }

    /// Takes all of `other` that cannot be shared away, as allocated to nobody, as far as it is here.
    pub fn sub_unallocated(&mut self, other: &Self) {
        for resource in other.iter().filter(|one| !one.is_shared()) {
            if let Some(at) = self.0.iter().position(|have| have.can_sub_free(resource))
                && self.0[at].sub(resource)
            {
                self.0.swap_remove(at);
            }
        }
    }

    /// Puts them into another order.
    pub fn sort_by_key<K: Ord>(&mut self, key: impl FnMut(&Resource) -> K) {
        self.0.sort_by_key(key);
    }

    /// The allocated ones by role.
    #[must_use]
    pub fn allocations(&self) -> BTreeMap<Role, Self> {
        let mut by_role: BTreeMap<Role, Self> = BTreeMap::new();
        for resource in self {
            if let Some(role) = resource.allocation_role() {
                by_role.entry(role.clone()).or_default().add_one(resource);
            }
        }
        by_role
    }

    /// All of it with every reservation taken off.
    #[must_use]
    pub fn to_unreserved(&self) -> Self {
        self.iter()
            .map(|r| r.clone().with_reservations(Vec::new()))
            .collect()
    }

    /// The amounts by name, whatever they are reserved for.
    #[must_use]
    pub fn quantities(&self) -> Quantities {
        Quantities::of(self)
    }
}

/// Both hold the same, in whatever order.
impl PartialEq for Resources {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.contains(other) && other.contains(self)
    }
}

impl Eq for Resources {}

impl FromIterator<Resource> for Resources {
    fn from_iter<I: IntoIterator<Item = Resource>>(iter: I) -> Self {
        let mut all = Self::new();
        for resource in iter {
            all.push(resource);
        }
        all
    }
}

impl From<Resource> for Resources {
    fn from(resource: Resource) -> Self {
        [resource].into_iter().collect()
    }
}

impl<'a> IntoIterator for &'a Resources {
    type Item = &'a Resource;
    type IntoIter = std::slice::Iter<'a, Resource>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Resources {
    type Item = Resource;
    type IntoIter = std::vec::IntoIter<Resource>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl AddAssign<&Self> for Resources {
    fn add_assign(&mut self, rhs: &Self) {
        if self.is_empty() {
            self.0.clone_from(&rhs.0);
            return;
        }
        for resource in rhs {
            self.add_one(resource);
        }
    }
}

impl AddAssign for Resources {
    fn add_assign(&mut self, rhs: Self) {
        if self.is_empty() {
            *self = rhs;
            return;
        }
        for resource in rhs {
            self.push(resource);
        }
    }
}

impl SubAssign<&Self> for Resources {
    /// Takes away as much of `rhs` as is here.
    fn sub_assign(&mut self, rhs: &Self) {
        if self.is_all_of(rhs) {
            self.0.clear();
            return;
        }
        for resource in rhs {
            self.sub_one(resource);
        }
    }
}

impl Add for &Resources {
    type Output = Resources;

    fn add(self, rhs: Self) -> Resources {
        let mut sum = self.clone();
        sum += rhs;
        sum
    }
}

impl Sub for &Resources {
    type Output = Resources;

    fn sub(self, rhs: Self) -> Resources {
        let mut rest = self.clone();
        rest -= rhs;
        rest
    }
}
