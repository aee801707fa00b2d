//! Counters and gauges, and `/metrics/snapshot`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::request::Request;
use crate::response::Response;
use crate::router::Router;
use crate::shared::parse_duration;

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

/// Writes any number of values when a snapshot is taken.
type Source = Arc<dyn Fn(&mut BTreeMap<String, f64>) + Send + Sync>;

/// All metrics of a daemon, by name. Clones share the same table.
#[derive(Clone, Default)]
pub struct Metrics {
    table: Arc<Mutex<Table>>,
}

#[derive(Default)]
struct Table {
    counters: BTreeMap<String, Counter>,
    gauges: BTreeMap<String, Gauge>,
    sources: Vec<Source>,
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

    /// Adds a function that is asked at each snapshot: for what is kept elsewhere anyhow.
    pub fn source(&self, source: impl Fn(&mut BTreeMap<String, f64>) + Send + Sync + 'static) {
        self.with(|table| table.sources.push(Arc::new(source)));
    }

    /// All values now, by name.
    pub fn snapshot(&self) -> BTreeMap<String, f64> {
        let (mut values, sources) = self.with(|table| {
            let counters = table
                .counters
                .iter()
                .map(|(name, counter)| (name.clone(), counter.get() as f64));
            let gauges = table
                .gauges
                .iter()
                .map(|(name, gauge)| (name.clone(), gauge.get()));
            (
                counters.chain(gauges).collect::<BTreeMap<_, _>>(),
                table.sources.clone(),
            )
        });
        for source in sources {
            source(&mut values);
        }
        values
    }

    fn with<T>(&self, work: impl FnOnce(&mut Table) -> T) -> T {
        work(&mut self.table.lock().expect("no panic happens under this lock"))
    }

    pub(crate) fn register(&self, router: &mut Router) {
        let metrics = self.clone();
        router.route("/metrics/snapshot", move |request: Request| {
            let metrics = metrics.clone();
            async move { metrics.answer(&request) }
        });
    }

    /// Answers `/metrics/snapshot`.
    pub fn answer(&self, request: &Request) -> Response {
        if let Some(timeout) = request.query.get("timeout")
            && let Err(error) = parse_duration(timeout)
        {
            return Response::bad_request(format!("Invalid timeout '{timeout}': {error}.\n"));
        }
        let body = serde_json::to_vec(&self.snapshot()).expect("plain data serializes");
        Response::jsonp(request, vec![body.into()])
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, StatusCode};

    use super::*;

    #[test]
    fn snapshot_has_everything_in_order() {
        let metrics = Metrics::default();
        metrics.counter("b").increment();
        metrics.counter("b").add(2);
        metrics.gauge("a").set(0.5);
        metrics.source(|values| {
            values.insert("c".to_owned(), 7.0);
        });
        let response = metrics.answer(&Request::new(
            Method::GET,
            "/metrics/snapshot?timeout=5secs",
        ));
        assert_eq!(
            response.body_bytes().unwrap(),
            r#"{"a":0.5,"b":3.0,"c":7.0}"#
        );
        let response = metrics.answer(&Request::new(Method::GET, "/metrics/snapshot?timeout=soon"));
        assert_eq!(response.status, StatusCode::BAD_REQUEST);
        let text = "Invalid timeout 'soon': Failed to convert '' to number.\n";
        assert_eq!(response.body_bytes().unwrap(), text);
    }
}
