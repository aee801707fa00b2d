//! Values as Mesos writes them in flags and configuration: durations (`15secs`) and sizes (`32MB`).
//!
//! Printing chooses the largest unit that divides evenly, as Mesos does, so that what `/flags` shows
//! can be compared with what Mesos shows.

use std::time::Duration;

/// A text is not the value it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a duration.
    #[error(
        "{0:?} is not a duration: expected a number and one of ns, us, ms, secs, mins, hrs, days, weeks"
    )]
    Duration(String),
    /// Not a size.
    #[error("{0:?} is not a size: expected a whole number and one of B, KB, MB, GB, TB")]
    Bytes(String),
}

/// Units in nanoseconds, largest first.
const TIME_UNITS: [(&str, u64); 8] = [
    ("weeks", 604_800_000_000_000),
    ("days", 86_400_000_000_000),
    ("hrs", 3_600_000_000_000),
    ("mins", 60_000_000_000),
    ("secs", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Units in bytes, largest first.
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("KB", 1 << 10),
    ("B", 1),
];

/// Reads a duration such as `1.5hrs`.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let refuse = || ValueError::Duration(text.to_string());
    let (number, unit) = split_unit(text.trim());
    let scale = TIME_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(refuse)?
        .1;
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(scale)
            .map(Duration::from_nanos)
            .ok_or_else(refuse);
    }
    let nanos = number.parse::<f64>().map_err(|_| refuse())? * scale as f64;
    // 2^63 ns is what Mesos can hold: 292 years.
    if !(0.0..9.2e18).contains(&nanos) {
        return Err(refuse());
    }
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// Prints a duration in the largest unit that divides it.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, scale) = TIME_UNITS
        .iter()
        .find(|(_, scale)| nanos != 0 && nanos.is_multiple_of(u128::from(*scale)))
        .unwrap_or(&("ns", 1));
    format!("{}{unit}", nanos / u128::from(*scale))
}

/// Reads a size such as `32MB`.
pub fn parse_bytes(text: &str) -> Result<u64, ValueError> {
    let refuse = || ValueError::Bytes(text.to_string());
    let (number, unit) = split_unit(text.trim());
    let scale = SIZE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(refuse)?
        .1;
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .ok_or_else(refuse)
}

/// Prints a size in the largest unit that divides it.
pub fn show_bytes(bytes: u64) -> String {
    let (unit, scale) = SIZE_UNITS
        .iter()
        .find(|(_, scale)| bytes != 0 && bytes.is_multiple_of(*scale))
        .unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / scale)
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| c.is_ascii_alphabetic())
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_printed_as_mesos_does() {
        for (text, shown) in [
            ("15secs", "15secs"),
            ("60secs", "1mins"),
            ("0ns", "0ns"),
            ("0secs", "0ns"),
            ("1.5hrs", "90mins"),
            ("14days", "2weeks"),
            ("100ms", "100ms"),
            ("6hrs", "6hrs"),
        ] {
            assert_eq!(
                show_duration(parse_duration(text).unwrap()),
                shown,
                "{text}"
            );
        }
        for text in [
            "",
            "15",
            "secs",
            "15 parsecs",
            "-1secs",
            "1e99weeks",
            "99999999999weeks",
            "NaNsecs",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed_as_mesos_does() {
        for (text, shown) in [
            ("2048MB", "2GB"),
            ("4KB", "4KB"),
            ("1000B", "1000B"),
            ("0B", "0B"),
        ] {
            assert_eq!(show_bytes(parse_bytes(text).unwrap()), shown, "{text}");
        }
        for text in ["", "12", "1.5GB", "-1MB", "99999999TB", "4kb"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }
}
