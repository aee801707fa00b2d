//! `/containerizer/debug`: calls of isolators and image stores that have not ended, to see which one is stuck, and how
//! far a pull is.

use serde::Deserialize;
use tepui_proto::json::Writer;

/// As much of the report of modules as is needed.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    modules: Vec<Module>,
}

#[derive(Deserialize)]
struct Module {
    name: String,
    kinds: Vec<String>,
    pending: Vec<Call>,
}

#[derive(Deserialize)]
struct Call {
    method: String,
    container: Option<String>,
    #[serde(default)]
    progress: Option<String>,
    long_poll: bool,
}

/// The body, from the report of modules. Calls that are meant to last, such as watching a limit, are not
/// pending in the sense of Mesos.
pub(super) fn body(report: &[u8]) -> Vec<u8> {
    let report = serde_json::from_slice(report).unwrap_or(Report {
        modules: Vec::new(),
    });
    let works = |module: &&Module| {
        let mut kinds = module.kinds.iter();
        kinds.any(|kind| kind == "isolator" || kind == "image-store")
    };
    let modules = report.modules.iter().filter(works);
    let mut body = Vec::new();
    Writer::new(&mut body).object(|w| {
        w.key("pending").array(|w| {
            for module in modules {
                for call in module.pending.iter().filter(|call| !call.long_poll) {
                    w.object(|w| {
                        w.key("args").object(|w| {
                            if let Some(container) = &call.container {
                                w.key("containerId").str(container);
                            }
                            if let Some(progress) = &call.progress {
                                w.key("progress").str(progress);
                            }
                        });
                        let method = call.method.to_ascii_lowercase();
                        w.key("operation")
                            .str(&format!("{}::{method}", module.name));
                    });
                }
            }
        });
    });
    body
}

#[cfg(test)]
mod tests {
    use super::body;

    #[test]
    fn calls_of_isolators_that_do_not_end_are_named() {
        let call = |method: &str, long_poll: bool| {
            serde_json::json!({
                "call": 7, "method": method, "container": "c1", "age_ms": 1.5, "long_poll": long_poll,
                "stuck": true, "progress": null,
            })
        };
        let mut pull = call("PULL", false);
        pull["progress"] = "Pulling image 'box': 1 of 2 layers".into();
        let module = |name: &str, kind: &str| {
            serde_json::json!({
                "name": name, "kinds": [kind], "state": "stuck",
                "pending": [call("PREPARE", false), call("LIMITED", true)],
            })
        };
        let report = serde_json::json!({
            "modules": [
                module("cgroups/cpu", "isolator"), module("other", "exporter"),
                { "name": "docker", "kinds": ["image-store"], "pending": [pull] },
            ],
        });
        let shown = String::from_utf8(body(report.to_string().as_bytes())).expect("text");
        let pending = r#"{"args":{"containerId":"c1"},"operation":"cgroups/cpu::prepare"}"#;
        let pull = r#"{"args":{"containerId":"c1","progress":"Pulling image 'box': 1 of 2 layers"},"operation":"docker::pull"}"#;
        assert_eq!(shown, format!(r#"{{"pending":[{pending},{pull}]}}"#));
        assert_eq!(body(b"{}"), br#"{"pending":[]}"#);
    }
}
