//! Protobuf bytes to JSON, straight from the wire.

use super::{base64, number, writer};
use crate::descriptor::{FieldDescriptor, Kind, Label, MessageDescriptor};
use crate::required::DecodeError;
use crate::wire::{Fields, MAX_DEPTH, Reader, WireValue, merged};

/// Appends the JSON form of the message in `bytes`. Nothing is appended on an error.
///
/// # Errors
/// Bytes that are not this message. Required fields are not checked, and strings are taken to be
/// UTF-8: the bytes come from a message that was decoded before.
pub fn from_wire(
    descriptor: &MessageDescriptor,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let start = out.len();
    let result = write_message(descriptor, bytes, out, MAX_DEPTH);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write_message(
    descriptor: &MessageDescriptor,
    bytes: &[u8],
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), DecodeError> {
    let depth = depth.checked_sub(1).ok_or(DecodeError::Malformed)?;
    let fields = Fields::scan(descriptor, bytes)?;
    let mut rest = fields.all();
    out.push(b'{');
    let empty = out.len();
    for (index, field) in descriptor.fields.iter().enumerate() {
        let count = rest
            .iter()
            .take_while(|(found, _)| usize::from(*found) == index)
            .count();
        let (values, after) = rest.split_at(count);
        rest = after;
        if values.is_empty() {
            if let Some(default) = field.default
                && !field.is_deprecated
            {
                write_key(field, out, empty);
                write_default(field, default, out);
            }
        } else {
            write_field(field, values, out, empty, depth)?;
        }
    }
    out.push(b'}');
    Ok(())
}

fn write_key(field: &FieldDescriptor, out: &mut Vec<u8>, empty: usize) {
    if out.len() > empty {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(field.name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn write_field(
    field: &FieldDescriptor,
    values: &[(u8, WireValue<'_>)],
    out: &mut Vec<u8>,
    empty: usize,
    depth: u32,
) -> Result<(), DecodeError> {
    match (field.label, field.kind) {
        (Label::Repeated, Kind::Message(entry)) if entry.is_map_entry => {
            write_key(field, out, empty);
            write_map(entry, values, out, depth)
        }
        (Label::Repeated, Kind::Message(part)) => {
            write_key(field, out, empty);
            write_list(out, values, |value, out| {
                write_message(part, value.bytes(), out, depth)
            })
        }
        (Label::Repeated, Kind::String | Kind::Bytes) => {
            write_key(field, out, empty);
            write_list(out, values, |value, out| {
                write_scalar(field.kind, value, out);
                Ok(())
            })
        }
        (Label::Repeated, kind) => {
            let values = unpack(kind, values)?;
            if values.is_empty() {
                return Ok(());
            }
            write_key(field, out, empty);
            write_list(out, &values, |value, out| {
                write_scalar(kind, value, out);
                Ok(())
            })
        }
        (_, Kind::Message(part)) => {
            write_key(field, out, empty);
            write_message(part, &merged(values)?, out, depth)
        }
        (_, kind) => {
            write_key(field, out, empty);
            let (_, last) = values.last().expect("the caller has a value");
            write_scalar(kind, *last, out);
            Ok(())
        }
    }
}

fn write_list(
    out: &mut Vec<u8>,
    values: &[(u8, WireValue<'_>)],
    mut write: impl FnMut(WireValue<'_>, &mut Vec<u8>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    out.push(b'[');
    for (place, (_, value)) in values.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(*value, out)?;
    }
    out.push(b']');
    Ok(())
}

/// A map is an object; of equal keys the last counts, and an absent value is the type's empty one.
fn write_map(
    entry: &MessageDescriptor,
    values: &[(u8, WireValue<'_>)],
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), DecodeError> {
    let mut entries = std::collections::BTreeMap::new();
    for (_, value) in values {
        let fields = Fields::scan(entry, value.bytes())?;
        let key = fields.of(0).last().map_or(&b""[..], |(_, key)| key.bytes());
        entries.insert(key, value.bytes());
    }
    out.push(b'{');
    let empty = out.len();
    for (key, bytes) in entries {
        if out.len() > empty {
            out.push(b',');
        }
        writer::write_str(key, out);
        out.push(b':');
        let fields = Fields::scan(entry, bytes)?;
        match (entry.fields[1].kind, fields.of(1)) {
            (Kind::Message(part), []) => write_message(part, &[], out, depth)?,
            (Kind::Message(part), values) => write_message(part, &merged(values)?, out, depth)?,
            (_, []) => out.extend_from_slice(b"\"\""),
            (kind, [.., (_, value)]) => write_scalar(kind, *value, out),
        }
    }
    out.push(b'}');
    Ok(())
}

/// Takes packed numbers apart. A list of enum values loses the ones that are not known.
fn unpack<'a>(
    kind: Kind,
    values: &[(u8, WireValue<'a>)],
) -> Result<Vec<(u8, WireValue<'a>)>, DecodeError> {
    let mut unpacked = Vec::with_capacity(values.len());
    for &(index, value) in values {
        let WireValue::Bytes(bytes) = value else {
            unpacked.push((index, value));
            continue;
        };
        let mut reader = Reader { bytes };
        while !reader.bytes.is_empty() {
            let value = match kind {
                Kind::Double => WireValue::Fixed64(reader.fixed64()?),
                _ => WireValue::Varint(reader.varint()?),
            };
            if let (Kind::Enum(known), WireValue::Varint(raw)) = (kind, value)
                && known.name_of(raw as i32).is_none()
            {
                continue;
            }
            unpacked.push((index, value));
        }
    }
    Ok(unpacked)
}

fn write_scalar(kind: Kind, value: WireValue<'_>, out: &mut Vec<u8>) {
    let raw = match value {
        WireValue::Varint(raw) | WireValue::Fixed64(raw) => raw,
        WireValue::Fixed32(raw) => u64::from(raw),
        WireValue::Bytes(bytes) => {
            if matches!(kind, Kind::Bytes) {
                out.push(b'"');
                base64::write(bytes, out);
                out.push(b'"');
            } else {
                writer::write_str(bytes, out);
            }
            return;
        }
    };
    let mut digits = itoa::Buffer::new();
    match kind {
        Kind::Double => number::write_f64(f64::from_bits(raw), out),
        Kind::Bool => out.extend_from_slice(if raw == 0 { b"false" } else { b"true" }),
        Kind::Int64 => out.extend_from_slice(digits.format(raw as i64).as_bytes()),
        Kind::Int32 => out.extend_from_slice(digits.format(raw as i32).as_bytes()),
        Kind::Uint32 => out.extend_from_slice(digits.format(raw as u32).as_bytes()),
        Kind::Enum(known) => {
            writer::write_str(
                known.name_of(raw as i32).unwrap_or_default().as_bytes(),
                out,
            );
        }
        _ => out.extend_from_slice(digits.format(raw).as_bytes()),
    }
}

fn write_default(field: &FieldDescriptor, default: &str, out: &mut Vec<u8>) {
    match field.kind {
        Kind::Double => number::write_f64(default.parse().unwrap_or_default(), out),
        Kind::String | Kind::Enum(_) => writer::write_str(default.as_bytes(), out),
        _ => out.extend_from_slice(default.as_bytes()),
    }
}
