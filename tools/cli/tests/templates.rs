//! The modules that `tepui module new` writes pass the suites of their kinds.

#![expect(unreachable_pub, reason = "in projects of their own these are crates")]

use serde_json::json;
use tepui_module_conformance::{Subject, allocator, authorizer, exporter, isolator, leader};

#[path = "../templates/allocator.rs"]
mod new_allocator;
#[path = "../templates/authorizer.rs"]
mod new_authorizer;
#[path = "../templates/exporter.rs"]
mod new_exporter;
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
