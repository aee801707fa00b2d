//! An agent for tests: a master that the test plays and containers that pretend.

#![expect(dead_code, reason = "no test file uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use tempfile::TempDir;
use tepui_containerizer::{
    Class, Command, ContainerConfig, Counts, Error, Exit, LaunchError, Launched, Limits, Listed,
    Recovered, RunningContainer, Sandbox, Termination,
};
use tepui_core_agent::{Agent, Containers, Settings, StartError, attach_endpoints, resources};
use tepui_http::authorize::AllowAll;
use tepui_http::shared::{Files, Logging, Metrics, Shared, VersionInfo};
use tepui_http::{Client, Listener, Request, Router, Server, ServerSettings};
use tepui_link::{MasterEnd, MasterEvent, MasterSettings, Peer, SessionEvent, SessionSender};
use tepui_model::Resources;
use tepui_model::id::ContainerId;
use tepui_proto::Message as _;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{AckUpdate, Framework, Kill, Run, Welcome};
use tepui_proto::v1::{self, TaskState};
use tokio::sync::{mpsc, watch};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// Containers that are as real as their map: it survives the agent.
pub(crate) struct Pretend {
    /// As long as this is false, nothing is forgotten, and who forgets waits.
    pub(crate) forgets: watch::Sender<bool>,
    pub(crate) all: Mutex<BTreeMap<ContainerId, watch::Sender<Option<Termination>>>>,
    pub(crate) configs: Mutex<Vec<ContainerConfig>>,
    pub(crate) updates: Mutex<Vec<(ContainerId, Resources)>>,
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

impl Default for Pretend {
    fn default() -> Self {
        Self {
            forgets: watch::Sender::new(true),
            all: Mutex::default(),
            configs: Mutex::default(),
            updates: Mutex::default(),
        }
    }
}

impl Pretend {
    pub(crate) fn end(&self, id: &ContainerId, exit: Exit) {
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

    pub(crate) fn only(&self) -> ContainerId {
        let all = self.all.lock().expect("no panic under it");
        all.keys().next().expect("a container").clone()
    }

    /// What a container was given last.
    pub(crate) fn given(&self) -> Option<Resources> {
        let updates = self.updates.lock().expect("no panic under it");
        updates.last().map(|(_, resources)| resources.clone())
    }

    /// How many were launched so far.
    pub(crate) fn launches(&self) -> usize {
        self.configs.lock().expect("no panic under it").len()
    }

    pub(crate) fn count(&self) -> usize {
        self.all.lock().expect("no panic under it").len()
    }

    /// The container of an executor.
    pub(crate) fn of(&self, executor: &str) -> ContainerId {
        let configs = self.configs.lock().expect("no panic under it");
        let is = |config: &&ContainerConfig| {
            let (name, value) = ("MESOS_EXECUTOR_ID", executor);
            let mut all = config.environment.iter();
            all.any(|(n, v)| n == name && v == value)
        };
        let found = configs.iter().rfind(is).expect("it was launched");
        found.id.clone()
    }

    pub(crate) fn find(
        &self,
        id: &ContainerId,
    ) -> Result<watch::Receiver<Option<Termination>>, Error> {
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
            let configs = self.configs.lock().expect("no panic under it");
            let stands = |id: &ContainerId| {
                let config = configs.iter().rfind(|config| config.id == *id);
                config.is_some_and(|config| config.class == Class::Standalone)
            };
            all.retain(|id, _| known.contains(id) || stands(id));
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
            if self.find(&config.id).is_ok() {
                return Err(LaunchError::Exists(config.id));
            }
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

    fn inside(
        &self,
        parent: &ContainerId,
        name: &str,
        command: Command,
    ) -> Result<ContainerConfig, Error> {
        let configs = self.configs.lock().expect("no panic under it");
        let around = configs.iter().rfind(|config| config.id == *parent);
        let around = around.ok_or_else(|| Error::Unknown(parent.clone()))?;
        Ok(ContainerConfig {
            id: parent.child(name),
            class: Class::Debug,
            sandbox: around.sandbox.join("containers").join(name),
            command: Some(command),
            ..around.clone()
        })
    }

    fn sandbox(&self, id: &ContainerId) -> Result<Sandbox, Error> {
        let configs = self.configs.lock().expect("no panic under it");
        let found = configs.iter().rfind(|config| config.id == *id);
        let found = found.map(|config| Sandbox::new(&config.sandbox));
        found.ok_or_else(|| Error::Unknown(id.clone()))
    }

    fn list(&self) -> Vec<Listed> {
        let all = self.all.lock().expect("no panic under it");
        let configs = self.configs.lock().expect("no panic under it");
        let class = |id: &ContainerId| {
            let config = configs.iter().rfind(|config| config.id == *id);
            config.map_or(Class::Task, |config| config.class)
        };
        let listed = all.iter().map(|(id, end)| Listed {
            id: id.clone(),
            class: class(id),
            over: end.borrow().is_some(),
        });
        listed.collect()
    }

    fn kill(&self, id: &ContainerId, signal: i32) -> Result<(), Error> {
        self.find(id)?;
        self.end(id, Exit::Status(signal));
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts::default()
    }

    fn input<'a>(&'a self, id: &'a ContainerId, _: Vec<u8>) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move { Err(Error::NoInput(id.clone())) })
    }

    fn resize(&self, id: &ContainerId, _: u16, _: u16) -> Result<(), Error> {
        Err(Error::NoInput(id.clone()))
    }

    fn stop(&self, id: &ContainerId, _grace: Duration) -> Result<(), Error> {
        self.end(id, Exit::Status(15));
        Ok(())
    }

    fn destroy<'a>(&'a self, id: &'a ContainerId) -> BoxFuture<'a, Result<Termination, Error>> {
        self.end(id, Exit::Status(9));
        self.wait(id)
    }

    fn update<'a>(
        &'a self,
        id: &'a ContainerId,
        resources: Resources,
        _limits: Limits,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.find(id)?;
            let mut updates = self.updates.lock().expect("no panic under it");
            updates.push((id.clone(), resources));
            Ok(())
        })
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
        if self.find(id)?.borrow().is_none() {
            return Err(Error::NotOver(id.clone()));
        }
        let mut forgets = self.forgets.subscribe();
        if !*forgets.borrow_and_update() {
            futures::executor::block_on(forgets.wait_for(|forgets| *forgets))
                .expect("the sender is here");
        }
        self.all.lock().expect("no panic under it").remove(id);
        Ok(())
    }
}

