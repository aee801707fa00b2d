//! Offer filters: how long refused resources stay away from a framework.

use std::time::Duration;

/// `refuse_seconds` when the framework gave none, or one that makes no sense.
pub const DEFAULT_REFUSE: Duration = Duration::from_secs(5);

/// The longest time a filter may last.
pub const MAX_REFUSE: Duration = Duration::from_secs(365 * 24 * 3600);

/// How long a filter with these `refuse_seconds` lasts.
///
/// As the hierarchical allocator of Mesos has it: absent, negative or not a number is the default,
/// more than a year is a year, zero is no filter at all, and anything else lasts at least until
/// after the next allocation.
#[must_use]
pub fn refuse_time(refuse_seconds: Option<f64>, allocation_interval: Duration) -> Option<Duration> {
    let wanted = match refuse_seconds {
        Some(0.0) => return None,
        Some(s) if s > MAX_REFUSE.as_secs_f64() => MAX_REFUSE,
        Some(s) if s > 0.0 => Duration::from_secs_f64(s),
        _ => DEFAULT_REFUSE,
    };
    Some(wanted.max(allocation_interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_times_become_sensible_ones() {
        let second = Duration::from_secs(1);
        assert_eq!(refuse_time(None, second), Some(DEFAULT_REFUSE));
        assert_eq!(refuse_time(Some(-1.0), second), Some(DEFAULT_REFUSE));
        assert_eq!(refuse_time(Some(f64::NAN), second), Some(DEFAULT_REFUSE));
        assert_eq!(refuse_time(Some(f64::INFINITY), second), Some(MAX_REFUSE));
        assert_eq!(refuse_time(Some(0.0), second), None);
        assert_eq!(refuse_time(Some(0.1), second), Some(second));
        assert_eq!(
            refuse_time(Some(7.5), second),
            Some(Duration::from_millis(7500))
        );
    }
}
