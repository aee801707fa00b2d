//! A machine that is started anew: no process is left and the runtime directory is empty, the work directory is as it
//! was.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_e2e::images::{available, layout};
use tepui_e2e::scheduler::{default_executor, framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::{self, TaskState};

/// Tasks of a group, all of an image.
fn group(scheduler: &mut Scheduler, tasks: Vec<v1::TaskInfo>) {
    let offer = scheduler.offer();
    scheduler.launch_group(&offer, default_executor("pod"), tasks);
}

fn of_image(id: &str, text: &str) -> v1::TaskInfo {
    let mut task = task(id, text, 0.1, 32.0);
    let image = v1::Image {
        r#type: v1::image::Type::Docker.into(),
        docker: Some(v1::image::Docker {
            name: "oci:box:latest".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    task.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        mesos: Some(v1::container_info::MesosInfo { image: Some(image) }),
        ..Default::default()
    });
    task
}

/// Ends the supervisors whose directories are here, from outside, and with them all that they watch.
fn end_supervisors(runtime: &Path) {
    let processes = || {
        let all = fs::read_dir("/proc").expect("processes");
        let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let is_one = |pid: &i32| {
            fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(runtime))
        };
        pids.filter(is_one).collect::<Vec<_>>()
    };
    let all = processes();
    assert!(!all.is_empty(), "no supervisor is in {}", runtime.display());
    for pid in all {
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    }
    wait_for("no supervisor", || match processes() {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}

#[test]
fn tasks_and_pods_are_lost_with_the_machine_and_nothing_else_is() {
    if !available() {
        return;
    }
    let scratch = Scratch::new();
    let images = scratch.path().join("images");
    fs::create_dir(&images).expect("a folder");
    layout(&images, "box");
    let config = scratch.path().join("agent.toml");
    let text = format!(
        "[modules.oci]\nlayouts_dir = {:?}\n",
        images.display().to_string()
    );
    fs::write(&config, text).expect("a file");
    let config = format!("--config={}", config.display());
    let flags = [
        "--isolation=filesystem/linux,docker/runtime,namespaces/pid,cgroups/cpu,cgroups/mem",
        "--image_providers=DOCKER,OCI",
        &config,
    ];
    let master = Daemon::master(scratch.path(), &[]);
    let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
    let port = agent.address.port();
    let mut scheduler = Scheduler::subscribe(master.address, framework("e2e", true));
    scheduler.launch(vec![of_image("single", "sleep 1000")]);
    scheduler.wait_state("single", TaskState::TaskRunning);
    let tasks = ["one", "two"].map(|id| of_image(id, "sleep 1000"));
    group(&mut scheduler, tasks.into());
    for id in ["one", "two"] {
        scheduler.wait_state(id, TaskState::TaskRunning);
    }
    let id = agent.get("/state")["id"].clone();
    agent.kill();

    let (work, runtime) = (
        scratch.path().join("agent"),
        scratch.path().join("agent.run"),
    );
    end_supervisors(&runtime);
    fs::remove_dir_all(&runtime).expect("the runtime directory");
    fs::write(
        work.join("meta/boot_id"),
        "00000000-0000-4000-8000-000000000000",
    )
    .expect("the work directory");

    let agent = Daemon::agent_at(port, scratch.path(), "agent", master.address, &flags);
    for task in ["single", "one", "two"] {
        let lost = scheduler.wait_state(task, TaskState::TaskLost);
        assert!(lost.container_status.is_none(), "{lost:?}");
    }
    assert_eq!(agent.get("/state")["id"], id, "it is the same agent");
    wait_clean(scratch.path());

    // The image is still there, and so is all that is needed for another task of it.
    scheduler.launch(vec![of_image("next", "cat /etc/layer")]);
    scheduler.wait_state("next", TaskState::TaskFinished);
    agent.stop(Signal::SIGUSR1);
    wait_clean(scratch.path());
}
