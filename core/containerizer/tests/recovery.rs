//! A process that embeds the containerizer is killed, and the next one goes on. With limits where root has cgroups of version
//! 1 or 2, and in a machine that has version 2 only by `tools/e2e/cgroup2-vm.sh`.

mod common;

use std::{
    collections::BTreeSet,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use common::{kernel, read, settings, shell, wait_for};
use tepui_containerizer::{ContainerConfig, Containerizer, Error, Exit, Recovered, leaks};
use tepui_model::id::ContainerId;

const DIRECTORY: &str = "TEPUI_TEST_DIRECTORY";
const CRASH: &str = "TEPUI_TEST_CRASH";
const ROOT: &str = "TEPUI_TEST_ROOT";
const CHECKPOINT: &str = "TEPUI_TEST_CHECKPOINT";
const CONTAINERS: usize = 5;

/// The agent that is killed: this program again, told by its environment.
#[test]
#[ignore = "only as a child of the other tests"]
fn embedded() {
    let Some(at) = std::env::var_os(DIRECTORY).map(PathBuf::from) else {
        return;
    };
    let mut settings = settings(&at);
    settings.crash_at_effect = std::env::var(CRASH)
        .ok()
        .map(|effect| effect.parse().unwrap());
    let isolators = match std::env::var(ROOT) {
        Ok(root) => kernel::isolators(&root, serde_json::json!({})),
        Err(_) => Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let containerizer = Containerizer::new(settings, isolators).unwrap();
        containerizer.recover(BTreeSet::new()).await.unwrap();
        let all = (0..CONTAINERS).map(|number| {
            let mut config = config(&at, number);
            config.checkpoint = std::env::var(CHECKPOINT).is_ok();
            let containerizer = containerizer.clone();
            async move { containerizer.launch(config).await.unwrap() }
        });
        futures::future::join_all(all).await;
        std::fs::write(at.join("all-up"), "").unwrap();
        std::future::pending::<()>().await;
    });
}

fn config(at: &Path, number: usize) -> ContainerConfig {
    let text = "echo started; while ! test -e go; do sleep 0.01; done; exit 3";
    shell(at, &format!("c{number}"), text)
}

fn ids() -> BTreeSet<ContainerId> {
    (0..CONTAINERS)
        .map(|number| ContainerId::new(format!("c{number}")))
        .collect()
}

struct Embedded {
    at: tempfile::TempDir,
    root: Option<kernel::Root>,
    child: Child,
}

