//! Names of resources: the common ones cost nothing.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The name of a resource.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(Repr);

/// `Other` never holds a common name, so that the derived comparison is right. The common ones are in the order of their
/// texts, and are compared without them.
#[derive(Clone, PartialEq, Eq)]
enum Repr {
    Cpus,
    Disk,
    Gpus,
    Mem,
    Ports,
    Other(Arc<str>),
}

impl Name {
    /// `cpus`
    pub const CPUS: Self = Self(Repr::Cpus);
    /// `mem`, in megabytes
    pub const MEM: Self = Self(Repr::Mem);
    /// `disk`, in megabytes
    pub const DISK: Self = Self(Repr::Disk);
    /// `gpus`
    pub const GPUS: Self = Self(Repr::Gpus);
    /// `ports`
    pub const PORTS: Self = Self(Repr::Ports);

    /// The text of the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Cpus => "cpus",
            Repr::Mem => "mem",
            Repr::Disk => "disk",
            Repr::Gpus => "gpus",
            Repr::Ports => "ports",
            Repr::Other(name) => name,
        }
    }

    /// Place of a common name among those.
    fn rank(&self) -> Option<u8> {
        match self.0 {
            Repr::Cpus => Some(0),
            Repr::Disk => Some(1),
            Repr::Gpus => Some(2),
            Repr::Mem => Some(3),
            Repr::Ports => Some(4),
            Repr::Other(_) => None,
        }
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(match name {
            "cpus" => Repr::Cpus,
            "mem" => Repr::Mem,
            "disk" => Repr::Disk,
            "gpus" => Repr::Gpus,
            "ports" => Repr::Ports,
            other => Repr::Other(other.into()),
        })
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.rank(), other.rank()) {
            (Some(left), Some(right)) => left.cmp(&right),
            _ => self.as_str().cmp(other.as_str()),
        }
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Ok(Self::from(&*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_texts() {
        let texts = [
            "", "cpus", "cpux", "disk", "gpu", "gpus", "mem", "ports", "z",
        ];
        let names = texts.map(Name::from);
        for (left, a) in names.iter().zip(texts) {
            for (right, b) in names.iter().zip(texts) {
                assert_eq!(left.cmp(right), a.cmp(b), "{a:?} {b:?}");
                assert_eq!(left == right, a == b, "{a:?} {b:?}");
            }
        }
    }
}
