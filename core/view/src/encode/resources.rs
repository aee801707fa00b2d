//! Resources and attributes in the v0 answers.

use smallvec::SmallVec;
use tepui_model::id::Role;
use tepui_model::resources::{Name, Ranges, Resource, Resources, Scalar, Set, Value};
use tepui_proto::convert::{self, Format};
use tepui_proto::json::Writer;
use tepui_proto::v1;

use super::Allowed;
use super::wire::{self, Fields};

/// One sum per name, in the order in which they came.
struct Sums<'a, T>(SmallVec<[(&'a Name, bool, T); 4]>);

impl<'a, T: Default> Sums<'a, T> {
    fn of(&mut self, resource: &'a Resource) -> &mut T {
        let (name, revocable) = (resource.name(), resource.is_revocable());
        let known = self
            .0
            .iter()
            .position(|(n, r, _)| *n == name && *r == revocable);
        let at = known.unwrap_or_else(|| {
            self.0.push((name, revocable, T::default()));
            self.0.len() - 1
        });
        &mut self.0[at].2
    }

    /// Latest first: that is how the hash table of Mesos yields a few short keys.
    fn write(&self, w: &mut Writer<'_>, mut value: impl FnMut(&mut Writer<'_>, &T)) {
        for (name, revocable, sum) in self.0.iter().rev() {
            if *revocable {
                w.key(&format!("{name}_revocable"));
            } else {
                w.key(name.as_str());
            }
            value(w, sum);
        }
    }
}

/// `{"disk":0.0,"mem":16.0,"gpus":0.0,"cpus":0.1,"ports":"[1-2]"}`
pub(super) fn object<'a>(w: &mut Writer<'_>, resources: impl IntoIterator<Item = &'a Resource>) {
    let always = [Name::CPUS, Name::GPUS, Name::MEM, Name::DISK];
    let mut scalars: Sums<'_, Scalar> = Sums(SmallVec::new());
    for name in &always {
        scalars.0.push((name, false, Scalar::ZERO));
    }
    let mut ranges: Sums<'_, Ranges> = Sums(SmallVec::new());
    let mut sets: Sums<'_, Set> = Sums(SmallVec::new());
    for resource in resources {
        match resource.value() {
            Value::Scalar(amount) => *scalars.of(resource) += *amount,
            Value::Ranges(more) => ranges.of(resource).add(more),
            Value::Set(more) => sets.of(resource).add(more),
        }
    }
    w.object(|w| {
        scalars.write(w, |w, amount| w.f64(amount.to_f64()));
        ranges.write(w, |w, ranges| w.str(&ranges.to_string()));
        sets.write(w, |w, set| w.str(&set.to_string()));
    });
}

/// The resources in a repeated field.
pub(super) fn from_messages(message: &[u8], number: u32) -> Resources {
    Fields(message)
        .filter(|(found, _)| *found == number)
        .filter_map(|(_, value)| <v1::Resource as prost::Message>::decode(value.bytes()).ok())
        .filter_map(|resource| Resource::try_from(&resource).ok())
        .collect()
}

/// The reserved resources that the viewer may see: role to object.
pub(super) fn reserved(w: &mut Writer<'_>, all: &Resources, roles: &Allowed<Role>) {
    w.object(|w| {
        for (role, reserved) in all.reserved() {
            if roles.has(role.as_str()) {
                w.key(role.as_str());
                object(w, &reserved);
            }
        }
    });
}

/// The same with every resource as a message.
pub(super) fn reserved_full(w: &mut Writer<'_>, all: &Resources, roles: &Allowed<Role>) {
    w.object(|w| {
        for (role, reserved) in all.reserved() {
            if roles.has(role.as_str()) {
                w.key(role.as_str());
                full(w, &reserved, roles);
            }
        }
    });
}

/// Whether the viewer may see this resource: all roles that it is reserved or allocated to.
pub(super) fn is_visible(resource: &Resource, roles: &Allowed<Role>) -> bool {
    let mut named = resource
        .reservations()
        .iter()
        .map(|r| &r.role)
        .chain(resource.allocation_role());
    *roles == Allowed::All || named.all(|role| roles.has(role.as_str()))
}

/// An array of resource messages in the form for operators.
pub(super) fn full(w: &mut Writer<'_>, all: &Resources, roles: &Allowed<Role>) {
    w.array(|w| {
        for resource in all.iter().filter(|r| is_visible(r, roles)) {
            w.message(&convert::to_proto_one(resource, Format::Endpoint));
        }
    });
}

/// Appends resource messages in the form for operators as a repeated field.
pub(super) fn put_full(number: u32, all: &Resources, roles: &Allowed<Role>, out: &mut Vec<u8>) {
    for resource in all.iter().filter(|r| is_visible(r, roles)) {
        let message = convert::to_proto_one(resource, Format::Endpoint);
        wire::put_message(number, &message, out);
    }
}

/// Attributes in a repeated field: name to number or text. The first of a name counts.
pub(super) fn attributes(w: &mut Writer<'_>, message: &[u8], number: u32) {
    let mut seen: SmallVec<[&str; 8]> = SmallVec::new();
    w.object(|w| {
        for (_, value) in Fields(message).filter(|(found, _)| *found == number) {
            let bytes = value.bytes();
            let name = wire::value_text(bytes);
            let decoded = <v1::Attribute as prost::Message>::decode(bytes).ok();
            let Some(attribute) = decoded.and_then(|a| tepui_model::Attribute::try_from(&a).ok())
            else {
                continue;
            };
            if seen.contains(&name) {
                continue;
            }
            seen.push(name);
            w.key(name);
            match attribute.value {
                tepui_model::attributes::AttributeValue::Scalar(number) => w.f64(number.to_f64()),
                other => w.str(&other.to_string()),
            }
        }
    });
}