impl Embedded {
    fn start(test: &str, crash: Option<u64>, checkpoint: bool) -> Self {
        let at = tempfile::tempdir().unwrap();
        let root = kernel::limits().then(|| kernel::Root::new(test));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["embedded", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, at.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some(crash) = crash {
            command.env(CRASH, crash.to_string());
        }
        if let Some(root) = &root {
            command.env(ROOT, &root.0);
        }
        if checkpoint {
            command.env(CHECKPOINT, "1");
        }
        let child = command.spawn().unwrap();
        Self { at, root, child }
    }

    async fn wait_until_up(&self) {
        wait_for("all containers", || self.at.path().join("all-up").exists()).await;
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn recover(&self, known: BTreeSet<ContainerId>) -> (Containerizer, Recovered) {
        self.try_recover(known, true).await.unwrap()
    }

    async fn try_recover(
        &self,
        known: BTreeSet<ContainerId>,
        strict: bool,
    ) -> Result<(Containerizer, Recovered), Error> {
        let isolators = match &self.root {
            Some(root) => kernel::isolators(&root.0, serde_json::json!({})),
            None => Vec::new(),
        };
        let mut settings = settings(self.at.path());
        settings.strict = strict;
        let containerizer = Containerizer::new(settings, isolators)?;
        let recovered = containerizer.recover(known).await?;
        Ok((containerizer, recovered))
    }

    fn starts(&self, number: usize) -> usize {
        read(&config(self.at.path(), number), "stdout")
            .lines()
            .count()
    }

    async fn check_clean(&self) {
        let root = self.root.as_ref().map(|root| root.0.as_str());
        // A supervisor that was just being started when the agent was killed ends as soon as it gets to run.
        wait_for("nothing to be left", || {
            leaks::find(self.at.path(), root, &[]).is_empty()
        })
        .await;
        for directory in ["run", "meta"] {
            assert_eq!(
                std::fs::read_dir(self.at.path().join(directory))
                    .unwrap()
                    .count(),
                0,
                "{directory}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_containers_go_on_and_end_as_if_nothing_had_been() {
    let mut embedded = Embedded::start("run", None, true);
    embedded.wait_until_up().await;
    embedded.kill();
    let (containerizer, recovered) = embedded.recover(ids()).await;
    let running: BTreeSet<ContainerId> = recovered
        .running
        .iter()
        .map(|container| container.id.clone())
        .collect();
    assert_eq!(running, ids(), "{recovered:?}");
    for container in &recovered.running {
        let status = containerizer.status(&container.id).await.unwrap();
        assert_eq!(status.executor_pid, Some(container.pid));
    }
    if let Some(root) = &embedded.root {
        assert!(
            containerizer
                .usage(&ContainerId::new("c1"))
                .await
                .unwrap()
                .mem_total_bytes
                .is_some()
        );
        assert_eq!(root.memory_limit("c1"), (32 << 20).to_string());
    }
    // One ends while no agent runs at all.
    drop(containerizer);
    std::fs::write(config(embedded.at.path(), 0).sandbox.join("go"), "").unwrap();
    let (containerizer, recovered) = embedded.recover(ids()).await;
    assert_eq!(
        recovered.running.len() + recovered.ended.len(),
        CONTAINERS,
        "{recovered:?}"
    );
    for number in 0..CONTAINERS {
        let config = config(embedded.at.path(), number);
        std::fs::write(config.sandbox.join("go"), "").unwrap();
        let termination = containerizer.wait(&config.id).await.unwrap();
        assert_eq!(
            (termination.exit, termination.destroyed),
            (Exit::Status(3 << 8), false)
        );
        assert_eq!(embedded.starts(number), 1);
        containerizer.forget(&config.id).unwrap();
    }
    embedded.check_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asks_for_any_more_is_destroyed() {
    let mut embedded = Embedded::start("orphan", None, true);
    embedded.wait_until_up().await;
    embedded.kill();
    let known = BTreeSet::from([ContainerId::new("c0"), ContainerId::new("never")]);
    let (containerizer, recovered) = embedded.recover(known).await;
    assert_eq!(recovered.running.len(), 1);
    assert_eq!(recovered.missing, [ContainerId::new("never")]);
    assert_eq!(recovered.orphans.len(), CONTAINERS - 1);
    drop(containerizer);
    // With the work directory the records are gone, and the supervisors are found all the same.
    std::fs::remove_dir_all(embedded.at.path().join("meta")).unwrap();
    let (_, recovered) = embedded.recover(BTreeSet::new()).await;
    assert_eq!(recovered.orphans, [ContainerId::new("c0")]);
    embedded.check_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_with_damaged_records_are_told_or_destroyed() {
    let mut embedded = Embedded::start("damaged", None, true);
    embedded.wait_until_up().await;
    embedded.kill();
    let records = |id: &str, name: &str| embedded.at.path().join("meta").join(id).join(name);
    let log = records("c1", "events.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let error = embedded.try_recover(ids(), true).await.unwrap_err();
    assert!(error.to_string().contains("c1/events.log"), "{error}");
    std::fs::write(records("c2", "launch.pb"), [0xff; 9]).unwrap();

    let (_, recovered) = embedded.try_recover(ids(), false).await.unwrap();
    assert_eq!(recovered.running.len(), CONTAINERS - 2);
    let lost = ["c1", "c2"].map(ContainerId::new);
    assert_eq!(recovered.missing, lost);
    assert_eq!(BTreeSet::from_iter(recovered.orphans), lost.into());
    for kept in ["c1.1/events.log", "c2.1/launch.pb"] {
        assert!(embedded.at.path().join("damaged").join(kept).exists());
    }
    let (_, recovered) = embedded.recover(BTreeSet::new()).await;
    assert_eq!(recovered.orphans.len(), CONTAINERS - 2);
    embedded.check_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_are_not_checkpointed_die_with_the_agent() {
    let mut embedded = Embedded::start("die", None, false);
    embedded.wait_until_up().await;
    embedded.kill();
    wait_for("the end of all processes", || {
        leaks::find(embedded.at.path(), None, &[])
            .iter()
            .all(|leak| !leak.starts_with("process"))
    })
    .await;
    let (containerizer, recovered) = embedded.recover(ids()).await;
    assert_eq!(recovered.ended.len(), CONTAINERS, "{recovered:?}");
    for (id, termination) in recovered.ended {
        assert_eq!(termination.exit, Exit::Status(9));
        containerizer.forget(&id).unwrap();
    }
    embedded.check_clean().await;
}

/// Kills the process before its first, second, ... effect, until it survives them all.
#[tokio::test(flavor = "multi_thread")]
async fn no_crash_starts_a_command_twice_or_leaves_anything() {
    for crash in 0_u64.. {
        let mut embedded = Embedded::start(&format!("crash{crash}"), Some(crash), true);
        wait_for("the crash", || {
            embedded.child.try_wait().unwrap().is_some()
                || embedded.at.path().join("all-up").exists()
        })
        .await;
        let survived = embedded.child.try_wait().unwrap().is_none();
        if !survived {
            assert_eq!(
                embedded.child.wait().unwrap().signal(),
                Some(9),
                "effect {crash}"
            );
        }
        embedded.kill();
        let (containerizer, recovered) = embedded.recover(ids()).await;
        let seen = recovered.running.len() + recovered.ended.len() + recovered.missing.len();
        assert_eq!(
            (seen, recovered.orphans.len()),
            (CONTAINERS, 0),
            "effect {crash}: {recovered:?}"
        );
        for (id, termination) in &recovered.ended {
            assert_eq!(termination.exit, Exit::NeverStarted, "effect {crash}, {id}");
        }
        for container in &recovered.running {
            let termination = containerizer.destroy(&container.id).await.unwrap();
            assert_eq!(
                (termination.exit, termination.destroyed),
                (Exit::Status(9), true)
            );
        }
        for number in 0..CONTAINERS {
            let id = ContainerId::new(format!("c{number}"));
            let started = recovered.running.iter().any(|container| container.id == id);
            assert!(
                embedded.starts(number) <= usize::from(started),
                "effect {crash}, container {number}"
            );
        }
        for id in containerizer.containers() {
            containerizer.forget(&id).unwrap();
        }
        embedded.check_clean().await;
        if survived {
            assert!(crash > 20, "only {crash} effects");
            return;
        }
    }
}
