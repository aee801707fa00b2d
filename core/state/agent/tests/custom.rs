//! Executors with processes of their own, as the agent's state sees them.

use std::time::Duration;

use bytes::Bytes;
use tepui_model::id::{ContainerId, TaskId};
use tepui_model::time::{Mono, Now, Wall};
use tepui_proto::Wire;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{
    AckUpdate, ExecutorEnded, Framework, Kill, LinkFrame, Run, ShutdownFramework, Update, Welcome,
};
use tepui_proto::v1::executor::{self, Call, call, event};
use tepui_proto::v1::task_status::Reason;
use tepui_proto::v1::{self, TaskState, TaskStatus};
use tepui_state_agent::{
    AgentSettings, AgentState, ContainerEnd, Effect, Event, ExecutorState, RecordBody,
    RecoveredAgent, Refusal,
};

struct World {
    state: AgentState,
    now: Now,
    container: Option<ContainerId>,
    /// What was done since it was looked at.
    effects: Vec<Effect>,
}

impl World {
    fn new() -> Self {
        let info = v1::AgentInfo::default();
        let mut world = Self {
            state: AgentState::new(AgentSettings::new(1, info, "127.0.0.1")),
            now: Now {
                mono: Mono(1),
                wall: Wall(1),
            },
            container: None,
            effects: Vec::new(),
        };
        world.feed(Event::Recovered(RecoveredAgent::default()));
        world.feed(Event::Connected {
            session: 1,
            welcome: Wire(Welcome {
                agent_id: Some(v1::AgentId { value: "S0".into() }),
                ..Welcome::default()
            }),
        });
        world
    }

    fn feed(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.state.apply(event, self.now, &mut effects);
        assert_eq!(self.state.check(), Ok(()));
        for effect in &effects {
            if let Effect::Launch(launch) = effect {
                self.container = Some(launch.container.clone());
            }
        }
        self.effects.extend(effects);
    }

    fn master(&mut self, body: Body) {
        let frame = Wire(LinkFrame {
            body: Some(body),
            ..LinkFrame::default()
        });
        self.feed(Event::FromMaster { session: 1, frame });
    }

    fn run(&mut self, tasks: Vec<v1::TaskInfo>, group: bool, executor_running: bool) {
        let info = v1::FrameworkInfo {
            id: Some(framework()),
            checkpoint: Some(true),
            ..v1::FrameworkInfo::default()
        };
        self.master(Body::Framework(Framework { info: Some(info) }));
        self.master(Body::Run(Run {
            framework_id: Some(framework()),
            executor: Some(executor()),
            tasks,
            group,
            executor_running,
            ..Run::default()
        }));
    }

    fn kill(&mut self, task: &str) {
        self.master(Body::Kill(Kill {
            framework_id: Some(framework()),
            task_id: Some(v1::TaskId { value: task.into() }),
            ..Kill::default()
        }));
    }

    fn container(&self) -> ContainerId {
        self.container.clone().expect("it was launched")
    }

    fn launched(&mut self) {
        let container = self.container();
        self.feed(Event::Launched { container, pid: 7 });
    }

    fn call(&mut self, call: Call) {
        let container = self.container();
        self.feed(Event::ExecutorCall {
            container,
            call: Wire(call),
        });
    }

    fn subscribe(&mut self, tasks: Vec<v1::TaskInfo>) {
        let mut call = called(call::Type::Subscribe);
        call.subscribe = Some(call::Subscribe {
            unacknowledged_tasks: tasks,
            unacknowledged_updates: Vec::new(),
        });
        self.call(call);
    }

    fn update(&mut self, task: &str, state: TaskState, uuid: u8) {
        let mut call = called(call::Type::Update);
        let status = TaskStatus {
            task_id: v1::TaskId { value: task.into() },
            state: state.into(),
            uuid: Some(Bytes::from(vec![uuid; 16])),
            ..TaskStatus::default()
        };
        call.update = Some(call::Update { status });
        self.call(call);
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now + time;
        self.feed(Event::Tick);
    }

