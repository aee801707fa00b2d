//! An agent that comes back otherwise than it was: with other settings, after a reboot of its machine.

mod support;

use std::path::Path;

use support::{start, start_with, task, try_start, welcomed};
use tepui_core_agent::{ReconfigurationPolicy, Settings};
use tepui_model::{Attributes, Resources};

fn grown(settings: &mut Settings) {
    let resources = "cpus:8;mem:4096;disk:10240;ports:[31000-32000]";
    settings.resources = Resources::parse(resources, "*").expect("resources");
    settings.attributes = Attributes::parse("rack:a").expect("attributes");
}

fn grown_and_additive(settings: &mut Settings) {
    grown(settings);
    settings.reconfiguration_policy = ReconfigurationPolicy::Additive;
}

/// Makes the next agent believe that its machine was started anew.
fn reboot(work_dir: &Path) {
    let path = work_dir.join("meta/boot_id");
    assert!(path.exists());
    std::fs::write(path, "00000000-0000-4000-8000-000000000000").expect("space");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_has_registered_with_changes_only_as_its_policy_allows() {
    let (dir, mut master, containers, first) = welcomed().await;
    master.runs(task("t"), true).await;
    first.stop().await;

    let refused = try_start(dir.path(), &master, &containers, grown).await;
    let error = refused.err().expect("it is not what it was").to_string();
    assert!(
        error.contains("cpus:4") && error.contains("cpus:8") && error.contains("additive"),
        "{error}"
    );
    assert_eq!(containers.count(), 1, "a refusal ends nothing");

    let more = start_with(dir.path(), &master, &containers, grown_and_additive).await;
    let (id, tasks) = master.welcome().await;
    assert_eq!((id.as_deref(), tasks.len()), (Some("S0"), 1));
    assert_eq!(more.get("/state").await["resources"]["cpus"], 8.0);
    more.stop().await;

    // What it is now counts from now on.
    let refused = try_start(dir.path(), &master, &containers, |settings| {
        settings.reconfiguration_policy = ReconfigurationPolicy::Additive;
    })
    .await;
    let error = refused.err().expect("it has less").to_string();
    assert!(!error.contains("with --reconfiguration_policy"), "{error}");
    let same = start_with(dir.path(), &master, &containers, grown).await;
    assert_eq!(master.welcome().await.0.as_deref(), Some("S0"));
    same.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reboot_ends_the_tasks_and_leaves_the_id() {
    let (dir, mut master, containers, first) = welcomed().await;
    master.runs(task("t"), true).await;
    first.stop().await;

    reboot(dir.path());
    let second = start(dir.path(), &master, &containers).await;
    let (id, tasks) = master.welcome().await;
    assert_eq!((id.as_deref(), tasks.len()), (Some("S0"), 0));
    let state = second.get("/state").await;
    let completed = &state["completed_frameworks"][0]["completed_executors"][0];
    assert_eq!(completed["id"], "t", "{state}");
    second.stop().await;

    // Where the settings do not allow the id, a new agent begins instead of none.
    reboot(dir.path());
    let third = start_with(dir.path(), &master, &containers, grown).await;
    assert_eq!(master.welcome().await.0, None);
    third.stop().await;
}
