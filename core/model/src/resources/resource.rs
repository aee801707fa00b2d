//! One resource: a named value and everything that makes two of them different things.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Name, Ranges, Scalar, Set};
use crate::id::{Principal, ProviderId, Role};
use crate::labels::Labels;
use crate::roles;

/// How much of a resource there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// An amount.
    Scalar(Scalar),
    /// Numbers.
    Ranges(Ranges),
    /// Names.
    Set(Set),
}

/// One entry of a resource's stack of reservations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// Who may use it: this role and those below.
    pub role: Role,
    /// Made while running, not by the agent's `--resources`.
    pub dynamic: bool,
    /// Who made it.
    pub principal: Option<Principal>,
    /// What the maker noted.
    pub labels: Option<Labels>,
}

/// What kind of disk a resource is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceKind {
    /// A directory that may be shared out.
    Path,
    /// A file system of its own, only as a whole.
    Mount,
    /// A block device.
    Block,
    /// Storage of which a disk can still be made.
    Raw,
}

/// Where a disk comes from, if it is not the agent's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its kind.
    pub kind: SourceKind,
    /// The directory of a path or mount.
    pub root: Option<Arc<str>>,
    /// The vendor of a storage plugin.
    pub vendor: Option<Arc<str>>,
    /// The id of a volume of a storage plugin.
    pub id: Option<Arc<str>>,
    /// What the plugin knows about the volume.
    pub metadata: Option<Labels>,
    /// The profile the disk was made with.
    pub profile: Option<Arc<str>>,
}

impl Source {
    /// A source of this kind and nothing else said.
    #[must_use]
    pub fn new(kind: SourceKind) -> Self {
        Self {
            kind,
            root: None,
            vendor: None,
            id: None,
            metadata: None,
            profile: None,
        }
    }
}

/// Makes a disk outlive tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// The volume's name, unique per role and agent.
    pub id: Arc<str>,
    /// Who made it.
    pub principal: Option<Principal>,
}

/// How a persistent volume appears in containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where in the container.
    pub container_path: Arc<str>,
    /// Where on the host; refused for persistent volumes, kept for messages.
    pub host_path: Option<Arc<str>>,
    /// Whether the container may not write it.
    pub read_only: bool,
}

/// What a disk resource is besides its size.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Disk {
    /// Where it comes from.
    pub source: Option<Source>,
    /// Set on persistent volumes.
    pub persistence: Option<Persistence>,
    /// Set on persistent volumes.
    pub volume: Option<Volume>,
}

/// As in Mesos: the volume says how a disk is used and the principal who made it, neither which
/// disk it is.
impl PartialEq for Disk {
    fn eq(&self, other: &Self) -> bool {
        let id = |disk: &Self| disk.persistence.as_ref().map(|p| p.id.clone());
        self.source == other.source && id(self) == id(other)
    }
}

impl Eq for Disk {}

/// The parts that most resources do not have, in one shared allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Detail {
    reservations: Vec<Reservation>,
    disk: Option<Disk>,
    provider: Option<ProviderId>,
}

/// A resource. Immutable in what it is; only its amount changes, inside [`super::Resources`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resource {
    pub(super) value: Value,
    name: Name,
    allocated: Option<Role>,
    detail: Option<Arc<Detail>>,
    /// How many holders share it; 0 for one that cannot be shared.
    pub(super) copies: u32,
    revocable: bool,
}

/// Equal identity and amount, as in Mesos; the number of copies of a shared one does not count.
impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value && self.same_kind(other)
    }
}

impl Eq for Resource {}

impl Resource {
    /// A plain resource: unreserved, not allocated.
    pub fn new(name: impl Into<Name>, value: Value) -> Self {
        Self {
            value,
            name: name.into(),
            allocated: None,
            detail: None,
            copies: 0,
            revocable: false,
        }
    }

    /// A plain amount.
    pub fn scalar(name: impl Into<Name>, amount: Scalar) -> Self {
        Self::new(name, Value::Scalar(amount))
    }

    /// Plain ranges.
    pub fn ranges(name: impl Into<Name>, ranges: Ranges) -> Self {
        Self::new(name, Value::Ranges(ranges))
    }

    /// A plain set.
    pub fn set(name: impl Into<Name>, set: Set) -> Self {
        Self::new(name, Value::Set(set))
    }

    fn detail_mut(&mut self) -> &mut Detail {
        Arc::make_mut(self.detail.get_or_insert_default())
    }

