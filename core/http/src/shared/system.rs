//! `/system/stats.json`, and the profiler that there is not.

use serde::Serialize;

use crate::request::Request;
use crate::response::Response;
use crate::router::Router;
use crate::shared::metrics::Sample;

#[derive(Serialize)]
struct Stats {
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_load_15min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_load_1min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avg_load_5min: Option<f64>,
    cpus_total: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_free_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_total_bytes: Option<u64>,
}

/// What Mesos says where it was built without profilers, as this is.
const NO_PROFILER: &str =
    "Perftools is disabled. To enable perftools, configure libprocess with --enable-perftools.\n";

/// Memory profiles need an allocator that keeps them.
const NO_MEMORY_PROFILER: &str = "There is no memory profiler: this build does not use jemalloc.\n";

pub(super) fn register(router: &mut Router) {
    for path in ["/profiler/start", "/profiler/stop"] {
        router.route(path, |_: Request| async {
            Response::bad_request(NO_PROFILER)
        });
    }
    for path in ["start", "stop", "download", "statistics", "state"] {
        router.route(&format!("/memory-profiler/{path}"), |_: Request| async {
            Response::bad_request(NO_MEMORY_PROFILER)
        });
    }
    router.route("/system/stats.json", |request: Request| async move {
        let body = serde_json::to_vec(&stats()).expect("plain data serializes");
        Response::jsonp(&request, vec![body.into()])
    });
}

/// The same as metrics.
pub(super) async fn samples() -> Vec<Sample> {
    let stats = stats();
    #[expect(clippy::cast_precision_loss, reason = "Mesos tells doubles")]
    let gauges = [
        ("system/cpus_total", Some(stats.cpus_total as f64)),
        ("system/load_15min", stats.avg_load_15min),
        ("system/load_1min", stats.avg_load_1min),
        ("system/load_5min", stats.avg_load_5min),
        (
            "system/mem_free_bytes",
            stats.mem_free_bytes.map(|bytes| bytes as f64),
        ),
        (
            "system/mem_total_bytes",
            stats.mem_total_bytes.map(|bytes| bytes as f64),
        ),
    ];
    let told = gauges.into_iter();
    told.filter_map(|(name, value)| Some(Sample::gauge(name, value?)))
        .collect()
}

/// What the system tells; what it does not tell (no `/proc`) is left out, as in Mesos.
fn stats() -> Stats {
    let loads = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = |n| loads.split_whitespace().nth(n)?.parse().ok();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| {
        let line = memory
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib * 1024)
    };
    Stats {
        avg_load_15min: load(2),
        avg_load_1min: load(0),
        avg_load_5min: load(1),
        cpus_total: std::thread::available_parallelism().map_or(1, usize::from),
        mem_free_bytes: bytes("MemFree"),
        mem_total_bytes: bytes("MemTotal"),
    }
}