/// The master's side of the link.
pub(crate) struct Master {
    pub(crate) server: Server,
    pub(crate) events: mpsc::Receiver<SessionEvent>,
    pub(crate) session: Option<SessionSender>,
    pub(crate) seen: BTreeSet<Vec<u8>>,
}

impl Master {
    pub(crate) async fn start() -> Self {
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

    pub(crate) async fn next(&mut self) -> MasterEvent {
        let event = tokio::time::timeout(TIMEOUT, self.events.recv()).await;
        event
            .expect("the agent says something")
            .expect("an end")
            .event
    }

    /// Takes the agent; its Hello's id and the tasks of its Sync.
    pub(crate) async fn welcome(&mut self) -> (Option<String>, Vec<v1::Task>) {
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
        let tasks = synced.tasks.into_iter();
        let tasks = tasks.map(|task| v1::Task::decode(task.task).expect("a task"));
        (id, tasks.collect())
    }

    pub(crate) fn send(&self, body: Body) {
        let session = self.session.as_ref().expect("a session");
        session.send(body).expect("it is open");
    }

    pub(crate) fn introduce(&self, checkpoint: bool) {
        let info = Some(framework(checkpoint));
        self.send(Body::Framework(Framework { info }));
    }

    /// The next executor that is over, with its status.
    pub(crate) async fn executor_ended(&mut self) -> (String, i32) {
        loop {
            if let MasterEvent::ExecutorEnded(ended) = self.next().await {
                let id = ended.executor_id.expect("an id").value;
                return (id, ended.status);
            }
        }
    }

    pub(crate) fn run(&self, task: v1::TaskInfo, checkpoint: bool) {
        self.introduce(checkpoint);
        self.send(Body::Run(Run {
            framework_id: framework(true).id,
            tasks: vec![task],
            ..Run::default()
        }));
    }

    /// Launches a task and waits until it runs.
    pub(crate) async fn runs(&mut self, task: v1::TaskInfo, checkpoint: bool) {
        self.run(task, checkpoint);
        let states = [TaskState::TaskStarting, TaskState::TaskRunning];
        self.states(&states).await;
    }

    pub(crate) fn kill(&self, task: &str) {
        self.send(Body::Kill(Kill {
            framework_id: framework(true).id,
            task_id: Some(v1::TaskId { value: task.into() }),
            ..Kill::default()
        }));
    }

    /// The next status that is new, acknowledged.
    pub(crate) async fn status(&mut self) -> v1::TaskStatus {
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

    pub(crate) async fn states(&mut self, expected: &[TaskState]) -> v1::TaskStatus {
        let mut last = v1::TaskStatus::default();
        for state in expected {
            last = self.status().await;
            assert_eq!(last.state(), *state, "{:?}", last.message);
        }
        last
    }
}

pub(crate) fn framework(checkpoint: bool) -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        user: "root".into(),
        name: "test".into(),
        id: Some(v1::FrameworkId { value: "F".into() }),
        checkpoint: Some(checkpoint),
        roles: vec!["r".into()],
        ..v1::FrameworkInfo::default()
    }
}

