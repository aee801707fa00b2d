//! `/help`, `/help/PROCESS` and `/help/PROCESS/ENDPOINT`: what there is, in JSON (`format=json`), in Markdown
//! for `curl`, and as HTML for everybody else.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use crate::request::Request;
use crate::response::Response;
use crate::router::Router;

/// Endpoints and what they are for, by process.
type Pages = BTreeMap<String, BTreeMap<String, &'static str>>;

/// Adds the pages of all routes that there are now.
pub(super) fn register(router: &mut Router) {
    let mut pages = Pages::new();
    for (process, route) in router.routes() {
        let endpoints = pages.entry(process.to_owned()).or_default();
        endpoints.insert(format!("/{route}"), about(process, route));
    }
    let pages = Arc::new(pages);
    for process in pages.keys() {
        let (pages, process) = (Arc::clone(&pages), process.clone());
        router.route(&format!("/help/{process}"), move |request: Request| {
            let response = process_page(&process, &pages[&process], &request);
            async move { response }
        });
    }
    router.route("/help", move |request: Request| {
        let response = overview(&pages, &request);
        async move { response }
    });
}

/// One sentence for each endpoint. Those of exporters and others that are not in it speak for themselves.
fn about(process: &str, route: &str) -> &'static str {
    match (process, route) {
        ("allocator", "offer_constraints_debug") => {
            "Which agents the offer constraints of each framework exclude, by role."
        }
        ("files", "browse") => "Lists the directory at `path`.",
        ("files", "read") => {
            "Gives `length` bytes of the file at `path` from `offset` on; offset -1 asks for its size."
        }
        ("files", "download") => "Gives the whole file at `path`.",
        ("files", "debug") => "Lists the virtual paths and where they lie.",
        ("logging", "toggle") => "Shows the log level, or sets `level` (0 to 3) for `duration`.",
        ("metrics", "snapshot") => {
            "All metrics; those not ready within `timeout` are left out. Two answers a second."
        }
        ("profiler" | "memory-profiler", _) => "There is no profiler in this build.",
        ("system", "stats.json") => "Load, cpus and memory of the machine.",
        ("version", _) => "Version and build.",
        (_, "api/v1") => "The operator API, version 1: POST a call as JSON or protobuf.",
        (_, "api/v1/scheduler") => {
            "The scheduler API: POST a call; SUBSCRIBE answers with a stream of events."
        }
        (_, "api/v1/executor") => {
            "The executor API: POST a call; SUBSCRIBE answers with a stream of events."
        }
        (_, "api/v1/resource_provider") => "The API of resource providers.",
        (_, "health") => "200 while the process serves.",
        (_, "flags") => "The flags in effect.",
        (_, "state") => "Everything that is known, as one JSON object.",
        (_, "state-summary") => "Agents and frameworks with sums of their tasks and resources.",
        (_, "slaves") => "The agents, or the one that `slave_id` names.",
        (_, "frameworks") => "The frameworks, or the one that `framework_id` names.",
        (_, "tasks") => {
            "Tasks, newest first: `limit`, `offset`, `order` (`asc`, `des`), `framework_id`, `task_id`."
        }
        (_, "roles") => "The roles with their weights, frameworks and resources.",
        (_, "redirect") => "Redirects to the leading master.",
        (_, "teardown") => "POST `frameworkId`: ends a framework and all that it runs.",
        (_, "quota") => "GET the quotas, POST one, DELETE that of the role in the path.",
        (_, "weights") => "GET the weights, PUT new ones.",
        (_, "reserve" | "unreserve") => "POST `slaveId` and `resources`.",
        (_, "create-volumes" | "destroy-volumes") => "POST `slaveId` and `volumes`.",
        (_, "maintenance/schedule") => "GET the maintenance schedule, POST a new one.",
        (_, "maintenance/status") => "Machines that drain or are down.",
        (_, "machine/down" | "machine/up") => "POST the machines whose maintenance begins or ends.",
        (_, "containers") => {
            "Containers with their status and what they use; `container_id` names one."
        }
        (_, "monitor/statistics") => "What executors use. Two answers a second.",
        (_, "containerizer/debug") => "Calls of isolators that have not ended yet.",
        _ => "",
    }
}

