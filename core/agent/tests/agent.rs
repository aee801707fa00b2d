//! A whole agent with a master that a test plays and containers that pretend.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tepui_containerizer::{
    ContainerConfig, Error, Exit, LaunchError, Launched, Recovered, RunningContainer, Termination,
};
use tepui_core_agent::{Agent, Containers, Ended, Settings, attach_endpoints, resources};
use tepui_http::shared::{Files, Logging, Metrics, Shared, VersionInfo};
use tepui_http::{Client, Listener, Request, Router, Server, ServerSettings};
use tepui_link::{MasterEnd, MasterEvent, MasterSettings, Peer, SessionEvent, SessionSender};
use tepui_model::id::ContainerId;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{AckUpdate, Framework, Kill, Run, ShutdownFramework, Welcome};
use tepui_proto::v1::{self, TaskState};
use tokio::sync::{mpsc, watch};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Containers that are as real as their map: it survives the agent.
#[derive(Default)]
struct Pretend {
    all: Mutex<BTreeMap<ContainerId, watch::Sender<Option<Termination>>>>,
    configs: Mutex<Vec<ContainerConfig>>,
}

fn over(exit: Exit) -> Termination {
    Termination {
        exit,
        limitation: None,
        stopped: false,
        destroyed: false,
        launch_failure: None,
        cleanup_failures: Vec::new(),
    }
}

impl Pretend {
    fn end(&self, id: &ContainerId, exit: Exit) {
        let all = self.all.lock().expect("no panic under it");
        if let Some(container) = all.get(id) {
            container.send_if_modified(|end| {
                let running = end.is_none();
                if running {
                    *end = Some(over(exit));
                }
                running
            });
        }
    }

    fn only(&self) -> ContainerId {
        let all = self.all.lock().expect("no panic under it");
        all.keys().next().expect("a container").clone()
    }

    fn count(&self) -> usize {
        self.all.lock().expect("no panic under it").len()
    }

    fn find(&self, id: &ContainerId) -> Result<watch::Receiver<Option<Termination>>, Error> {
        let all = self.all.lock().expect("no panic under it");
        let found = all.get(id).map(watch::Sender::subscribe);
        found.ok_or_else(|| Error::Unknown(id.clone()))
    }
}

impl Containers for Pretend {
    fn recover(&self, known: BTreeSet<ContainerId>) -> BoxFuture<'_, Result<Recovered, Error>> {
        Box::pin(async move {
            let mut recovered = Recovered::default();
            let mut all = self.all.lock().expect("no panic under it");
            all.retain(|id, _| known.contains(id));
            for id in known {
                match all.get(&id).map(|c| c.borrow().clone()) {
                    Some(None) => recovered.running.push(RunningContainer { id, pid: 7 }),
                    Some(Some(end)) => recovered.ended.push((id, end)),
                    None => recovered.missing.push(id),
                }
            }
            Ok(recovered)
        })
    }

    fn launch(&self, config: ContainerConfig) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(async move {
            std::fs::create_dir_all(&config.sandbox).expect("space");
            std::fs::write(config.sandbox.join("stdout"), "hello\n").expect("space");
            let (sender, _) = watch::channel(None);
            self.all
                .lock()
                .expect("no panic under it")
                .insert(config.id.clone(), sender);
            self.configs.lock().expect("no panic under it").push(config);
            Ok(Launched { pid: 7 })
        })
    }

    fn wait<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Termination, Error>> {
        Box::pin(async move {
            let mut end = self.find(id)?;
            let ended = end.wait_for(Option::is_some).await;
            let ended = ended.map_err(|_| Error::Unknown(id.clone()))?;
            Ok(ended.clone().expect("it was waited for"))
        })
    }

    fn stop(&self, id: &ContainerId, _grace: Duration) -> Result<(), Error> {
        self.end(id, Exit::Status(15));
        Ok(())
    }

    fn destroy<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Termination, Error>> {
        self.end(id, Exit::Status(9));
        self.wait(id)
    }

    fn usage<'a>(
        &'a self,
        id: &'a ContainerId,
    ) -> BoxFuture<'a, Result<v1::ResourceStatistics, Error>> {
        Box::pin(async move {
            self.find(id)?;
            Ok(v1::ResourceStatistics {
                timestamp: 1.5,
                ..v1::ResourceStatistics::default()
            })
        })
    }

    fn status<'a>(
        &'a self,
        id: &'a ContainerId,
    ) -> BoxFuture<'a, Result<v1::ContainerStatus, Error>> {
        Box::pin(async move {
            self.find(id)?;
            Ok(v1::ContainerStatus {
                executor_pid: Some(7),
                ..v1::ContainerStatus::default()
            })
        })
    }

    fn forget(&self, id: &ContainerId) -> Result<(), Error> {
        self.all.lock().expect("no panic under it").remove(id);
        Ok(())
    }
}

