//! Groups of tasks of the default executor, and containers inside of containers, on real daemons.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tepui_e2e::images::{self, available, layout};
use tepui_e2e::scheduler::{default_executor, framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::server::{Page, PageServer};
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::scheduler::event;
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState};

struct Bench {
    master: Daemon,
    scratch: Scratch,
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("flags")).expect("the scratch folder");
        let master = Daemon::master(scratch.path(), &[]);
        Self { master, scratch }
    }

    fn agent_at(&self, port: u16) -> Daemon {
        let flags = ["--resources=cpus:4;mem:4096;disk:10240;ports:[31000-32000]"];
        let (dir, master) = (self.scratch.path(), self.master.address);
        Daemon::agent_at(port, dir, "agent", master, &flags)
    }

    /// An agent with file systems of their own for containers, and the image `oci:box:latest`.
    fn agent_with_images(&self, port: u16) -> Daemon {
        let images = self.scratch.path().join("images");
        let config = self.scratch.path().join("agent.toml");
        if !config.exists() {
            fs::create_dir(&images).expect("a folder");
            layout(&images, "box");
            let folder = images.display().to_string();
            let text = format!("[modules.oci]\nlayouts_dir = {folder:?}\n");
            fs::write(&config, text).expect("a file");
        }
        let flags = [
            "--resources=cpus:4;mem:4096;disk:10240;ports:[31000-32000]",
            "--isolation=filesystem/linux,docker/runtime,namespaces/pid,cgroups/cpu,cgroups/mem",
            "--image_providers=OCI",
            &format!("--config={}", config.display()),
        ];
        let (dir, master) = (self.scratch.path(), self.master.address);
        Daemon::agent_at(port, dir, "agent", master, &flags)
    }

    fn scheduler(&self) -> Scheduler {
        Scheduler::subscribe(self.master.address, framework("pods", true))
    }

    /// A file that tasks wait for.
    fn flag(&self) -> PathBuf {
        self.scratch.path().join("flags/go")
    }

    fn waiting(&self, id: &str) -> v1::TaskInfo {
        let flag = self.flag();
        let text = format!("while ! test -e {}; do sleep 0.02; done", flag.display());
        task(id, &text, 0.1, 32.0)
    }
}

