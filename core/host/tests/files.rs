//! Real libraries through the whole way: search, verification, trial, the daemon and a child process.
//!
//! The libraries are built by `cargo xtask build`; `cargo xtask test` sets `TEPUI_MODULE_DIRS`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tepui_host::config::{Load, ModuleConfig, RunIn};
use tepui_host::kinds::allocator::AllocatorClient;
use tepui_host::kinds::authorizer::AuthorizerClient;
use tepui_host::report::State;
use tepui_host::{CallError, HostSettings, Instance, ModuleHost};
use tepui_model::allocation::{Fact, Round};
use tepui_model::authorization::Action;

/// Where the libraries are.
fn built() -> PathBuf {
    let dirs = std::env::var_os("TEPUI_MODULE_DIRS").expect(
        "these tests load module libraries, which must be built first: run `cargo xtask build` and set \
         TEPUI_MODULE_DIRS to target/debug, or run `cargo xtask test`",
    );
    std::env::split_paths(&dirs)
        .next()
        .expect("at least one directory")
}

fn library(name: &str) -> PathBuf {
    built().join(format!("libtepui_{name}.so"))
}

fn settings(config: ModuleConfig) -> HostSettings {
    let mut settings = HostSettings::new("master", config);
    settings.module_host = Some(env!("CARGO_BIN_EXE_tepui-module-host").into());
    settings.timeout = Duration::from_secs(20);
    settings
}

fn host(config: ModuleConfig) -> ModuleHost {
    ModuleHost::new(settings(config))
}

fn run_in(name: &str, run_in: RunIn) -> ModuleConfig {
    let mut config = ModuleConfig::default();
    config.load.insert(
        name.into(),
        Load {
            run_in,
            ..Load::default()
        },
    );
    config
}

fn load(name: &str, mode: RunIn, timeout: Duration) -> (ModuleHost, Instance) {
    let mut settings = settings(run_in(name, mode));
    settings.timeout = timeout;
    settings.grace = Duration::from_millis(100);
    let host = ModuleHost::new(settings);
    let instance = host.load("authorizer", name).unwrap();
    (host, instance)
}

/// Why a module of this configuration is refused, in a few lines.
#[track_caller]
fn refusal(config: ModuleConfig, kind: &str, name: &str) -> String {
    let mut settings = settings(config);
    settings.trial = Duration::from_secs(3);
    let text = ModuleHost::new(settings)
        .load(kind, name)
        .unwrap_err()
        .to_string();
    assert!(text.lines().count() <= 12 && text.len() < 2000, "{text}");
    text
}

fn with_file(name: &str, file: &Path) -> ModuleConfig {
    let mut config = ModuleConfig::default();
    config.load.insert(
        name.into(),
        Load {
            file: Some(file.into()),
            ..Load::default()
        },
    );
    config
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_serves_the_same_in_the_daemon_and_in_a_child() {
    let dir = tempfile::tempdir().unwrap();
    for (mode, runtime) in [
        (RunIn::Daemon, false),
        (RunIn::Process, false),
        (RunIn::Daemon, true),
        (RunIn::Process, true),
    ] {
        let mut settings = settings(run_in("allow-all", mode));
        settings.runtime_dir = runtime.then(|| dir.path().join("run"));
        let host = ModuleHost::new(settings);
        let client = AuthorizerClient::new(host.load("authorizer", "allow-all").unwrap());
        let approver = client.approver(None, Action::RunTask).await.unwrap();
        assert_eq!(approver.constant(), Some(true));
        let report = host.report().modules.remove(0);
        assert_eq!(
            (report.state, report.run_in, report.instance),
            (State::Active, mode, 1)
        );
        assert_eq!(
            report.file,
            Some(library("authorizers").display().to_string())
        );
        assert_eq!(host.children().len(), usize::from(mode == RunIn::Process));
        if runtime {
            let copy = dir.path().join(format!("run/modules/{}.so", report.sha256));
            assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o500);
        }
        host.release();
    }
}

