//! Which path is answered by what.

use std::sync::Arc;

use tepui_http::shared::ExporterError;
use tepui_http::{Method, Request, Response, Router};

use crate::master::Site;
use crate::refusal::Refusal;
use crate::v0::{Change, Read};
use crate::{links, registrar};

/// Process id of the master's endpoints, and the delegate of paths without one.
const PROCESS: &str = "master";

/// All routes of a master, but those that are disabled.
pub(crate) fn router(site: &Arc<Site>, disabled: Vec<String>) -> Result<Router, ExporterError> {
    let mut router = Router::with_delegate(PROCESS);
    site.shared.register(&mut router, PROCESS);
    v1(&mut router, site);
    v0(&mut router, site);
    allocator(&mut router, site);
    registry(&mut router, site);
    own(&mut router, site);
    site.shared.finish(&mut router)?;
    router.disable(disabled);
    Ok(router)
}

fn v1(router: &mut Router, site: &Arc<Site>) {
    let this = Arc::clone(site);
    router.route("/master/api/v1/scheduler", move |request: Request| {
        let site = Arc::clone(&this);
        async move {
            match site.leading(&request.target) {
                Ok(apis) => apis.scheduler.answer(request).await,
                Err(elsewhere) => *elsewhere,
            }
        }
    });
    let this = Arc::clone(site);
    router.route("/master/api/v1", move |request: Request| {
        let site = Arc::clone(&this);
        async move {
            match site.leading(&request.target) {
                Ok(apis) => apis.operator.answer(request).await,
                Err(elsewhere) => *elsewhere,
            }
        }
    });
}

fn v0(router: &mut Router, site: &Arc<Site>) {
    for (name, endpoint) in Read::ALL {
        let this = Arc::clone(site);
        router.route(&format!("/{PROCESS}/{name}"), move |request: Request| {
            let site = Arc::clone(&this);
            async move {
                match site.leading(&request.target) {
                    Ok(apis) => apis.v0.read(endpoint, request).await,
                    Err(elsewhere) => *elsewhere,
                }
            }
        });
    }
    for (name, endpoint) in Change::ALL {
        let this = Arc::clone(site);
        router.route(&format!("/{PROCESS}/{name}"), move |request: Request| {
            let site = Arc::clone(&this);
            async move {
                match site.leading(&request.target) {
                    Ok(apis) => apis.v0.change(endpoint, request).await,
                    Err(elsewhere) => *elsewhere,
                }
            }
        });
    }
    let this = Arc::clone(site);
    router.route("/master/redirect", move |request: Request| {
        let response = redirect(&this, &request);
        async move { response }
    });
}

/// `/redirect` points at the leader, also when it is this master; nothing is below it.
fn redirect(site: &Site, request: &Request) -> Response {
    if !request.rest.is_empty() || request.path.ends_with('/') {
        return Response::not_found();
    }
    match site.leader() {
        Some(leader) => Response::redirect(&format!("//{leader}")),
        None => Response::unavailable("No leader elected"),
    }
}

/// What the offer constraints of frameworks exclude, as Mesos' allocator shows it.
fn allocator(router: &mut Router, site: &Arc<Site>) {
    let this = Arc::clone(site);
    router.route(
        "/allocator/offer_constraints_debug",
        move |request: Request| {
            let site = Arc::clone(&this);
            async move {
                match site.leading(&request.target) {
                    Ok(apis) => apis.v0.read(Read::OfferConstraints, request).await,
                    Err(elsewhere) => *elsewhere,
                }
            }
        },
    );
}

/// Shown by a leader; nobody else has it open.
fn registry(router: &mut Router, site: &Arc<Site>) {
    let this = Arc::clone(site);
    router.route("/registrar(1)/registry", move |request: Request| {
        let site = Arc::clone(&this);
        async move {
            let Some(owner) = site.leading(&request.target).ok().map(|apis| &apis.owner) else {
                return Response::unavailable("Only a leading master has the registry open");
            };
            match owner.view().await {
                Ok(view) => Response::jsonp(&request, vec![registrar::body(&view).into()]),
                Err(stopped) => Refusal::from(stopped).into(),
            }
        }
    });
}

/// Endpoints that only Tepui has.
fn own(router: &mut Router, site: &Arc<Site>) {
    let this = Arc::clone(site);
    router.on(
        &[Method::GET],
        "/tepui/v1/agent",
        move |request: Request| {
            let response = match this.leading(&request.target) {
                Ok(apis) => links::upgrade(request, Arc::clone(&apis.links), &this),
                Err(elsewhere) => *elsewhere,
            };
            async move { response }
        },
    );
    let modules = Arc::clone(&site.modules);
    site.shared.show_modules(router, modules);
}
