//! Durations of something that happens again and again, and their percentiles.
//!
//! Mirrors `process::metrics::Timer` and `process::Statistics`: the last duration, and, once there
//! are two, count, extremes and percentiles of those in the window. A percentile lies between two
//! samples in proportion, which is why no histogram is kept: it would round.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Sample;

/// Durations that are kept at most (`process::TIME_SERIES_CAPACITY`).
const CAPACITY: usize = 1000;

/// What Mesos prints of each.
const PERCENTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p999", 0.999),
    ("p9999", 0.9999),
];

/// Measures. Clones share what was measured.
#[derive(Debug, Clone)]
pub struct Timer {
    window: Duration,
    kept: Arc<Mutex<VecDeque<(Instant, Duration)>>>,
}

impl Timer {
    pub(super) fn new(window: Duration) -> Timer {
        Timer {
            window,
            kept: Arc::default(),
        }
    }

    /// Adds a duration that ends now.
    pub fn record(&self, took: Duration) {
        let mut kept = self.kept.lock().expect("no panic happens under this lock");
        kept.push_back((Instant::now(), took));
        if kept.len() > CAPACITY {
            kept.pop_front();
        }
    }

    /// Milliseconds in the window, in the order in which they were measured.
    fn values(&self) -> Vec<f64> {
        let mut kept = self.kept.lock().expect("no panic happens under this lock");
        let window = self.window;
        // The last one stays: it is the timer's value.
        while kept.len() > 1 && kept.front().is_some_and(|(at, _)| at.elapsed() > window) {
            kept.pop_front();
        }
        kept.iter()
            .map(|(_, took)| took.as_secs_f64() * 1e3)
            .collect()
    }

    pub(super) fn samples(&self, name: &str, samples: &mut Vec<Sample>) {
        let mut values = self.values();
        let Some(last) = values.last() else { return };
        samples.push(Sample::gauge(format!("{name}_ms"), *last));
        if values.len() < 2 {
            return;
        }
        values.sort_by(f64::total_cmp);
        let mut add = |suffix: &str, value: f64| {
            let sample = Sample::gauge(format!("{name}_ms/{suffix}"), value);
            samples.push(sample);
        };
        add("count", values.len() as f64);
        add("min", values[0]);
        add("max", values[values.len() - 1]);
        for (suffix, share) in PERCENTILES {
            let sample = Sample::gauge(format!("{name}_ms/{suffix}"), percentile(&values, share));
            let labels = vec![("quantile", share.to_string())];
            samples.push(sample.of(format!("{name}_ms/quantile"), labels));
        }
    }
}

/// Of sorted values, of which there are two at least.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor();
    let (low, part) = (below as usize, position - below);
    match sorted.get(low + 1) {
        Some(next) => sorted[low] + part * (next - sorted[low]),
        None => sorted[low],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `allocator/mesos/allocation_run_ms` as recorded: of its three samples it shows the least, the
    /// middle and the greatest.
    #[test]
    fn percentiles_are_those_of_mesos() {
        let sorted = [0.005888, 0.012032, 0.02816];
        let shown = PERCENTILES.map(|(_, share)| percentile(&sorted, share));
        let recorded = [
            0.012032,
            0.0249344,
            0.0265472,
            0.02783744,
            0.028127744,
            0.0281567744,
        ];
        for (shown, recorded) in shown.into_iter().zip(recorded) {
            assert!((shown - recorded).abs() < 1e-12, "{shown} {recorded}");
        }
    }

    #[test]
    fn one_duration_has_no_statistics() {
        let timer = Timer::new(Duration::from_secs(3600));
        let names = |timer: &Timer| {
            let mut samples = Vec::new();
            timer.samples("run", &mut samples);
            samples
                .into_iter()
                .map(|sample| sample.name.into_owned())
                .collect::<Vec<_>>()
        };
        assert!(names(&timer).is_empty());
        timer.record(Duration::from_millis(3));
        assert_eq!(names(&timer), ["run_ms"]);
        for _ in 0..2 * CAPACITY {
            timer.record(Duration::from_millis(5));
        }
        assert_eq!(names(&timer).len(), 10);
        assert_eq!(timer.values().len(), CAPACITY);
    }
}
