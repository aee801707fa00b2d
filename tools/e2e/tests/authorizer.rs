//! An authorizer that a site writes for itself: made by `tepui module new` outside the repository,
//! built, named in the configuration.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_e2e::cluster::tepui;
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::{Daemon, Scheduler, Scratch, own_modules, wait_for};
use tepui_proto::v1::{TaskState, task_status};

/// Makes and builds the module; its library.
fn build(scratch: &Scratch) -> PathBuf {
    let libraries = own_modules::build(scratch.path(), &[("authorizer", "acme-users")]);
    let project = scratch.path().join("acme-users").display().to_string();
    let again = [
        "module",
        "new",
        "authorizer",
        "acme-users",
        "--path",
        &project,
    ];
    let again = tepui("127.0.0.1:1".parse().expect("an address"), &again);
    let said = String::from_utf8_lossy(&again.stderr);
    assert!(said.contains("is there already, and not empty"), "{said}");
    let source = scratch.path().join("acme-users/src/lib.rs");
    let source = fs::read_to_string(source).expect("written");
    assert!(
        source.lines().count() <= 40,
        "{} lines",
        source.lines().count()
    );
    libraries.join(own_modules::library("acme-users"))
}

fn config(scratch: &Scratch, library: &Path, run_in: &str) -> PathBuf {
    let file = scratch.path().join(format!("{run_in}.toml"));
    let text = format!(
        "authorizers = [\"acme-users\"]\n\
         [modules.\"acme-users\"]\nusers = [\"nobody\"]\n\
         [load.\"acme-users\"]\nfile = \"{}\"\nrun_in = \"{run_in}\"\n",
        library.display()
    );
    fs::write(&file, text).expect("the scratch folder");
    file
}

/// What the commands say of the library and of a configuration that names it, before a daemon is started with it.
fn is_shown(scratch: &Scratch, library: &Path, config: &Path, run_in: &str) {
    let said = |args: &[&str]| {
        let output = tepui("127.0.0.1:1".parse().expect("an address"), args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {output:?}");
        text
    };
    let (library, config) = (library.display().to_string(), config.display().to_string());
    let folder = scratch.path().join("lib").display().to_string();
    for (args, expected) in [
        (vec!["module", "list", &library], "acme-users"),
        (
            vec!["module", "check", &library, "--config", &config],
            "  authorizer acme-users: ok\n",
        ),
        (
            vec!["module", "schema", "acme-users", "--dir", &folder],
            "Users whose tasks may run and be seen.",
        ),
    ] {
        let text = said(&args);
        assert!(text.contains(expected), "{args:?}: {text}");
    }
    let text = said(&["config", "check", &config]);
    for expected in [
        "to be given otherwise: work_dir\n".to_owned(),
        format!("authorizer acme-users: ok\n    file      {library}"),
        format!("runs in   {run_in}"),
    ] {
        assert!(text.contains(&expected), "{expected:?} is not in {text}");
    }
}

/// Tries a task of a user that may run and of one that may not.
fn allows_one_and_refuses_the_other(scheduler: &mut Scheduler, round: usize) {
    let (allowed, refused) = (format!("allowed-{round}"), format!("refused-{round}"));
    let mut tasks = vec![
        task(&allowed, "true", 0.1, 32.0),
        task(&refused, "true", 0.1, 32.0),
    ];
    tasks[0].command.as_mut().expect("set").user = Some("nobody".to_owned());
    tasks[1].command.as_mut().expect("set").user = Some("daemon".to_owned());
    scheduler.launch(tasks);
    let error = scheduler.wait_state(&refused, TaskState::TaskError);
    assert_eq!(
        error.reason(),
        task_status::Reason::TaskUnauthorized,
        "{error:?}"
    );
    assert!(
        error.message().contains("not authorized") && error.message().contains("daemon"),
        "{error:?}"
    );
    scheduler.wait_state(&allowed, TaskState::TaskFinished);
}

#[test]
fn a_module_of_forty_lines_decides_who_runs_tasks() {
    let scratch = Scratch::new();
    let library = build(&scratch);
    for run_in in ["daemon", "process"] {
        let dir = scratch.path().join(run_in);
        fs::create_dir(&dir).expect("the scratch folder");
        let config = config(&scratch, &library, run_in);
        is_shown(&scratch, &library, &config, run_in);
        let master = Daemon::master(&dir, &[&format!("--config={}", config.display())]);
        let _agent = Daemon::agent(
            &dir,
            "agent",
            master.address,
            &["--resources=cpus:4;mem:2048"],
        );
        let mut scheduler = Scheduler::subscribe(master.address, framework("acme", false));
        allows_one_and_refuses_the_other(&mut scheduler, 0);
        if run_in == "process" {
            its_child_dies(&master, &mut scheduler);
        }
    }
}

/// While the child is away nobody is allowed anything; then it is back, and the daemon never was away.
fn its_child_dies(master: &Daemon, scheduler: &mut Scheduler) {
    let child = children(master.pid());
    assert_eq!(child.len(), 1, "one library in one child: {child:?}");
    kill(Pid::from_raw(child[0].cast_signed()), Signal::SIGKILL).expect("an own child's child");
    let mut task = task("meanwhile", "true", 0.1, 32.0);
    // Nobody has decided on this user yet, so the answer is not a remembered one.
    task.command.as_mut().expect("set").user = Some("games".to_owned());
    scheduler.launch(vec![task]);
    let refused = scheduler.wait_state("meanwhile", TaskState::TaskError);
    assert_eq!(
        refused.reason(),
        task_status::Reason::TaskUnauthorized,
        "{refused:?}"
    );
    wait_for("a new child", || match children(master.pid())[..] {
        [pid] if pid != child[0] => Ok(()),
        _ => Err(children(master.pid())),
    });
    let mut round = 0;
    wait_for("the module's own answers", || {
        round += 1;
        let mut again = tepui_e2e::scheduler::task(&format!("again-{round}"), "true", 0.1, 32.0);
        again.command.as_mut().expect("set").user = Some("nobody".to_owned());
        scheduler.launch(vec![again]);
        let id = format!("again-{round}");
        scheduler.wait("an end", |scheduler| {
            let last = scheduler.updates.get(&id)?.last()?.state();
            match last {
                TaskState::TaskFinished => Some(Ok(())),
                TaskState::TaskError => Some(Err(last)),
                _ => None,
            }
        })
    });
    allows_one_and_refuses_the_other(scheduler, 1);
}

/// Module hosts below a process.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .unwrap_or("")
                .trim()
                .to_owned()
        };
        field("PPid:") == parent.to_string()
            && field("Name:").starts_with("tepui-module")
            && !field("State:").starts_with('Z')
    })
    .collect()
}
