//! Executors with processes of their own, played by the test over HTTP.

mod support;

use std::time::Duration;

use bytes::Bytes;
use support::{
    Master, Running, TIMEOUT, framework, start, surroundings, task, wait_until, welcomed,
};
use tepui_containerizer::Exit;
use tepui_http::{Client, Media, Method, Records};
use tepui_link::MasterEvent;
use tepui_proto::link::link_frame::Body;
use tepui_proto::link::{FrameworkMessage, Run, ShutdownExecutor};
use tepui_proto::v1::executor::{Call, Event, call, event};
use tepui_proto::v1::task_status::{Reason, Source};
use tepui_proto::v1::{self, TaskState, TaskStatus};
use tepui_proto::{Message as _, json};

const PATH: &str = "/slave(1)/api/v1/executor";

/// The process of an executor.
struct Process {
    client: Client,
    media: Media,
    events: Records,
    uuids: u8,
}

fn info(name: &str) -> v1::ExecutorInfo {
    v1::ExecutorInfo {
        executor_id: v1::ExecutorId { value: name.into() },
        framework_id: framework(true).id,
        command: Some(v1::CommandInfo {
            value: Some("./my-executor".into()),
            user: Some("nobody".into()),
            environment: Some(v1::Environment {
                variables: vec![v1::environment::Variable {
                    name: "MINE".into(),
                    value: Some("1".into()),
                    ..v1::environment::Variable::default()
                }],
            }),
            ..v1::CommandInfo::default()
        }),
        resources: task("x").resources,
        ..v1::ExecutorInfo::default()
    }
}

fn of(executor: &str, name: &str) -> v1::TaskInfo {
    v1::TaskInfo {
        executor: Some(info(executor)),
        command: None,
        ..task(name)
    }
}

fn call_of(executor: &str, kind: call::Type) -> Call {
    Call {
        executor_id: v1::ExecutorId {
            value: executor.into(),
        },
        framework_id: framework(true).id.expect("an id"),
        r#type: Some(kind.into()),
        ..Call::default()
    }
}

fn status(name: &str, state: TaskState, uuid: u8) -> TaskStatus {
    TaskStatus {
        task_id: v1::TaskId { value: name.into() },
        state: state.into(),
        source: Some(Source::Executor.into()),
        uuid: Some(Bytes::from(vec![uuid; 16])),
        ..TaskStatus::default()
    }
}

fn body(call: &Call, media: Media) -> Vec<u8> {
    match media {
        Media::Json => json::from_message(call),
        Media::Protobuf => call.encode_to_vec(),
    }
}

async fn post(client: &Client, call: &Call, media: Media) -> (u16, String) {
    let headers = [("Content-Type", media.content_type())];
    let body = body(call, media).into();
    let reply = client.request(Method::POST, PATH, &headers, body).await;
    let reply = reply.expect("an answer");
    (reply.status.as_u16(), reply.text())
}

impl Process {
    async fn subscribe(running: &Running, media: Media, subscribe: call::Subscribe) -> Self {
        let mut call = call_of("e", call::Type::Subscribe);
        call.subscribe = Some(subscribe);
        let client = running.client.clone();
        let events = client.stream(PATH, media, &[], body(&call, media)).await;
        let mut process = Self {
            events: events.expect("a stream"),
            client,
            media,
            uuids: 0,
        };
        let subscribed = process.expect(event::Type::Subscribed).await.subscribed;
        let subscribed = subscribed.expect("it says who it is");
        assert_eq!(subscribed.agent_info.id.expect("an id").value, "S0");
        process
    }

    async fn next(&mut self) -> Option<Event> {
        let next = tokio::time::timeout(TIMEOUT, self.events.next()).await;
        let record = next.expect("the agent says something").ok()??;
        Some(match self.media {
            Media::Json => json::to_message(&record).expect("an event"),
            Media::Protobuf => Event::decode(record).expect("an event"),
        })
    }

