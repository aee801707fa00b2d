//! What is told of the pulls that tasks wait for.

use nix::sys::signal::Signal;
use serde_json::json;
use tepui_e2e::cluster::tepui;
use tepui_e2e::images::{Registry, available, layout, of_image};
use tepui_e2e::scheduler::{default_executor, framework};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::stall::StallingProxy;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::{self, TaskState};

const ISOLATION: &str = "--isolation=filesystem/linux,docker/runtime,namespaces/pid";

#[test]
fn tasks_say_how_far_the_pull_is_that_they_wait_for() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch.path().join("registry"), "");
    let layout = layout(scratch.path(), "box");
    registry.push(&layout, "some/box:1", &["--dest-tls-verify=false"]);
    let proxy = StallingProxy::start(&registry.address, 100_000);
    let flags = [
        ISOLATION,
        "--image_providers=DOCKER",
        "--image_pull_progress_interval=1secs",
        &format!("--docker_registry=http://{}", proxy.address),
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    // Both wait for one pull, and one of them is of a group.
    scheduler.launch(vec![of_image("alone", "some/box:1", None)]);
    let next = scheduler.offer();
    let grouped = of_image("grouped", "some/box:1", Some("true"));
    scheduler.launch_group(&next, default_executor("pod"), vec![grouped]);
    let mut told = Vec::new();
    for (id, state) in [
        ("alone", TaskState::TaskStaging),
        ("grouped", TaskState::TaskStarting),
    ] {
        told.push(scheduler.wait("how far two pulls are", |scheduler| {
            let all = scheduler.updates.get(id)?;
            let of_pulls = all
                .iter()
                .filter(|one| one.message().starts_with("Pulling"));
            let of_pulls: Vec<_> = of_pulls.cloned().collect();
            let far = |one: &v1::TaskStatus| one.message().contains("2 of 3 layers");
            (of_pulls.len() > 1 && of_pulls.iter().any(far)).then_some((state, of_pulls))
        }));
    }
    for (state, statuses) in told {
        for status in statuses {
            let words = "Pulling image 'some/box:1'";
            assert!(status.message().starts_with(words), "{status:?}");
            assert_eq!((status.state(), &status.uuid), (state, &None));
            assert_eq!(status.source(), v1::task_status::Source::Agent);
        }
    }
    // However often it is told, the newest is what is shown.
    let newest = |id: &str| -> Option<String> {
        let answer = master.call(&json!({ "type": "GET_TASKS" }));
        let tasks = answer["get_tasks"]["tasks"].as_array()?;
        let task = tasks.iter().find(|task| task["task_id"]["value"] == id)?;
        let statuses = task["statuses"].as_array()?;
        assert_eq!(statuses.len(), 1, "{task}");
        Some(statuses[0]["message"].as_str()?.to_owned())
    };
    for id in ["alone", "grouped"] {
        let message = newest(id).expect("a status");
        assert!(message.starts_with("Pulling image"), "{message}");
    }
    let rest = scheduler.offer();
    scheduler.offers.push(rest);
    scheduler.decline_all(600.0);
    let run = std::thread::spawn({
        let master = master.address;
        move || {
            tepui(
                master,
                &["run", "--name=seen", "--image=some/box:1", "--command=true"],
            )
        }
    });
    wait_for("a task of tepui run that waits", || {
        newest("seen").filter(|text| text.contains(": ")).ok_or(())
    });
    proxy.go_on();
    for id in ["alone", "grouped"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
    }
    let output = run.join().expect("tepui run");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("seen TASK_STAGING: Pulling image 'some/box:1': "),
        "{text}"
    );
    assert!(output.status.success(), "{text}");
    // What is there already is not waited for.
    let mut later = Scheduler::subscribe(master.address, framework("later", true));
    later.launch(vec![of_image("later", "some/box:1", None)]);
    later.wait_state("later", TaskState::TaskFinished);
    assert_eq!(
        later.states()["later"],
        [
            TaskState::TaskStarting,
            TaskState::TaskRunning,
            TaskState::TaskFinished
        ]
    );
    agent.stop(Signal::SIGUSR1);
    drop(registry);
    wait_clean(scratch.path());
}
