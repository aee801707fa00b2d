//! The agent's endpoints, with and without `/slave(1)` in front.

mod absent;
mod attach;
mod containers;
mod executor;
mod forms;
mod images;
mod pending;
pub(crate) mod read;
pub(crate) mod see;
mod v0;
mod v1_api;
mod validate;

use std::sync::Arc;

use tepui_http::shared::{Modules, Pace, Shared, guarded, reads};
use tepui_http::{Method, Request, Response, Router, StatusCode};
use tepui_model::time::Wall;

use crate::Settings;
use crate::containers::Containers;
use crate::gc::Gc;
use crate::owner::{Handle, Input, Snapshot};

/// What the endpoints read from.
pub(crate) struct Endpoints {
    pub(crate) handle: Handle,
    pub(crate) containers: Arc<dyn Containers>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) gc: Gc,
    pub(crate) shared: Shared,
    pub(crate) modules: Modules,
    pub(crate) started: Wall,
    /// Of `/monitor/statistics`.
    pub(crate) pace: Pace,
}

impl Endpoints {
    /// Everything, as the owner has it now.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Response> {
        let snapshot = self.handle.ask(Input::Read).await;
        snapshot.ok_or_else(|| Response::unavailable("Agent is terminating"))
    }
}

/// Adds the routes.
pub(crate) fn register(endpoints: Arc<Endpoints>, router: &mut Router) {
    macro_rules! reading {
        ($answer:path) => {{
            let endpoints = endpoints.clone();
            move |request: Request| {
                let endpoints = endpoints.clone();
                async move {
                    if !reads(&request.method) {
                        return Response::method_not_allowed(&[Method::GET], &request.method);
                    }
                    match $answer(&endpoints, &request).await {
                        Ok(response) | Err(response) => response,
                    }
                }
            }
        }};
    }
    macro_rules! guarded {
        ($endpoint:literal, $answer:path) => {{
            let (path, authorizer) = (
                concat!("/slave(1)", $endpoint),
                &endpoints.shared.authorizer,
            );
            guarded(router, authorizer, path, $endpoint, reading!($answer));
        }};
    }
    router.route("/slave(1)/state", reading!(v0::state));
    guarded!("/containers", v0::containers);
    guarded!("/monitor/statistics", v0::statistics);
    guarded!("/containerizer/debug", v0::debug);
    router.route("/slave(1)/images/unused", reading!(images::unused));
    let modules = endpoints.modules.clone();
    endpoints.shared.show_modules(router, modules);
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