#[test]
fn contender_and_detector_are_one_instance() {
    let host = host(ModuleConfig::default());
    let contender = host.load("leader-contender", "standalone").unwrap();
    let detector = host.load("leader-detector", "standalone").unwrap();
    assert_eq!(host.report().modules.len(), 1);
    assert_eq!(contender.name(), detector.name());
}

#[test]
fn what_is_not_required_may_be_missing() {
    let mut config = ModuleConfig::default();
    config.load.insert(
        "acme/scratch".into(),
        Load {
            required: false,
            ..Load::default()
        },
    );
    let names = ["acme/scratch".to_string()];
    assert!(
        host(config)
            .load_all("isolator", &names)
            .unwrap()
            .is_empty()
    );
    assert!(
        host(ModuleConfig::default())
            .load_all("isolator", &names)
            .is_err()
    );
}

#[test]
fn an_allocator_answers_in_a_child() {
    let host = host(run_in("round-robin", RunIn::Process));
    let mut client = AllocatorClient::new(host.load("allocator", "round-robin").unwrap());
    client.apply(&[Fact::Reset]).unwrap();
    assert_eq!(client.allocate(&Round::default()).unwrap(), []);
}

#[test]
fn the_first_directory_that_has_the_name_wins() {
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str| std::fs::copy(library("authorizers"), dir.path().join(name)).unwrap();
    let mut config = ModuleConfig {
        dirs: vec!["/nowhere".into(), dir.path().into()],
        ..ModuleConfig::default()
    };
    copy("libmine.so");
    std::fs::write(dir.path().join("libother.so"), "no library at all").unwrap();
    let found = host(config.clone())
        .search()
        .find("authorizer", "local", None)
        .unwrap();
    assert_eq!(found.file, dir.path().join("libmine.so"));

    copy("libtwin.so");
    let text = refusal(config.clone(), "authorizer", "local");
    let dir_text = dir.path().display();
    assert_eq!(
        text,
        format!(
            "module 'local' is in two files of {dir_text}:\n  {dir_text}/libmine.so\n  {dir_text}/libtwin.so\n  \
         remove one, or name the file in [load.\"local\"]"
        )
    );
    // A file that is named is not searched for; a name without a directory is (Mesos' manifests).
    config.load = with_file("local", &dir.path().join("libtwin.so")).load;
    assert!(host(config.clone()).check("authorizer", "local").is_ok());
    config.load = with_file("local", Path::new("libtwin.so")).load;
    assert!(host(config).check("authorizer", "local").is_ok());
}

#[test]
fn what_is_missing_is_said_with_where_it_was_looked_for() {
    let config = ModuleConfig {
        dirs: vec!["/nowhere".into()],
        ..ModuleConfig::default()
    };
    let text = refusal(config.clone(), "allocator", "hierarchial");
    assert!(text.starts_with("no module 'hierarchial' of kind allocator was found; did you mean 'hierarchical'?\n  looked in:\n    /nowhere (is not there)\n"), "{text}");
    // A name that is one of several of a module, too.
    let alias = refusal(config.clone(), "isolator", "cgroups/device");
    assert!(alias.contains("did you mean 'cgroups/devices'?"), "{alias}");
    assert!(
        text.contains(&format!("\n    {} (", built().display())),
        "{text}"
    );
    let text = refusal(config, "allocator", "local");
    assert!(text.starts_with("no module 'local' of kind allocator was found: the module of this name is of kind authorizer"), "{text}");
}

