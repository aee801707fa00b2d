//! Libraries of earlier days load in today's host and pass today's suite.

#![cfg(all(target_arch = "x86_64", target_os = "linux", target_env = "gnu"))]

use std::path::Path;

use serde_json::json;
use tepui_module_conformance::{Subject, authorizer};

#[test]
fn the_first_library_still_serves() {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept");
    let file = kept
        .join("first-x86_64-linux-gnu.so")
        .canonicalize()
        .unwrap();
    let settings = json!({"admins": "ops", "groups": {"ops": ["root"], "web": ["www"]}});
    authorizer(&Subject::file(&file, "acme/group", settings.clone())).unwrap();
    authorizer(&Subject::process(&file, "acme/group", settings)).unwrap();
}
