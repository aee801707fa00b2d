//! Who asks.

use std::collections::BTreeMap;

/// An authenticated party; the default is anonymous.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Name, if the authenticator gave one.
    pub principal: Option<String>,
    /// Further claims (tokens of executors).
    pub claims: BTreeMap<String, String>,
}
