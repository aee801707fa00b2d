//! JSON values to protobuf bytes and messages, as stout's `protobuf::parse` does it.

use std::borrow::Cow;

use prost::encoding::{WireType, encode_key, encode_varint};

use super::JsonError;
use super::base64;
use super::number;
use super::parse::{Number, Value, parse};
use super::plant::{Bug, is_planted};
use crate::descriptor::{Described, FieldDescriptor, Kind, Label, MessageDescriptor};
use crate::required::{DecodeError, check_required};
use crate::wire::MAX_DEPTH;

/// Makes a message of a JSON object.
///
/// # Errors
/// A value that does not suit its field, or missing required fields.
pub fn value_to_message<M: Described>(value: &Value<'_>) -> Result<M, JsonError> {
    let wire = to_wire(M::DESCRIPTOR, value)?;
    M::decode(&wire[..]).map_err(|_| too_deep())
}

/// Makes the protobuf bytes of a JSON object, complete with respect to required fields.
///
/// # Errors
/// A value that does not suit its field, or missing required fields.
pub fn to_wire(descriptor: &MessageDescriptor, value: &Value<'_>) -> Result<Vec<u8>, JsonError> {
    let Value::Object(members) = value else {
        return Err(JsonError::Convert("Expecting a JSON object".to_owned()));
    };
    let mut out = Vec::new();
    put_members(descriptor, members, &mut out, MAX_DEPTH)?;
    match check_required(descriptor, &out) {
        Ok(()) => Ok(out),
        Err(DecodeError::Malformed) => Err(too_deep()),
        Err(missing @ DecodeError::Missing(_)) => Err(JsonError::Convert(missing.to_string())),
    }
}

fn too_deep() -> JsonError {
    JsonError::Convert("Messages are nested too deeply".to_owned())
}

/// Fields are taken in the order of their names: Mesos keeps an object in a sorted map, and the
/// first mismatch in that order is the one it names.
fn put_members(
    descriptor: &MessageDescriptor,
    members: &[(Cow<'_, str>, Value<'_>)],
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), JsonError> {
    let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
    for (name, value) in members {
        if let Some(field) = descriptor.field_by_name(name) {
            put(field, value, out, depth)?;
        }
    }
    Ok(())
}

fn put(
    field: &FieldDescriptor,
    value: &Value<'_>,
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), JsonError> {
    match value {
        Value::Null => Ok(()),
        Value::Array(elements) if field.label == Label::Repeated => elements
            .iter()
            .try_for_each(|element| put(field, element, out, depth)),
        Value::Array(_) => Err(unexpected("array", field)),
        Value::Object(members) => match field.kind {
            Kind::Message(entry) if entry.is_map_entry => {
                put_map(field, entry, members, out, depth)
            }
            Kind::Message(part) => {
                put_part(field, out, |out| put_members(part, members, out, depth))
            }
            _ => Err(unexpected("object", field)),
        },
        Value::String(text) => put_string(field, text, out),
        Value::Number(number) => put_number(field, *number, out),
        Value::Bool(value) if matches!(field.kind, Kind::Bool) => {
            put_varint(field, u64::from(*value), out);
            Ok(())
        }
        Value::Bool(_) => Err(unexpected("boolean", field)),
    }
}

fn unexpected(what: &str, field: &FieldDescriptor) -> JsonError {
    JsonError::Convert(format!(
        "Not expecting a JSON {what} for field '{}'",
        field.name
    ))
}

fn put_map(
    field: &FieldDescriptor,
    entry: &MessageDescriptor,
    members: &[(Cow<'_, str>, Value<'_>)],
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), JsonError> {
    for (key, value) in members {
        put_part(field, out, |out| {
            put_string(&entry.fields[0], key, out)?;
            put(&entry.fields[1], value, out, depth)
        })?;
    }
    Ok(())
}

/// Writes a part behind its length. The length is known afterwards, so the part moves up by the
/// few bytes that the length takes.
fn put_part(
    field: &FieldDescriptor,
    out: &mut Vec<u8>,
    part: impl FnOnce(&mut Vec<u8>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    encode_key(field.number, WireType::LengthDelimited, out);
    let start = out.len();
    part(out)?;
    let end = out.len();
    encode_varint((end - start) as u64, out);
    let width = out.len() - end;
    out[start..].rotate_right(width);
    Ok(())
}

fn put_string(field: &FieldDescriptor, text: &str, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match field.kind {
        Kind::String => put_bytes(field, text.as_bytes(), out),
        Kind::Bytes => {
            let bytes = base64::read(text).map_err(|error| {
                JsonError::Convert(format!(
                    "Failed to base64 decode bytes field '{}': {error}",
                    field.name
                ))
            })?;
            put_bytes(field, &bytes, out);
        }
        Kind::Enum(known) => match known.number_of(text) {
            Some(number) => put_varint(field, number as u64, out),
            None if field.label == Label::Required => {
                return Err(JsonError::Convert(format!(
                    "Failed to find enum for '{text}'"
                )));
            }
            None => {}
        },
        Kind::Bool => match parse(text.as_bytes()) {
            Ok(Value::Bool(value)) => put_varint(field, u64::from(value), out),
            other => return Err(not_parsed(text, "boolean", field, other)),
        },
        Kind::Message(_) => return Err(unexpected("string", field)),
        Kind::Double if let Some(infinity) = number::read_infinity(text) => {
            put_double(field, infinity, out)
        }
        _ => match parse(text.as_bytes()) {
            Ok(Value::Number(number)) => put_number(field, number, out)?,
            other => return Err(not_parsed(text, "number", field, other)),
        },
    }
    Ok(())
}

fn not_parsed(
    text: &str,
    what: &str,
    field: &FieldDescriptor,
    result: Result<Value<'_>, JsonError>,
) -> JsonError {
    let reason = match result {
        Err(error) => error.to_string(),
        Ok(_) => "Unexpected JSON type parsed".to_owned(),
    };
    JsonError::Convert(format!(
        "Failed to parse '{text}' as a JSON {what} for field '{}': {reason}",
        field.name
    ))
}

fn put_number(field: &FieldDescriptor, number: Number, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match field.kind {
        Kind::Double => put_double(field, number.as_f64(), out),
        Kind::Int64 => put_varint(field, number.as_i64() as u64, out),
        Kind::Uint64 => put_varint(field, number.as_u64(), out),
        // As the C++ casts to 32 bits do: what does not fit wraps around.
        Kind::Int32 => put_varint(field, number.as_i64() as i32 as u64, out),
        Kind::Uint32 => put_varint(field, u64::from(number.as_i64() as u32), out),
        _ if is_planted(Bug::Decoder) => {}
        _ => return Err(unexpected("number", field)),
    }
    Ok(())
}

fn put_double(field: &FieldDescriptor, value: f64, out: &mut Vec<u8>) {
    encode_key(field.number, WireType::SixtyFourBit, out);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_varint(field: &FieldDescriptor, value: u64, out: &mut Vec<u8>) {
    encode_key(field.number, WireType::Varint, out);
    encode_varint(value, out);
}

fn put_bytes(field: &FieldDescriptor, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(field.number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