/// The same with a root file system of an image; it finds what it waits for where it is on the host.
fn in_image(bench: &Bench, mut task: v1::TaskInfo) -> v1::TaskInfo {
    let image = v1::Image {
        r#type: v1::image::Type::Docker.into(),
        docker: Some(v1::image::Docker {
            name: "oci:box:latest".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let flags = bench.scratch.path().join("flags").display().to_string();
    task.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        mesos: Some(v1::container_info::MesosInfo { image: Some(image) }),
        volumes: vec![v1::Volume {
            mode: v1::volume::Mode::Ro.into(),
            container_path: flags.clone(),
            host_path: Some(flags),
            ..Default::default()
        }],
        ..Default::default()
    });
    task
}

/// LAUNCH_GROUP of these tasks on the next offer.
fn launch(scheduler: &mut Scheduler, executor: &str, tasks: Vec<v1::TaskInfo>) {
    let offer = roomy(scheduler);
    scheduler.launch_group(&offer, default_executor(executor), tasks);
}

/// An offer with room for all: what single tasks set free is offered alone.
fn roomy(scheduler: &mut Scheduler) -> v1::Offer {
    scheduler.wait("an offer with room", |scheduler| {
        let has = |offer: &v1::Offer, name: &str, amount: f64| {
            let mut named = offer.resources.iter().filter(|r| r.name == name);
            named.any(|r| r.scalar.is_some_and(|scalar| scalar.value >= amount))
        };
        let room = |offer: &v1::Offer| has(offer, "cpus", 0.5) && has(offer, "disk", 64.0);
        let found = scheduler.offers.iter().position(room)?;
        Some(scheduler.offers.remove(found))
    })
}

/// Waits for the FAILURE that tells of an executor's end; its status.
fn executor_ended(scheduler: &mut Scheduler, executor: &str) -> Option<i32> {
    scheduler.wait("FAILURE", |scheduler| {
        let failures = scheduler
            .other
            .iter()
            .filter(|e| e.r#type() == event::Type::Failure);
        let mut failures = failures.filter_map(|event| event.failure.as_ref());
        let found = failures.find(|f| {
            f.executor_id
                .as_ref()
                .is_some_and(|id| id.value == executor)
        });
        found.map(|failure| failure.status)
    })
}

fn container(status: &v1::TaskStatus) -> v1::ContainerId {
    let status = status.container_status.clone().expect("a container");
    status.container_id.expect("an id")
}

/// The sandbox of an executor's newest run.
fn sandbox(agent: &Daemon) -> PathBuf {
    let state = agent.get("/state");
    let frameworks = ["frameworks", "completed_frameworks"];
    let mut found = frameworks
        .iter()
        .flat_map(|key| state[key].as_array().cloned().unwrap_or_default());
    let framework = found.next().expect("a framework");
    let lists = ["executors", "completed_executors"];
    let mut executors = lists
        .iter()
        .flat_map(|key| framework[key].as_array().cloned().unwrap_or_default());
    let executor: Value = executors.next().expect("an executor");
    Path::new(executor["directory"].as_str().expect("a directory")).to_owned()
}

#[test]
fn a_group_has_sandboxes_limits_and_an_environment_of_its_own() {
    let bench = Bench::new();
    let agent = bench.agent_at(0);
    let mut scheduler = bench.scheduler();
    let show = "env | sort; pwd; ls -d ../../tasks/*; readlink /proc/self/ns/pid";
    let mut mine = task("mine", show, 0.1, 32.0);
    let variable = v1::environment::Variable {
        name: "MINE".to_owned(),
        value: Some("yes".to_owned()),
        ..Default::default()
    };
    mine.command.as_mut().expect("a command").environment = Some(v1::Environment {
        variables: vec![variable],
    });
    launch(&mut scheduler, "pod", vec![mine, bench.waiting("other")]);
    let running = scheduler.wait_state("other", TaskState::TaskRunning);
    scheduler.wait_state("mine", TaskState::TaskFinished);
    let around = sandbox(&agent);
    assert_eq!(
        fs::read_to_string(around.join("stdout")).expect("a log"),
        ""
    );
    let output = fs::read_to_string(around.join("tasks/mine/stdout")).expect("a log");
    let own = fs::canonicalize(around.join("tasks/mine")).expect("a link");
    assert_eq!(own.parent(), Some(&*around.join("containers")));
    for line in [
        "MINE=yes".to_owned(),
        "MESOS_CONTAINER_IP=127.0.0.1".to_owned(),
        "MESOS_ALLOCATION_ROLE=*".to_owned(),
        "MESOS_EXECUTOR_ID=pod".to_owned(),
        format!("MESOS_SANDBOX={}", own.display()),
        own.display().to_string(),
        "../../tasks/other".to_owned(),
    ] {
        assert!(
            output.lines().any(|seen| seen == line),
            "{line} in {output}"
        );
    }
    // All of the pod is in one cgroup, the executor's.
    let status = running.container_status.clone().expect("a container");
    let pid = status.executor_pid.expect("a pid");
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let parent = container(&running).parent.expect("nested").value;
    assert!(cgroups.contains(&format!("/{parent}\n")), "{cgroups}");
    fs::write(bench.flag(), "").expect("the scratch folder");
    scheduler.wait_state("other", TaskState::TaskFinished);
    assert_eq!(executor_ended(&mut scheduler, "pod"), Some(0));
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn tasks_of_a_group_may_have_cgroups_of_their_own() {
    let bench = Bench::new();
    let agent = bench.agent_at(0);
    let mut scheduler = bench.scheduler();
    let go = bench.scratch.path().join("hog");
    let text = format!(
        "while ! test -e {}; do sleep 0.02; done; dd if=/dev/zero of=/dev/null bs=200M count=1",
        go.display()
    );
    let mut tasks = vec![task("hog", &text, 0.2, 40.0), bench.waiting("other")];
    for task in &mut tasks {
        task.container = Some(v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos.into(),
            linux_info: Some(v1::LinuxInfo {
                share_cgroups: Some(false),
                ..v1::LinuxInfo::default()
            }),
            ..v1::ContainerInfo::default()
        });
    }
    let most = |value| v1::value::Scalar { value };
    tasks[0].limits = [
        ("cpus".to_owned(), most(0.5)),
        ("mem".to_owned(), most(64.0)),
    ]
    .into();
    launch(&mut scheduler, "pod", tasks);
    let running = scheduler.wait_state("hog", TaskState::TaskRunning);
    scheduler.wait_state("other", TaskState::TaskRunning);
    let id = container(&running);
    let around = id.parent.expect("nested").value;
    let status = running.container_status.expect("a container");
    let pid = status.executor_pid.expect("a pid");
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
    let below = format!("{around}/mesos/{}", id.value);
    let read = |controller: &str, file: &str| {
        let of = |line: &&str| {
            line.split(':')
                .nth(1)
                .is_some_and(|all| all.split(',').any(|one| one == controller))
        };
        let line = cgroups.lines().find(of).expect("the controller");
        let path = line.rsplit(':').next().expect("a path");
        assert!(path.ends_with(&below), "{below} in {line}");
        let path = format!("/sys/fs/cgroup/{controller}{path}/{file}");
        fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{path}: {error}"))
            .trim()
            .to_owned()
    };
    assert_eq!(read("cpu", "cpu.shares"), "204");
    assert_eq!(read("cpu", "cpu.cfs_quota_us"), "50000");
    assert_eq!(
        read("memory", "memory.soft_limit_in_bytes"),
        (40 << 20).to_string()
    );
    assert_eq!(
        read("memory", "memory.limit_in_bytes"),
        (64 << 20).to_string()
    );

    fs::write(go, "").expect("the scratch folder");
    let failed = scheduler.wait_state("hog", TaskState::TaskFailed);
    assert_eq!(failed.reason(), Reason::ContainerLimitationMemory);
    assert!(
        failed
            .message()
            .starts_with("Memory limit exceeded: Requested: 64MB Maximum Used: 64MB"),
        "{}",
        failed.message()
    );
    let limitation = failed.limitation.expect("a limitation");
    assert_eq!(
        limitation.resources[0].scalar.map(|mem| mem.value),
        Some(64.0)
    );
    scheduler.wait_state("other", TaskState::TaskKilled);
    assert_eq!(executor_ended(&mut scheduler, "pod"), Some(0));
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn tasks_of_a_group_share_a_directory_of_their_executor() {
    if !available() {
        return;
    }
    let bench = Bench::new();
    let agent = bench.agent_with_images(0);
    let mut scheduler = bench.scheduler();
    let shared = v1::Volume {
        mode: v1::volume::Mode::Rw.into(),
        container_path: "shared".to_owned(),
        source: Some(v1::volume::Source {
            r#type: Some(v1::volume::source::Type::SandboxPath.into()),
            sandbox_path: Some(v1::volume::source::SandboxPath {
                r#type: Some(v1::volume::source::sandbox_path::Type::Parent.into()),
                path: "of-the-pod".to_owned(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let writes = task("writes", "echo said > shared/file", 0.1, 32.0);
    let text =
        "cd $MESOS_SANDBOX; while ! test -s shared/file; do sleep 0.02; done; cat shared/file";
    let mut tasks = vec![writes, in_image(&bench, task("reads", text, 0.1, 32.0))];
    for task in &mut tasks {
        let container = task.container.get_or_insert_with(|| v1::ContainerInfo {
            r#type: v1::container_info::Type::Mesos.into(),
            ..Default::default()
        });
        container.volumes.push(shared.clone());
    }
    launch(&mut scheduler, "pod", tasks);
    for id in ["writes", "reads"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
    }
    let around = sandbox(&agent);
    for file in ["tasks/reads/stdout", "of-the-pod/file"] {
        let said = fs::read_to_string(around.join(file)).expect("a file");
        assert!(said.ends_with("said\n"), "{file}: {said}");
    }
    assert_eq!(executor_ended(&mut scheduler, "pod"), Some(0));
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn tasks_of_a_group_have_images_of_their_own() {
    if !images::available() {
        return;
    }
    let bench = Bench::new();
    let (dir, master) = (bench.scratch.path(), bench.master.address);
    let saved = dir.join("saved");
    fs::create_dir(&saved).expect("a folder");
    for name in ["left", "right"] {
        let from = format!("oci:{}:latest", images::layout(dir, name).display());
        let archive = saved.join(format!("{name}.tar"));
        let to = format!("docker-archive:{}:{name}:latest", archive.display());
        images::run("skopeo", &["copy", "--quiet", &from, &to]);
    }
    let flags = [
        "--resources=cpus:4;mem:4096;disk:10240",
        "--isolation=filesystem/linux,docker/runtime,namespaces/pid,cgroups/cpu,cgroups/mem",
        "--image_providers=DOCKER",
        &format!("--docker_registry={}", saved.display()),
    ];
    let agent = Daemon::agent(dir, "agent", master, &flags);
    let mut scheduler = bench.scheduler();
    let look = "cat /etc/layer; echo $FROM; pwd; touch $MESOS_SANDBOX/here /anywhere";
    let tasks = vec![
        images::of_image("one", "left", Some(look)),
        // What the image says.
        images::of_image("two", "right", None),
        // In the root of the host, as the group's container is.
        task("plain", "test -e /etc/layer || echo none", 0.1, 32.0),
        images::of_image("long", "left", Some("sleep 1000")),
    ];
    launch(&mut scheduler, "pod", tasks);
    for id in ["one", "two", "plain"] {
        scheduler.wait_state(id, TaskState::TaskFinished);
    }
    let around = sandbox(&agent);
    let said =
        |id: &str| fs::read_to_string(around.join(format!("tasks/{id}/stdout"))).expect("a log");
    assert_eq!(said("one"), "top of left\nimage\n/etc\n");
    assert!(around.join("tasks/one/here").exists());
    assert_eq!(
        (said("two").as_str(), said("plain").as_str()),
        ("top of right\n", "none\n")
    );
    // The layers of a container that is nested stay while it runs: all three of its image.
    let kept = fs::read_dir(dir.join("agent/modules/docker/layers")).expect("a folder");
    let unused = agent.get("/images/unused");
    assert_eq!(unused["layers"], kept.count() - 3, "{unused}");
    scheduler.kill("long");
    scheduler.wait_state("long", TaskState::TaskKilled);
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn a_group_ends_with_its_first_bad_end_and_others_go_on() {
    let bench = Bench::new();
    let agent = bench.agent_at(0);
    let mut scheduler = bench.scheduler();
    // Not before the other runs, which would be told otherwise.
    let go = bench.scratch.path().join("bad");
    let text = format!(
        "while ! test -e {}; do sleep 0.02; done; exit 4",
        go.display()
    );
    let bad = task("bad", &text, 0.1, 32.0);
    launch(&mut scheduler, "pod", vec![bench.waiting("long"), bad]);
    scheduler.wait_state("long", TaskState::TaskRunning);
    fs::write(go, "").expect("the scratch folder");
    scheduler.wait_state("bad", TaskState::TaskFailed);
    let killed = scheduler.wait_state("long", TaskState::TaskKilled);
    assert_eq!(
        killed.message(),
        "Command terminated with signal Terminated"
    );
    assert_eq!(executor_ended(&mut scheduler, "pod"), Some(0));

    // Two groups in one executor: a kill reaches the tasks of one.
    launch(
        &mut scheduler,
        "two",
        vec![bench.waiting("a1"), bench.waiting("a2")],
    );
    scheduler.wait_state("a2", TaskState::TaskRunning);
    let offer = scheduler.wait("an offer with the executor", |scheduler| {
        let at = scheduler
            .offers
            .iter()
            .position(|o| o.executor_ids.iter().any(|id| id.value == "two"))?;
        Some(scheduler.offers.remove(at))
    });
    scheduler.launch_group(&offer, default_executor("two"), vec![bench.waiting("b")]);
    scheduler.wait_state("b", TaskState::TaskRunning);
    scheduler.kill("a1");
    scheduler.wait_state("a2", TaskState::TaskKilled);
    fs::write(bench.flag(), "").expect("the scratch folder");
    scheduler.wait_state("b", TaskState::TaskFinished);
    assert_eq!(executor_ended(&mut scheduler, "two"), Some(0));

    // One that asks for too little is refused as a whole.
    let mut small = default_executor("small");
    small.resources.pop();
    let first = task("s1", "true", 0.1, 32.0);
    let offer = roomy(&mut scheduler);
    scheduler.launch_group(&offer, small, vec![first]);
    let refused = scheduler.wait_state("s1", TaskState::TaskError);
    assert_eq!(refused.reason(), Reason::TaskGroupInvalid);
    assert!(refused.message().contains("disk"), "{}", refused.message());
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn groups_and_what_operators_launched_survive_the_agent() {
    survive(1);
}

/// How often: `TEPUI_LOOPS`, 200 unless it is set.
#[test]
#[ignore = "long: run by name"]
fn agents_that_are_killed_again_and_again_leave_nothing_behind() {
    let loops = std::env::var("TEPUI_LOOPS")
        .ok()
        .and_then(|loops| loops.parse().ok());
    survive(loops.unwrap_or(200));
}

/// An agent with pods is killed and started anew, again and again.
fn survive(loops: usize) {
    let bench = Bench::new();
    let has_images = available();
    let start = |port| match has_images {
        true => bench.agent_with_images(port),
        false => bench.agent_at(port),
    };
    let mut agent = start(0);
    let port = agent.address.port();
    let mut scheduler = bench.scheduler();
    let other = |id: &str| match has_images {
        true => in_image(&bench, bench.waiting(id)),
        false => bench.waiting(id),
    };
    for turn in 0..loops {
        let _ = fs::remove_file(bench.flag());
        let pod = format!("pod{turn}");
        let [one, two, killed] = ["one", "two", "killed"].map(|name| format!("{name}{turn}"));
        launch(&mut scheduler, &pod, vec![bench.waiting(&one), other(&two)]);
        let running = scheduler.wait_state(&one, TaskState::TaskRunning);
        scheduler.wait_state(&two, TaskState::TaskRunning);
        let doomed = format!("doomed{turn}");
        launch(&mut scheduler, &doomed, vec![other(&killed)]);
        scheduler.wait_state(&killed, TaskState::TaskRunning);
        let id = container(&running);
        let parent = id.parent.clone().expect("nested");
        let inner = json!({ "value": "inner", "parent": { "value": id.value, "parent": { "value": parent.value } } });
        let waits = bench.waiting("x").command.and_then(|command| command.value);
        for (id, kind) in [
            (&inner, "LAUNCH_NESTED_CONTAINER"),
            (&json!({ "value": "alone" }), "LAUNCH_CONTAINER"),
        ] {
            let part = kind.to_lowercase();
            let call = json!({ "type": kind, part: { "container_id": id, "command": { "value": waits } } });
            assert_eq!(agent.status_of(&call), 200, "{call}");
        }
        agent.kill();
        // What is killed while no agent runs is killed by the next.
        scheduler.kill(&killed);
        agent = start(port);
        scheduler.wait_state(&killed, TaskState::TaskKilled);
        assert_eq!(executor_ended(&mut scheduler, &doomed), Some(0));
        let shown = json!({ "type": "GET_CONTAINERS", "get_containers": { "show_nested": true, "show_standalone": true } });
        wait_for("the whole tree", || {
            let answer = agent.call(&shown);
            let all = answer["get_containers"]["containers"].as_array().cloned();
            let mut names: Vec<_> = all
                .into_iter()
                .flatten()
                .map(|c| {
                    c["container_id"]["value"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                })
                .collect();
            names.retain(|name| {
                *name == "alone" || *name == "inner" || *name == id.value || *name == parent.value
            });
            if names.len() == 4 { Ok(()) } else { Err(names) }
        });
        fs::write(bench.flag(), "").expect("the scratch folder");
        for name in [&one, &two] {
            scheduler.wait_state(name, TaskState::TaskFinished);
        }
        let alone = json!({ "value": "alone" });
        let waited = agent.call(
            &json!({ "type": "WAIT_CONTAINER", "wait_container": { "container_id": alone } }),
        );
        assert_eq!(waited["wait_container"]["exit_status"], 0);
        let removed =
            json!({ "type": "REMOVE_CONTAINER", "remove_container": { "container_id": alone } });
        assert_eq!(agent.status_of(&removed), 200);
        assert_eq!(executor_ended(&mut scheduler, &pod), Some(0));
        for (name, states) in scheduler.states() {
            let ends = states
                .iter()
                .filter(|state| matches!(state, TaskState::TaskFinished | TaskState::TaskKilled));
            assert_eq!(ends.count(), 1, "{name}: {states:?}");
        }
        wait_for("no containers", || {
            let answer = agent.call(&shown);
            if answer.get("get_containers").is_none() {
                Ok(())
            } else {
                Err(answer)
            }
        });
    }
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}

#[test]
fn tasks_of_a_group_fetch_and_are_checked() {
    let bench = Bench::new();
    let page = Page::Whole("200 OK", b"fetched".into());
    let server = PageServer::start([("/file", page)]);
    let agent = bench.agent_at(0);
    let mut scheduler = bench.scheduler();
    let check = |text: &str| {
        let times = r#""delay_seconds":0,"interval_seconds":0.1,"grace_period_seconds":0"#;
        let text = format!(r#"{{"type":"COMMAND","command":{{"value":"{text}"}},{times}}}"#);
        tepui_proto::json::to_message(text.as_bytes()).expect("a health check")
    };
    let mut well = bench.waiting("well");
    well.command.as_mut().expect("set").uris = vec![v1::command_info::Uri {
        value: server.url("/file"),
        ..Default::default()
    }];
    // Where the task works, which is its own sandbox.
    well.health_check = Some(check("grep -q fetched file"));
    launch(&mut scheduler, "e", vec![well]);
    scheduler.wait("health", |scheduler| {
        let updates = scheduler.updates.get("well")?;
        let healthy = updates.iter().any(|status| status.healthy == Some(true));
        healthy.then_some(())
    });
    let mut ill = bench.waiting("ill");
    ill.health_check = Some(check("false"));
    launch(&mut scheduler, "e", vec![ill, bench.waiting("beside")]);
    let killed = scheduler.wait_state("ill", TaskState::TaskKilled);
    assert_eq!(killed.healthy, Some(false));
    scheduler.wait_state("beside", TaskState::TaskKilled);
    fs::write(bench.flag(), "").expect("the scratch folder");
    scheduler.wait_state("well", TaskState::TaskFinished);
    agent.stop(Signal::SIGUSR1);
    wait_clean(bench.scratch.path());
}
