//! Containers without kernel isolators: what any user on any Linux gets.

mod common;

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{Notes, containerizer, read, shell, wait_for};
use tepui_containerizer::{Command, Containerizer, Exit, Isolator, LaunchError, Settings};
use tepui_model::resources::Resources;
use tepui_module_proto::isolator::Limitation;

#[tokio::test]
async fn a_command_runs_in_its_sandbox_and_its_status_is_raw() {
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    let mut config = shell(
        at.path(),
        "c",
        "pwd; echo \"$A\"; echo $PATH; echo no >&2; exit 7",
    );
    config.environment = vec![("A".to_owned(), " x  y ".to_owned())];
    let launched = containerizer.launch(config.clone()).await.unwrap();
    assert!(launched.pid > 0);
    let again = containerizer.launch(config.clone()).await;
    assert!(matches!(again, Err(LaunchError::Exists(_))), "{again:?}");
    let termination = containerizer.wait(&config.id).await.unwrap();
    assert_eq!(termination.exit, Exit::Status(7 << 8));
    assert!(!termination.stopped && !termination.destroyed && termination.limitation.is_none());
    let sandbox = config.sandbox.display();
    assert_eq!(
        read(&config, "stdout"),
        format!(
            "{sandbox}\n x  y \n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        )
    );
    assert_eq!(read(&config, "stderr"), "no\n");
    let mode = std::fs::metadata(&config.sandbox)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o750);
    assert_eq!(std::fs::read_dir(at.path().join("run")).unwrap().count(), 0);
    containerizer.forget(&config.id).unwrap();
    assert_eq!(
        std::fs::read_dir(at.path().join("meta")).unwrap().count(),
        0
    );
    assert!(containerizer.wait(&config.id).await.is_err());
}

#[tokio::test]
async fn arguments_reach_the_program_unchanged() {
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    let mut config = shell(at.path(), "c", "");
    let arguments = ["printf", "[%s]", "a b", "", "$HOME", "*"];
    config.command = Some(Command {
        shell: false,
        value: "printf".to_owned(),
        arguments: arguments.map(str::to_owned).to_vec(),
    });
    containerizer.launch(config.clone()).await.unwrap();
    assert_eq!(
        containerizer.wait(&config.id).await.unwrap().exit,
        Exit::Status(0)
    );
    assert_eq!(read(&config, "stdout"), "[a b][][$HOME][*]");
}

#[tokio::test]
async fn a_missing_program_is_a_command_that_ends_with_one() {
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    let mut config = shell(at.path(), "c", "");
    config.command = Some(Command {
        shell: false,
        value: "/no/such/program".to_owned(),
        arguments: Vec::new(),
    });
    containerizer.launch(config.clone()).await.unwrap();
    assert_eq!(
        containerizer.wait(&config.id).await.unwrap().exit,
        Exit::Status(1 << 8)
    );
}

#[tokio::test]
async fn stop_is_gentle_first() {
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    let polite = shell(
        at.path(),
        "polite",
        "trap 'echo over; exit 3' TERM; echo up; while :; do sleep 0.01; done",
    );
    let stubborn = shell(
        at.path(),
        "stubborn",
        "trap '' TERM; echo up; while :; do sleep 0.01; done",
    );
    for config in [&polite, &stubborn] {
        containerizer.launch(config.clone()).await.unwrap();
        wait_for("the trap", || read(config, "stdout") == "up\n").await;
    }
    containerizer
        .stop(&polite.id, Duration::from_secs(60))
        .unwrap();
    containerizer
        .stop(&stubborn.id, Duration::from_millis(100))
        .unwrap();
    let termination = containerizer.wait(&polite.id).await.unwrap();
    assert_eq!(
        (termination.exit, termination.stopped),
        (Exit::Status(3 << 8), true)
    );
    let termination = containerizer.wait(&stubborn.id).await.unwrap();
    assert_eq!(
        (termination.exit, termination.stopped),
        (Exit::Status(9), true)
    );
}

