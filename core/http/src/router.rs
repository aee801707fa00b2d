//! Which handler answers a path, with the rules of libprocess.
//!
//! Every route lives under a process (`/master/state`, `/files/browse`). The first part of a path
//! names the process; when there is none of that name the path is taken to be below the *delegate*,
//! so `/state` is `/master/state` on a master. Below the process the longest registered prefix (by
//! path components) wins, so `/api/v1/anything` is answered by `/api/v1`. The bare process is a 404
//! unless it is a route of its own (`/version`). A route answers every method unless it says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use http::Method;

use crate::request::Request;
use crate::response::Response;

/// Something that answers requests. Closures from [`Request`] to a future are handlers.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: Request) -> BoxFuture<'static, Response>;
}

impl<F, Fut> Handler for F
where
    F: Fn(Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Response> + Send + 'static,
{
    fn handle(&self, request: Request) -> BoxFuture<'static, Response> {
        Box::pin(self(request))
    }
}

struct Route {
    methods: Vec<Method>,
    handler: Arc<dyn Handler>,
}

/// A table of routes, itself a handler.
#[derive(Default)]
pub struct Router {
    processes: BTreeMap<String, BTreeMap<String, Route>>,
    delegate: Option<String>,
    /// Full paths that are answered with 403.
    disabled: BTreeSet<String>,
}

impl Router {
    /// A router whose paths without a known process belong to `delegate`.
    pub fn with_delegate(delegate: &str) -> Router {
        Router {
            delegate: Some(delegate.to_owned()),
            ..Router::default()
        }
    }

    /// Answers 403 on these paths, as `--firewall_rules` of Mesos does. A path is that of a route
    /// (`/master/state`); it counts however a request spells it.
    pub fn disable(&mut self, paths: impl IntoIterator<Item = String>) {
        self.disabled.extend(paths);
    }

    /// Adds a route for all methods. `path` starts with its process: `/master/state`.
    pub fn route(&mut self, path: &str, handler: impl Handler) {
        self.add(path, Vec::new(), Arc::new(handler));
    }

    /// Adds a route that answers 405 to other methods.
    pub fn on(&mut self, methods: &[Method], path: &str, handler: impl Handler) {
        self.add(path, methods.to_vec(), Arc::new(handler));
    }

    fn add(&mut self, path: &str, methods: Vec<Method>, handler: Arc<dyn Handler>) {
        let (process, rest) = split_first(path);
        let routes = self.processes.entry(process.to_owned()).or_default();
        routes.insert(rest.to_owned(), Route { methods, handler });
    }

    /// All routes: process and what is below it.
    pub fn routes(&self) -> impl Iterator<Item = (&str, &str)> {
        let processes = self.processes.iter();
        processes.flat_map(|(process, routes)| {
            let routes = routes.keys();
            routes.map(move |route| (process.as_str(), route.as_str()))
        })
    }

    /// Whether some route answers a path.
    pub fn answers(&self, path: &str) -> bool {
        self.find(path).is_some()
    }

    /// The route for a decoded path, with its full path, and what of the path follows it.
    fn find(&self, path: &str) -> Option<(&Route, String, String)> {
        let (first, below) = split_first(path);
        let (process, routes, below) = match self.processes.get(first) {
            Some(routes) => (first, routes, below),
            None => {
                let delegate = self.delegate.as_deref()?;
                let routes = self.processes.get(delegate)?;
                (delegate, routes, path.trim_matches('/'))
            }
        };
        let parts: Vec<&str> = below.split('/').filter(|part| !part.is_empty()).collect();
        if parts.is_empty() {
            let route = routes.get("")?;
            return Some((route, format!("/{process}"), String::new()));
        }
        (1..=parts.len()).rev().find_map(|length| {
            let name = parts[..length].join("/");
            let route = routes.get(&name)?;
            Some((
                route,
                format!("/{process}/{name}"),
                parts[length..].join("/"),
            ))
        })
    }
}

impl Handler for Router {
    fn handle(&self, mut request: Request) -> BoxFuture<'static, Response> {
        let response = match self.find(&request.path) {
            None => Response::not_found(),
            Some((_, path, _)) if self.disabled.contains(&path) => {
                Response::forbidden(format!("Endpoint '{path}' is disabled"))
            }
            Some((route, _, _))
                if !route.methods.is_empty() && !route.methods.contains(&request.method) =>
            {
                Response::method_not_allowed(&route.methods, &request.method)
            }
            Some((route, _, rest)) => {
                request.rest = rest;
                return route.handler.handle(request);
            }
        };
        Box::pin(std::future::ready(response))
    }
}

/// First part of a path and the rest, both without slashes at their ends.
fn split_first(path: &str) -> (&str, &str) {
    let path = path.trim_matches('/');
    let (first, rest) = path.split_once('/').unwrap_or((path, ""));
    (first, rest.trim_matches('/'))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    async fn ask(router: &Router, method: Method, path: &str) -> (StatusCode, String) {
        let response = router.handle(Request::new(method, path)).await;
        let body = response.body_bytes().unwrap();
        (response.status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn routes_as_libprocess() {
        let mut router = Router::with_delegate("master");
        for path in [
            "/master/state",
            "/master/api/v1",
            "/master/api/v1/scheduler",
            "/files/read",
            "/slave(1)/state",
        ] {
            router.route(path, move |request: Request| async move {
                Response::json(format!("{path}|{}", request.rest))
            });
        }
        router.on(&[Method::POST], "/master/teardown", |_: Request| async {
            Response::json("done")
        });

        let found = [
            ("/state", "/master/state|"),
            ("/state/", "/master/state|"),
            ("/master/state", "/master/state|"),
            ("//master//state", "/master/state|"),
            ("/api/v1/more", "/master/api/v1|more"),
            (
                "/api/v1/scheduler/more/still",
                "/master/api/v1/scheduler|more/still",
            ),
            ("/files/read?path=x", "/files/read|"),
            ("/slave%281%29/state", "/slave(1)/state|"),
        ];
        for (path, expected) in found {
            assert_eq!(
                ask(&router, Method::GET, path).await,
                (StatusCode::OK, expected.to_owned()),
                "{path}"
            );
        }
        for path in [
            "/",
            "/master",
            "/slave(1)",
            "/master/state.json",
            "/nope",
            "/files",
            "/api",
        ] {
            let expected = (StatusCode::NOT_FOUND, "404 Not Found.".to_owned());
            assert_eq!(ask(&router, Method::GET, path).await, expected, "{path}");
        }
        router.disable(["/master/api/v1".to_owned()]);
        for path in ["/api/v1", "/master/api/v1/", "//master//api/v1/more"] {
            let text = "Endpoint '/master/api/v1' is disabled".to_owned();
            let expected = (StatusCode::FORBIDDEN, text);
            assert_eq!(ask(&router, Method::POST, path).await, expected, "{path}");
        }
        // What is longer is another route.
        let scheduler = ask(&router, Method::GET, "/api/v1/scheduler").await;
        assert_eq!(scheduler.0, StatusCode::OK);
        let refused = "405 Method Not Allowed. Expecting one of { 'POST' }, but received 'GET'.";
        let expected = (StatusCode::METHOD_NOT_ALLOWED, refused.to_owned());
        assert_eq!(ask(&router, Method::GET, "/teardown").await, expected);
        assert_eq!(
            ask(&router, Method::POST, "/teardown").await.0,
            StatusCode::OK
        );
    }
}
