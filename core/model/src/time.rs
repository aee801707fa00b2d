//! Points in time of the state machines.
//!
//! `std::time::Instant` cannot be made by a simulator, so the core has its own types. Decisions
//! use [`Mono`]; [`Wall`] only ends up in what clients read.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point of the monotonic clock, in nanoseconds since some start.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Mono(pub u64);

/// A point of the wall clock, in nanoseconds since 1970-01-01 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Wall(pub i64);

/// Both clocks, read at the same moment.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Now {
    /// What deadlines are compared with.
    pub mono: Mono,
    /// What is shown.
    pub wall: Wall,
}

/// A duration in nanoseconds, cut at what an `u64` holds (584 years).
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Mono {
    /// The time from `earlier` to this point; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos(rhs)))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(rhs)))
    }
}

impl Wall {
    /// The point that is this many seconds after 1970, as Mesos writes times.
    #[must_use]
    pub fn from_secs_f64(secs: f64) -> Self {
        Self((secs * 1e9) as i64)
    }

    /// Seconds since 1970, as Mesos writes times (`registered_time`, `timestamp`).
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The time from `earlier` to this point; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = i128::from(self.0) - i128::from(earlier.0);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

impl Add<Duration> for Wall {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(nanos(rhs)))
    }
}

impl Sub<Duration> for Wall {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub_unsigned(nanos(rhs)))
    }
}

impl fmt::Display for Mono {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "+{:.6}s", self.0 as f64 / 1e9)
    }
}

impl Add<Duration> for Now {
    type Output = Self;

    /// Both clocks, moved on by the same time.
    fn add(self, rhs: Duration) -> Self {
        Self {
            mono: self.mono + rhs,
            wall: self.wall + rhs,
        }
    }
}

/// A duration as Mesos writes it: in the largest unit that it is a whole number of.
#[must_use]
pub fn text(duration: Duration) -> String {
    const UNITS: [(u128, &str); 8] = [
        (604_800_000_000_000, "weeks"),
        (86_400_000_000_000, "days"),
        (3_600_000_000_000, "hrs"),
        (60_000_000_000, "mins"),
        (1_000_000_000, "secs"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let nanos = duration.as_nanos();
    let whole = |(unit, _): &&(u128, &str)| nanos >= *unit && nanos.is_multiple_of(*unit);
    match UNITS.iter().find(whole) {
        Some((unit, name)) => format!("{}{name}", nanos / unit),
        None => "0ns".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::text;

    #[test]
    fn durations_are_written_as_mesos_does() {
        assert_eq!(text(Duration::from_secs(5)), "5secs");
        assert_eq!(text(Duration::from_millis(3500)), "3500ms");
        assert_eq!(text(Duration::from_mins(15)), "15mins");
        assert_eq!(text(Duration::from_secs(0)), "0ns");
    }
}
