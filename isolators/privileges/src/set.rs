//! Sets of capabilities.

use std::fmt;

use tepui_module_sdk::mesos::{CapabilityInfo, capability_info::Capability};
use tepui_module_sdk::prelude::*;

/// Mesos' numbers are the kernel's and this.
const FIRST: i32 = Capability::Chown as i32;

/// A set of capabilities, by the kernel's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set(BTreeSet<u32>);

impl Set {
    /// From names with or without `CAP_`; the error is the name that is unknown.
    pub(crate) fn named(names: &[String]) -> Result<Self, &String> {
        let number = |name: &String| {
            let known = Capability::from_str_name(name.trim_start_matches("CAP_"));
            known.and_then(|known| u32::try_from(known as i32 - FIRST).ok())
        };
        names
            .iter()
            .map(|name| number(name).ok_or(name))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// From a message. Capabilities that are newer than the message's names come as numbers.
    pub(crate) fn of(info: &CapabilityInfo) -> Result<Self> {
        let number = |mesos: &i32| {
            let number = u32::try_from(mesos - FIRST).ok();
            number.filter(|number| *number < 64).ok_or_else(|| {
                Failure::invalid("a capability is unknown: expected names such as 'NET_ADMIN'")
            })
        };
        info.capabilities
            .iter()
            .map(number)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// What this process may use, from a line of `/proc/self/status`.
    pub(crate) fn permitted(status: &str) -> Option<Self> {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapPrm:"))?;
        let mask = u64::from_str_radix(line.trim(), 16).ok()?;
        Some(Self((0..64).filter(|bit| mask & (1 << bit) != 0).collect()))
    }

    /// What is in this and not in the other.
    pub(crate) fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// What is in both.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).copied().collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.0.iter().copied().collect()
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, number) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let known = i32::try_from(*number)
                .ok()
                .and_then(|number| Capability::try_from(number + FIRST).ok());
            match known {
                Some(known) => write!(f, "{comma}{}", known.as_str_name())?,
                None => write!(f, "{comma}{number}")?,
            }
        }
        Ok(())
    }
}
