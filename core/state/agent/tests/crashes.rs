//! The agent's state under random events, with a crash between any two effects.
//!
//! Around the state is a small world: a disk, containers, executors and a master that all follow
//! the rules of the contract and nothing more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use tepui_model::id::ContainerId;
use tepui_model::rng::Rng;
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{
    AckUpdate, Framework, Kill, LinkFrame, Run, ShutdownFramework, Update, Welcome,
};
use tepui_proto::v1::executor::{Call, call, event};
use tepui_proto::v1::{self, TaskState, TaskStatus, framework_info};
use tepui_proto::{Message as _, Wire};
use tepui_state_agent::{
    AgentSettings, AgentState, ContainerEnd, Effect, Event, Found, RecordBody, RecoveredAgent,
    RecoveredExecutor, RecoveredFramework,
};

#[derive(Clone, Debug)]
enum Op {
    Launch,
    Kill(usize),
    End(usize, i32),
    Acknowledge(usize),
    Disconnect,
    Connect,
    Wait(u64),
    Shutdown,
    /// Only so many effects of the next event are done.
    Crash(usize),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let status = prop_oneof![Just(0), Just(256), Just(15)];
    let op = prop_oneof![
        8 => Just(Op::Launch),
        4 => (0_usize..8).prop_map(Op::Kill),
        6 => (0_usize..8, status).prop_map(|(n, status)| Op::End(n, status)),
        12 => (0_usize..8).prop_map(Op::Acknowledge),
        2 => Just(Op::Disconnect),
        4 => Just(Op::Connect),
        4 => (1_u64..700).prop_map(Op::Wait),
        1 => Just(Op::Shutdown),
        6 => (0_usize..7).prop_map(Op::Crash),
    ];
    proptest::collection::vec(op, 1..60)
}

#[derive(Clone, Debug, PartialEq)]
enum Container {
    Running,
    Ended(i32),
}

#[derive(Clone, Debug)]
struct Played {
    task: v1::TaskInfo,
    state: TaskState,
}

struct World {
    checkpoint: bool,
    state: AgentState,
    now: Now,
    rng: Rng,
    disk: BTreeMap<ContainerId, Vec<RecordBody>>,
    order: Vec<ContainerId>,
    identity: Option<(String, String, u64)>,
    containers: BTreeMap<ContainerId, Container>,
    /// How often a task's command was started.
    starts: BTreeMap<String, u32>,
    played: BTreeMap<ContainerId, Played>,
    watched: BTreeSet<ContainerId>,
    events: VecDeque<Event>,
    sessions: u64,
    session: Option<u64>,
    /// What the master has been told and has not acknowledged.
    inbox: VecDeque<Update>,
    names: u32,
    /// Tasks that the master counts as living.
    launched: Vec<String>,
    /// Terminal states that the master acknowledged.
    ends: BTreeMap<String, i32>,
    shut: bool,
    crash: Option<usize>,
}

impl World {
    fn new(seed: u64, checkpoint: bool) -> Self {
        let mut world = Self {
            checkpoint,
            state: AgentState::new(settings(seed)),
            now: Now {
                mono: Mono(1),
                wall: Wall(1),
            },
            rng: Rng::new(seed ^ 1),
            disk: BTreeMap::new(),
            order: Vec::new(),
            identity: None,
            containers: BTreeMap::new(),
            starts: BTreeMap::new(),
            played: BTreeMap::new(),
            watched: BTreeSet::new(),
            events: VecDeque::new(),
            sessions: 0,
            session: None,
            inbox: VecDeque::new(),
            names: 0,
            launched: Vec::new(),
            ends: BTreeMap::new(),
            shut: false,
            crash: None,
        };
        world.feed(Event::Recovered(RecoveredAgent::default()));
        world.connect();
        world
    }

