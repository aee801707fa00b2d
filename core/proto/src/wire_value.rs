//! Protobuf messages inside serde data.

use std::ops::{Deref, DerefMut};

use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A message that serde writes as its protobuf bytes.
///
/// Events and effects of the state machines are recorded with serde and carry Mesos messages; this
/// keeps the recording exact without deriving serde for the whole protocol.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wire<M>(pub M);

impl<M> Deref for Wire<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M> DerefMut for Wire<M> {
    fn deref_mut(&mut self) -> &mut M {
        &mut self.0
    }
}

impl<M> From<M> for Wire<M> {
    fn from(message: M) -> Self {
        Self(message)
    }
}

impl<M: Message> Serialize for Wire<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0.encode_to_vec())
    }
}

impl<'de, M: Message + Default> Deserialize<'de> for Wire<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = bytes::Bytes::deserialize(deserializer)?;
        M::decode(bytes).map(Self).map_err(de::Error::custom)
    }
}
