//! The suite that every {{kind}} must pass, with settings of our own.

use tepui_module_conformance::{Subject, {{kind}}};

#[test]
fn it_is_a_good_{{kind}}() {
    let root = tepui_module_sdk::linked!({{kind}}: super::{{Type}});
    let settings = serde_json::json!({{json}});
    {{kind}}(&Subject::linked(root, "{{name}}", settings){{more}}).unwrap();
}
