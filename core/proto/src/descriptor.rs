//! What the transcoder knows about each message: static tables written by `build.rs`.
//!
//! Fields stand in the order of the protocol file, because Mesos writes JSON in that order.

/// A message type.
#[derive(Debug)]
pub struct MessageDescriptor {
    /// Full name, such as `mesos.v1.TaskInfo`.
    pub name: &'static str,
    /// Fields in the order of the protocol file.
    pub fields: &'static [FieldDescriptor],
    /// Whether this is the entry of a `map` field: JSON writes those as an object.
    pub is_map_entry: bool,
    /// Whether this message, or one inside it, has a required field.
    pub has_required: bool,
    /// Field number to index in `fields`; 255 where there is none.
    by_number: &'static [u8],
    /// Indexes into `fields` sorted by name.
    by_name: &'static [u8],
}

impl MessageDescriptor {
    /// The field with this number, with its place in `fields`.
    #[inline]
    pub fn field(&self, number: u32) -> Option<(usize, &'static FieldDescriptor)> {
        let index = usize::from(*self.by_number.get(number as usize)?);
        self.fields.get(index).map(|field| (index, field))
    }

    /// The field with this name.
    pub fn field_by_name(&self, name: &str) -> Option<&'static FieldDescriptor> {
        let found = self
            .by_name
            .binary_search_by(|&index| self.fields[usize::from(index)].name.cmp(name))
            .ok()?;
        self.fields.get(usize::from(self.by_name[found]))
    }
}

/// A field of a message.
#[derive(Debug)]
pub struct FieldDescriptor {
    /// Name in the protocol file and in JSON.
    pub name: &'static str,
    /// Number on the wire.
    pub number: u32,
    /// How often it may and must occur.
    pub label: Label,
    /// Type of its value.
    pub kind: Kind,
    /// Explicit default value, as the protocol file writes it.
    pub default: Option<&'static str>,
    /// Name of the `oneof` that it belongs to.
    pub oneof: Option<&'static str>,
    /// Marked deprecated: JSON does not show its default.
    pub is_deprecated: bool,
}

/// How often a field may and must occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// At most once.
    Optional,
    /// Exactly once; a message without it is refused.
    Required,
    /// Any number of times.
    Repeated,
    /// proto3: absent means zero or empty.
    Implicit,
}

/// Type of a field's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `double`
    Double,
    /// `int64`
    Int64,
    /// `uint64`
    Uint64,
    /// `int32`
    Int32,
    /// `uint32`
    Uint32,
    /// `bool`
    Bool,
    /// `string`
    String,
    /// `bytes`, base64 in JSON
    Bytes,
    /// An enum, its value's name in JSON
    Enum(&'static EnumDescriptor),
    /// A message or a map's entry
    Message(&'static MessageDescriptor),
}

/// An enum type.
#[derive(Debug)]
pub struct EnumDescriptor {
    /// Full name, such as `mesos.v1.TaskState`.
    pub name: &'static str,
    /// Names and numbers in the order of the protocol file.
    pub values: &'static [(&'static str, i32)],
}

impl EnumDescriptor {
    /// The name of a value; `None` for a number that this release does not know.
    pub fn name_of(&self, number: i32) -> Option<&'static str> {
        // Most enums count from zero or one without gaps, so the place is the number or next to it.
        let guess = usize::try_from(number).ok()?;
        for place in [guess, guess.wrapping_sub(1)] {
            if let Some(&(name, found)) = self.values.get(place)
                && found == number
            {
                return Some(name);
            }
        }
        self.values
            .iter()
            .find(|(_, found)| *found == number)
            .map(|(name, _)| *name)
    }

    /// The number of a value; names are case-sensitive.
    pub fn number_of(&self, name: &str) -> Option<i32> {
        self.values
            .iter()
            .find(|(found, _)| *found == name)
            .map(|(_, number)| *number)
    }
}

/// A generated message with its table.
pub trait Described: prost::Message + Default {
    /// The message's table.
    const DESCRIPTOR: &'static MessageDescriptor;
}

/// All messages, sorted by full name.
pub fn messages() -> &'static [&'static MessageDescriptor] {
    tables::MESSAGES
}

/// All enums, sorted by full name.
pub fn enums() -> &'static [&'static EnumDescriptor] {
    tables::ENUMS
}

/// `master.Response.GetAgents.Agent` as the JSON of GET_AGENTS and GET_STATE shows it: with
/// `"checkpoint":true` in its `agent_info`. Those answers are v0 messages under v1 names.
pub fn shown_agent() -> &'static MessageDescriptor {
    tables::SHOWN_AGENT
}

/// `AgentInfo` inside [`shown_agent`].
pub fn shown_agent_info() -> &'static MessageDescriptor {
    tables::SHOWN_AGENT_INFO
}

mod tables {
    use super::{Described, EnumDescriptor, FieldDescriptor, Kind, Label, MessageDescriptor};

    include!(concat!(env!("OUT_DIR"), "/descriptors.rs"));
}
