//! Sets of names.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Items in the order they came, each once; equal whatever the order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Set(Vec<Arc<str>>);

impl Set {
    /// The set of these items.
    pub fn new<T: Into<Arc<str>>>(items: impl IntoIterator<Item = T>) -> Self {
        let mut set = Self::default();
        for item in items {
            set.insert(item.into());
        }
        set
    }

    fn insert(&mut self, item: Arc<str>) {
        if !self.0.contains(&item) {
            self.0.push(item);
        }
    }

    /// The items, in the order they came.
    #[must_use]
    pub fn as_slice(&self) -> &[Arc<str>] {
        &self.0
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all items of `other` are in it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|item| self.0.contains(item))
    }

    /// Adds the items of `other`.
    pub fn add(&mut self, other: &Self) {
        for item in &other.0 {
            self.insert(item.clone());
        }
    }

    /// Takes the items of `other` away.
    pub fn sub(&mut self, other: &Self) {
        self.0.retain(|item| !other.0.contains(item));
    }
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.contains(other)
    }
}

impl Eq for Set {}

/// `{a, b}`
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, item) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{item}")?;
        }
        f.write_str("}")
    }
}
