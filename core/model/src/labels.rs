//! Labels: ordered key and value pairs that users hang on tasks, frameworks and reservations.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label {
    /// The key; keys may repeat.
    pub key: Arc<str>,
    /// The value, if there is one.
    pub value: Option<Arc<str>>,
}

/// Labels in the order they were given; equal whatever the order, as in Mesos.
#[derive(Clone, Debug, Default, Eq, Serialize, Deserialize)]
pub struct Labels(pub Vec<Label>);

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        if self.0 == other.0 {
            return true;
        }
        if self.0.len() != other.0.len() {
            return false;
        }
        let mut left: Vec<_> = self.0.iter().collect();
        let mut right: Vec<_> = other.0.iter().collect();
        left.sort_unstable();
        right.sort_unstable();
        left == right
    }
}

/// `{key: value, key}`, as Mesos prints labels.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, label) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{}", label.key)?;
            if let Some(value) = &label.value {
                write!(f, ": {value}")?;
            }
        }
        f.write_str("}")
    }
}
