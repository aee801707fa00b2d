//! Endpoints that master and agent have in common.

mod duration;
pub mod files;
mod help;
pub mod logging;
pub mod metrics;
mod system;
pub mod version;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;

pub use duration::{parse_duration, parse_number};
pub use files::{FileError, FileInfo, Files};
pub use logging::Logging;
pub use metrics::{Counter, ExporterError, Gauge, Kind, Metrics, Sample, Timer};
pub use version::VersionInfo;

use crate::request::Request;
use crate::response::Response;
use crate::router::Router;

/// What the shared endpoints show.
#[derive(Clone)]
pub struct Shared {
    /// Build and release.
    pub version: VersionInfo,
    /// Flags in effect by their Mesos names, values in Mesos' text form.
    pub flags: Arc<BTreeMap<String, String>>,
    /// Virtual files.
    pub files: Files,
    /// Counters and gauges.
    pub metrics: Metrics,
    /// Log level.
    pub logging: Logging,
}

impl Shared {
    /// Adds `/version`, `/metrics/snapshot`, `/logging/toggle`, `/system/stats.json`, `/files/*`,
    /// `/help`, and below `process` (`master`, `slave(1)`) `/health` and `/flags`.
    pub fn register(&self, router: &mut Router, process: &str) {
        let version = Bytes::from(self.version.to_json());
        router.route("/version", move |request: Request| {
            let body = version.clone();
            async move { Response::jsonp(&request, vec![body]) }
        });
        router.route(&format!("/{process}/health"), |_: Request| async {
            Response::empty(http::StatusCode::OK)
        });
        let flags = Bytes::from(self.flags_json());
        router.route(&format!("/{process}/flags"), move |request: Request| {
            let body = flags.clone();
            async move {
                match request.method {
                    Method::GET | Method::HEAD | Method::POST | Method::OPTIONS => {
                        Response::jsonp(&request, vec![body])
                    }
                    ref other => Response::method_not_allowed(&[Method::GET], other),
                }
            }
        });
        self.files.register(router);
        self.metrics.register(router);
        self.logging.register(router);
        system::register(router);
        self.metrics.source(system::samples);
        help::register(router, process);
    }

    /// The body of `/flags`.
    pub fn flags_json(&self) -> String {
        serde_json::json!({ "flags": *self.flags }).to_string()
    }
}