pub(crate) fn task(name: &str) -> v1::TaskInfo {
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

pub(crate) struct Running {
    pub(crate) agent: Agent,
    pub(crate) server: Server,
    pub(crate) client: Client,
}

/// What an agent needs around it: a directory that goes with the test, a master, containers.
pub(crate) async fn surroundings() -> (TempDir, Master, Arc<Pretend>) {
    let dir = tempfile::tempdir().expect("a directory");
    (dir, Master::start().await, Arc::new(Pretend::default()))
}

/// An agent that its master has welcomed, with what is around it.
pub(crate) async fn welcomed() -> (TempDir, Master, Arc<Pretend>, Running) {
    let (dir, mut master, containers) = surroundings().await;
    let running = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    (dir, master, containers, running)
}

pub(crate) async fn start(work_dir: &Path, master: &Master, containers: &Arc<Pretend>) -> Running {
    start_with(work_dir, master, containers, |_| {}).await
}

pub(crate) async fn start_with(
    work_dir: &Path,
    master: &Master,
    containers: &Arc<Pretend>,
    change: impl FnOnce(&mut Settings),
) -> Running {
    let started = try_start(work_dir, master, containers, change).await;
    started.expect("it starts")
}

pub(crate) async fn try_start(
    work_dir: &Path,
    master: &Master,
    containers: &Arc<Pretend>,
    change: impl FnOnce(&mut Settings),
) -> Result<Running, StartError> {
    let listener = Listener::bind(ServerSettings::new(([127, 0, 0, 1], 0).into())).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr();
    let total = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]";
    let mut settings = Settings {
        port: address.port(),
        resources: resources(Some(total), "*", work_dir, None).expect("resources"),
        registration_backoff_factor: Duration::from_millis(10),
        ..Settings::new(work_dir.into(), master.server.local_addr().to_string())
    };
    change(&mut settings);
    let shared = Shared {
        version: VersionInfo::default(),
        flags: Arc::default(),
        files: Files::default(),
        metrics: Metrics::default(),
        logging: Logging::new(0, |_| {}),
        authorizer: Arc::new(AllowAll),
    };
    let agent = Agent::start(settings, containers.clone(), &shared).await?;
    let agent = agent.expect("it goes on");
    let mut router = Router::with_delegate("slave(1)");
    let modules = Arc::new(|| b"{}".to_vec());
    attach_endpoints(&agent, &shared, modules, &mut router).expect("no exporter");
    Ok(Running {
        agent,
        server: listener.serve(Arc::new(router)),
        client: Client::new(&address.to_string()).expect("an address"),
    })
}

impl Running {
    pub(crate) async fn get(&self, path: &str) -> serde_json::Value {
        let reply = self.client.get(path).await.expect("an answer");
        let reply = reply.success().expect("200");
        serde_json::from_slice(&reply.body).expect("JSON")
    }

    pub(crate) async fn call(&self, body: &str) -> (u16, String) {
        let reply = self
            .client
            .post_json("/slave(1)/api/v1", body.to_owned())
            .await
            .expect("an answer");
        (reply.status.as_u16(), reply.text())
    }

    pub(crate) async fn stop(self) {
        self.agent.stop().await;
        self.server.stop().await;
    }
}

pub(crate) async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < TIMEOUT, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