    /// Two resources without detail compare fast, so an empty detail is none.
    fn normalized(mut self) -> Self {
        if self
            .detail
            .as_deref()
            .is_some_and(|d| *d == Detail::default())
        {
            self.detail = None;
        }
        self
    }

    /// With these reservations, the outermost first.
    #[must_use]
    pub fn with_reservations(mut self, reservations: Vec<Reservation>) -> Self {
        self.detail_mut().reservations = reservations;
        self.normalized()
    }

    /// With one more reservation on top.
    #[must_use]
    pub fn push_reservation(mut self, reservation: Reservation) -> Self {
        self.detail_mut().reservations.push(reservation);
        self
    }

    /// Without the topmost reservation.
    #[must_use]
    pub fn pop_reservation(mut self) -> Self {
        if self.is_reserved() {
            self.detail_mut().reservations.pop();
        }
        self.normalized()
    }

    /// With this disk.
    #[must_use]
    pub fn with_disk(mut self, disk: Option<Disk>) -> Self {
        if disk.is_some() || self.disk().is_some() {
            self.detail_mut().disk = disk;
        }
        self.normalized()
    }

    /// From this provider.
    #[must_use]
    pub fn with_provider(mut self, provider: Option<ProviderId>) -> Self {
        if provider.is_some() || self.provider().is_some() {
            self.detail_mut().provider = provider;
        }
        self.normalized()
    }

    /// Revocable, or not.
    #[must_use]
    pub fn with_revocable(mut self, revocable: bool) -> Self {
        self.revocable = revocable;
        self
    }

    /// Shared (by one holder so far), or not.
    #[must_use]
    pub fn with_shared(mut self, shared: bool) -> Self {
        self.copies = u32::from(shared);
        self
    }

    /// Allocated to this role.
    #[must_use]
    pub fn allocated(mut self, role: Role) -> Self {
        self.allocated = Some(role);
        self
    }

    /// Allocated to nobody.
    #[must_use]
    pub fn unallocated(mut self) -> Self {
        self.allocated = None;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How much of it.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Its amount, if it is a scalar.
    #[must_use]
    pub fn amount(&self) -> Option<Scalar> {
        match self.value {
            Value::Scalar(amount) => Some(amount),
            _ => None,
        }
    }

    /// The same thing with another amount.
    #[must_use]
    pub fn with_amount(mut self, amount: Scalar) -> Self {
        self.value = Value::Scalar(amount);
        self
    }

    /// The same thing with another value of the same type.
    #[must_use]
    pub fn of_value(&self, value: Value) -> Self {
        Self {
            value,
            name: self.name.clone(),
            allocated: self.allocated.clone(),
            detail: self.detail.clone(),
            copies: self.copies,
            revocable: self.revocable,
        }
    }

    /// The role it is allocated to.
    #[must_use]
    pub fn allocation_role(&self) -> Option<&Role> {
        self.allocated.as_ref()
    }

    /// The stack of reservations, the outermost first.
    #[must_use]
    pub fn reservations(&self) -> &[Reservation] {
        self.detail.as_deref().map_or(&[], |d| &d.reservations)
    }

    /// The topmost reservation's role.
    #[must_use]
    pub fn reservation_role(&self) -> Option<&Role> {
        self.reservations().last().map(|r| &r.role)
    }

    /// Whether it is reserved to some role.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        !self.reservations().is_empty()
    }

    /// Whether it was reserved while running.
    #[must_use]
    pub fn is_dynamically_reserved(&self) -> bool {
        self.reservations().last().is_some_and(|r| r.dynamic)
    }

    /// Whether it has a stack of two reservations or more.
    #[must_use]
    pub fn is_refined(&self) -> bool {
        self.reservations().len() > 1
    }

    /// Whether frameworks of this role may have it.
    #[must_use]
    pub fn is_allocatable_to(&self, role: &str) -> bool {
        self.reservation_role()
            .is_none_or(|reserved| roles::is_at_or_below(role, reserved.as_str()))
    }

    /// Whether nothing but its name, amount and allocation tells it apart: neither reserved nor
    /// revocable nor shared, no disk, no provider.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.detail.is_none() && !self.revocable && !self.is_shared()
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> Option<&Disk> {
        self.detail.as_deref()?.disk.as_ref()
    }

    /// Whether it is a persistent volume.
    #[must_use]
    pub fn is_persistent_volume(&self) -> bool {
        self.disk().is_some_and(|d| d.persistence.is_some())
    }

    /// The provider it comes from.
    #[must_use]
    pub fn provider(&self) -> Option<&ProviderId> {
        self.detail.as_deref()?.provider.as_ref()
    }

