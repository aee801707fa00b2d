//! Endpoints that master and agent have in common.

mod calls;
mod duration;
pub mod files;
mod help;
pub mod logging;
pub mod metrics;
mod pace;
mod system;
pub mod version;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use tepui_model::authorization::Action;

pub use duration::{parse_duration, parse_number};
pub use files::{FileError, FileInfo, Files, Guard};
pub use logging::Logging;
pub use metrics::{Counter, ExporterError, Gauge, Kind, Metrics, Sample, Timer};
pub use pace::Pace;
pub use version::VersionInfo;

use crate::authorize::{Authorizer, Object, require};
use crate::request::Request;
use crate::response::Response;
use crate::router::{Handler, Router};

/// Methods that libprocess lets through to handlers that read.
pub fn reads(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::POST | Method::OPTIONS
    )
}

/// Adds a route for those who may GET_ENDPOINT_WITH_PATH of `endpoint`, which is the route without its process
/// where that has a number.
pub fn guarded(
    router: &mut Router,
    authorizer: &Arc<dyn Authorizer>,
    path: &str,
    endpoint: &'static str,
    handler: impl Handler,
) {
    let (authorizer, handler) = (Arc::clone(authorizer), Arc::new(handler));
    router.route(path, move |request: Request| {
        let (authorizer, handler) = (Arc::clone(&authorizer), Arc::clone(&handler));
        async move {
            let subject = request.subject.as_ref();
            let (action, object) = (Action::GetEndpointWithPath, Object::value(endpoint));
            match require(&*authorizer, subject, action, &object).await {
                Ok(()) => handler.handle(request).await,
                Err(denied) => denied.into(),
            }
        }
    });
}

/// Writes the loaded modules as JSON, for `/tepui/v1/modules`.
pub type Modules = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

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
    /// Who may see them.
    pub authorizer: Arc<dyn Authorizer>,
}

impl Shared {
    /// Adds `/version`, `/metrics/snapshot`, `/logging/toggle`, `/system/stats.json`, `/files/*`,
    /// and below `process` (`master`, `slave(1)`) `/health` and `/flags`.
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
        let authorizer = Arc::clone(&self.authorizer);
        router.route(&format!("/{process}/flags"), move |request: Request| {
            let (body, authorizer) = (flags.clone(), Arc::clone(&authorizer));
            async move {
                if !reads(&request.method) {
                    return Response::method_not_allowed(&[Method::GET], &request.method);
                }
                let subject = request.subject.as_ref();
                let any = Object::default();
                match require(&*authorizer, subject, Action::ViewFlags, &any).await {
                    Ok(()) => Response::jsonp(&request, vec![body]),
                    Err(denied) => denied.into(),
                }
            }
        });
        self.files.register(router, &self.authorizer);
        self.metrics.register(router, &self.authorizer);
        self.logging.register(router, &self.authorizer);
        system::register(router);
        self.metrics.source(system::samples);
    }

    /// Adds `/tepui/v1/modules`.
    pub fn show_modules(&self, router: &mut Router, modules: Modules) {
        const PATH: &str = "/tepui/v1/modules";
        guarded(
            router,
            &self.authorizer,
            PATH,
            PATH,
            move |request: Request| {
                let response = match reads(&request.method) {
                    true => Response::jsonp(&request, vec![modules().into()]),
                    false => Response::method_not_allowed(&[Method::GET], &request.method),
                };
                async move { response }
            },
        );
    }

    /// Adds what comes after all other routes: exporters, and `/help` about everything.
    pub fn finish(&self, router: &mut Router) -> Result<(), ExporterError> {
        self.metrics.register_exporters(router, &self.authorizer)?;
        help::register(router);
        Ok(())
    }

    /// The body of `/flags`.
    pub fn flags_json(&self) -> String {
        serde_json::json!({ "flags": *self.flags }).to_string()
    }
}
