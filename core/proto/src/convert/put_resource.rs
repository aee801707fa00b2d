//! Resources as bytes of their messages.

use tepui_model::Role;
use tepui_model::resources::{Ranges, Resource, Value};

use super::{Format, to_proto_one};
use crate::{put, v1};

/// Appends a resource as a field that is a message, said to be allocated to `role`. Those that are neither reserved nor
/// anything else but an amount or ranges, which nearly all are, are written without a message.
pub fn put_resource(
    number: u32,
    resource: &Resource,
    format: Format,
    role: Option<&Role>,
    out: &mut Vec<u8>,
) {
    match resource.value() {
        Value::Scalar(amount) if resource.is_plain() => {
            let mut value = [0; 9];
            // The tag of a double.
            value[0] = 0x09;
            value[1..].copy_from_slice(&amount.to_f64().to_le_bytes());
            let put = |out: &mut Vec<u8>| out.extend_from_slice(&value);
            put_plain(number, resource, format, role, (3, value.len(), put), out);
        }
        Value::Ranges(ranges) if resource.is_plain() => {
            let length = ranges_len(ranges);
            let put = |out: &mut Vec<u8>| put_ranges(ranges, out);
            put_plain(number, resource, format, role, (4, length, put), out);
        }
        _ => {
            let mut message = to_proto_one(resource, format);
            message.allocation_info = role.map(|role| v1::resource::AllocationInfo {
                role: Some(role.to_string()),
            });
            put::message(number, &message, out);
        }
    }
}

/// The value is given by the number of its field, its length, and how it is written.
fn put_plain(
    number: u32,
    resource: &Resource,
    format: Format,
    role: Option<&Role>,
    (of_value, value_len, value): (u32, usize, impl FnOnce(&mut Vec<u8>)),
    out: &mut Vec<u8>,
) {
    const ROLE: [u8; 3] = [0x32, 0x01, b'*'];
    let name = resource.name().as_str();
    // The types are numbered as the fields of their values are.
    let kind = u64::from(of_value - 3);
    let unreserved: &[u8] = if format == Format::Post { &[] } else { &ROLE };
    let role_len = role.map_or(0, |role| {
        put::framed_len(11, put::framed_len(1, role.as_str().len()))
    });
    let length = put::framed_len(1, name.len())
        + put::varint_len(2, kind)
        + put::framed_len(of_value, value_len)
        + unreserved.len()
        + role_len;
    put::head(number, length, out);
    put::bytes(1, name.as_bytes(), out);
    put::varint(2, kind, out);
    put::head(of_value, value_len, out);
    value(out);
    out.extend_from_slice(unreserved);
    if let Some(role) = role {
        put::text(11, role.as_str(), out);
    }
}

fn range_len(begin: u64, end: u64) -> usize {
    put::varint_len(1, begin) + put::varint_len(2, end)
}

fn ranges_len(ranges: &Ranges) -> usize {
    let ranges = ranges.iter();
    ranges
        .map(|range| put::framed_len(1, range_len(range.begin, range.end)))
        .sum()
}

fn put_ranges(ranges: &Ranges, out: &mut Vec<u8>) {
    for range in ranges.iter() {
        put::head(1, range_len(range.begin, range.end), out);
        put::varint(1, range.begin, out);
        put::varint(2, range.end, out);
    }
}