/// The master's side of the link.
struct Master {
    server: Server,
    events: mpsc::Receiver<SessionEvent>,
    session: Option<SessionSender>,
    seen: BTreeSet<Vec<u8>>,
}

impl Master {
    async fn start() -> Self {
        let (inbox, events) = mpsc::channel(64);
        let end = MasterEnd::new(MasterSettings::default(), inbox);
        let mut router = Router::with_delegate("master");
        router.route(tepui_link::PATH, move |mut request: Request| {
            let end = end.clone();
            async move {
                let (response, stream) = request.take_upgrade().expect("an upgrade").accept();
                tokio::spawn(async move {
                    let stream = stream.await.expect("a stream");
                    end.serve(stream, Peer::default()).await;
                });
                response
            }
        });
        let address = ([127, 0, 0, 1], 0).into();
        let server = Server::start(ServerSettings::new(address), Arc::new(router));
        Self {
            server: server.await.expect("a port"),
            events,
            session: None,
            seen: BTreeSet::new(),
        }
    }

    async fn next(&mut self) -> MasterEvent {
        let event = tokio::time::timeout(TIMEOUT, self.events.recv()).await;
        event
            .expect("the agent says something")
            .expect("an end")
            .event
    }

    /// Takes the agent; its Hello's id and the tasks of its Sync.
    async fn welcome(&mut self) -> (Option<String>, Vec<v1::Task>) {
        let id = loop {
            if let MasterEvent::Hello { hello, sender, .. } = self.next().await {
                self.session = Some(sender);
                break hello.info.and_then(|info| info.id).map(|id| id.value);
            }
        };
        self.send(Body::Welcome(Welcome {
            protocol: 1,
            agent_id: Some(v1::AgentId { value: "S0".into() }),
            cluster_id: "c".into(),
            epoch: 1,
            ping_timeout_ms: 75_000,
            master_info: Some(v1::MasterInfo {
                hostname: Some("there".into()),
                ..v1::MasterInfo::default()
            }),
            ..Welcome::default()
        }));
        let MasterEvent::Synced(synced) = self.next().await else {
            panic!("no Sync");
        };
        let tasks = synced.tasks.into_iter().filter_map(|task| task.task);
        (id, tasks.collect())
    }

    fn send(&self, body: Body) {
        let session = self.session.as_ref().expect("a session");
        session.send(body).expect("it is open");
    }

    fn run(&self, task: v1::TaskInfo, checkpoint: bool) {
        let info = framework(checkpoint);
        let framework_id = info.id.clone();
        self.send(Body::Framework(Framework { info: Some(info) }));
        self.send(Body::Run(Run {
            framework_id,
            tasks: vec![task],
            ..Run::default()
        }));
    }

    fn kill(&self, task: &str) {
        self.send(Body::Kill(Kill {
            framework_id: framework(true).id,
            task_id: Some(v1::TaskId { value: task.into() }),
            ..Kill::default()
        }));
    }

    /// The next status that is new, acknowledged.
    async fn status(&mut self) -> v1::TaskStatus {
        loop {
            let event = self.next().await;
            if let MasterEvent::Updates(mut updates) = event {
                let status = updates.remove(0).status.expect("a status");
                self.send(Body::AckUpdate(AckUpdate {
                    framework_id: framework(true).id,
                    task_id: Some(status.task_id.clone()),
                    uuid: status.uuid.clone().expect("a uuid"),
                }));
                if self.seen.insert(status.uuid().to_vec()) {
                    return status;
                }
            }
        }
    }