#[tokio::test]
async fn a_program_that_is_not_of_this_release_is_refused_by_its_name() {
    let at = tempfile::tempdir().unwrap();
    for (program, words) in [
        ("/bin/true", "does not say which protocol"),
        // Says what it was asked.
        ("/bin/echo", "does not say which protocol"),
        ("/nowhere/tepui-init", "No such file"),
    ] {
        let settings = Settings::new(at.path().join("meta"), at.path().join("run"), program);
        let refused = Containerizer::new(settings, Vec::new()).unwrap_err();
        let refused = format!("{:#}", anyhow::Error::from(refused));
        assert!(
            refused.contains(program) && refused.contains(words),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_launcher_that_is_gone_is_replaced() {
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    containerizer.recover(Default::default()).await.unwrap();
    let configs = ["before", "after"].map(|name| shell(at.path(), name, "sleep 1000"));
    let before = containerizer.launch(configs[0].clone()).await.unwrap();
    let own = std::process::id();
    let launchers = common::children(own);
    assert_eq!(launchers.len(), 1, "{launchers:?}");
    let pid = nix::unistd::Pid::from_raw(launchers[0].cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let stat = format!("/proc/{pid}/stat");
    wait_for("the end of the launcher", || {
        std::fs::read_to_string(&stat).unwrap().contains(") Z ")
    })
    .await;
    containerizer.launch(configs[1].clone()).await.unwrap();
    let running = containerizer.status(&configs[0].id).await.unwrap();
    assert_eq!(running.executor_pid, Some(before.pid));
    for config in &configs {
        let termination = containerizer.destroy(&config.id).await.unwrap();
        assert_eq!(termination.exit, Exit::Status(libc::SIGKILL));
    }
    assert_eq!(
        common::children(own).len(),
        1,
        "the killed one is forgotten"
    );
    assert_eq!(
        tepui_containerizer::leaks::find(at.path(), None, &[]),
        Vec::<String>::new()
    );
}

#[tokio::test]
async fn signals_and_destruction() {
    let at = tempfile::tempdir().unwrap();
    let accounting = common::kernel::load(&["posix/cpu", "posix/mem"], serde_json::json!({}));
    let containerizer = containerizer(at.path(), accounting.unwrap());
    containerizer.recover(Default::default()).await.unwrap();
    let mut first = shell(at.path(), "first", "");
    // Not by a shell, which may have a mind of its own about the signal while it starts something.
    first.command = Some(Command {
        shell: false,
        value: "sleep".to_owned(),
        arguments: vec!["sleep".to_owned(), "1000".to_owned()],
    });
    let second = shell(at.path(), "second", "sleep 1000");
    for config in [&first, &second] {
        containerizer.launch(config.clone()).await.unwrap();
    }
    let usage = containerizer.usage(&first.id).await.unwrap();
    assert_eq!(
        (usage.cpus_soft_limit, usage.mem_limit_bytes),
        (Some(0.1), Some(32 << 20))
    );
    assert!(usage.mem_rss_bytes.unwrap() > 0 && usage.timestamp > 1e9);
    assert!(usage.cpus_user_time_secs.is_some() && usage.cpus_system_time_secs.is_some());
    let status = containerizer.status(&first.id).await.unwrap();
    assert_eq!(status.container_id.unwrap().value, "first");
    assert!(status.executor_pid.unwrap() > 0);
    assert!(containerizer.forget(&first.id).is_err());
    containerizer.kill(&first.id, libc::SIGINT).unwrap();
    assert_eq!(
        containerizer.wait(&first.id).await.unwrap().exit,
        Exit::Status(libc::SIGINT)
    );
    let termination = containerizer.destroy(&second.id).await.unwrap();
    assert_eq!(
        (termination.exit, termination.destroyed),
        (Exit::Status(9), true)
    );
}

fn notes(
    names: &[&'static str],
    calls: &Arc<Mutex<Vec<String>>>,
    fails: Option<&'static str>,
) -> Vec<Arc<dyn Isolator>> {
    names
        .iter()
        .map(|name| {
            let fails = fails.filter(|_| *name == "acme/second");
            Arc::new(Notes {
                name,
                calls: calls.clone(),
                fails,
                ..Notes::default()
            }) as Arc<dyn Isolator>
        })
        .collect()
}

#[tokio::test]
async fn isolators_prepare_in_order_and_clean_up_in_reverse() {
    let at = tempfile::tempdir().unwrap();
    let calls = Arc::default();
    let isolators = notes(&["acme/second", "namespaces/pid", "cgroups"], &calls, None);
    let containerizer = containerizer(at.path(), isolators);
    let config = shell(at.path(), "c", "sleep 1000");
    containerizer.launch(config.clone()).await.unwrap();
    containerizer
        .update(
            &config.id,
            Resources::cpus_mem(0.2, 64.0),
            Default::default(),
        )
        .await
        .unwrap();
    assert_eq!(
        containerizer
            .usage(&config.id)
            .await
            .unwrap()
            .mem_limit_bytes,
        Some(64 << 20)
    );
    containerizer.destroy(&config.id).await.unwrap();
    let expected = [
        "cgroups prepare",
        "namespaces/pid prepare",
        "acme/second prepare",
        "cgroups isolate",
        "namespaces/pid isolate",
        "acme/second isolate",
        "cgroups update",
        "namespaces/pid update",
        "acme/second update",
        "cgroups usage",
        "namespaces/pid usage",
        "acme/second usage",
        "acme/second cleanup",
        "namespaces/pid cleanup",
        "cgroups cleanup",
    ];
    assert_eq!(*calls.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_failed_step_leaves_nothing() {
    for (method, cleaned) in [("prepare", 3), ("isolate", 3)] {
        let at = tempfile::tempdir().unwrap();
        let calls = Arc::default();
        let isolators = notes(
            &["cgroups", "namespaces/pid", "acme/second", "acme/third"],
            &calls,
            Some(method),
        );
        let containerizer = containerizer(at.path(), isolators);
        let config = shell(at.path(), "c", "echo started");
        let error = containerizer.launch(config.clone()).await.unwrap_err();
        assert_eq!(error.to_string(), "isolator acme/second: as told");
        assert_eq!(read(&config, "stdout"), "");
        let calls = calls.lock().unwrap().clone();
        let cleaned = if method == "isolate" {
            cleaned + 1
        } else {
            cleaned
        };
        assert_eq!(
            calls
                .iter()
                .filter(|call| call.ends_with("cleanup"))
                .count(),
            cleaned,
            "{calls:?}"
        );
        assert_eq!(std::fs::read_dir(at.path().join("run")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn what_is_not_cleaned_up_is_counted() {
    let at = tempfile::tempdir().unwrap();
    let names = ["cgroups", "namespaces/pid", "acme/second"];
    let isolators = notes(&names, &Arc::default(), Some("cleanup"));
    let containerizer = containerizer(at.path(), isolators);
    let config = shell(at.path(), "c", "true");
    containerizer.launch(config.clone()).await.unwrap();
    let termination = containerizer.wait(&config.id).await.unwrap();
    assert_eq!(
        termination.cleanup_failures,
        ["isolator acme/second: as told"]
    );
    assert_eq!(containerizer.counts().destroy_errors, 1);
}

#[tokio::test]
async fn a_limit_found_at_the_end_is_the_reason() {
    let at = tempfile::tempdir().unwrap();
    let exceeded = Limitation {
        id: "c".to_owned(),
        reason: 8,
        message: "too much".to_owned(),
        ..Default::default()
    };
    let isolator = Notes {
        name: "cgroups",
        exceeded: Some(exceeded),
        ..Notes::default()
    };
    let containerizer = containerizer(at.path(), vec![Arc::new(isolator)]);
    let config = shell(at.path(), "c", "kill -9 $$");
    containerizer.launch(config.clone()).await.unwrap();
    let termination = containerizer.wait(&config.id).await.unwrap();
    assert_eq!(termination.exit, Exit::Status(9));
    let limitation = termination.limitation.unwrap();
    assert_eq!(
        (limitation.reason, limitation.message.as_str()),
        (8, "too much")
    );
}

#[tokio::test]
async fn the_sandbox_is_its_users() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    let mut config = shell(at.path(), "c", "id -un; touch made");
    // A directory that the user may not enter does not matter: the command starts below it.
    config.user = Some("nobody".to_owned());
    containerizer.launch(config.clone()).await.unwrap();
    assert_eq!(
        containerizer.wait(&config.id).await.unwrap().exit,
        Exit::Status(0),
        "{}",
        read(&config, "stderr")
    );
    assert_eq!(read(&config, "stdout"), "nobody\n");
    let owner = |name: &str| std::fs::metadata(config.sandbox.join(name)).unwrap().uid();
    let nobody = nix::unistd::User::from_name("nobody")
        .unwrap()
        .unwrap()
        .uid
        .as_raw();
    assert_eq!(
        [owner("."), owner("stdout"), owner("stderr"), owner("made")],
        [nobody; 4]
    );
    let mut unknown = shell(at.path(), "d", "true");
    unknown.user = Some("no-such-user".to_owned());
    let error = containerizer.launch(unknown).await.unwrap_err();
    assert!(error.to_string().contains("no-such-user"), "{error}");
}

#[tokio::test]
async fn what_an_isolator_needs_must_be_there() {
    let at = tempfile::tempdir().unwrap();
    let devices: Arc<dyn Isolator> = Arc::new(Notes {
        name: "linux/devices",
        needs: &["cgroups/devices"],
        ..Notes::default()
    });
    let cgroups: Arc<dyn Isolator> = Arc::new(Notes {
        name: "cgroups/devices",
        ..Notes::default()
    });
    let error = Containerizer::new(common::settings(at.path()), vec![devices.clone()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "isolator 'linux/devices' needs 'cgroups/devices', which is not in --isolation"
    );
    assert!(Containerizer::new(common::settings(at.path()), vec![devices, cgroups]).is_ok());
}
