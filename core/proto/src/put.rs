//! Protobuf bytes put together by hand, where building a message first would cost more than writing it.

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

/// Appends a field that is an integer, a bool or an enum.
pub fn varint(number: u32, value: u64, out: &mut Vec<u8>) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

/// Appends a field that is a string, bytes or a message.
pub fn bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    head(number, value.len(), out);
    out.extend_from_slice(value);
}

/// Appends what stands before a string, bytes or a message of a known length.
pub fn head(number: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// Appends a field that is a message.
pub fn message(number: u32, message: &impl prost::Message, out: &mut Vec<u8>) {
    head(number, message.encoded_len(), out);
    message
        .encode(out)
        .expect("a vector takes as much as there is");
}

/// Appends a field that is a message which only holds a text in its first field, such as an id.
pub fn text(number: u32, text: &str, out: &mut Vec<u8>) {
    head(number, framed_len(1, text.len()), out);
    bytes(1, text.as_bytes(), out);
}

/// How many bytes a field takes that is an integer, a bool or an enum.
pub fn varint_len(number: u32, value: u64) -> usize {
    key_len(number) + encoded_len_varint(value)
}

/// How many bytes a field of `length` bytes takes.
pub fn framed_len(number: u32, length: usize) -> usize {
    key_len(number) + encoded_len_varint(length as u64) + length
}
