//! The modules that `tepui module new` writes pass the suites of their kinds.

#![expect(unreachable_pub, reason = "in projects of their own these are crates")]

use serde_json::json;
use tepui_module_conformance::{
    Subject, allocator, authorizer, container_logger, exporter, fetcher, image_store, isolator,
    leader,
};

#[path = "../templates/allocator.rs"]
mod new_allocator;
#[path = "../templates/authorizer.rs"]
mod new_authorizer;
#[path = "../templates/container_logger.rs"]
mod new_container_logger;
#[path = "../templates/exporter.rs"]
mod new_exporter;
#[path = "../templates/fetcher.rs"]
mod new_fetcher;
#[path = "../templates/image_store.rs"]
mod new_image_store;
#[path = "../templates/isolator.rs"]
mod new_isolator;
#[path = "../templates/leader.rs"]
mod new_leader;

const NAME: &str = "acme/module";

#[test]
fn a_new_allocator() {
    let root = tepui_module_sdk::linked!(allocator: new_allocator::AcmeModule);
    allocator(&Subject::linked(root, NAME, json!({"most_per_round": 0}))).unwrap();
}

#[test]
fn a_new_authorizer() {
    let root = tepui_module_sdk::linked!(authorizer: new_authorizer::AcmeModule);
    authorizer(&Subject::linked(root, NAME, json!({"users": ["www-data"]}))).unwrap();
}

#[test]
fn a_new_exporter() {
    let root = tepui_module_sdk::linked!(exporter: new_exporter::AcmeModule);
    exporter(&Subject::linked(root, NAME, json!({"path": "/values"}))).unwrap();
}

#[test]
fn a_new_container_logger() {
    let root = tepui_module_sdk::linked!(container_logger: new_container_logger::AcmeModule);
    container_logger(&Subject::linked(root, NAME, json!({"keep": false}))).unwrap();
}

#[test]
fn a_new_fetcher() {
    let root = tepui_module_sdk::linked!(fetcher: new_fetcher::AcmeModule);
    fetcher(&Subject::linked(root, NAME, json!({"dir": "/"})), None).unwrap();
}

#[test]
fn a_new_image_store() {
    let root = tepui_module_sdk::linked!(image_store: new_image_store::AcmeModule);
    image_store(&Subject::linked(root, NAME, json!({"dir": "/"})), None).unwrap();
}

#[test]
fn a_new_isolator() {
    let root = tepui_module_sdk::linked!(isolator: new_isolator::AcmeModule);
    let container = Default::default();
    let settings = json!({"variable": "GREETING", "value": "hello"});
    isolator(&Subject::linked(root, NAME, settings), &container).unwrap();
}

#[test]
fn a_new_leader_module() {
    let root = tepui_module_sdk::linked!(leader: new_leader::AcmeModule);
    leader(&Subject::linked(root, NAME, json!({}))).unwrap();
}