    /// Whether it may be taken away at any time.
    #[must_use]
    pub fn is_revocable(&self) -> bool {
        self.revocable
    }

    /// Whether several may use it at once.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.copies > 0
    }

    /// How many holders a shared one is counted for; 0 if it cannot be shared.
    #[must_use]
    pub fn copies(&self) -> u32 {
        self.copies
    }

    /// Whether there is nothing of it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.value {
            Value::Scalar(amount) => amount.0 <= 0,
            Value::Ranges(ranges) => ranges.is_empty(),
            Value::Set(set) => set.is_empty(),
        }
    }

    /// Whether both are the same thing but for the amount.
    fn same_kind(&self, other: &Self) -> bool {
        self.allocated == other.allocated && self.same_but_allocation(other)
    }

    fn same_but_allocation(&self, other: &Self) -> bool {
        self.name == other.name
            && std::mem::discriminant(&self.value) == std::mem::discriminant(&other.value)
            && self.revocable == other.revocable
            && self.is_shared() == other.is_shared()
            && match (&self.detail, &other.detail) {
                (None, None) => true,
                (Some(left), Some(right)) => Arc::ptr_eq(left, right) || left == right,
                _ => false,
            }
    }

    /// Whether it only exists as a whole: it is then equal to another, or another thing.
    pub(super) fn is_indivisible(&self) -> bool {
        let Some(disk) = self.disk() else {
            return false;
        };
        disk.persistence.is_some()
            || disk
                .source
                .as_ref()
                .is_some_and(|source| match source.kind {
                    SourceKind::Path => false,
                    SourceKind::Mount | SourceKind::Block => true,
                    SourceKind::Raw => source.id.is_some(),
                })
    }

    /// Whether `other`'s amount can be added to this one (`addable` in Mesos).
    pub(super) fn can_add(&self, other: &Self) -> bool {
        self.same_kind(other)
            && if self.is_shared() {
                self.value == other.value
            } else {
                !self.is_indivisible()
            }
    }

    /// Whether `other`'s amount can be taken from this one (`subtractable` in Mesos).
    pub(super) fn can_sub(&self, other: &Self) -> bool {
        self.same_kind(other)
            && (!(self.is_shared() || self.is_indivisible()) || self.value == other.value)
    }

    /// As [`Self::can_add`] for a free resource, whoever `other`, which is not shared, is allocated to.
    pub(super) fn can_add_free(&self, other: &Self) -> bool {
        self.allocated.is_none() && self.same_but_allocation(other) && !self.is_indivisible()
    }

    /// As [`Self::can_sub`] for a free resource, whoever `other`, which is not shared, is allocated to.
    pub(super) fn can_sub_free(&self, other: &Self) -> bool {
        self.allocated.is_none()
            && self.same_but_allocation(other)
            && (!self.is_indivisible() || self.value == other.value)
    }

    pub(super) fn set_allocation(&mut self, role: Option<Role>) {
        self.allocated = role;
    }

    /// Whether `other` is a part of this one.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.can_sub(other)
            && self.copies >= other.copies
            && match (&self.value, &other.value) {
                (Value::Scalar(have), Value::Scalar(want)) => have >= want,
                (Value::Ranges(have), Value::Ranges(want)) => have.contains(want),
                (Value::Set(have), Value::Set(want)) => have.contains(want),
                _ => false,
            }
    }

    /// Adds the amount of one that [`Self::can_add`].
    pub(super) fn add(&mut self, other: &Self) {
        if self.is_shared() {
            self.copies += other.copies;
            return;
        }
        match (&mut self.value, &other.value) {
            (Value::Scalar(left), Value::Scalar(right)) => *left += *right,
            (Value::Ranges(left), Value::Ranges(right)) => left.add(right),
            (Value::Set(left), Value::Set(right)) => left.add(right),
            _ => {}
        }
    }

    /// Takes away the amount of one that [`Self::can_sub`]; says whether nothing is left.
    pub(super) fn sub(&mut self, other: &Self) -> bool {
        if self.is_shared() {
            let left = self.copies.saturating_sub(other.copies);
            self.copies = left.max(1);
            return left == 0;
        }
        match (&mut self.value, &other.value) {
            (Value::Scalar(left), Value::Scalar(right)) => *left -= *right,
            (Value::Ranges(left), Value::Ranges(right)) => left.sub(right),
            (Value::Set(left), Value::Set(right)) => left.sub(right),
            _ => {}
        }
        self.is_empty()
    }
}
