//! Containers inside of others.

mod common;

use std::{collections::BTreeSet, path::Path, time::Duration};

use common::{containerizer, kernel, read, shell, wait_for};
use tepui_containerizer::{
    Class, Command, ContainerConfig, Containerizer, Exit, LaunchError, leaks,
};
use tepui_model::id::ContainerId;

/// A container that only keeps its namespaces.
fn holder(at: &Path, id: &str) -> ContainerConfig {
    ContainerConfig {
        command: None,
        is_command_task: false,
        ..shell(at, id, "")
    }
}

fn nested(around: &ContainerConfig, name: &str, text: &str) -> ContainerConfig {
    ContainerConfig {
        id: around.id.child(name),
        sandbox: around.sandbox.join("containers").join(name),
        ..shell(&around.sandbox, name, text)
    }
}

fn command(text: &str) -> Command {
    Command {
        shell: true,
        value: text.to_owned(),
        arguments: Vec::new(),
    }
}

async fn status(containerizer: &Containerizer, id: &ContainerId) -> Exit {
    containerizer.wait(id).await.unwrap().exit
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_without_a_command_ends_well_when_it_is_stopped() {
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    let around = holder(at.path(), "around");
    containerizer.launch(around.clone()).await.unwrap();
    let task = nested(&around, "task", "pwd; exit 7");
    containerizer.launch(task.clone()).await.unwrap();
    let again = containerizer.launch(task.clone()).await;
    assert!(matches!(again, Err(LaunchError::Exists(_))), "{again:?}");
    assert_eq!(status(&containerizer, &task.id).await, Exit::Status(7 << 8));
    assert_eq!(read(&task, "stdout").trim(), task.sandbox.to_string_lossy());
    containerizer
        .stop(&around.id, Duration::from_secs(60))
        .unwrap();
    assert_eq!(status(&containerizer, &around.id).await, Exit::Status(0));
    let late = containerizer.launch(nested(&around, "late", "true")).await;
    assert!(matches!(late, Err(LaunchError::Parent(_))), "{late:?}");
    // What was nested in it is forgotten with it.
    containerizer.forget(&around.id).unwrap();
    assert_eq!(containerizer.list(), []);
    assert_eq!(
        std::fs::read_dir(at.path().join("meta")).unwrap().count(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_ends_before_what_is_around_it() {
    let at = tempfile::tempdir().unwrap();
    let containerizer = containerizer(at.path(), Vec::new());
    for by_itself in [true, false] {
        let text = "while ! test -e go; do sleep 0.01; done";
        let around = shell(at.path(), &format!("around-{by_itself}"), text);
        containerizer.launch(around.clone()).await.unwrap();
        let inner = nested(&around, "inner", "sleep 1000");
        containerizer.launch(inner.clone()).await.unwrap();
        let innermost = nested(&inner, "innermost", "sleep 1000 & sleep 1000");
        containerizer.launch(innermost.clone()).await.unwrap();
        if by_itself {
            std::fs::write(around.sandbox.join("go"), "").unwrap();
        } else {
            containerizer.destroy(&around.id).await.unwrap();
        }
        let exit = status(&containerizer, &around.id).await;
        assert_eq!(exit, Exit::Status(if by_itself { 0 } else { 9 }));
        for id in [&inner.id, &innermost.id] {
            let listed = containerizer.list();
            let listed = listed.iter().find(|one| one.id == *id).unwrap();
            assert!(listed.over, "{id} is over first");
            let termination = containerizer.wait(id).await.unwrap();
            assert_eq!(
                (termination.exit, termination.destroyed),
                (Exit::Status(9), true)
            );
        }
        containerizer.forget(&around.id).unwrap();
    }
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_looks_into_a_container_is_in_its_namespaces_and_has_its_environment() {
    if !kernel::available() {
        return;
    }
    let root = kernel::Root::new("inside");
    let at = tempfile::tempdir().unwrap();
    let isolators = kernel::isolators(&root.0, serde_json::json!({}));
    let containerizer = containerizer(at.path(), isolators);
    containerizer.recover(BTreeSet::new()).await.unwrap();
    // All have a cgroup of their own of the freezer, by which they are killed.
    let show = "for kind in pid mnt; do readlink /proc/self/ns/$kind; done; \
                grep -v :freezer: /proc/self/cgroup";
    let mut around = shell(
        at.path(),
        "around",
        &format!("{show}; echo end; sleep 1000"),
    );
    around.environment = vec![
        ("MARK".to_owned(), "of the task".to_owned()),
        (
            "MESOS_SANDBOX".to_owned(),
            around.sandbox.display().to_string(),
        ),
    ];
    containerizer.launch(around.clone()).await.unwrap();
    wait_for("the task", || read(&around, "stdout").ends_with("end\n")).await;
    let text = format!("{show}; echo end; echo $MARK; pwd; echo $MESOS_SANDBOX; exit 3");
    let look = containerizer
        .inside(&around.id, "look", command(&text))
        .unwrap();
    containerizer.launch(look.clone()).await.unwrap();
    assert_eq!(status(&containerizer, &look.id).await, Exit::Status(3 << 8));
    let seen = read(&look, "stdout");
    let rest = seen.strip_prefix(&read(&around, "stdout"));
    let sandbox = around.sandbox.display();
    let expected = format!("of the task\n{sandbox}\n{sandbox}\n");
    assert_eq!(rest, Some(&*expected), "{seen}");

    // A task in it has a pid namespace of its own, below that one.
    let task = nested(
        &around,
        "task",
        &format!("{show}; ps ax | wc -l; sleep 1000"),
    );
    containerizer.launch(task.clone()).await.unwrap();
    wait_for("the nested task", || {
        read(&task, "stdout").lines().count() > 4
    })
    .await;
    let (theirs, own) = (read(&around, "stdout"), read(&task, "stdout"));
    assert_ne!(theirs.lines().next(), own.lines().next());
    assert_eq!(theirs.lines().nth(3), own.lines().nth(3), "the same cgroup");
    let status_of = containerizer.status(&task.id).await.unwrap();
    assert!(status_of.executor_pid.is_some());
    assert_eq!(status_of.container_id, Some((&task.id).into()));

    // Killed, it takes along what it has left behind in the other's namespace.
    let text = "setsid sleep 1001 & setsid sleep 1001 & echo up; sleep 1001";
    let stray = containerizer
        .inside(&around.id, "stray", command(text))
        .unwrap();
    containerizer.launch(stray.clone()).await.unwrap();
    wait_for("the session", || read(&stray, "stdout") == "up\n").await;
    let strays = || {
        let all = leaks::find(at.path(), None, &[]);
        all.iter().filter(|one| one.contains("sleep 1001")).count()
    };
    // A process that is just becoming another program shows neither its words nor its environment.
    wait_for("all three", || strays() >= 3).await;
    assert_eq!(
        containerizer.destroy(&stray.id).await.unwrap().exit,
        Exit::Status(9)
    );
    assert_eq!(strays(), 0);
    containerizer.destroy(&around.id).await.unwrap();
    assert_eq!(
        leaks::find(at.path(), Some(&root.0), &[]),
        Vec::<String>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_finds_the_whole_tree() {
    let at = tempfile::tempdir().unwrap();
    let before = containerizer(at.path(), Vec::new());
    let around = holder(at.path(), "around");
    let alone = ContainerConfig {
        class: Class::Standalone,
        ..shell(at.path(), "alone", "sleep 1000")
    };
    let other = holder(at.path(), "other");
    let task = nested(
        &around,
        "task",
        "while ! test -e go; do sleep 0.01; done; exit 4",
    );
    let over = nested(&around, "over", "exit 5");
    let orphan = nested(&other, "orphan", "sleep 1000");
    for config in [&around, &alone, &other, &task, &over, &orphan] {
        before.launch(config.clone()).await.unwrap();
    }
    let look = before
        .inside(&task.id, "look", command("sleep 1000"))
        .unwrap();
    before.launch(look.clone()).await.unwrap();
    before.wait(&over.id).await.unwrap();
    drop(before);

    let after = containerizer(at.path(), Vec::new());
    let known = BTreeSet::from([around.id.clone()]);
    let recovered = after.recover(known).await.unwrap();
    let running: BTreeSet<_> = recovered.running.iter().map(|one| one.id.clone()).collect();
    let expected = [&alone.id, &around.id, &task.id].map(Clone::clone);
    assert_eq!(running, expected.into());
    let ended: Vec<_> = recovered.ended.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ended, std::slice::from_ref(&over.id));
    let orphans: BTreeSet<_> = recovered.orphans.into_iter().collect();
    assert_eq!(
        orphans,
        [&look.id, &orphan.id, &other.id].map(Clone::clone).into()
    );
    std::fs::write(task.sandbox.join("go"), "").unwrap();
    assert_eq!(status(&after, &task.id).await, Exit::Status(4 << 8));
    assert_eq!(status(&after, &over.id).await, Exit::Status(5 << 8));
    for id in [&alone.id, &around.id] {
        after.destroy(id).await.unwrap();
        after.forget(id).unwrap();
    }
    assert_eq!(leaks::find(at.path(), None, &[]), Vec::<String>::new());
    for directory in ["run", "meta"] {
        let left = std::fs::read_dir(at.path().join(directory)).unwrap();
        assert_eq!(left.count(), 0, "{directory}");
    }
}
