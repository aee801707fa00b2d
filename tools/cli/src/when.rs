//! Times and durations as people write and read them.

use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use tepui_host::value::parse_duration;
use tepui_proto::v1;

/// A duration of the command line: `90s`, `1h30m`, or as Mesos writes it, `15mins`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse =
            || format!("expected a duration such as 90s, 15m, 1h30m or 2days, not {text:?}");
        let (mut rest, mut sum) = (text.trim(), Duration::ZERO);
        if rest.is_empty() {
            return Err(refuse());
        }
        while !rest.is_empty() {
            let unit = rest.find(|c: char| c.is_ascii_alphabetic());
            let from = unit.ok_or_else(refuse)?;
            let end = rest[from..].find(|c: char| !c.is_ascii_alphabetic());
            let end = end.map_or(rest.len(), |end| from + end);
            let unit = match &rest[from..end] {
                "s" | "sec" => "secs",
                "m" | "min" => "mins",
                "h" | "hr" => "hrs",
                "d" | "day" => "days",
                "w" | "week" => "weeks",
                other => other,
            };
            let part = parse_duration(&format!("{}{unit}", rest[..from].trim()));
            let part = part.map_err(|_| refuse())?;
            sum = sum.checked_add(part).ok_or_else(refuse)?;
            rest = rest[end..].trim_start();
        }
        Ok(Self(sum))
    }
}

impl Span {
    /// As the API has it; cut at what it can hold (292 years).
    pub(crate) fn to_proto(self) -> v1::DurationInfo {
        v1::DurationInfo {
            nanoseconds: i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX),
        }
    }
}

/// A point in time of the command line: `now`, `+2h`, or a date and time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct At(Timestamp);

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::read(text, Timestamp::now(), &TimeZone::system())
    }
}

impl At {
    fn read(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Self, String> {
        let refuse = || {
            format!(
                "expected now, +2h, or a time such as 2026-11-30T22:00:00Z or '2026-11-30 22:00' \
                 (in this machine's time zone), not {text:?}"
            )
        };
        let text = text.trim();
        if text == "now" {
            return Ok(Self(now));
        }
        if let Some(later) = text.strip_prefix('+') {
            let later: Span = later.parse()?;
            return Ok(Self(now.checked_add(later.0).map_err(|_| refuse())?));
        }
        if let Ok(timestamp) = text.parse::<Timestamp>() {
            return Ok(Self(timestamp));
        }
        let local: jiff::civil::DateTime = text.parse().map_err(|_| refuse())?;
        let zoned = local.to_zoned(zone.clone()).map_err(|_| refuse())?;
        Ok(Self(zoned.timestamp()))
    }

    /// As the API has it.
    pub(crate) fn to_proto(self) -> v1::TimeInfo {
        v1::TimeInfo {
            nanoseconds: i64::try_from(self.0.as_nanosecond()).unwrap_or(i64::MAX),
        }
    }
}

/// A time of the API, to the second, in this machine's time zone: `2026-11-30 22:00:00 +01:00`.
pub(crate) fn show(nanoseconds: i64) -> String {
    show_in(nanoseconds, TimeZone::system())
}

fn show_in(nanoseconds: i64, zone: TimeZone) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds));
    let time = time.expect("an i64 of nanoseconds ends in 2262");
    let zoned: Zoned = time.to_zoned(zone);
    zoned.strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// A duration in whole seconds: `1h30m`, `5s`.
pub(crate) fn show_span(nanoseconds: i64) -> String {
    let seconds = nanoseconds.max(0) / 1_000_000_000;
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let shown = parts.iter().filter(|(count, _)| *count > 0);
    let text: String = shown
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Option<u64> {
        text.parse::<Span>().ok().map(|span| span.0.as_secs())
    }

    #[test]
    fn durations_are_read_in_both_forms_and_written_in_one() {
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("1.5hrs"), Some(5400));
        assert_eq!(seconds("2days 1 h"), Some(176_400));
        for wrong in ["", "90", "h", "5 parsecs", "-5s", "1h-30m"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        assert_eq!(show_span(5_400_000_000_000), "1h30m");
        assert_eq!(show_span(86_401_000_000_000), "1d1s");
        assert_eq!(show_span(400_000_000), "0s");
    }

    #[test]
    fn times_are_absolute_relative_or_of_the_own_time_zone() {
        let now = "2026-11-22T12:00:00Z".parse().expect("a time");
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let read = |text: &str| {
            let at = At::read(text, now, &zone).ok()?;
            Some(show_in(at.to_proto().nanoseconds, TimeZone::UTC))
        };
        let shown = |text: &str| Some(text.to_owned());
        assert_eq!(read("now"), shown("2026-11-22 12:00:00 +00:00"));
        assert_eq!(read("+2h"), shown("2026-11-22 14:00:00 +00:00"));
        assert_eq!(
            read("2026-11-30 22:00"),
            shown("2026-11-30 21:00:00 +00:00")
        );
        assert_eq!(
            read("2026-11-30T22:00:00Z"),
            shown("2026-11-30 22:00:00 +00:00")
        );
        assert_eq!(read("tomorrow"), None);
        assert_eq!(read("+2"), None);
        assert_eq!(show_in(0, zone), "1970-01-01 01:00:00 +01:00");
    }
}
