//! Resources and attributes in the v0 answers.

use smallvec::SmallVec;
use tepui_model::id::Role;
use tepui_model::resources::{Ranges, Resource, Resources, Scalar, Set, Value};
use tepui_proto::convert::{self, Format};
use tepui_proto::json::Writer;
use tepui_proto::v1;

use super::Allowed;
use super::wire::{self, Fields};

/// Sums of resources by name, in the order in which the names came.
struct Sums<'a> {
    scalars: SmallVec<[(&'a str, bool, Scalar); 8]>,
    ranges: SmallVec<[(&'a str, bool, Ranges); 1]>,
    sets: SmallVec<[(&'a str, bool, Set); 1]>,
}

/// The sum of a name; `bool` says whether it is revocable.
fn of<'s, 'a, T: Default, const N: usize>(
    sums: &'s mut SmallVec<[(&'a str, bool, T); N]>,
    name: &'a str,
    revocable: bool,
) -> &'s mut T
where
    [(&'a str, bool, T); N]: smallvec::Array<Item = (&'a str, bool, T)>,
{
    let known = sums
        .iter()
        .position(|(n, r, _)| *n == name && *r == revocable);
    let at = known.unwrap_or_else(|| {
        sums.push((name, revocable, T::default()));
        sums.len() - 1
    });
    &mut sums[at].2
}

impl<'a> Sums<'a> {
    /// Nothing, of what is always shown.
    fn new() -> Self {
        let always = ["cpus", "gpus", "mem", "disk"];
        Self {
            scalars: always
                .map(|name| (name, false, Scalar::ZERO))
                .into_iter()
                .collect(),
            ranges: SmallVec::new(),
            sets: SmallVec::new(),
        }
    }

    fn add(&mut self, resource: &'a Resource) {
        let (name, revocable) = (resource.name().as_str(), resource.is_revocable());
        match resource.value() {
            Value::Scalar(amount) => *of(&mut self.scalars, name, revocable) += *amount,
            Value::Ranges(more) => of(&mut self.ranges, name, revocable).add(more),
            Value::Set(more) => of(&mut self.sets, name, revocable).add(more),
        }
    }

    /// Adds a `mesos.v1.Resource` without decoding it, if it is an amount.
    fn add_message(&mut self, message: &'a [u8]) {
        let (mut name, mut amount, mut revocable) = ("", None, false);
        for (number, value) in Fields(message) {
            match number {
                1 => name = value.str(),
                3 => amount = wire::field(value.bytes(), 1).map(wire::Value::f64),
                9 => revocable = true,
                _ => {}
            }
        }
        if let Some(amount) = amount {
            *of(&mut self.scalars, name, revocable) += Scalar::from_f64(amount);
            return;
        }
        match decode(message).as_ref().map(Resource::value) {
            Some(Value::Ranges(more)) => of(&mut self.ranges, name, revocable).add(more),
            Some(Value::Set(more)) => of(&mut self.sets, name, revocable).add(more),
            _ => {}
        }
    }

    /// Latest first: that is how the hash table of Mesos yields a few short keys.
    fn write(&self, w: &mut Writer<'_>) {
        let key = |w: &mut Writer<'_>, name: &str, revocable: bool| {
            if revocable {
                w.key(&format!("{name}_revocable"));
            } else {
                w.key(name);
            }
        };
        w.object(|w| {
            for (name, revocable, amount) in self.scalars.iter().rev() {
                key(w, name, *revocable);
                w.f64(amount.to_f64());
            }
            for (name, revocable, ranges) in self.ranges.iter().rev() {
                key(w, name, *revocable);
                w.str(&ranges.to_string());
            }
            for (name, revocable, set) in self.sets.iter().rev() {
                key(w, name, *revocable);
                w.str(&set.to_string());
            }
        });
    }
}

/// `{"disk":0.0,"mem":16.0,"gpus":0.0,"cpus":0.1,"ports":"[1-2]"}`
pub(super) fn object<'a>(w: &mut Writer<'_>, resources: impl IntoIterator<Item = &'a Resource>) {
    let mut sums = Sums::new();
    resources
        .into_iter()
        .for_each(|resource| sums.add(resource));
    sums.write(w);
}

/// As [`object`], of resources in a repeated field.
pub(super) fn object_of_messages(w: &mut Writer<'_>, message: &[u8], number: u32) {
    let mut sums = Sums::new();
    for (_, value) in Fields(message).filter(|(found, _)| *found == number) {
        sums.add_message(value.bytes());
    }
    sums.write(w);
}

/// The role that the first of the resources in a repeated field is allocated to.
pub(super) fn role_of_messages(message: &[u8], number: u32) -> &str {
    let first = Fields(message).find(|(found, _)| *found == number);
    let allocation = first.and_then(|(_, value)| wire::field(value.bytes(), 11));
    allocation.map_or("", |value| wire::value_text(value.bytes()))
}

fn decode(message: &[u8]) -> Option<Resource> {
    let message = <v1::Resource as prost::Message>::decode(message).ok()?;
    Resource::try_from(&message).ok()
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
        let role = resource.allocation_role();
        convert::put_resource(number, resource, Format::Endpoint, role, out);
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