    async fn states(&mut self, expected: &[TaskState]) -> v1::TaskStatus {
        let mut last = v1::TaskStatus::default();
        for state in expected {
            last = self.status().await;
            assert_eq!(last.state(), *state, "{:?}", last.message);
        }
        last
    }
}

fn framework(checkpoint: bool) -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        user: "root".into(),
        name: "test".into(),
        id: Some(v1::FrameworkId { value: "F".into() }),
        checkpoint: Some(checkpoint),
        roles: vec!["r".into()],
        ..v1::FrameworkInfo::default()
    }
}

fn task(name: &str) -> v1::TaskInfo {
    let scalar = |name: &str, value: f64| v1::Resource {
        name: name.into(),
        r#type: v1::value::Type::Scalar.into(),
        scalar: Some(v1::value::Scalar { value }),
        allocation_info: Some(v1::resource::AllocationInfo {
            role: Some("r".into()),
        }),
        ..v1::Resource::default()
    };
    v1::TaskInfo {
        name: name.into(),
        task_id: v1::TaskId { value: name.into() },
        agent_id: v1::AgentId { value: "S0".into() },
        resources: vec![scalar("cpus", 0.1), scalar("mem", 16.0)],
        command: Some(v1::CommandInfo {
            value: Some("sleep 1000".into()),
            environment: Some(v1::Environment {
                variables: vec![v1::environment::Variable {
                    name: "MINE".into(),
                    value: Some("1".into()),
                    ..v1::environment::Variable::default()
                }],
            }),
            ..v1::CommandInfo::default()
        }),
        ..v1::TaskInfo::default()
    }
}

struct Running {
    agent: Agent,
    server: Server,
    client: Client,
}

async fn start(work_dir: &Path, master: &Master, containers: &Arc<Pretend>) -> Running {
    let listener = Listener::bind(ServerSettings::new(([127, 0, 0, 1], 0).into())).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr();
    let total = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]";
    let settings = Settings {
        port: address.port(),
        resources: resources(Some(total), "*", work_dir).expect("resources"),
        registration_backoff_factor: Duration::from_millis(10),
        ..Settings::new(work_dir.into(), master.server.local_addr().to_string())
    };
    let shared = Shared {
        version: VersionInfo::default(),
        flags: Arc::default(),
        files: Files::default(),
        metrics: Metrics::default(),
        logging: Logging::new(0, |_| {}),
    };
    let agent = Agent::start(settings, containers.clone(), &shared).await;
    let agent = agent.expect("it starts").expect("it goes on");
    let mut router = Router::with_delegate("slave(1)");
    attach_endpoints(&agent, &shared, Arc::new(|| b"{}".to_vec()), &mut router);
    Running {
        agent,
        server: listener.serve(Arc::new(router)),
        client: Client::new(&address.to_string()).expect("an address"),
    }
}

impl Running {
    async fn get(&self, path: &str) -> serde_json::Value {
        let reply = self.client.get(path).await.expect("an answer");
        let reply = reply.success().expect("200");
        serde_json::from_slice(&reply.body).expect("JSON")
    }

    async fn call(&self, body: &str) -> (u16, String) {
        let reply = self
            .client
            .post_json("/slave(1)/api/v1", body.to_owned())
            .await
            .expect("an answer");
        (reply.status.as_u16(), reply.text())
    }