    fn feed(&mut self, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            let mut effects = Vec::new();
            self.state.apply(event.clone(), self.now, &mut effects);
            if let Err(error) = self.state.check() {
                panic!("{error} after {event:?}");
            }
            for (done, effect) in effects.into_iter().enumerate() {
                if self.crash == Some(done) {
                    self.crash = None;
                    self.restart();
                    break;
                }
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::CheckpointResources { .. }
            | Effect::MakeVolumes { .. }
            | Effect::RemoveVolumes { .. } => unreachable!("operations have tests of their own"),
            Effect::Checkpoint(record) => {
                if matches!(record.body, RecordBody::Launch { .. }) {
                    self.order.push(record.container.clone());
                }
                let records = self.disk.entry(record.container).or_default();
                records.push(record.body);
            }
            Effect::CheckpointAgent {
                agent_id,
                cluster_id,
                epoch,
            } => self.identity = Some((agent_id, cluster_id, epoch)),
            Effect::ToMaster { session, frame } => self.told(session, frame.0),
            Effect::Sync { session, tasks, .. } => {
                assert_eq!(Some(session), self.session);
                let known: BTreeSet<String> = tasks
                    .into_iter()
                    .map(|task| v1::Task::decode(task.0.task).expect("a task"))
                    .map(|task| task.task_id.value)
                    .collect();
                // What is not there any more will never run: the master reports it.
                let ends = &self.ends;
                self.launched
                    .retain(|task| known.contains(task) || ends.contains_key(task));
            }
            Effect::Launch(launch) => {
                let task = launch.task.expect("only command tasks").0;
                *self.starts.entry(task.task_id.value).or_default() += 1;
                let container = launch.container;
                self.containers
                    .insert(container.clone(), Container::Running);
                self.watched.insert(container.clone());
                self.events.push_back(Event::Launched { container, pid: 7 });
            }
            Effect::Watch { container } => {
                if let Some(Container::Ended(status)) = self.containers.get(&container) {
                    let status = *status;
                    self.over(&container, status);
                } else {
                    self.watched.insert(container);
                }
            }
            Effect::Destroy { container } => {
                if self.containers.get(&container) == Some(&Container::Running) {
                    self.end(&container, 9);
                }
            }
            Effect::Play {
                container, resumed, ..
            } => {
                if let Some(resumed) = resumed {
                    let state = TaskState::try_from(resumed.state).expect("a state");
                    let task = resumed.task.0;
                    self.played
                        .insert(container.clone(), Played { task, state });
                }
                self.call(&container, call::Type::Subscribe, None);
            }
            Effect::ToExecutor { container, event } => self.executor(&container, event.0),
            Effect::Retire { container, .. } => {
                assert_ne!(self.containers.get(&container), Some(&Container::Running));
                self.containers.remove(&container);
                self.played.remove(&container);
            }
            Effect::CloseSession { .. }
            | Effect::UpdateContainer { .. }
            | Effect::CloseExecutor { .. }
            | Effect::RetireFramework { .. }
            | Effect::Exit { .. } => {}
            Effect::PlayGroups { .. } => panic!("no groups here"),
        }
    }

    /// The agent process dies and a new one starts.
    fn restart(&mut self) {
        self.events.clear();
        self.played.clear();
        self.watched.clear();
        self.inbox.clear();
        self.session = None;
        // What no record names dies with the agent, or is killed by the next one.
        let disk = &self.disk;
        self.containers.retain(|id, _| disk.contains_key(id));
        let mut executors = Vec::new();
        for container in &self.order {
            let found = match self.containers.get(container) {
                Some(Container::Running) => Found::Running { pid: 7 },
                Some(Container::Ended(_)) => Found::Ended,
                None => Found::Missing,
            };
            executors.push(RecoveredExecutor {
                container: container.clone(),
                records: self.disk[container].clone(),
                found,
            });
        }
        let (agent_id, cluster_id, epoch) = self.identity.clone().unwrap_or_default();
        let mut frameworks = Vec::new();
        if !executors.is_empty() {
            frameworks.push(RecoveredFramework {
                info: Wire(framework(self.checkpoint)),
                executors,
            });
        }
        self.state = AgentState::new(settings(self.rng.next_u64()));
        self.events.push_back(Event::Recovered(RecoveredAgent {
            agent_id: Some(agent_id).filter(|id| !id.is_empty()),
            cluster_id,
            epoch,
            frameworks,
            ..RecoveredAgent::default()
        }));
    }

    fn connect(&mut self) {
        self.sessions += 1;
        self.session = Some(self.sessions);
        self.inbox.clear();
        self.feed(Event::Connected {
            session: self.sessions,
            welcome: Wire(Welcome {
                protocol: 1,
                agent_id: Some(v1::AgentId { value: "S0".into() }),
                cluster_id: "c".into(),
                epoch: 3,
                ..Welcome::default()
            }),
        });
        if self.shut {
            self.shut_down();
        }
    }