/// All endpoints of a process, or the one that the path goes on with.
fn process_page(
    process: &str,
    endpoints: &BTreeMap<String, &'static str>,
    request: &Request,
) -> Response {
    let endpoint = request.rest.as_str();
    let name = format!("/{endpoint}");
    let shown: BTreeMap<&String, &str> = endpoints
        .iter()
        .filter(|(route, _)| endpoint.is_empty() || **route == name)
        .map(|(route, text)| (route, *text))
        .collect();
    if shown.is_empty() {
        return Response::not_found();
    }
    if request.query.get("format") == Some("json") {
        return Response::json(page(process, shown).to_string());
    }
    let mut text = format!("## HELP: `/{process}`\n");
    for (route, about) in shown {
        let separator = if about.is_empty() { "" } else { ": " };
        let full = format!("/{process}{}", route.trim_end_matches('/'));
        writeln!(text, "> `{full}`{separator}{about}").expect("writing to a string cannot fail");
    }
    readable(request, text)
}

fn page<'a>(process: &str, endpoints: impl IntoIterator<Item = (&'a String, &'a str)>) -> Value {
    let endpoint = |(name, text): (&String, &str)| json!({"name": name, "text": text});
    let endpoints: Vec<Value> = endpoints.into_iter().map(endpoint).collect();
    json!({"id": process, "endpoints": endpoints})
}

fn overview(pages: &Pages, request: &Request) -> Response {
    if request.query.get("format") == Some("json") {
        let all = pages.iter().map(|(process, endpoints)| {
            page(process, endpoints.iter().map(|(name, text)| (name, *text)))
        });
        let all: Vec<Value> = all.collect();
        return Response::json(json!({"processes": all}).to_string());
    }
    let mut text = "## HELP\n".to_owned();
    for name in pages.keys() {
        writeln!(text, "> [/{name}][{name}]").expect("writing to a string cannot fail");
    }
    text.push('\n');
    for name in pages.keys() {
        writeln!(text, "[{name}]: help/{name}").expect("writing to a string cannot fail");
    }
    readable(request, text)
}

fn readable(request: &Request, markdown: String) -> Response {
    let agent = request.header("user-agent").unwrap_or_default();
    if agent.starts_with("curl/") {
        return Response::full(StatusCode::OK, "text/x-markdown", markdown);
    }
    // Names of routes and fixed sentences: nothing in it is a client's.
    let page = format!(
        "<!DOCTYPE html><html><head><title>Help</title></head><body><pre>{markdown}</pre></body></html>"
    );
    Response::full(StatusCode::OK, "text/html", page)
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::router::Handler as _;

    #[tokio::test]
    async fn every_route_has_its_page() {
        let mut router = Router::with_delegate("master");
        for path in [
            "/master/state",
            "/master/api/v1",
            "/files/browse",
            "/version",
        ] {
            router.route(path, |_: Request| async { Response::not_found() });
        }
        register(&mut router);
        let get = async |path: &str| {
            let answer = router.handle(Request::new(Method::GET, path)).await;
            let body = answer.body_bytes().unwrap();
            (
                answer.status.as_u16(),
                String::from_utf8(body.to_vec()).unwrap(),
            )
        };
        let (_, all) = get("/help?format=json").await;
        let all: Value = serde_json::from_str(&all).unwrap();
        let ids: Vec<&Value> = all["processes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["id"])
            .collect();
        assert_eq!(ids, ["files", "master", "version"]);
        assert_eq!(all["processes"][1]["endpoints"][1]["name"], "/state");
        let (_, one) = get("/help/master/api/v1?format=json").await;
        let one: Value = serde_json::from_str(&one).unwrap();
        assert_eq!(one["endpoints"].as_array().unwrap().len(), 1);
        assert!(
            get("/help/files")
                .await
                .1
                .contains("`/files/browse`: Lists the directory")
        );
        assert_eq!(get("/help/nobody").await.0, 404);
        assert_eq!(get("/help/master/nothing").await.0, 404);
    }
}
