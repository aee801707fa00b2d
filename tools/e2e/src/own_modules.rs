//! Modules that a site writes for itself: made by `tepui module new` outside the repository, and built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bin;

/// Makes projects of these kinds and names in a folder, and builds all at once; the folder with their libraries. What
/// they depend on is built in the workspace's own target folder, where most of it is already.
pub fn build(dir: &Path, modules: &[(&str, &str)]) -> PathBuf {
    for (kind, name) in modules {
        let mut command = Command::new(bin("tepui"));
        command.args(["module", "new", kind, name, "--path"]);
        succeeds(command.arg(dir.join(package(name))));
    }
    match modules {
        [(_, only)] => cargo_build(&dir.join(package(only))),
        several => {
            join(dir, several);
            cargo_build(dir);
        }
    }
    let libraries = dir.join("lib");
    fs::create_dir(&libraries).expect("a new folder");
    for (_, name) in modules {
        // Not to be left among the modules of the workspace.
        let built = debug().join(library(name));
        fs::copy(&built, libraries.join(library(name))).expect("the library was built");
        fs::remove_file(built).expect("just built");
    }
    libraries
}

/// The name of a module's package, which is that of its folder, too.
pub fn package(name: &str) -> String {
    name.replace('/', "-")
}

/// The name of a module's library.
pub fn library(name: &str) -> String {
    format!("lib{}.so", package(name).replace('-', "_"))
}

/// Makes one workspace of projects that are one each, so that one call of cargo builds them.
fn join(dir: &Path, modules: &[(&str, &str)]) {
    let mut profiles = String::new();
    for (_, name) in modules {
        let manifest = dir.join(package(name)).join("Cargo.toml");
        let text = fs::read_to_string(&manifest).expect("written");
        let (own, rest) = text
            .split_once("[workspace]\n")
            .expect("each is a project of its own");
        fs::write(&manifest, own).expect("own file");
        rest.clone_into(&mut profiles);
    }
    let members: Vec<String> = modules.iter().map(|(_, name)| package(name)).collect();
    let text = format!("[workspace]\nresolver = \"3\"\nmembers = {members:?}\n{profiles}");
    fs::write(dir.join("Cargo.toml"), text).expect("a file");
    fs::copy(
        dir.join(&members[0]).join("Cargo.lock"),
        dir.join("Cargo.lock"),
    )
    .expect("a lock");
}

fn cargo_build(dir: &Path) {
    let target = debug();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--offline", "--quiet"])
        .current_dir(dir)
        .env("CARGO_TARGET_DIR", target.parent().expect("target/debug"));
    succeeds(&mut command);
}

/// Where the executables under test lie.
fn debug() -> PathBuf {
    bin("tepui")
        .parent()
        .expect("target/debug/tepui")
        .to_owned()
}

#[track_caller]
fn succeeds(command: &mut Command) {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
