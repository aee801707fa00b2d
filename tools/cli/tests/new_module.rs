//! From nothing to an authorizer that a daemon can load: written by the command, outside of the
//! checkout, built by cargo, checked, and asked in the daemon and in a child process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tepui_host::config::ModuleConfig;
use tepui_host::kinds::authorizer::{AuthorizerClient, ObjectRef};
use tepui_host::{HostSettings, ModuleHost};
use tepui_model::authorization::{Action, Subject};

fn tepui(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tepui"))
        .args(args)
        .output()
        .unwrap()
}

#[track_caller]
fn good(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{error}", output.status);
    text
}

/// Builds it as its author would, but without the network and with the dependencies built here before.
fn build(project: &Path) -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_tepui"));
    let target = own.ancestors().nth(2).unwrap();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--offline", "--quiet"])
        .current_dir(project)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .unwrap();
    good(&output);
    // Beside the project, as an author has it: not among the modules of the workspace.
    let library = project.join("libacme_group.so");
    let built = target.join("debug/libacme_group.so");
    std::fs::copy(&built, &library).unwrap();
    std::fs::remove_file(built).unwrap();
    library
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_authorizer_refuses_one_user_and_admits_another() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("acme");
    let path = project.display().to_string();
    good(&tepui(&[
        "module",
        "new",
        "authorizer",
        "acme/group",
        "--path",
        &path,
    ]));
    let lines = std::fs::read_to_string(project.join("src/lib.rs"))
        .unwrap()
        .lines()
        .count();
    assert!(lines <= 40, "{lines} lines");
    let again = tepui(&["module", "new", "authorizer", "acme/group", "--path", &path]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is there already, and not empty"));

    let library = build(&project);
    let file = library.display().to_string();
    let example = project.join("example.toml").display().to_string();
    let listed = good(&tepui(&["module", "list", &file]));
    assert!(listed.contains("acme/group"), "{listed}");
    let checked = good(&tepui(&["module", "check", &file, "--config", &example]));
    assert!(
        checked.contains("  authorizer acme/group: ok\n"),
        "{checked}"
    );
    let schema = good(&tepui(&["module", "schema", "acme/group", "--dir", &path]));
    assert!(
        schema.contains("Users whose tasks may run and be seen."),
        "{schema}"
    );

    for run_in in ["daemon", "process"] {
        let text = std::fs::read_to_string(&example).unwrap()
            + &format!("[load.\"acme/group\"]\nfile = \"{file}\"\nrun_in = \"{run_in}\"\n");
        let config = dir.path().join(format!("{run_in}.toml"));
        std::fs::write(&config, &text).unwrap();
        let shown = good(&tepui(&["config", "check", &config.display().to_string()]));
        assert!(
            shown.contains("to be given otherwise: work_dir\n"),
            "{shown}"
        );
        assert!(
            shown.contains(&format!("authorizer acme/group: ok\n    file      {file}")),
            "{shown}"
        );
        assert!(shown.contains(&format!("runs in   {run_in}")), "{shown}");

        let table: toml::Table = text.parse().unwrap();
        let part = |name: &str| table[name].as_table().unwrap().clone();
        let mut modules = ModuleConfig::default();
        modules.add_settings(&config, part("modules")).unwrap();
        modules.add_load(&config, part("load")).unwrap();
        let mut settings = HostSettings::new("master", modules);
        settings.module_host =
            Some(Path::new(env!("CARGO_BIN_EXE_tepui")).with_file_name("tepui-module-host"));
        let host = ModuleHost::new(settings);
        let client = AuthorizerClient::new(host.load("authorizer", "acme/group").unwrap());
        let subject = Subject::principal("anyone");
        let approver = client
            .approver(Some(&subject), Action::RunTask)
            .await
            .unwrap();
        assert!(
            approver
                .approved(&ObjectRef::value("www-data"))
                .await
                .unwrap(),
            "{run_in}"
        );
        assert!(
            !approver.approved(&ObjectRef::value("root")).await.unwrap(),
            "{run_in}"
        );
    }
}