    fn send(&mut self, body: Body) {
        if let Some(session) = self.session {
            let frame = Wire(LinkFrame {
                session: 0,
                must_understand: false,
                body: Some(body),
            });
            self.feed(Event::FromMaster { session, frame });
        }
    }

    fn told(&mut self, session: u64, frame: LinkFrame) {
        let Some(Body::Updates(updates)) = frame.body else {
            return;
        };
        for update in updates.updates {
            let status = update.status.as_ref().expect("a status");
            if self.checkpoint && status.container_status.is_some() {
                let recorded = self.disk.values().flatten().any(
                    |record| matches!(record, RecordBody::Update(known) if known.uuid == status.uuid),
                );
                assert!(recorded, "sent before it was recorded");
            }
            if self.session == Some(session) {
                self.inbox.push_back(update);
            }
        }
    }

    fn acknowledge(&mut self, n: usize) {
        if self.inbox.is_empty() {
            return;
        }
        let update = self.inbox.remove(n % self.inbox.len()).expect("in range");
        let status = update.status.expect("a status");
        if status.state().is_terminal() {
            let task = status.task_id.value.clone();
            let before = self.ends.insert(task, status.state);
            assert!(
                before.is_none_or(|before| before == status.state),
                "two ends"
            );
        }
        self.send(Body::AckUpdate(AckUpdate {
            framework_id: update.framework_id,
            task_id: Some(status.task_id),
            uuid: status.uuid.unwrap_or_default(),
        }));
    }

    fn launch(&mut self) {
        if self.session.is_none() || self.shut {
            return;
        }
        self.names += 1;
        let name = format!("t{}", self.names);
        self.launched.push(name.clone());
        let info = framework(self.checkpoint);
        let framework_id = info.id.clone();
        self.send(Body::Framework(Framework { info: Some(info) }));
        self.send(Body::Run(Run {
            framework_id,
            tasks: vec![task(&name)],
            ..Run::default()
        }));
    }

    fn kill(&mut self, task: &str) {
        self.send(Body::Kill(Kill {
            framework_id: framework(false).id,
            task_id: Some(v1::TaskId { value: task.into() }),
            ..Kill::default()
        }));
    }

    fn shut_down(&mut self) {
        self.shut = true;
        self.send(Body::ShutdownFramework(ShutdownFramework {
            framework_id: framework(false).id,
        }));
    }

    fn end(&mut self, container: &ContainerId, status: i32) {
        let over = Container::Ended(status);
        self.containers.insert(container.clone(), over);
        if self.watched.remove(container) {
            self.over(container, status);
        }
    }

    fn over(&mut self, container: &ContainerId, status: i32) {
        if let Some(played) = self.played.get(container).cloned() {
            let state = match status {
                0 => TaskState::TaskFinished,
                15 => TaskState::TaskKilled,
                _ => TaskState::TaskFailed,
            };
            self.update(container, &played.task, state);
        }
        self.events.push_back(Event::ContainerEnded {
            container: container.clone(),
            end: ContainerEnd {
                status: Some(status),
                ..ContainerEnd::default()
            },
        });
    }

