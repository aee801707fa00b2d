//! Protobuf bytes, taken apart by hand.
//!
//! Rows hold bytes that were checked when they came in, so a walk ends quietly at anything odd.

use bytes::Buf;
use prost::encoding::decode_varint;

pub(super) use tepui_proto::put::{
    bytes as put_bytes, framed_len, head as put_head, message as put_message, varint as put_varint,
    varint_len,
};

/// A value on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Value::Bytes(bytes) => bytes,
            _ => &[],
        }
    }

    pub(super) fn str(self) -> &'a str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    pub(super) fn f64(self) -> f64 {
        match self {
            Value::Fixed(bits) => f64::from_bits(bits),
            _ => 0.0,
        }
    }

    pub(super) fn int(self) -> i64 {
        match self {
            Value::Varint(value) => value as i64,
            _ => 0,
        }
    }
}

/// Most numbers, lengths and keys are small.
#[inline]
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    match bytes.split_first() {
        Some((&small, rest)) if small < 0x80 => {
            *bytes = rest;
            Some(small.into())
        }
        _ => decode_varint(bytes).ok(),
    }
}

/// The fields of a message in the order of its bytes.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = &mut self.0;
        if bytes.is_empty() {
            return None;
        }
        let key = varint(bytes)?;
        let value = match key & 7 {
            0 => Value::Varint(varint(bytes)?),
            1 => Value::Fixed(bytes.try_get_u64_le().ok()?),
            2 => {
                let length = usize::try_from(varint(bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                Value::Bytes(value)
            }
            5 => Value::Fixed(bytes.try_get_u32_le().ok()?.into()),
            _ => return None,
        };
        Some(((key >> 3) as u32, value))
    }
}

/// The last value of a field, which is the one that counts.
pub(super) fn field(message: &[u8], number: u32) -> Option<Value<'_>> {
    let values = Fields(message).filter(|(found, _)| *found == number);
    values.last().map(|(_, value)| value)
}

/// The text of a message that only holds one, such as an id.
pub(super) fn value_text(message: &[u8]) -> &str {
    field(message, 1).map_or("", Value::str)
}
