//! Reads protobuf bytes by table, without building a message.
//!
//! One pass over a message's bytes finds its fields; their values stay where they are. The JSON
//! writer and the check for required fields both walk messages this way.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::descriptor::{FieldDescriptor, Kind, Label, MessageDescriptor};
use crate::required::DecodeError;

/// Messages inside messages, the limit of protobuf's own decoders.
pub(crate) const MAX_DEPTH: u32 = 100;

/// Longest sum of parts when a field that holds one message occurs several times on the wire.
///
/// Protobuf says that the parts are merged. No writer sends that, and merging copies them at each
/// level, so what is longer is refused.
const MAX_MERGED: usize = 64 * 1024;

/// A value on the wire.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WireValue<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

impl<'a> WireValue<'a> {
    /// The bytes of a string, bytes or message value. `Fields::scan` has checked the wire type.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// The known fields of one message, sorted by their place in the table; values of one field stay in
/// the order of the wire.
pub(crate) struct Fields<'a> {
    found: SmallVec<[(u8, WireValue<'a>); 16]>,
}

impl<'a> Fields<'a> {
    /// Finds the fields of `descriptor` in `bytes`. Unknown fields and unknown enum numbers are left
    /// out, as Mesos' decoder sets them aside.
    pub(crate) fn scan(
        descriptor: &MessageDescriptor,
        bytes: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut found = SmallVec::new();
        let mut sorted = true;
        let mut has_oneof = false;
        let mut last = 0;
        let mut reader = Reader { bytes };
        while !reader.bytes.is_empty() {
            let (number, wire_type) = reader.tag()?;
            let Some((index, field)) = descriptor.field(number) else {
                reader.skip(wire_type, number, MAX_DEPTH)?;
                continue;
            };
            let value = reader.value(wire_type)?;
            if !is_acceptable(field, value) {
                return Err(DecodeError::Malformed);
            }
            if let (Kind::Enum(known), WireValue::Varint(raw)) = (field.kind, value)
                && known.name_of(raw as i32).is_none()
            {
                continue;
            }
            has_oneof |= field.oneof.is_some();
            let index = u8::try_from(index).expect("tables have fewer than 255 fields");
            sorted &= index >= last;
            last = index;
            found.push((index, value));
        }
        let mut fields = Self { found };
        if has_oneof {
            fields.keep_last_of_oneofs(descriptor);
        }
        if !sorted {
            fields.found.sort_by_key(|(index, _)| *index);
        }
        Ok(fields)
    }

    /// Of the members of a oneof only the one that came last is set.
    fn keep_last_of_oneofs(&mut self, descriptor: &MessageDescriptor) {
        let mut winners: SmallVec<[(&str, u8); 4]> = SmallVec::new();
        for &(index, _) in self.found.iter().rev() {
            if let Some(oneof) = descriptor.fields[usize::from(index)].oneof
                && !winners.iter().any(|(name, _)| *name == oneof)
            {
                winners.push((oneof, index));
            }
        }
        self.found.retain(|(index, _)| {
            descriptor.fields[usize::from(*index)]
                .oneof
                .is_none_or(|oneof| winners.contains(&(oneof, *index)))
        });
    }

    /// The values of the field at `index` in the table.
    pub(crate) fn of(&self, index: usize) -> &[(u8, WireValue<'a>)] {
        let start = self
            .found
            .partition_point(|(found, _)| usize::from(*found) < index);
        let count = self.found[start..].partition_point(|(found, _)| usize::from(*found) == index);
        &self.found[start..start + count]
    }

    /// All values, by place in the table.
    pub(crate) fn all(&self) -> &[(u8, WireValue<'a>)] {
        &self.found
    }
}

/// The one message that the occurrences of a singular field mean together.
pub(crate) fn merged<'a>(values: &[(u8, WireValue<'a>)]) -> Result<Cow<'a, [u8]>, DecodeError> {
    if let [(_, only)] = values {
        return Ok(Cow::Borrowed(only.bytes()));
    }
    let total: usize = values.iter().map(|(_, value)| value.bytes().len()).sum();
    if total > MAX_MERGED {
        return Err(DecodeError::Malformed);
    }
    Ok(Cow::Owned(
        values
            .iter()
            .flat_map(|(_, value)| value.bytes())
            .copied()
            .collect(),
    ))
}

/// Whether a value's wire type suits the field; repeated numbers may be packed.
pub(crate) fn is_acceptable(field: &FieldDescriptor, value: WireValue<'_>) -> bool {
    match (field.kind, value) {
        (Kind::String | Kind::Bytes | Kind::Message(_), value) => {
            matches!(value, WireValue::Bytes(_))
        }
        (_, WireValue::Bytes(_)) => field.label == Label::Repeated,
        (Kind::Double, value) => matches!(value, WireValue::Fixed64(_)),
        (_, value) => matches!(value, WireValue::Varint(_)),
    }
}

/// Takes tags and values off the front of protobuf bytes.
pub(crate) struct Reader<'a> {
    pub(crate) bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn tag(&mut self) -> Result<(u32, u8), DecodeError> {
        let tag = u32::try_from(self.varint()?).map_err(|_| DecodeError::Malformed)?;
        if tag >> 3 == 0 {
            return Err(DecodeError::Malformed);
        }
        Ok((tag >> 3, (tag & 7) as u8))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        if let Some((&byte, rest)) = self.bytes.split_first()
            && byte < 0x80
        {
            self.bytes = rest;
            return Ok(u64::from(byte));
        }
        prost::encoding::decode_varint(&mut self.bytes).map_err(DecodeError::from)
    }

    pub(crate) fn fixed64(&mut self) -> Result<u64, DecodeError> {
        let (value, rest) = self
            .bytes
            .split_first_chunk()
            .ok_or(DecodeError::Malformed)?;
        self.bytes = rest;
        Ok(u64::from_le_bytes(*value))
    }

    fn fixed32(&mut self) -> Result<u32, DecodeError> {
        let (value, rest) = self
            .bytes
            .split_first_chunk()
            .ok_or(DecodeError::Malformed)?;
        self.bytes = rest;
        Ok(u32::from_le_bytes(*value))
    }

    #[inline]
    pub(crate) fn value(&mut self, wire_type: u8) -> Result<WireValue<'a>, DecodeError> {
        match wire_type {
            0 => self.varint().map(WireValue::Varint),
            1 => self.fixed64().map(WireValue::Fixed64),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Malformed)?;
                let (value, rest) = self
                    .bytes
                    .split_at_checked(length)
                    .ok_or(DecodeError::Malformed)?;
                self.bytes = rest;
                Ok(WireValue::Bytes(value))
            }
            5 => self.fixed32().map(WireValue::Fixed32),
            _ => Err(DecodeError::Malformed),
        }
    }

    /// Skips the value of an unknown field; groups, which nobody writes any more, included.
    pub(crate) fn skip(
        &mut self,
        wire_type: u8,
        number: u32,
        depth: u32,
    ) -> Result<(), DecodeError> {
        if wire_type != 3 {
            return self.value(wire_type).map(drop);
        }
        let depth = depth.checked_sub(1).ok_or(DecodeError::Malformed)?;
        loop {
            let (inner, wire_type) = self.tag()?;
            if wire_type == 4 {
                return if inner == number {
                    Ok(())
                } else {
                    Err(DecodeError::Malformed)
                };
            }
            self.skip(wire_type, inner, depth)?;
        }
    }
}