    /// What the executor was told since the last look.
    fn told(&mut self) -> Vec<executor::Event> {
        let told = self.effects.iter().filter_map(|effect| match effect {
            Effect::ToExecutor { event, .. } => Some(event.0.clone()),
            _ => None,
        });
        let told = told.collect();
        self.effects.clear();
        told
    }

    fn kinds(&mut self) -> Vec<event::Type> {
        let told = self.told().into_iter();
        told.map(|event| event.r#type()).collect()
    }

    /// Updates that were sent since the last look, acknowledged, and ends of executors.
    fn said(&mut self) -> (Vec<(String, TaskState, Reason)>, Vec<i32>) {
        let (mut updates, mut ends) = (Vec::new(), Vec::new());
        for effect in std::mem::take(&mut self.effects) {
            let Effect::ToMaster { frame, .. } = effect else {
                continue;
            };
            match frame.0.body {
                Some(Body::Updates(sent)) => updates.extend(sent.updates),
                Some(Body::ExecutorEnded(ExecutorEnded { status, .. })) => ends.push(status),
                _ => {}
            }
        }
        let updates: Vec<Update> = updates;
        for update in &updates {
            let status = update.status.as_ref().expect("a status");
            self.master(Body::AckUpdate(AckUpdate {
                framework_id: Some(framework()),
                task_id: Some(status.task_id.clone()),
                uuid: status.uuid.clone().unwrap_or_default(),
            }));
        }
        let status = |update: Update| {
            let status = update.status.expect("a status");
            let (state, reason) = (status.state(), status.reason());
            (status.task_id.value, state, reason)
        };
        (updates.into_iter().map(status).collect(), ends)
    }

    /// CPUs that the container was given since the last look, and their limit.
    fn given(&mut self) -> Vec<(f64, Option<f64>)> {
        let mut given = Vec::new();
        self.effects.retain(|effect| {
            let Effect::UpdateContainer {
                resources, limits, ..
            } = effect
            else {
                return true;
            };
            let amounts = resources.iter().filter_map(|r| r.scalar);
            let cpus = amounts.map(|scalar| scalar.value).sum();
            given.push((cpus, limits.get("cpus").copied()));
            false
        });
        given
    }

    /// Updates that were recorded or sent since the last look, in this order: with true those that were recorded.
    fn written(&mut self) -> Vec<(bool, TaskState)> {
        let effects = std::mem::take(&mut self.effects).into_iter();
        let each = effects.flat_map(|effect| match effect {
            Effect::Checkpoint(record) => match record.body {
                RecordBody::Update(status) => vec![(true, status.state())],
                _ => Vec::new(),
            },
            Effect::ToMaster { frame, .. } => match frame.0.body {
                Some(Body::Updates(sent)) => {
                    let states = sent.updates.iter().filter_map(|one| one.status.as_ref());
                    states.map(|status| (false, status.state())).collect()
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        });
        each.collect()
    }

    fn destroyed(&self) -> bool {
        let is = |effect: &Effect| matches!(effect, Effect::Destroy { .. });
        self.effects.iter().any(is)
    }
}

fn framework() -> v1::FrameworkId {
    v1::FrameworkId { value: "F".into() }
}

fn executor() -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        executor_id: v1::ExecutorId { value: "e".into() },
        command: Some(v1::CommandInfo {
            value: Some("./run".into()),
            ..v1::CommandInfo::default()
        }),
        resources: vec![scalar("cpus", 0.5)],
        ..v1::ExecutorInfo::default()
    }
}

fn scalar(name: &str, value: f64) -> v1::Resource {
    v1::Resource {
        name: name.into(),
        scalar: Some(v1::value::Scalar { value }),
        ..v1::Resource::default()
    }
}

fn task(name: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        task_id: v1::TaskId { value: name.into() },
        resources: vec![scalar("cpus", 1.0)],
        ..v1::TaskInfo::default()
    }
}

