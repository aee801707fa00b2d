//! The agent's endpoints, with and without `/slave(1)` in front.

mod absent;
mod executor;
pub(crate) mod read;
mod v0;
mod v1_api;

use std::sync::Arc;

use tepui_http::shared::Shared;
use tepui_http::{Method, Request, Response, Router, StatusCode};
use tepui_model::time::Wall;

use crate::Settings;
use crate::agent::Modules;
use crate::containers::Containers;
use crate::owner::{Handle, Input, Snapshot};

/// What the endpoints read from.
pub(crate) struct Endpoints {
    pub(crate) handle: Handle,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Shared,
    pub(crate) modules: Modules,
    pub(crate) started: Wall,
}

impl Endpoints {
    /// Everything, as the owner has it now.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Response> {
        let snapshot = self.handle.ask(Input::Read).await;
        snapshot.ok_or_else(|| Response::unavailable("Agent is terminating"))
    }
}

/// Methods that libprocess lets through to handlers that read.
fn reads(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::POST | Method::OPTIONS
    )
}

/// Adds the routes.
pub(crate) fn register(endpoints: Arc<Endpoints>, router: &mut Router) {
    macro_rules! reading {
        ($path:literal, $answer:path) => {{
            let endpoints = endpoints.clone();
            router.route($path, move |request: Request| {
                let endpoints = endpoints.clone();
                async move {
                    if !reads(&request.method) {
                        return Response::method_not_allowed(&[Method::GET], &request.method);
                    }
                    match $answer(&endpoints, &request).await {
                        Ok(response) | Err(response) => response,
                    }
                }
            });
        }};
    }
    reading!("/slave(1)/state", v0::state);
    reading!("/slave(1)/containers", v0::containers);
    reading!("/slave(1)/monitor/statistics", v0::statistics);
    reading!("/slave(1)/containerizer/debug", v0::debug);
    reading!("/tepui/v1/modules", v0::modules);
    let api = endpoints.clone();
    router.route("/slave(1)/api/v1", move |request: Request| {
        let endpoints = api.clone();
        async move { v1_api::call(&endpoints, request).await }
    });
    router.route("/slave(1)/api/v1/executor", move |request: Request| {
        let endpoints = endpoints.clone();
        async move { executor::call(&endpoints, request).await }
    });
    let providers = "/slave(1)/api/v1/resource_provider";
    router.route(providers, |request: Request| async move {
        if request.method == Method::POST {
            return Response::standard(StatusCode::NOT_IMPLEMENTED);
        }
        Response::method_not_allowed(&[Method::POST], &request.method)
    });
}
