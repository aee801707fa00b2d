//! What an operator reads when something is wrong at the start.

use std::process::Command;

use tepui_e2e::{Scratch, bin};

/// Runs a daemon that must refuse to start; what it said.
#[track_caller]
fn refusal(daemon: &str, flags: &[&str]) -> String {
    let output = Command::new(bin(daemon))
        .args(flags)
        .output()
        .expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    text
}

#[test]
fn an_unknown_flag_names_the_nearest_known_one() {
    let text = refusal(
        "tepui-agent",
        &[
            "--isolaton=cgroups/cpu",
            "--master=127.0.0.1:1",
            "--work_dir=/nonexistent",
        ],
    );
    assert!(
        text.contains("isolaton") && text.contains("isolation"),
        "{text}"
    );
    let text = refusal("tepui-master", &["--work_dri=/nonexistent"]);
    assert!(
        text.contains("work_dri") && text.contains("work_dir"),
        "{text}"
    );
}

#[test]
fn an_unknown_key_of_the_file_is_an_error() {
    let scratch = Scratch::new();
    let file = scratch.path().join("master.toml");
    std::fs::write(&file, "alocator = \"hierarchical\"\n").expect("the scratch folder");
    let config = format!("--config={}", file.display());
    let text = refusal(
        "tepui-master",
        &[&config, &format!("--work_dir={}", scratch.path().display())],
    );
    assert!(
        text.contains("alocator") && text.contains("allocator") && text.contains("master.toml"),
        "{text}"
    );
}

#[test]
fn a_missing_allocator_is_named_with_where_it_was_looked_for() {
    let scratch = Scratch::new();
    let work_dir = format!("--work_dir={}", scratch.path().display());
    let text = refusal(
        "tepui-master",
        &[
            "--ip=127.0.0.1",
            "--port=0",
            &work_dir,
            "--allocator=acme/fairest",
        ],
    );
    assert!(text.contains("acme/fairest"), "{text}");
    let libraries = bin("tepui")
        .parent()
        .expect("a folder")
        .display()
        .to_string();
    assert!(text.contains(&libraries), "{text}");
}

#[test]
fn a_port_in_use_is_named() {
    let scratch = Scratch::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = format!("--port={}", taken.local_addr().expect("bound").port());
    let text = refusal(
        "tepui-master",
        &[
            "--ip=127.0.0.1",
            &port,
            &format!("--work_dir={}", scratch.path().display()),
        ],
    );
    assert!(
        text.contains("in use") && text.contains(&port[7..]),
        "{text}"
    );
}
