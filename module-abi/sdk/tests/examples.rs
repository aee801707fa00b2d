//! The modules that the tutorial shows stay as short as it says.

#[test]
fn a_useful_module_has_at_most_forty_lines() {
    for (name, text) in [
        (
            "group_authorizer",
            include_str!("../examples/group_authorizer.rs"),
        ),
        ("longest_wait", include_str!("../examples/longest_wait.rs")),
        ("scratch", include_str!("../examples/scratch.rs")),
    ] {
        let (_, module) = text
            .split_once("// begin\n")
            .expect("the mark where the module begins");
        let lines = module
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count();
        assert!(lines <= 40, "{name} has {lines} lines");
    }
}