#[test]
fn files_that_are_not_what_they_should_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("lib.so");
    let shown = file.display();
    let refused = || refusal(with_file("local", &file), "authorizer", "local");

    assert_eq!(
        refused(),
        format!("{shown}: No such file or directory (os error 2)")
    );
    std::fs::write(&file, "text").unwrap();
    assert_eq!(
        refused(),
        format!("{shown}: not a module library: it has no note (section .tepui)")
    );
    let bytes = std::fs::read(library("authorizers")).unwrap();
    for part in [100, bytes.len() / 2, bytes.len() - 100] {
        std::fs::write(&file, &bytes[..part]).unwrap();
        assert!(
            refused().starts_with(&format!("{shown}: damaged or cut off: ")),
            "{part}: {}",
            refused()
        );
    }
    std::fs::write(&file, &bytes).unwrap();
    let mode =
        |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o666);
    assert_eq!(
        refused(),
        format!(
            "{shown}: it could be changed by others than the daemon's owners\n  \
         expected: only those may write it who may write the daemon's executable\n  \
         found: anyone may write {shown}\n  change owner or mode (chown root, chmod go-w)"
        )
    );
    mode(0o644);
    let mut config = with_file("local", &file);
    config.load.get_mut("local").unwrap().sha256 = Some("0".repeat(64));
    let text = refusal(config, "authorizer", "local");
    assert!(
        text.starts_with(&format!(
            "{shown}: the digest is not the configured one\n  expected: 0000"
        )),
        "{text}"
    );

    let mut config = with_file("local", &file);
    config.set("local", "run_taks", serde_json::json!([]));
    let text = refusal(config, "authorizer", "local");
    assert!(text.contains("run_taks"), "{text}");
    assert!(
        host(with_file("local", &file))
            .check("authorizer", "local")
            .is_ok()
    );
}

