//! The suite that every {{kind}} must pass, with settings of our own.

#[test]
fn it_is_a_good_{{kind}}() {
    let root = tepui_module_sdk::linked!({{kind}}: super::{{Type}});
    tepui_module_conformance::check(root, "{{name}}", include_str!("../example.toml"));
}
