//! A module of each kind, as `tepui module new` writes it: built outside the repository, loaded from its file, in use.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use tepui_e2e::cluster::tepui;
use tepui_e2e::images::{available, busybox, of_image};
use tepui_e2e::scheduler::framework;
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, own_modules};
use tepui_proto::v1::{TaskState, command_info::Uri};

/// Kind and name.
const MODULES: [(&str, &str); 8] = [
    ("allocator", "acme/turns"),
    ("authorizer", "acme/users"),
    ("container-logger", "acme/output"),
    ("exporter", "acme/values"),
    ("fetcher", "acme/share"),
    ("image-store", "acme/roots"),
    ("isolator", "acme/greeting"),
    ("leader", "acme/last"),
];

/// Writes the configuration of a daemon that uses some of them: what selects them, and their settings.
fn config(scratch: &Scratch, daemon: &str, selection: &str, settings: &[(&str, String)]) -> String {
    let mut text = format!("{selection}\n");
    for (name, settings) in settings {
        let library = scratch
            .path()
            .join("own/lib")
            .join(own_modules::library(name));
        text += &format!("[modules.{name:?}]\n{settings}\n[load.{name:?}]\nfile = {library:?}\n");
    }
    let file = scratch.path().join(format!("{daemon}.toml"));
    fs::write(&file, text).expect("a file");
    format!("--config={}", file.display())
}

/// All files below a folder that end like this.
fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let below = entries.flat_map(|entry| match entry.path() {
        path if path.is_dir() => files(&path, end),
        path if path.to_string_lossy().ends_with(end) => vec![path],
        _ => Vec::new(),
    });
    below.collect()
}

#[test]
fn a_module_of_each_kind_is_written_built_and_serves() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let own = scratch.path().join("own");
    fs::create_dir(&own).expect("a folder");
    let libraries = own_modules::build(&own, &MODULES);
    let roots = scratch.path().join("roots");
    let root = roots.join("base");
    for part in ["bin", "etc"] {
        fs::create_dir_all(root.join(part)).expect("a folder");
    }
    busybox(&root);
    fs::write(root.join("etc/motd"), "of an own store\n").expect("a file");
    let share = scratch.path().join("share");
    fs::create_dir(&share).expect("a folder");
    fs::write(share.join("note"), "of an own fetcher\n").expect("a file");
    let of_master = config(
        &scratch,
        "master",
        "allocator = \"acme/turns\"\nauthorizers = [\"acme/users\"]\nexporters = [\"acme/values\"]\n\
         master_contender = \"acme/last\"\nmaster_detector = \"acme/last\"",
        &[
            ("acme/turns", "most_per_round = 1".to_owned()),
            ("acme/users", "users = [\"root\"]".to_owned()),
            ("acme/values", "path = \"/own/values\"".to_owned()),
            ("acme/last", String::new()),
        ],
    );
    let of_agent = config(
        &scratch,
        "agent",
        "isolation = [\"filesystem/linux\", \"docker/runtime\", \"acme/greeting\"]\n\
         image_providers = [\"acme/roots\"]\nfetcher = \"acme/share\"\ncontainer_logger = \"acme/output\"",
        &[
            (
                "acme/greeting",
                "variable = \"GREETING\"\nvalue = \"of an own isolator\"".to_owned(),
            ),
            ("acme/roots", format!("dir = {roots:?}")),
            ("acme/share", format!("dir = {share:?}")),
            ("acme/output", "keep = true".to_owned()),
        ],
    );
    let master = Daemon::master(scratch.path(), &[&of_master]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &[&of_agent]);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    let look = "cat /etc/motd note; echo $GREETING";
    let mut task = of_image("own", "acme/roots:base", Some(look));
    let command = task.command.as_mut().expect("set");
    command.uris.push(Uri {
        value: "share:note".to_owned(),
        ..Uri::default()
    });
    let mut refused = of_image("refused", "acme/roots:base", Some(look));
    refused.command.as_mut().expect("set").user = Some("nobody".to_owned());
    let absent = of_image("absent", "acme/roots:other", Some(look));
    scheduler.launch(vec![task, refused, absent]);
    let said = scheduler.wait_state("refused", TaskState::TaskError);
    assert!(said.message().contains("not authorized"), "{said:?}");
    let said = scheduler.wait_state("absent", TaskState::TaskFailed);
    assert!(said.message().contains("there is no directory"), "{said:?}");
    scheduler.wait_state("own", TaskState::TaskFinished);
    let output = files(&scratch.path().join("agent/modules"), ".stdout");
    let output: Vec<String> = output
        .iter()
        .map(|file| fs::read_to_string(file).expect("a file"))
        .collect();
    let expected = "of an own store\nof an own fetcher\nof an own isolator\n";
    assert!(
        output.iter().any(|text| text.ends_with(expected)),
        "{output:?}"
    );
    // The image was not copied: it is the site's directory, and nothing was written to it.
    assert_eq!(fs::read_dir(&root).expect("a folder").count(), 2);
    let values = master.get_text("/own/values");
    assert!(values.contains("master/tasks_finished 1"), "{values}");
    let loaded = master.get_text("/tepui/v1/modules") + &agent.get_text("/tepui/v1/modules");
    for (_, name) in MODULES {
        assert!(loaded.contains(&format!("{name:?}")), "{name}: {loaded}");
        // What the project's own README says to try, with the settings that were written for it.
        let library = libraries.join(own_modules::library(name));
        let example = own.join(own_modules::package(name)).join("example.toml");
        let (library, example) = (library.display().to_string(), example.display().to_string());
        let checked = tepui(
            master.address,
            &["module", "check", &library, "--config", &example],
        );
        assert!(checked.status.success(), "{name}: {checked:?}");
    }
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}
