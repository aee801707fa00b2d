//! `/help`: a list of the processes, in Markdown for `curl` and as HTML for everybody else.

use std::fmt::Write;

use http::StatusCode;

use crate::request::Request;
use crate::response::Response;
use crate::router::Router;

pub(super) fn register(router: &mut Router, process: &str) {
    let mut processes: Vec<String> = ["files", "logging", "metrics", "system", "version"]
        .map(str::to_owned)
        .into();
    processes.push(process.to_owned());
    processes.sort();
    router.route("/help", move |request: Request| {
        let response = answer(&processes, &request);
        async move { response }
    });
}

fn answer(processes: &[String], request: &Request) -> Response {
    if request.query.get("format") == Some("json") {
        let body = serde_json::json!({ "processes": processes });
        return Response::json(body.to_string());
    }
    if request
        .header("user-agent")
        .is_some_and(|agent| agent.starts_with("curl/"))
    {
        return Response::full(StatusCode::OK, "text/x-markdown", markdown(processes));
    }
    let items: String = processes
        .iter()
        .map(|name| format!("<li>/{name}</li>"))
        .collect();
    let page = format!(
        "<!DOCTYPE html><html><head><title>Help</title></head><body><ul>{items}</ul></body></html>"
    );
    Response::full(StatusCode::OK, "text/html", page)
}

fn markdown(processes: &[String]) -> String {
    let mut text = "## HELP\n".to_owned();
    for name in processes {
        writeln!(text, "> [/{name}][{name}]").expect("writing to a string cannot fail");
    }
    text.push('\n');
    for name in processes {
        writeln!(text, "[{name}]: help/{name}").expect("writing to a string cannot fail");
    }
    text
}
