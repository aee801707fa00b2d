//! Between the values of the model and those of the messages.

use std::time::Duration;

use prost::Message;
use tepui_model::allocation::{AgentKey, Wanted};
use tepui_model::attributes::{Attribute, AttributeValue};
use tepui_model::resources::{Name, Quantities, Range, Ranges, Resource, Scalar, Set, Value};
use tepui_proto::v1;

use crate::allocator::{self as messages, ResourceColumns};

/// What tells kinds apart; plain ones, which nearly all are, without encoding anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum KindKey {
    Plain(Name, u8),
    Encoded(Vec<u8>),
}

/// Packs a resource of a kind, a shared one once for each of its holders. Says how often.
pub(super) fn pack_resource(kind: u32, resource: &Resource, out: &mut ResourceColumns) -> u32 {
    let entries = resource.copies().max(1);
    for _ in 0..entries {
        out.kinds.push(kind);
        pack_value(resource.value(), out);
    }
    entries
}

fn pack_value(value: &Value, out: &mut ResourceColumns) {
    let length = |length: usize| i64::try_from(length).unwrap_or(i64::MAX);
    match value {
        Value::Scalar(amount) => out.amounts.push(amount.0),
        Value::Ranges(ranges) => {
            out.amounts.push(length(ranges.as_slice().len()));
            out.bounds
                .extend(ranges.iter().flat_map(|range| [range.begin, range.end]));
        }
        Value::Set(set) => {
            out.amounts.push(length(set.as_slice().len()));
            out.items
                .extend(set.as_slice().iter().map(ToString::to_string));
        }
    }
}

pub(super) fn key(resource: &Resource) -> KindKey {
    if !resource.is_plain() {
        return KindKey::Encoded(encoded(resource));
    }
    let value = match resource.value() {
        Value::Scalar(_) => 0,
        Value::Ranges(_) => 1,
        Value::Set(_) => 2,
    };
    KindKey::Plain(resource.name().clone(), value)
}

/// The message of a kind: no value, no allocation.
pub(super) fn encoded(resource: &Resource) -> Vec<u8> {
    let mut message = v1::Resource::from(resource);
    (
        message.scalar,
        message.ranges,
        message.set,
        message.allocation_info,
    ) = (None, None, None, None);
    message.encode_to_vec()
}

/// Some resource of a kind; only a resource with a value can be converted.
pub(super) fn sample(kind: &[u8]) -> Result<Resource, String> {
    let mut message = v1::Resource::decode(kind).map_err(|error| error.to_string())?;
    match message.r#type() {
        v1::value::Type::Scalar => message.scalar = Some(v1::value::Scalar { value: 1.0 }),
        v1::value::Type::Ranges => {
            message.ranges = Some(v1::value::Ranges {
                range: vec![v1::value::Range { begin: 1, end: 1 }],
            });
        }
        v1::value::Type::Set => {
            message.set = Some(v1::value::Set {
                item: vec!["sample".to_owned()],
            })
        }
        v1::value::Type::Text => return Err("a text is no resource".to_owned()),
    }
    Resource::try_from(&message).map_err(|error| error.to_string())
}

pub(super) fn quantity(name: &Name, amount: Scalar) -> messages::Quantity {
    messages::Quantity {
        name: name.to_string(),
        amount: amount.0,
    }
}

pub(super) fn quantities(amounts: &Quantities) -> Vec<messages::Quantity> {
    amounts
        .iter()
        .map(|(name, amount)| quantity(name, amount))
        .collect()
}

pub(super) fn named(amounts: &[messages::Quantity]) -> Vec<(Name, Scalar)> {
    amounts
        .iter()
        .map(|amount| (Name::from(amount.name.as_str()), Scalar(amount.amount)))
        .collect()
}

pub(super) fn pack_attribute(attribute: &Attribute) -> messages::Attribute {
    use messages::attribute::Value;
    let value = match &attribute.value {
        AttributeValue::Text(text) => Value::Text(text.to_string()),
        AttributeValue::Scalar(amount) => Value::Scalar(amount.0),
        AttributeValue::Ranges(ranges) => {
            let bounds = ranges
                .iter()
                .flat_map(|range| [range.begin, range.end])
                .collect();
            Value::Ranges(messages::Bounds { bounds })
        }
        AttributeValue::Set(set) => Value::Set(messages::Items {
            items: set.as_slice().iter().map(ToString::to_string).collect(),
        }),
    };
    messages::Attribute {
        name: attribute.name.to_string(),
        value: Some(value),
    }
}

/// None for a type of value that this version does not know: an attribute less, not a broken agent.
pub(super) fn unpack_attribute(attribute: &messages::Attribute) -> Option<Attribute> {
    use messages::attribute::Value;
    let value = match attribute.value.as_ref()? {
        Value::Text(text) => AttributeValue::Text(text.as_str().into()),
        Value::Scalar(amount) => AttributeValue::Scalar(Scalar(*amount)),
        Value::Ranges(bounds) => {
            let range = |pair: &[u64]| Range {
                begin: pair[0],
                end: pair[1],
            };
            AttributeValue::Ranges(Ranges::new(bounds.bounds.chunks_exact(2).map(range)))
        }
        Value::Set(items) => AttributeValue::Set(Set::new(items.items.iter().map(String::as_str))),
    };
    Some(Attribute {
        name: attribute.name.as_str().into(),
        value,
    })
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Resources as messages: what a framework asks for may be of kinds that nobody else names, which are not numbered.
pub(super) fn pack_wanted(wanted: &Wanted) -> messages::request::Wanted {
    let resources = tepui_proto::convert::to_proto(&wanted.resources);
    messages::request::Wanted {
        agent: wanted.agent.map(|agent| agent.0),
        resources: resources.iter().map(Message::encode_to_vec).collect(),
    }
}

pub(super) fn unpack_wanted(wanted: &messages::request::Wanted) -> Result<Wanted, String> {
    let resources = wanted.resources.iter();
    let resources: Result<Vec<v1::Resource>, _> = resources
        .map(|resource| v1::Resource::decode(resource.as_slice()))
        .collect();
    let resources = resources.map_err(|error| error.to_string())?;
    Ok(Wanted {
        agent: wanted.agent.map(AgentKey),
        resources: tepui_proto::convert::resources(&resources)
            .map_err(|error| error.to_string())?,
    })
}
