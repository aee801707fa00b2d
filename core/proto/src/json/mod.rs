//! Mesos' JSON, as Mesos 1.11 reads and writes it.
//!
//! One table-driven transcoder serves all messages, between JSON text and protobuf bytes:
//! [`to_message`] and [`from_message`] for whole messages, [`from_wire`] for rows that are kept as
//! bytes. [`Writer`] is for the bodies that no message describes (the v0 endpoints).
//!
//! Reading mirrors stout's JSON parser (picojson) and `protobuf::parse`:
//! - unknown fields and `null` are skipped; one value stands for a list of one;
//! - a number, and `true` or `false`, may be written as a string;
//! - an enum value that is unknown, or in lower case, counts as absent;
//! - every other mismatch is refused, with Mesos' words;
//! - absent required fields are refused.
//!
//! Writing mirrors `JSON::Protobuf` on RapidJSON: fields in the order of the protocol file, explicit
//! defaults of absent fields unless they are deprecated, 64-bit integers as numbers, doubles with a
//! decimal point in the shortest form, bytes in base64, `/` and non-ASCII characters as they are.

mod base64;
mod encode;
mod number;
mod parse;
mod plant;
mod powers;
mod read;
mod writer;

pub use encode::from_wire;
pub use parse::{Number, Value, parse};
pub use plant::{Bug, plant};
pub use read::{to_wire, value_to_message};
pub use writer::{Sink, Writer};

use crate::descriptor::Described;

/// Why JSON was refused. The text is Mesos' own, without what the endpoints put in front:
/// `Failed to parse body into JSON: ` for the first, `Failed to convert JSON into Call protobuf: `
/// (nothing on the agent's operator API) for the second.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// The JSON is not the message.
    #[error("{0}")]
    Convert(String),
}

/// Reads a message from JSON text.
///
/// # Errors
/// Text that is not JSON, or not this message.
pub fn to_message<M: Described>(text: &[u8]) -> Result<M, JsonError> {
    value_to_message(&parse(text)?)
}

/// Writes a message as JSON.
pub fn from_message<M: Described>(message: &M) -> Vec<u8> {
    let wire = message.encode_to_vec();
    let mut out = Vec::with_capacity(wire.len() * 2 + 64);
    if from_wire(M::DESCRIPTOR, &wire, &mut out).is_err() {
        // Only messages nested beyond protobuf's own depth limit come here; they cannot be
        // received either.
        out.clear();
        out.extend_from_slice(b"{}");
    }
    out
}