    fn executor(&mut self, container: &ContainerId, event: v1::executor::Event) {
        match event.r#type() {
            event::Type::Launch => {
                let task = event.launch.expect("a launch").task;
                let state = TaskState::TaskStaging;
                self.played
                    .insert(container.clone(), Played { task, state });
                self.play(container);
            }
            event::Type::Subscribed => self.play(container),
            event::Type::Kill if self.containers.get(container) == Some(&Container::Running) => {
                self.end(container, 15);
            }
            // A stubborn command: it takes the agent to end it.
            _ => {}
        }
    }

    fn play(&mut self, container: &ContainerId) {
        let Some(played) = self.played.get(container).cloned() else {
            return;
        };
        if played.state == TaskState::TaskStaging {
            self.update(container, &played.task, TaskState::TaskStarting);
        }
        if matches!(
            played.state,
            TaskState::TaskStaging | TaskState::TaskStarting
        ) {
            self.update(container, &played.task, TaskState::TaskRunning);
        }
    }

    fn update(&mut self, container: &ContainerId, task: &v1::TaskInfo, state: TaskState) {
        let status = TaskStatus {
            task_id: task.task_id.clone(),
            state: state.into(),
            uuid: Some(bytes::Bytes::copy_from_slice(self.rng.uuid().as_bytes())),
            ..TaskStatus::default()
        };
        let update = call::Update { status };
        self.call(container, call::Type::Update, Some(update));
    }

    fn call(&mut self, container: &ContainerId, kind: call::Type, update: Option<call::Update>) {
        self.events.push_back(Event::ExecutorCall {
            container: container.clone(),
            call: Wire(Call {
                r#type: Some(kind.into()),
                update,
                ..Call::default()
            }),
        });
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
        let deadline = self.state.next_deadline();
        if deadline.is_some_and(|at| at <= self.now.mono) {
            self.feed(Event::Tick);
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Launch => self.launch(),
            Op::Kill(n) => {
                let ended = |task: &&String| !self.ends.contains_key(*task);
                if let Some(task) = self.launched.iter().filter(ended).nth(n).cloned() {
                    self.kill(&task);
                }
            }
            Op::End(n, status) => {
                let mut running = self.containers.iter();
                let found = running.find_map(|(id, container)| {
                    (*container == Container::Running).then(|| id.clone())
                });
                if let Some(container) = found.filter(|_| n > 0) {
                    self.end(&container, status);
                    self.feed(Event::Tick);
                }
            }
            Op::Acknowledge(n) => self.acknowledge(n),
            Op::Disconnect => {
                if let Some(session) = self.session.take() {
                    self.inbox.clear();
                    self.feed(Event::Disconnected { session });
                }
            }
            Op::Connect => self.connect(),
            Op::Wait(secs) => self.wait(secs),
            Op::Shutdown => self.shut_down(),
            Op::Crash(after) => self.crash = Some(after),
        }
    }

    /// No more trouble: everything must come to an end.
    fn finish(&mut self) {
        self.crash = None;
        self.connect();
        for task in self.launched.clone() {
            if !self.ends.contains_key(&task) && !self.shut {
                self.kill(&task);
            }
        }
        for _ in 0..100 {
            while !self.inbox.is_empty() {
                self.acknowledge(0);
            }
            self.wait(10);
        }
        let left = self.state.frameworks();
        assert!(
            left.iter()
                .all(|f| f.executors.is_empty() && f.streams.is_empty()),
            "{left:?}"
        );
        let running = self.containers.values().any(|c| *c == Container::Running);
        assert!(!running, "a container is left");
        for (task, starts) in &self.starts {
            assert_eq!(*starts, 1, "task {task} was started twice");
        }
        for task in self.launched.iter().filter(|_| !self.shut) {
            assert!(self.ends.contains_key(task), "no end of task {task}");
        }
    }
}

fn settings(seed: u64) -> AgentSettings {
    let info = v1::AgentInfo {
        hostname: "h".into(),
        ..v1::AgentInfo::default()
    };
    AgentSettings::new(seed, info, "127.0.0.1")
}

fn framework(checkpoint: bool) -> v1::FrameworkInfo {
    v1::FrameworkInfo {
        user: "root".into(),
        name: "f".into(),
        id: Some(v1::FrameworkId { value: "f".into() }),
        checkpoint: Some(checkpoint),
        capabilities: vec![framework_info::Capability {
            r#type: Some(framework_info::capability::Type::PartitionAware.into()),
        }],
        ..v1::FrameworkInfo::default()
    }
}

fn task(name: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        name: name.into(),
        task_id: v1::TaskId { value: name.into() },
        agent_id: v1::AgentId { value: "S0".into() },
        command: Some(v1::CommandInfo {
            value: Some("sleep 1".into()),
            ..v1::CommandInfo::default()
        }),
        ..v1::TaskInfo::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_is_started_once_and_ends_once(
        seed in any::<u64>(),
        checkpoint in prop::bool::weighted(0.8),
        ops in ops(),
    ) {
        let mut world = World::new(seed, checkpoint);
        for op in ops {
            world.step(op);
        }
        world.finish();
    }

    #[test]
    fn equal_events_give_equal_states(seed in any::<u64>(), ops in ops()) {
        let mut worlds = [World::new(seed, true), World::new(seed, true)];
        for op in ops {
            for world in &mut worlds {
                world.step(op.clone());
            }
        }
        let bytes = |world: &World| postcard::to_stdvec(&world.state).expect("plain data");
        prop_assert_eq!(bytes(&worlds[0]), bytes(&worlds[1]));
    }
}
