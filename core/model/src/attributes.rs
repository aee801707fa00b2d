//! Attributes of an agent: `rack:abc;zone:west;os:centos;level:10;keys:[1000-1500]`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::resources::{Ranges, Scalar, Set, Value, parse_value};

/// One attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name; names may repeat.
    pub name: Arc<str>,
    /// Its value.
    pub value: AttributeValue,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttributeValue {
    /// A number.
    Scalar(Scalar),
    /// Ranges of numbers.
    Ranges(Ranges),
    /// Names; Mesos keeps these in messages but does not read them from the flag.
    Set(Set),
    /// Anything else.
    Text(Arc<str>),
}

/// The attributes of an agent, in the order they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes(pub Vec<Attribute>);

/// Why a text cannot be attributes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum AttributesError {
    #[error("Invalid attribute key:value pair '{0}'")]
    NotAPair(String),
    #[error("Failed to parse attribute '{name}': {reason}")]
    BadValue { name: String, reason: String },
    #[error("Attribute '{0}' cannot be a set")]
    Set(String),
}

impl Attributes {
    /// Reads the text of `--attributes`.
    pub fn parse(text: &str) -> Result<Self, AttributesError> {
        let tokens = text.split([';', '\n']).filter(|t| !t.is_empty());
        tokens
            .map(Attribute::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The first attribute of this name, which is the one that counts.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&AttributeValue> {
        self.0.iter().find(|a| &*a.name == name).map(|a| &a.value)
    }
}

impl Attribute {
    fn parse(token: &str) -> Result<Self, AttributesError> {
        let pair = token
            .split_once(':')
            .filter(|(name, value)| !name.trim().is_empty() && !value.trim().is_empty());
        let Some((name, value)) = pair else {
            return Err(AttributesError::NotAPair(token.into()));
        };
        let name = name.trim();
        let value = match parse_value(value) {
            Ok(Some(Value::Scalar(amount))) => AttributeValue::Scalar(amount),
            Ok(Some(Value::Ranges(ranges))) => AttributeValue::Ranges(ranges),
            Ok(Some(Value::Set(_))) => return Err(AttributesError::Set(name.into())),
            Ok(None) => AttributeValue::Text(value.trim().into()),
            Err(reason) => {
                return Err(AttributesError::BadValue {
                    name: name.into(),
                    reason: reason.to_string(),
                });
            }
        };
        Ok(Self {
            name: name.into(),
            value,
        })
    }
}

impl fmt::Display for AttributeValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(amount) => amount.fmt(f),
            Self::Ranges(ranges) => ranges.fmt(f),
            Self::Set(set) => set.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Attribute { name, value }) in self.0.iter().enumerate() {
            let semicolon = if i > 0 { ";" } else { "" };
            write!(f, "{semicolon}{name}:{value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_attribute_is_read_and_printed() {
        let text = "rack:abc;level:10;keys:[1000-1500];url:http://x:80/y";
        let all = Attributes::parse(text).expect("attributes");
        assert_eq!(all.to_string(), text);
        assert_eq!(
            all.get("level"),
            Some(&AttributeValue::Scalar(Scalar::units(10)))
        );
        assert_eq!(
            all.get("url"),
            Some(&AttributeValue::Text("http://x:80/y".into()))
        );
        for bad in ["rack", "rack:", ":x", "keys:[1-", "s:{a,b}"] {
            assert!(Attributes::parse(bad).is_err(), "{bad}");
        }
    }
}