    async fn expect(&mut self, kind: event::Type) -> Event {
        let event = self.next().await.expect("an event");
        assert_eq!(event.r#type(), kind, "{event:?}");
        event
    }

    /// The task that is launched next.
    async fn launched(&mut self) -> String {
        let launch = self.expect(event::Type::Launch).await.launch;
        launch.expect("a task").task.task_id.value
    }

    async fn post(&self, call: Call) {
        let answer = post(&self.client, &call, self.media).await;
        assert_eq!(answer, (202, String::new()));
    }

    async fn update(&mut self, name: &str, state: TaskState) {
        self.uuids += 1;
        let mut call = call_of("e", call::Type::Update);
        let status = status(name, state, self.uuids);
        let uuid = status.uuid.clone();
        call.update = Some(call::Update { status });
        self.post(call).await;
        let acknowledged = self.expect(event::Type::Acknowledged).await.acknowledged;
        assert_eq!(acknowledged.map(|a| a.uuid), uuid);
    }
}

fn launch(master: &Master, tasks: &[v1::TaskInfo], group: bool, checkpoint: bool) {
    master.introduce(checkpoint);
    if group {
        master.send(Body::Run(Run {
            framework_id: framework(true).id,
            executor: Some(info("e")),
            tasks: tasks.to_vec(),
            group,
            ..Run::default()
        }));
        return;
    }
    for task in tasks {
        master.send(Body::Run(Run {
            framework_id: framework(true).id,
            executor: task.executor.clone(),
            tasks: vec![task.clone()],
            ..Run::default()
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_in_one_process() {
    let (_dir, mut master, containers, running) = welcomed().await;
    launch(&master, &[of("e", "a"), of("e", "b")], false, true);
    let pair = [of("e", "g1"), of("e", "g2")];
    launch(&master, &pair, true, true);
    wait_until("its container runs", async || containers.launches() == 1).await;

    // Nobody else is it, and it has to subscribe before anything else.
    let mut early = call_of("e", call::Type::Update);
    early.update = Some(call::Update {
        status: status("a", TaskState::TaskRunning, 1),
    });
    let refused = post(&running.client, &early, Media::Json).await;
    assert_eq!(refused, (403, "Executor is not subscribed".to_owned()));
    let mut other = call_of("nobody", call::Type::Subscribe);
    other.subscribe = Some(call::Subscribe::default());
    let refused = post(&running.client, &other, Media::Protobuf).await;
    assert_eq!(refused, (400, "Executor cannot be found".to_owned()));

    let config = containers.configs.lock().expect("no panic under it")[0].clone();
    assert!(!config.is_command_task);
    assert_eq!(config.command.as_ref().unwrap().value, "./my-executor");
    assert_eq!(config.user.as_deref(), Some("nobody"));
    let has = |name: &str, value: &str| {
        let found = config.environment.iter().rfind(|(n, _)| n == name);
        assert_eq!(found.map(|(_, v)| v.as_str()), Some(value), "{name}");
    };
    has("MINE", "1");
    has("MESOS_EXECUTOR_ID", "e");
    has("MESOS_FRAMEWORK_ID", "F");
    has("MESOS_SLAVE_ID", "S0");
    has("MESOS_CHECKPOINT", "1");
    has("MESOS_RECOVERY_TIMEOUT", "15mins");

    let none = call::Subscribe::default();
    let mut process = Process::subscribe(&running, Media::Json, none).await;
    assert_eq!(process.launched().await, "a");
    assert_eq!(process.launched().await, "b");
    let group = process.expect(event::Type::LaunchGroup).await.launch_group;
    let group = group.expect("a group").task_group.tasks;
    let names: Vec<&str> = group.iter().map(|t| &*t.task_id.value).collect();
    assert_eq!(names, ["g1", "g2"]);
    // The executor and four tasks, before any of them was told.
    let resources = containers.given().expect("it was given more");
    assert_eq!(resources.cpus().to_f64(), 0.5);
    assert_eq!(resources.mem().to_f64(), 80.0);

    process.update("a", TaskState::TaskRunning).await;
    let seen = master.states(&[TaskState::TaskRunning]).await;
    assert_eq!(seen.executor_id.map(|id| id.value).as_deref(), Some("e"));
    assert_eq!(seen.container_status.and_then(|c| c.executor_pid), Some(7));
    process.update("a", TaskState::TaskFinished).await;
    master.states(&[TaskState::TaskFinished]).await;
    wait_until("its share is back", async || {
        let given = containers.given();
        given.is_some_and(|resources| resources.cpus().to_f64() == 0.4)
    })
    .await;

    master.send(Body::FrameworkMessage(FrameworkMessage {
        framework_id: framework(true).id,
        executor_id: Some(info("e").executor_id),
        data: Bytes::from_static(b"hello"),
    }));
    let message = process.expect(event::Type::Message).await.message;
    assert_eq!(message.expect("data").data, "hello");
    let mut answer = call_of("e", call::Type::Message);
    answer.message = Some(call::Message {
        data: Bytes::from_static(b"yes"),
    });
    process.post(answer).await;
    let MasterEvent::ExecutorMessage(message) = master.next().await else {
        panic!("no message");
    };
    assert_eq!(message.data, "yes");
    // A heartbeat needs no executor.
    for name in ["e", "nobody"] {
        process.post(call_of(name, call::Type::Heartbeat)).await;
    }

    master.kill("b");
    let kill = process.expect(event::Type::Kill).await.kill;
    assert_eq!(kill.expect("a task").task_id.value, "b");
    process.update("b", TaskState::TaskKilled).await;
    master.states(&[TaskState::TaskKilled]).await;

    let executors = running.call(r#"{"type": "GET_EXECUTORS"}"#).await.1;
    assert!(executors.contains("my-executor"), "{executors}");
    let state = running.get("/state").await;
    let shown = &state["frameworks"][0]["executors"][0];
    assert_eq!(shown["type"], "CUSTOM", "{shown}");
    assert_eq!(shown["tasks"][0]["executor_id"], "e");

    // It exits: what it had is over, and the master frees what it had itself.
    containers.end(&containers.only(), Exit::Status(3 << 8));
    for _ in 0..2 {
        let last = master.states(&[TaskState::TaskFailed]).await;
        assert_eq!(last.reason(), Reason::ExecutorTerminated);
        assert_eq!(last.message(), "Executor terminated");
    }
    assert_eq!(master.executor_ended().await, ("e".to_owned(), 3 << 8));
    assert!(process.next().await.is_none(), "its stream goes on");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_comes_back_to_a_new_agent() {
    let (dir, mut master, containers, first) = welcomed().await;
    launch(&master, &[of("e", "a"), of("e", "b")], false, true);
    wait_until("its container runs", async || containers.launches() == 1).await;
    let none = call::Subscribe::default();
    let mut process = Process::subscribe(&first, Media::Protobuf, none).await;
    let (a, b) = (process.launched().await, process.launched().await);
    process.update(&a, TaskState::TaskRunning).await;
    master.states(&[TaskState::TaskRunning]).await;
    first.stop().await;
    assert!(process.next().await.is_none(), "its stream goes on");

    // Of `b` it knows nothing: its launch was lost on the way.
    let second = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    let mut early = call_of("e", call::Type::Update);
    early.update = Some(call::Update {
        status: status("a", TaskState::TaskFinished, 9),
    });
    let refused = post(&second.client, &early, Media::Json).await;
    let waits = "Agent has not finished recovery".to_owned();
    assert_eq!(refused, (503, waits));
    let back = call::Subscribe {
        unacknowledged_tasks: vec![of("e", "a")],
        unacknowledged_updates: [(TaskState::TaskRunning, 1), (TaskState::TaskFinished, 2)]
            .map(|(state, uuid)| call::Update {
                status: status("a", state, uuid),
            })
            .into(),
    };
    let mut process = Process::subscribe(&second, Media::Json, back).await;
    for uuid in [1, 2] {
        let event = process.expect(event::Type::Acknowledged).await;
        assert_eq!(event.acknowledged.expect("a uuid").uuid[0], uuid);
    }
    let mut seen = [master.status().await, master.status().await];
    seen.sort_by(|one, other| one.task_id.value.cmp(&other.task_id.value));
    // The update that was acknowledged before is not told again.
    assert_eq!(seen[0].state(), TaskState::TaskFinished);
    assert_eq!(seen[1].task_id.value, b);
    assert_eq!(seen[1].state(), TaskState::TaskLost);
    assert_eq!(seen[1].reason(), Reason::AgentRestarted);

    // It takes more tasks; the next agent waits for it in vain.
    launch(&master, &[of("e", "c")], false, true);
    assert_eq!(process.launched().await, "c");
    process.uuids = 10;
    process.update("c", TaskState::TaskRunning).await;
    master.states(&[TaskState::TaskRunning]).await;
    second.stop().await;
    let third = start(dir.path(), &master, &containers).await;
    master.welcome().await;
    let last = master.states(&[TaskState::TaskFailed]).await;
    assert_eq!(last.reason(), Reason::ExecutorReregistrationTimeout);
    assert_eq!(last.message(), "Executor did not reregister within 2secs");
    assert_eq!(master.executor_ended().await, ("e".to_owned(), 9));
    third.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn executors_that_do_not_do_what_they_should() {
    let (dir, mut master, containers) = surroundings().await;
    let running = support::start_with(dir.path(), &master, &containers, |settings| {
        settings.executor_registration_timeout = Duration::from_millis(200);
    })
    .await;
    master.welcome().await;
    launch(&master, &[of("e", "a")], false, true);
    let last = master.states(&[TaskState::TaskFailed]).await;
    assert_eq!(last.reason(), Reason::ExecutorRegistrationTimeout);
    assert_eq!(last.message(), "Executor did not register within 200ms");
    assert_eq!(last.container_status, None);
    master.executor_ended().await;

    // Asked to end, it stays: it is ended.
    running.stop().await;
    let running = support::start_with(dir.path(), &master, &containers, |settings| {
        settings.executor_shutdown_grace_period = Duration::from_millis(200);
    })
    .await;
    master.welcome().await;
    launch(&master, &[of("e", "b")], false, true);
    wait_until("its container runs", async || containers.launches() == 2).await;
    let none = call::Subscribe::default();
    let mut process = Process::subscribe(&running, Media::Json, none).await;
    process.launched().await;
    master.send(Body::ShutdownExecutor(ShutdownExecutor {
        framework_id: framework(true).id,
        executor_id: Some(info("e").executor_id),
    }));
    process.expect(event::Type::Shutdown).await;
    let last = master.states(&[TaskState::TaskFailed]).await;
    assert_eq!(last.reason(), Reason::ExecutorTerminated);
    assert_eq!(master.executor_ended().await, ("e".to_owned(), 9));

    // Nobody needs one whose last task was killed before it was there.
    launch(&master, &[of("e", "c")], false, true);
    wait_until("its container runs", async || containers.launches() == 3).await;
    master.kill("c");
    let last = master.states(&[TaskState::TaskKilled]).await;
    assert_eq!(last.reason(), Reason::TaskKilledDuringLaunch);
    wait_until("its container is gone", async || containers.count() == 0).await;
    running.stop().await;
}
