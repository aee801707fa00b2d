//! Metrics by Mesos' names: counters, gauges and timers that are kept here, and sources that are
//! asked when somebody reads.
//!
//! Nothing here is on a hot path: owners count in plain integers, and a source copies them.

mod endpoint;
mod export;
mod sample;
mod timer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use tepui_host::kinds::exporter::ExporterClient;
use tepui_proto::v1;

use crate::shared::Pace;

pub use export::ExporterError;
pub use sample::{Kind, Sample};
pub use timer::Timer;

/// Something that only grows.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Something that is set.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Gives any number of samples when metrics are read.
type Source = Arc<dyn Fn() -> BoxFuture<'static, Vec<Sample>> + Send + Sync>;

/// All metrics of a daemon. Clones share the same table.
#[derive(Clone, Default)]
pub struct Metrics {
    table: Arc<Mutex<Table>>,
    pace: Arc<Pace>,
}

#[derive(Default)]
struct Table {
    counters: BTreeMap<String, Counter>,
    gauges: BTreeMap<String, Gauge>,
    timers: BTreeMap<String, Timer>,
    sources: Vec<Source>,
    exporters: Vec<Arc<ExporterClient>>,
}

impl Metrics {
    /// The counter of that name, made when it is new.
    pub fn counter(&self, name: &str) -> Counter {
        self.with(|table| table.counters.entry(name.to_owned()).or_default().clone())
    }

    /// The gauge of that name, made when it is new.
    pub fn gauge(&self, name: &str) -> Gauge {
        self.with(|table| table.gauges.entry(name.to_owned()).or_default().clone())
    }

    /// The timer of that name, made when it is new; it keeps what it measured for `window`. Shown
    /// as `NAME_ms`.
    pub fn timer(&self, name: &str, window: Duration) -> Timer {
        self.with(|table| {
            let timers = table.timers.entry(name.to_owned());
            timers.or_insert_with(|| Timer::new(window)).clone()
        })
    }

    /// Adds a function that is asked each time metrics are read: for what is kept elsewhere anyhow.
    pub fn source<F>(&self, source: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Vec<Sample>> + Send + 'static,
    {
        let source: Source = Arc::new(move || Box::pin(source()));
        self.with(|table| table.sources.push(source));
    }

    /// All samples now, sorted by name. A source that does not answer in time is left out; no
    /// `timeout` waits for all.
    pub async fn samples(&self, timeout: Option<Duration>) -> Vec<Sample> {
        let sources = self.with(|table| table.sources.clone());
        let asked = sources.iter().map(|source| async {
            match timeout {
                Some(timeout) => tokio::time::timeout(timeout, source()).await.ok(),
                None => Some(source().await),
            }
        });
        let answers = join_all(asked).await;
        let mut samples = self.own();
        samples.extend(answers.into_iter().flatten().flatten());
        samples.sort_by(|a, b| a.name.cmp(&b.name));
        samples.dedup_by(|a, b| a.name == b.name);
        samples
    }

    /// The same as answers to GET_METRICS; the error is the text of a 400.
    pub async fn messages(
        &self,
        timeout: Option<v1::DurationInfo>,
    ) -> Result<Vec<v1::Metric>, String> {
        let nanos = timeout.map(|timeout| u64::try_from(timeout.nanoseconds));
        let nanos = nanos.transpose();
        let nanos = nanos.map_err(|_| "Expecting a timeout that is not negative".to_owned())?;
        let samples = self.samples(nanos.map(Duration::from_nanos)).await;
        let metric = |sample: Sample| v1::Metric {
            name: sample.name.into_owned(),
            value: Some(sample.value),
        };
        Ok(samples.into_iter().map(metric).collect())
    }

    fn own(&self) -> Vec<Sample> {
        self.with(|table| {
            let mut samples = Vec::new();
            for (name, counter) in &table.counters {
                samples.push(Sample::counter(name.clone(), counter.get()));
            }
            for (name, gauge) in &table.gauges {
                samples.push(Sample::gauge(name.clone(), gauge.get()));
            }
            for (name, timer) in &table.timers {
                timer.samples(name, &mut samples);
            }
            samples
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.table.lock().expect("no panic happens under this lock"))
    }
}