#[test]
fn libraries_that_would_harm_the_daemon_are_refused() {
    for (name, file, expected) in [
        (
            "bad/layout",
            "bad_layout",
            "its tables are not those of this host: the layout of a table or of a type in it differs",
        ),
        ("bad/abort", "bad_abort", "a panic in it ended its process"),
        (
            "bad/promised",
            "bad_lying",
            "its note promises this module, and its manifest does not have it",
        ),
        (
            "bad/panic-in-create",
            "bad_misbehaving",
            "refused to start: ",
        ),
        (
            "bad/hang-in-create",
            "bad_misbehaving",
            "it hung for 3s in create",
        ),
        (
            "bad/crash-in-create",
            "bad_misbehaving",
            "the process ended (signal: 6 (SIGABRT)",
        ),
        (
            "bad/exit-in-create",
            "bad_misbehaving",
            "the process ended (exit status: 0) in create",
        ),
        (
            "bad/invalid-settings",
            "bad_misbehaving",
            "\"level\" is a required property",
        ),
    ] {
        let text = refusal(ModuleConfig::default(), "authorizer", name);
        assert!(text.contains(expected), "{name}: {text}");
        assert!(
            text.contains(&format!("libtepui_{file}.so")),
            "{name}: {text}"
        );
    }
    let mut config = ModuleConfig::default();
    config.set("bad/invalid-settings", "level", 12.into());
    let text = refusal(config.clone(), "authorizer", "bad/invalid-settings");
    assert!(
        text.ends_with("refused to start: level: 12 is not below 10"),
        "{text}"
    );
    config.set("bad/invalid-settings", "level", 3.into());
    config.set("bad/invalid-settings", "leval", 3.into());
    let text = refusal(config, "authorizer", "bad/invalid-settings");
    assert!(
        text.contains("\n    unknown setting 'leval'; did you mean 'level'?"),
        "{text}"
    );

    // Built as a module must not be: seen in the file, before any of its code runs.
    let aborts = built()
        .join("../abort/libtepui_bad_abort.so")
        .canonicalize()
        .expect("built by cargo xtask build");
    let text = refusal(with_file("bad/abort", &aborts), "authorizer", "bad/abort");
    assert!(text.contains("a panic in it would not stay in it\n  expected: a build that unwinds\n  found: no import of the unwinder"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_after_an_await_costs_that_call() {
    for mode in [RunIn::Daemon, RunIn::Process] {
        let (host, instance) = load("bad/panic-after-await", mode, Duration::from_secs(20));
        let client = AuthorizerClient::new(instance);
        let error = client.approver(None, Action::RunTask).await.unwrap_err();
        assert!(
            error.to_string().contains("after an await, as it should"),
            "{mode:?}: {error}"
        );
        assert!(error.is_lost());
        client.instance().newer_than(1).await;
        let report = host.report().modules.remove(0);
        assert_eq!(
            (report.state, report.restarts),
            (State::Active, 1),
            "{mode:?}"
        );
    }
}

#[test]
fn a_panic_in_a_call_costs_that_round() {
    for mode in [RunIn::Daemon, RunIn::Process] {
        let host = host(run_in("bad/panic-in-call", mode));
        let mut client = AllocatorClient::new(host.load("allocator", "bad/panic-in-call").unwrap());
        client.apply(&[Fact::Reset]).unwrap();
        let error = client.allocate(&Round::default()).unwrap_err();
        assert!(
            error.to_string().contains("in a round, as it should"),
            "{mode:?}: {error}"
        );
        assert!(client.needs_snapshot());
        let end = Instant::now() + Duration::from_secs(30);
        while client.apply(&[Fact::Reset]).is_err() {
            assert!(Instant::now() < end, "{mode:?}: no new instance");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(host.report().modules[0].restarts, 1, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hang_is_named_and_a_child_that_hangs_is_ended() {
    for name in ["bad/hang-in-start", "bad/never-answers"] {
        let (host, instance) = load(name, RunIn::Daemon, Duration::from_millis(300));
        let client = AuthorizerClient::new(instance);
        let error = client.approver(None, Action::RunTask).await.unwrap_err();
        assert!(
            matches!(
                error,
                CallError::Deadline {
                    method: "APPROVERS",
                    ..
                }
            ),
            "{name}: {error}"
        );
        let stuck = |report: tepui_host::report::ModuleReport| report.state == State::Stuck;
        // One that waits is cancelled at its await; one that keeps the thread is stuck for good.
        let hangs = name == "bad/hang-in-start";
        until("its state", || {
            stuck(host.report().modules.remove(0)) == hangs
        })
        .await;
    }
    let (host, instance) = load(
        "bad/hang-in-start",
        RunIn::Process,
        Duration::from_millis(300),
    );
    let child = host.children();
    let client = AuthorizerClient::new(instance);
    let error = client.approver(None, Action::RunTask).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline { .. }), "{error}");
    client.instance().newer_than(1).await;
    assert_ne!(host.children(), child);
    let trouble = host.report().modules.remove(0).trouble.unwrap();
    assert!(
        trouble.contains("APPROVERS did not end after its deadline"),
        "{trouble}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_while_calls_run_refuses_them_until_it_is_back() {
    let (host, instance) = load("bad/never-answers", RunIn::Process, Duration::from_secs(60));
    let client = AuthorizerClient::new(instance.clone());
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.approver(None, Action::RunTask).await.map(drop) })
        })
        .collect();
    until("the calls run", || {
        host.report().modules[0].pending.len() == 20
    })
    .await;
    let child = host.children()[0];
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(child as i32),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    for call in calls {
        let error = call.await.unwrap().unwrap_err();
        assert!(
            error
                .to_string()
                .contains("the process ended (signal: 9 (SIGKILL))"),
            "{error}"
        );
    }
    if !instance.is_active() {
        let error = client.approver(None, Action::RunTask).await.unwrap_err();
        assert!(matches!(error, CallError::Away { .. }), "{error}");
    }
    instance.newer_than(1).await;
    let report = host.report().modules.remove(0);
    assert_eq!((report.state, report.restarts), (State::Active, 1));
    assert_ne!(host.children(), [child]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_in_a_child_is_no_crash_of_the_daemon() {
    let (host, instance) = load(
        "bad/crash-in-start",
        RunIn::Process,
        Duration::from_secs(20),
    );
    let client = AuthorizerClient::new(instance);
    for generation in 1..=2 {
        let error = client.approver(None, Action::RunTask).await.unwrap_err();
        assert!(error.to_string().contains("SIGABRT"), "{error}");
        client.instance().newer_than(generation).await;
    }
    assert_eq!(host.report().modules[0].restarts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_answer_is_no_answer() {
    for mode in [RunIn::Daemon, RunIn::Process] {
        let (_host, instance) = load("bad/answers-twice", mode, Duration::from_secs(20));
        let client = AuthorizerClient::new(instance);
        let approver = client.approver(None, Action::RunTask).await.unwrap();
        assert_eq!(approver.constant(), Some(false), "{mode:?}");
    }
}
