//! Ids. Strings that clients choose or the master makes, each with a type of its own, shared by
//! counted reference because rows, offers and effects all name the same ones.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a string cannot be an id; the texts are those of Mesos (`common/validation.cpp`).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum IdError {
    #[error("ID must not be empty")]
    Empty,
    #[error("ID must not be greater than 255 characters")]
    TooLong,
    #[error("'{0}' is disallowed")]
    Disallowed(String),
    #[error("'{0}' contains invalid characters")]
    InvalidCharacters(String),
}

/// Whether a client may use this as the id of a task, an executor or a framework: ids become
/// names of directories.
pub fn validate(id: &str) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > 255 {
        return Err(IdError::TooLong);
    }
    if id == "." || id == ".." {
        return Err(IdError::Disallowed(id.into()));
    }
    if id
        .bytes()
        .any(|b| b < 0x20 || matches!(b, 0x7f | b'/' | b'\\'))
    {
        return Err(IdError::InvalidCharacters(id.into()));
    }
    Ok(())
}

macro_rules! string_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id from anything that can become a shared string.
            pub fn new(id: impl Into<Arc<str>>) -> Self {
                Self(id.into())
            }

            /// The text of the id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl From<&str> for $name {
            fn from(id: &str) -> Self {
                Self(id.into())
            }
        }

        impl From<String> for $name {
            fn from(id: String) -> Self {
                Self(id.into())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// Hash and order are those of the text, so maps can be asked with a `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    )*};
}

string_id! {
    /// A framework: `<master id>-<counter>`, or what the framework chose after a failover.
    FrameworkId;
    /// An agent: `<master id>-S<counter>`.
    AgentId;
    /// A task, unique within its framework.
    TaskId;
    /// An executor, unique within framework and agent.
    ExecutorId;
    /// An offer: `<master id>-O<counter>`.
    OfferId;
    /// An operation, as the framework that asked for feedback named it.
    OperationId;
    /// A resource provider.
    ProviderId;
    /// A role; see [`crate::roles`] for what may be one.
    Role;
    /// Who somebody is, as an authenticator found.
    Principal;
}

impl Default for Role {
    /// `*`.
    fn default() -> Self {
        Self::from(crate::roles::DEFAULT)
    }
}

/// A container, perhaps nested in others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerId {
    /// The outermost container is compared first, so children sort after their parents.
    pub parent: Option<Arc<ContainerId>>,
    /// Its own name, usually a uuid.
    pub value: Arc<str>,
}

impl ContainerId {
    /// A container that is in no other.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self {
            parent: None,
            value: value.into(),
        }
    }

    /// A container inside this one.
    #[must_use]
    pub fn child(&self, value: impl Into<Arc<str>>) -> Self {
        Self {
            parent: Some(Arc::new(self.clone())),
            value: value.into(),
        }
    }

    /// The outermost container around this one, or itself.
    #[must_use]
    pub fn root(&self) -> &Self {
        self.parent.as_deref().map_or(self, Self::root)
    }

    /// How many containers are around this one.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.parent.as_ref().map_or(0, |parent| 1 + parent.depth())
    }
}

/// `parent.child`, as Mesos prints nested containers.
impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = &self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(&self.value)
    }
}

/// Sixteen bytes that name a status update, an operation or a resource version.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The uuid of these bytes, if there are sixteen.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes, as they stand in messages.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Lower case, with hyphens.
impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text is no uuid.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("'{0}' is not a uuid")]
pub struct NotAUuid(String);

impl FromStr for Uuid {
    type Err = NotAUuid;

    fn from_str(text: &str) -> Result<Self, NotAUuid> {
        let wrong = || NotAUuid(text.into());
        let hyphens = [8, 13, 18, 23];
        if text.len() != 36 || !hyphens.iter().all(|&at| text.as_bytes()[at] == b'-') {
            return Err(wrong());
        }
        let mut digits = text.bytes().filter(|&b| b != b'-');
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            let mut value = 0;
            for _ in 0..2 {
                let digit = digits.next().and_then(|b| char::from(b).to_digit(16));
                value = value << 4 | digit.ok_or_else(wrong)? as u8;
            }
            *byte = value;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_as_in_mesos() {
        for good in ["a", "a b", "ä", "a:b", "...", &"x".repeat(255)] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        let said = |id: &str| validate(id).expect_err(id).to_string();
        assert_eq!(said(""), "ID must not be empty");
        assert_eq!(
            said(&"x".repeat(256)),
            "ID must not be greater than 255 characters"
        );
        assert_eq!(said(".."), "'..' is disallowed");
        assert_eq!(said("a/b"), "'a/b' contains invalid characters");
        for bad in ["a\\b", "a\nb", "a\x7f"] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn uuids_and_containers_have_their_texts() {
        let text = "169d8f74-b8e0-4d15-904c-70092b7fd591";
        let uuid: Uuid = text.parse().expect("a uuid");
        assert_eq!(uuid.to_string(), text);
        for bad in [
            "",
            "169d8f74-b8e0-4d15-904c-70092b7fd59",
            "169d8f74+b8e0-4d15-904c-70092b7fd591",
            "169d8f74-b8e0-4d15-904c-70092b7fd59g",
        ] {
            assert!(bad.parse::<Uuid>().is_err(), "{bad}");
        }
        let nested = ContainerId::new("a").child("b").child("c");
        assert_eq!(nested.to_string(), "a.b.c");
        assert_eq!((nested.depth(), nested.root()), (2, &ContainerId::new("a")));
    }
}