    async fn stop(self) {
        self.agent.stop().await;
        self.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_from_launch_to_history() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut master = Master::start().await;
    let containers = Arc::new(Pretend::default());
    let running = start(dir.path(), &master, &containers).await;
    assert_eq!(master.welcome().await, (None, Vec::new()));
    master.run(task("t"), true);
    let status = master
        .states(&[TaskState::TaskStarting, TaskState::TaskRunning])
        .await;
    let container = containers.only();
    let shown = status.container_status.expect("a container's status");
    assert_eq!(
        shown.container_id.map(|id| id.value),
        Some(container.to_string())
    );
    assert_eq!(shown.executor_pid, Some(7));
    assert_eq!(
        shown.network_infos[0].ip_addresses[0].ip_address(),
        "127.0.0.1"
    );

    let config = containers.configs.lock().expect("no panic under it")[0].clone();
    let runs = dir.path().join("slaves/S0/frameworks/F/executors/t/runs");
    assert_eq!(config.sandbox, runs.join(container.to_string()));
    let latest = std::fs::read_link(runs.join("latest")).expect("a link");
    assert_eq!(latest, PathBuf::from(container.to_string()));
    let variable = |name: &str| {
        let all = config.environment.iter().rev();
        let mut found = all.filter(|(n, _)| n == name);
        found
            .next()
            .map_or("-", |(_, value)| value.as_str())
            .to_owned()
    };
    assert_eq!(variable("MINE"), "1");
    assert_eq!(variable("MESOS_ALLOCATION_ROLE"), "r");
    assert_eq!(variable("MESOS_CHECKPOINT"), "1");
    assert_eq!(variable("MESOS_EXECUTOR_ID"), "t");
    assert_eq!(config.resources.cpus().to_f64(), 0.2);
    assert_eq!(config.resources.mem().to_f64(), 48.0);

    for prefix in ["", "/slave(1)"] {
        let state = running.get(&format!("{prefix}/state")).await;
        let executor = &state["frameworks"][0]["executors"][0];
        assert_eq!(
            executor["name"],
            "Command Executor (Task: t) (Command: sh -c 'sleep 1000')"
        );
        assert_eq!(executor["resources"]["mem"], 48.0);
        assert_eq!(executor["tasks"][0]["state"], "TASK_RUNNING");
        assert_eq!(state["master_hostname"], "there");
        assert_eq!(state["unreserved_resources_allocated"]["cpus"], 0.2);
    }
    let tasks = running.call(r#"{"type": "GET_TASKS"}"#).await.1;
    assert!(tasks.starts_with(r#"{"type":"GET_TASKS","get_tasks":{"pending_tasks":[],"queued_tasks":[],"launched_tasks":[{"name":"t""#), "{tasks}");
    let seen = running.call(r#"{"type": "GET_CONTAINERS"}"#).await.1;
    assert!(seen.contains(r#""executor_pid":7"#), "{seen}");
    let listed = running.get("/containers").await;
    assert_eq!(listed[0]["statistics"]["timestamp"], 1.5);
    let virtual_path = "/files/read?path=/frameworks/F/executors/t/runs/latest/stdout&offset=0";
    assert_eq!(running.get(virtual_path).await["data"], "hello\n");

    containers.end(&container, Exit::Status(0));
    let last = master.states(&[TaskState::TaskFinished]).await;
    assert_eq!(last.message(), "Command exited with status 0");
    wait_until("the task is history", async || {
        let state = running.get("/state").await;
        let completed = &state["completed_frameworks"][0]["completed_executors"][0];
        completed["completed_tasks"][0]["state"] == "TASK_FINISHED"
    })
    .await;
    assert_eq!(containers.count(), 0, "a container is not forgotten");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_recorded_survives_the_agent() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut master = Master::start().await;
    let containers = Arc::new(Pretend::default());
    let first = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    master.run(task("t"), true);
    master
        .states(&[TaskState::TaskStarting, TaskState::TaskRunning])
        .await;
    first.stop().await;

    // It runs on while there is no agent; the next one goes on with it under the same id.
    let second = start(dir.path(), &master, &containers).await;
    let (id, tasks) = master.welcome().await;
    assert_eq!(id.as_deref(), Some("S0"));
    assert_eq!(tasks[0].state(), TaskState::TaskRunning);
    master.kill("t");
    let last = master.states(&[TaskState::TaskKilled]).await;
    assert_eq!(last.message(), "Command terminated with signal Terminated");

    // One that ends while there is no agent is told of by the next one.
    master.run(task("u"), true);
    master
        .states(&[TaskState::TaskStarting, TaskState::TaskRunning])
        .await;
    wait_until("only one container is left", async || {
        containers.count() == 1
    })
    .await;
    let container = containers.only();
    second.stop().await;
    containers.end(&container, Exit::Status(7 << 8));
    let third = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    let last = master.states(&[TaskState::TaskFailed]).await;
    assert_eq!(last.message(), "Command exited with status 7");

    // Without checkpoint nothing survives.
    master.run(task("v"), false);
    master
        .states(&[TaskState::TaskStarting, TaskState::TaskRunning])
        .await;
    third.stop().await;
    let fourth = start(dir.path(), &master, &containers).await;
    let (_, tasks) = master.welcome().await;
    assert!(tasks.is_empty());
    assert_eq!(containers.count(), 0);
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_shutdown_and_leaving() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut master = Master::start().await;
    let containers = Arc::new(Pretend::default());
    let mut running = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    let asks_for_more = v1::TaskInfo {
        health_check: Some(v1::HealthCheck::default()),
        ..task("h")
    };
    master.run(asks_for_more, true);
    let status = master.states(&[TaskState::TaskError]).await;
    assert!(
        status.message().contains("health_check"),
        "{}",
        status.message()
    );
    assert_eq!(status.reason(), v1::task_status::Reason::TaskInvalid);

    master.run(task("t"), true);
    master
        .states(&[TaskState::TaskStarting, TaskState::TaskRunning])
        .await;
    master.send(Body::ShutdownFramework(ShutdownFramework {
        framework_id: framework(true).id,
    }));
    wait_until("its container is gone", async || containers.count() == 0).await;

    for (body, expected) in [
        (r#"{"type": "UNKNOWN"}"#, 501),
        (
            r#"{"type": "LAUNCH_CONTAINER", "launch_container": {"container_id": {"value": "x"}}}"#,
            501,
        ),
        (r#"{"type": "WAIT_CONTAINER"}"#, 400),
        ("{}", 400),
    ] {
        assert_eq!(running.call(body).await.0, expected, "{body}");
    }
    running.agent.unregister();
    let ended = tokio::time::timeout(TIMEOUT, running.agent.ended()).await;
    assert!(matches!(ended, Ok(Ended::Left(_))), "{ended:?}");
    assert!(matches!(master.next().await, MasterEvent::Unregister));
    assert!(!dir.path().join("meta/agent.pb").exists());
    running.stop().await;
}

async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < TIMEOUT, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Names as recorded from Mesos 1.11 (there master and agent shared one process), and its values for
/// one command task, whose executor has resources of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_those_of_mesos() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut master = Master::start().await;
    let containers = Arc::new(Pretend::default());
    let running = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    master.run(task("t"), true);
    let states = [TaskState::TaskStarting, TaskState::TaskRunning];
    master.states(&states).await;

    let told: BTreeMap<String, f64> =
        serde_json::from_value(running.get("/metrics/snapshot").await).expect("numbers");
    let recorded = "../../tools/e2e/recordings/http-busy/get-metrics-snapshot.body";
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join(recorded);
    let recorded = std::fs::read(recorded).expect("the recording");
    let mut recorded: BTreeMap<String, f64> = serde_json::from_slice(&recorded).expect("numbers");
    recorded.retain(|name, _| {
        let mut masters = ["master/", "allocator/", "registrar/"].iter();
        !masters.any(|process| name.starts_with(process))
    });
    assert!(told.keys().eq(recorded.keys()), "{told:#?}");
    let same = [
        "cpus_",
        "mem_",
        "disk_",
        "gpus_",
        "executors_",
        "frameworks_",
        "tasks_running",
    ];
    for (name, value) in recorded {
        let name = name.as_str();
        let own = name.strip_prefix("slave/").unwrap_or_default();
        if same.iter().any(|part| own.starts_with(part)) {
            assert!((told[name] - value).abs() < 1e-9, "{name}: {}", told[name]);
        }
    }
    assert_eq!(told["slave/valid_status_updates"], 2.0);

    containers.end(&containers.only(), Exit::Status(0));
    master.states(&[TaskState::TaskFinished]).await;
    wait_until("the end is counted", async || {
        let told = running.get("/metrics/snapshot").await;
        told["slave/tasks_finished"] == 1.0 && told["slave/executors_terminated"] == 1.0
    })
    .await;
    running.stop().await;
}