fn called(kind: call::Type) -> Call {
    Call {
        framework_id: framework(),
        executor_id: executor().executor_id,
        r#type: Some(kind.into()),
        ..Call::default()
    }
}

fn end(task: &str, state: TaskState, reason: Reason) -> (String, TaskState, Reason) {
    (task.to_owned(), state, reason)
}

#[test]
fn what_waits_for_a_stream_is_told_once_and_heartbeats_follow() {
    let mut world = World::new();
    world.run(vec![task("a")], false, false);
    assert_eq!(
        world.state.caller(&called(call::Type::Update)),
        Err(Refusal::NotSubscribed)
    );
    // A process may be quicker than the news of its launch.
    world.subscribe(Vec::new());
    world.launched();
    assert_eq!(
        world.kinds(),
        [event::Type::Subscribed, event::Type::Launch]
    );
    world.update("a", TaskState::TaskRunning, 1);
    assert_eq!(world.kinds(), [event::Type::Acknowledged]);

    let container = world.container();
    world.feed(Event::ExecutorDisconnected { container });
    world.run(vec![task("b")], false, true);
    world.kill("a");
    // A call is taken without a stream; its acknowledgement is for the next one.
    world.update("a", TaskState::TaskKilling, 2);
    assert_eq!(world.kinds(), []);
    world.subscribe(vec![task("a")]);
    let told = world.told();
    let kinds: Vec<_> = told.iter().map(executor::Event::r#type).collect();
    let expected = [
        event::Type::Subscribed,
        event::Type::Kill,
        event::Type::Launch,
    ];
    assert_eq!(kinds, expected);

    for _ in 0..2 {
        world.wait(Duration::from_mins(29));
        assert_eq!(world.kinds(), []);
        world.wait(Duration::from_mins(1));
        assert_eq!(world.kinds(), [event::Type::Heartbeat]);
    }
}

#[test]
fn an_update_that_comes_again_is_acknowledged_and_not_told() {
    let mut world = World::new();
    world.run(vec![task("a")], false, false);
    world.launched();
    world.subscribe(Vec::new());
    world.update("a", TaskState::TaskRunning, 1);
    assert_eq!(world.said().0.len(), 1);
    world.update("a", TaskState::TaskRunning, 1);
    assert_eq!(world.said().0, []);
    world.update("a", TaskState::TaskRunning, 1);
    assert_eq!(world.kinds(), [event::Type::Acknowledged]);
    // With its end its task is forgotten; what comes late is taken all the same.
    world.update("a", TaskState::TaskFinished, 2);
    assert_eq!(world.said().0.len(), 1);
    world.update("a", TaskState::TaskFinished, 2);
    assert_eq!(world.said().0, []);
    world.update("a", TaskState::TaskFinished, 2);
    assert_eq!(world.kinds(), [event::Type::Acknowledged]);
    assert_eq!(world.state.counts().invalid_updates, 2);
}

#[test]
fn what_could_not_be_recorded_is_before_it_is_sent() {
    use TaskState::{TaskFinished, TaskRunning};
    let mut world = World::new();
    world.run(vec![task("a")], false, false);
    world.launched();
    world.subscribe(Vec::new());
    world.update("a", TaskRunning, 1);
    world.written();
    // The first is under way; the second waits behind it, and is on no disk.
    world.update("a", TaskFinished, 2);
    assert_eq!(world.written(), [(true, TaskFinished)]);
    let container = world.container();
    world.feed(Event::CheckpointFailed {
        container,
        message: "No space left on device".into(),
    });
    world.master(Body::AckUpdate(AckUpdate {
        framework_id: Some(framework()),
        task_id: Some(v1::TaskId { value: "a".into() }),
        uuid: Bytes::from(vec![1; 16]),
    }));
    assert_eq!(
        world.written(),
        [(true, TaskFinished), (false, TaskFinished)]
    );
}

#[test]
fn what_a_framework_that_is_ended_still_uses_is_not_told_to_a_master() {
    let mut world = World::new();
    world.run(vec![task("a")], false, false);
    world.launched();
    world.subscribe(Vec::new());
    world.update("a", TaskState::TaskRunning, 1);
    world.master(Body::ShutdownFramework(ShutdownFramework {
        framework_id: Some(framework()),
    }));
    world.effects.clear();
    world.feed(Event::Disconnected { session: 1 });
    world.feed(Event::Connected {
        session: 2,
        welcome: Wire(Welcome {
            agent_id: Some(v1::AgentId { value: "S0".into() }),
            ..Welcome::default()
        }),
    });
    let sync = world.effects.iter().find_map(|effect| match effect {
        Effect::Sync {
            frameworks,
            executors,
            tasks,
            ..
        } => Some((frameworks, executors.len() + tasks.len())),
        _ => None,
    });
    let (frameworks, running) = sync.expect("it tells what it has");
    assert!(frameworks[0].completed, "its process still runs");
    assert_eq!(running, 0);
}

#[test]
fn a_framework_of_which_nothing_comes_is_forgotten() {
    let mut world = World::new();
    let info = v1::FrameworkInfo {
        id: Some(framework()),
        ..v1::FrameworkInfo::default()
    };
    world.master(Body::Framework(Framework { info: Some(info) }));
    assert!(world.state.has_state(), "its tasks are under way");
    world.feed(Event::Disconnected { session: 1 });
    assert!(!world.state.has_state());
    assert_eq!(world.state.completed_frameworks().count(), 0);
}

#[test]
fn a_group_that_waits_is_killed_as_one() {
    let mut world = World::new();
    world.run(vec![task("g1"), task("g2")], true, false);
    world.run(vec![task("a")], false, true);
    world.launched();
    world.kill("g2");
    let killed = |name| end(name, TaskState::TaskKilled, Reason::TaskKilledDuringLaunch);
    assert!(!world.destroyed(), "one task is left");
    assert_eq!(world.said().0, [killed("g1"), killed("g2")]);
    world.kill("a");
    assert!(world.destroyed(), "nobody needs it any more");
    assert_eq!(world.said().0, [killed("a")]);
    let refused = world.state.caller(&called(call::Type::Subscribe));
    assert!(refused.is_ok(), "it is told to end");
    world.subscribe(Vec::new());
    assert_eq!(world.kinds(), [event::Type::Shutdown]);
}

#[test]
fn tasks_for_an_executor_that_ends_are_refused() {
    let mut world = World::new();
    // The master takes it for running, but it is gone.
    world.run(vec![task("a")], false, true);
    let lost = |name| end(name, TaskState::TaskLost, Reason::ExecutorTerminated);
    assert_eq!(world.said(), (vec![lost("a")], vec![-1]));

    world.run(vec![task("b")], false, false);
    world.launched();
    world.subscribe(Vec::new());
    world.update("b", TaskState::TaskFinished, 1);
    world.said();
    let container = world.container();
    world.feed(Event::UpdateFailed {
        container: container.clone(),
        message: "no".into(),
    });
    assert!(world.destroyed());
    world.run(vec![task("c")], false, true);
    // Its end is on the way, and is told once.
    assert_eq!(world.said(), (vec![lost("c")], Vec::new()));
    let end = ContainerEnd {
        status: Some(9),
        ..ContainerEnd::default()
    };
    world.feed(Event::ContainerEnded { container, end });
    assert_eq!(world.said(), (Vec::new(), vec![9]));

    // The same id again is another process.
    let before = world.container();
    world.run(vec![task("d")], false, false);
    assert_ne!(world.container(), before);
    let refused = world.state.caller(&called(call::Type::Message));
    assert_eq!(refused, Err(Refusal::NotSubscribed));
}

#[test]
fn a_container_has_what_its_tasks_have() {
    let mut world = World::new();
    let mut limited = task("limited");
    let limit = v1::value::Scalar { value: 3.0 };
    limited.limits.insert("cpus".into(), limit);
    world.run(vec![limited], false, false);
    world.launched();
    world.subscribe(Vec::new());
    world.run(vec![task("plain")], false, true);
    let whole = world.given();
    assert_eq!(whole, [(1.5, Some(3.5)), (2.5, Some(4.5))]);
    world.update("limited", TaskState::TaskFinished, 1);
    assert_eq!(world.given(), [(1.5, None)]);

    // One that fails to grow ends with all that it has.
    let container = world.container();
    let message = "it does not fit".to_owned();
    world.feed(Event::UpdateFailed {
        container: container.clone(),
        message,
    });
    world.said();
    let end_of = ContainerEnd::default();
    world.feed(Event::ContainerEnded {
        container,
        end: end_of,
    });
    let failed = end(
        "plain",
        TaskState::TaskFailed,
        Reason::ContainerUpdateFailed,
    );
    assert_eq!(world.said(), (vec![failed], vec![-1]));
    let framework = world.state.frameworks();
    assert!(framework.is_empty(), "{framework:?}");
    let completed = world.state.completed_frameworks().next();
    let executor = &completed.expect("its history").completed_executors[0];
    assert_eq!(executor.state, ExecutorState::Terminated);
    assert_eq!(executor.completed_tasks.len(), 2);
}

#[test]
fn how_far_a_pull_is_is_told_to_whom_it_keeps_waiting() {
    let mut world = World::new();
    let pulling = |world: &mut World, task: Option<&str>| {
        let container = world.container();
        world.feed(Event::Pulling {
            container,
            task: task.map(TaskId::from),
            message: "Pulling image 'box': 1 of 2 layers".into(),
        });
        let effects = std::mem::take(&mut world.effects);
        let sent = effects.into_iter().map(|effect| match effect {
            Effect::ToMaster { frame, .. } => match frame.0.body {
                Some(Body::Updates(sent)) => sent.updates,
                other => panic!("{other:?}"),
            },
            other => panic!("nothing else is done: {other:?}"),
        });
        sent.flatten().collect::<Vec<Update>>()
    };
    world.run(vec![task("a"), task("b")], false, false);
    world.effects.clear();
    let sent = pulling(&mut world, None);
    assert_eq!(sent.len(), 2);
    for update in sent {
        let status = update.status.expect("a status");
        assert_eq!(update.latest_state, i32::from(TaskState::TaskStaging));
        assert_eq!(status.state(), TaskState::TaskStaging);
        assert_eq!(status.message(), "Pulling image 'box': 1 of 2 layers");
        assert_eq!(status.source(), v1::task_status::Source::Agent);
        assert_eq!((status.uuid, status.reason), (None, None));
    }
    // Nobody acknowledges it, so nothing comes again.
    world.wait(Duration::from_mins(5));
    assert_eq!(world.said().0, []);
    // Who is killed waits no longer; whose executor runs does not either, unless it is named and has not begun.
    world.kill("b");
    world.effects.clear();
    assert_eq!(pulling(&mut world, None).len(), 1);
    world.launched();
    world.subscribe(Vec::new());
    world.update("a", TaskState::TaskStarting, 1);
    world.effects.clear();
    assert_eq!(pulling(&mut world, None), []);
    let sent = pulling(&mut world, Some("a"));
    let status = sent[0].status.as_ref().expect("a status");
    assert_eq!((sent.len(), status.state()), (1, TaskState::TaskStarting));
    world.update("a", TaskState::TaskRunning, 2);
    world.effects.clear();
    assert_eq!(pulling(&mut world, Some("a")), []);
}
