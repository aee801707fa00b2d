//! proto2 `required`: prost decodes a message without its required fields, Mesos refuses it.

use crate::descriptor::{Described, Kind, Label, MessageDescriptor};
use crate::wire::{Fields, MAX_DEPTH, Reader, WireValue, is_acceptable, merged};

/// Paths named in one error; a message can hold any number of incomplete parts.
const MAX_MISSING: usize = 100;

/// Why bytes are not an acceptable message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not protobuf, or not of this type.
    #[error("malformed protobuf message")]
    Malformed,
    /// Required fields are absent: their paths, in the order and form of Mesos' messages
    /// (`kill.task_id, kill.agent_id`).
    #[error("Missing required fields: {0}")]
    Missing(String),
}

impl From<prost::DecodeError> for DecodeError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed
    }
}

/// Decodes a message and refuses it when a required field is absent anywhere in it.
///
/// Enum numbers that this release does not know stay in the message as numbers; Mesos treats such
/// a field as absent, and so must a reader: `Type::try_from(number).ok()`.
///
/// # Errors
/// Malformed bytes, or missing required fields.
pub fn decode<M: Described>(bytes: &[u8]) -> Result<M, DecodeError> {
    check_required(M::DESCRIPTOR, bytes)?;
    Ok(M::decode(bytes)?)
}

/// Checks that the message in `bytes` has its required fields, and so have the messages in it.
///
/// Parts without required fields are not looked into, so this does not prove that prost decodes it.
///
/// # Errors
/// Malformed bytes, or the paths of the missing fields.
pub fn check_required(descriptor: &MessageDescriptor, bytes: &[u8]) -> Result<(), DecodeError> {
    if is_complete(descriptor, bytes, MAX_DEPTH)? {
        return Ok(());
    }
    let mut missing = Vec::new();
    name_missing(descriptor, bytes, "", &mut missing)?;
    Err(DecodeError::Missing(missing.join(", ")))
}

/// Whether prost decodes the bytes as this message: known fields have values of their types, and strings are UTF-8.
/// For who keeps the bytes of a message and decodes it later, or never.
pub fn is_decodable(descriptor: &MessageDescriptor, bytes: &[u8]) -> bool {
    check_values(descriptor, bytes, MAX_DEPTH).is_ok()
}

fn check_values(
    descriptor: &MessageDescriptor,
    bytes: &[u8],
    depth: u32,
) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Malformed)?;
    let mut reader = Reader { bytes };
    while !reader.bytes.is_empty() {
        let (number, wire_type) = reader.tag()?;
        let Some((_, field)) = descriptor.field(number) else {
            reader.skip(wire_type, number, depth)?;
            continue;
        };
        let value = reader.value(wire_type)?;
        if !is_acceptable(field, value) {
            return Err(DecodeError::Malformed);
        }
        match (field.kind, value) {
            (Kind::Message(part), value) => check_values(part, value.bytes(), depth)?,
            (Kind::String, value) => {
                std::str::from_utf8(value.bytes()).map_err(|_| DecodeError::Malformed)?;
            }
            (Kind::Bytes, _) => {}
            (kind, WireValue::Bytes(packed)) => check_packed(kind, packed)?,
            _ => {}
        }
    }
    Ok(())
}

fn check_packed(kind: Kind, packed: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader { bytes: packed };
    while !reader.bytes.is_empty() {
        match kind {
            Kind::Double => reader.fixed64()?,
            _ => reader.varint()?,
        };
    }
    Ok(())
}

fn is_complete(
    descriptor: &MessageDescriptor,
    bytes: &[u8],
    depth: u32,
) -> Result<bool, DecodeError> {
    if !descriptor.has_required {
        return Ok(true);
    }
    let depth = depth.checked_sub(1).ok_or(DecodeError::Malformed)?;
    let fields = Fields::scan(descriptor, bytes)?;
    for (index, field) in descriptor.fields.iter().enumerate() {
        match field.kind {
            Kind::Message(part) if part.has_required => {}
            _ if field.label == Label::Required => {}
            _ => continue,
        }
        let values = fields.of(index);
        if values.is_empty() {
            if field.label == Label::Required {
                return Ok(false);
            }
            continue;
        }
        let Kind::Message(part) = field.kind else {
            continue;
        };
        if field.label == Label::Repeated {
            for (_, value) in values {
                if !is_complete(part, value.bytes(), depth)? {
                    return Ok(false);
                }
            }
        } else if !is_complete(part, &merged(values)?, depth)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Names what `is_complete` found absent. A message's own fields come first, in the order of the
/// protocol file, then those of its parts by field number: protobuf's order, which clients see.
fn name_missing(
    descriptor: &MessageDescriptor,
    bytes: &[u8],
    prefix: &str,
    missing: &mut Vec<String>,
) -> Result<(), DecodeError> {
    let fields = Fields::scan(descriptor, bytes)?;
    for (index, field) in descriptor.fields.iter().enumerate() {
        if field.label == Label::Required && fields.of(index).is_empty() {
            missing.push(format!("{prefix}{}", field.name));
        }
    }
    let mut parts: Vec<usize> = (0..descriptor.fields.len()).collect();
    parts.sort_unstable_by_key(|&index| descriptor.fields[index].number);
    for index in parts {
        let field = &descriptor.fields[index];
        let (Kind::Message(part), values) = (field.kind, fields.of(index)) else {
            continue;
        };
        if values.is_empty() {
            continue;
        }
        if field.label != Label::Repeated {
            let bytes = merged(values)?;
            if !is_complete(part, &bytes, MAX_DEPTH)? {
                name_missing(part, &bytes, &format!("{prefix}{}.", field.name), missing)?;
            }
            continue;
        }
        for (place, (_, value)) in values.iter().enumerate() {
            if missing.len() >= MAX_MISSING {
                return Ok(());
            }
            if !is_complete(part, value.bytes(), MAX_DEPTH)? {
                let prefix = format!("{prefix}{}[{place}].", field.name);
                name_missing(part, value.bytes(), &prefix, missing)?;
            }
        }
    }
    Ok(())
}
