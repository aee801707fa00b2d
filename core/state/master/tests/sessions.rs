//! Sessions of schedulers as they were recorded from Mesos 1.11: which events come, in which order.

#![expect(deprecated, reason = "offers to old frameworks use deprecated fields")]

mod support;

use std::time::Duration;

use support::{World, framework, names, task};
use tepui_proto::Message as _;
use tepui_proto::link::{self, link_frame::Body};
use tepui_proto::v1::{self, TaskState, scheduler, scheduler::call::Type};
use tepui_state_master::{Event, OperatorCall, Reply, SessionKey};

const AGENT: &str = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]";

#[test]
fn heartbeats_come_each_15_seconds_of_the_connection() {
    let mut world = World::new();
    let first = world.subscribe(framework("one", "peer"));
    world.wait(Duration::from_secs(7));
    let second = world.subscribe(framework("two", "peer"));
    for scheduler in [&first, &second] {
        assert_eq!(names(&world.take(scheduler)), ["SUBSCRIBED", "HEARTBEAT"]);
    }
    let mut beats = |seconds: u64| {
        world.wait(Duration::from_secs(seconds));
        [&first, &second].map(|scheduler| names(&world.take(scheduler)).len())
    };
    assert_eq!(beats(7), [0, 0]);
    assert_eq!(beats(1), [1, 0]);
    assert_eq!(beats(7), [0, 1]);
    assert_eq!(beats(45), [3, 3]);
}

#[test]
fn a_frameworks_life() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    assert_eq!(agent, format!("{}-S0", support::MASTER));
    let scheduler = world.subscribe(framework("life", "peer"));
    assert_eq!(scheduler.id, format!("{}-0000", support::MASTER));
    let events = world.take(&scheduler);
    assert_eq!(names(&events), ["SUBSCRIBED", "HEARTBEAT", "OFFERS"]);
    let offer = &events[2].offers.as_ref().expect("offers").offers[0];
    assert_eq!(offer.id.value, format!("{}-O0", support::MASTER));
    assert_eq!(offer.url.as_ref().map(|url| url.path()), Some("/slave(1)"));
    assert!(
        offer
            .resources
            .iter()
            .all(|resource| resource.role.is_none())
    );

    let tasks = vec![
        task("t-finish", &agent, "cpus:0.1;mem:16"),
        task("t-stay", &agent, "cpus:0.1;mem:16"),
    ];
    let offer = offer.id.value.clone();
    assert_eq!(world.accept(&scheduler, &[&offer], tasks), Reply::Accepted);
    let frames = world.take_frames(SessionKey(1));
    assert!(matches!(
        frames[..],
        [Body::Framework(_), Body::Run(_), Body::Run(_)]
    ));
    for (state, uuid) in [(TaskState::TaskRunning, 1), (TaskState::TaskFinished, 2)] {
        world.update(1, &scheduler, &agent, "t-finish", state, uuid);
        world.acknowledge(&scheduler, &agent, "t-finish", uuid);
    }
    world.update(1, &scheduler, &agent, "t-stay", TaskState::TaskRunning, 3);
    let seen = names(&world.take(&scheduler));
    let updates: Vec<&str> = seen
        .iter()
        .map(String::as_str)
        .filter(|name| name.contains("TASK"))
        .collect();
    assert_eq!(
        updates,
        [
            "t-finish TASK_RUNNING",
            "t-finish TASK_FINISHED",
            "t-stay TASK_RUNNING"
        ]
    );
    let acks = world.take_frames(SessionKey(1));
    assert!(
        acks.iter().all(|body| matches!(body, Body::AckUpdate(_))),
        "{acks:?}"
    );
    assert_eq!(acks.len(), 2);

    let before = world.state.view();
    world.update(1, &scheduler, &agent, "t-stay", TaskState::TaskKilling, 4);
    let view = world.state.view();
    let state =
        |view: &tepui_view::View| view.frameworks[0].tasks.iter().next().map(|row| row.state);
    assert_eq!(state(&before), Some(TaskState::TaskRunning));
    assert_eq!(state(&view), Some(TaskState::TaskKilling));
    assert!(view.version > before.version);
    let row = &view.frameworks[0];
    assert_eq!((row.tasks.len(), row.completed.len()), (1, 1));
    assert_eq!(row.row.used.cpus().to_f64(), 0.1);

    assert_eq!(world.simple(&scheduler, Type::Teardown), Reply::Accepted);
    assert!(world.closed.contains(&scheduler.stream));
    let view = world.state.view();
    assert!(view.frameworks.is_empty());
    let done = &view.completed_frameworks[0];
    assert_eq!((done.tasks.len(), done.completed.len()), (0, 2));
    let frames = world.take_frames(SessionKey(1));
    assert!(
        matches!(frames[..], [Body::ShutdownFramework(_)]),
        "{frames:?}"
    );
}

#[test]
fn reconciliation_and_kills_of_unknown_tasks() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("life", "peer"));
    let offer = world.take_offers(&scheduler)[0].id.value.clone();
    world.accept(
        &scheduler,
        &[&offer],
        vec![task("t-stay", &agent, "cpus:0.1;mem:16")],
    );
    world.update(1, &scheduler, &agent, "t-stay", TaskState::TaskRunning, 3);
    world.simple(&scheduler, Type::Suppress);
    world.take(&scheduler);

    let named = |id: &str, agent: Option<&str>| scheduler::call::reconcile::Task {
        task_id: v1::TaskId { value: id.into() },
        agent_id: agent.map(|id| v1::AgentId { value: id.into() }),
    };
    let reconcile = |tasks| scheduler::Call {
        r#type: Some(Type::Reconcile as i32),
        reconcile: Some(scheduler::call::Reconcile { tasks }),
        ..Default::default()
    };
    world.call(&scheduler, reconcile(Vec::new()));
    world.call(
        &scheduler,
        reconcile(vec![
            named("t-stay", Some(&agent)),
            named("nobody", None),
            named("nobody2", Some(&agent)),
            named("nobody3", Some("no-such-agent")),
        ]),
    );
    let kill = |id: &str, agent: Option<&str>| scheduler::Call {
        r#type: Some(Type::Kill as i32),
        kill: Some(scheduler::call::Kill {
            task_id: v1::TaskId { value: id.into() },
            agent_id: agent.map(|id| v1::AgentId { value: id.into() }),
            kill_policy: None,
        }),
        ..Default::default()
    };
    world.call(&scheduler, kill("nobody", None));
    world.call(&scheduler, kill("nobody2", Some(&agent)));
    let events = world.take(&scheduler);
    assert_eq!(
        names(&events),
        [
            "t-stay TASK_RUNNING Reconciliation: Latest task state",
            "t-stay TASK_RUNNING Reconciliation: Latest task state",
            "nobody TASK_UNKNOWN Reconciliation: Task is unknown",
            "nobody2 TASK_GONE Reconciliation: Task is unknown to the agent",
            "nobody3 TASK_UNKNOWN Reconciliation: Task is unknown",
            "nobody TASK_UNKNOWN Reconciliation: Task is unknown",
            "nobody2 TASK_GONE Reconciliation: Task is unknown to the agent",
        ]
    );
    assert!(events.iter().all(|event| {
        event
            .update
            .as_ref()
            .is_some_and(|update| update.status.uuid.is_none())
    }));
    assert_eq!(
        world.accept(
            &scheduler,
            &["none"],
            vec![task("t-on-none", &agent, "cpus:1")]
        ),
        Reply::Accepted
    );
    assert_eq!(
        names(&world.take(&scheduler)),
        ["t-on-none TASK_DROPPED Task launched with invalid offers: Offer none is no longer valid"]
    );
}

#[test]
fn a_second_connection_takes_over() {
    let mut world = World::new();
    world.agent(1, AGENT);
    let mut info = framework("life", "peer");
    let first = world.subscribe(info.clone());
    world.take(&first);
    info.id = Some(v1::FrameworkId {
        value: first.id.clone(),
    });
    let second = world.subscribe(info);
    assert_eq!(second.id, first.id);
    let last = world.take(&first);
    assert_eq!(names(&last), ["ERROR"]);
    assert_eq!(
        last[0].error.as_ref().map(|error| error.message.as_str()),
        Some("Framework failed over")
    );
    assert!(world.closed.contains(&first.stream));
    assert_eq!(
        names(&world.take(&second)),
        ["SUBSCRIBED", "HEARTBEAT", "OFFERS"]
    );
    assert_eq!(
        world.simple(&first, Type::Revive),
        Reply::BadRequest(format!(
            "The stream ID '{}' included in this request didn't match the stream ID currently associated with framework ID {}",
            first.stream_id, first.id
        ))
    );
    let stranger = support::Scheduler {
        id: "nobody".into(),
        ..first
    };
    assert_eq!(
        world.simple(&stranger, Type::Revive),
        Reply::BadRequest("Framework cannot be found".into())
    );
}

#[test]
fn failover_timeouts() {
    let mut world = World::new();
    let mut info = framework("zero", "zero");
    info.failover_timeout = Some(0.0);
    let zero = world.subscribe(info);
    let waiting = world.subscribe(framework("waiting", "waiting"));
    world.apply(Event::StreamClosed {
        stream: zero.stream,
    });
    world.apply(Event::StreamClosed {
        stream: waiting.stream,
    });
    world.wait(Duration::from_secs(1));
    let view = world.state.view();
    assert_eq!(view.completed_frameworks.len(), 1);
    assert!(!view.frameworks[0].row.connected);
    world.wait(Duration::from_secs(3600));
    assert!(world.state.view().frameworks.is_empty());
    let mut info = framework("waiting", "waiting");
    info.id = Some(v1::FrameworkId {
        value: waiting.id.clone(),
    });
    let back = world.subscribe(info);
    let events = world.take(&back);
    assert_eq!(names(&events), ["ERROR"]);
    assert!(world.closed.contains(&back.stream));
}

#[test]
fn what_is_wrong_with_a_task_is_said() {
    let mut world = World::new();
    let agent = world.agent(1, "cpus:4;mem:4096");
    let scheduler = world.subscribe(framework("life", "peer"));
    let mut refused = |edit: &dyn Fn(&mut v1::TaskInfo)| -> String {
        let offer = world.take_offers(&scheduler)[0].id.value.clone();
        let mut info = task("t-bad", &agent, "cpus:0.1;mem:16");
        edit(&mut info);
        world.accept(&scheduler, &[&offer], vec![info]);
        let events = world.take(&scheduler);
        world.wait(Duration::from_secs(7));
        let status = &events[0].update.as_ref().expect("an update").status;
        assert_eq!(status.state(), TaskState::TaskError);
        assert_eq!(status.source(), v1::task_status::Source::Master);
        status.message().to_owned()
    };
    let set_id = |id: &str| {
        let id = id.to_owned();
        move |info: &mut v1::TaskInfo| info.task_id.value = id.clone()
    };
    assert_eq!(refused(&set_id("a/b")), "'a/b' contains invalid characters");
    assert_eq!(refused(&set_id("..")), "'..' is disallowed");
    assert_eq!(refused(&set_id("")), "ID must not be empty");
    assert_eq!(
        refused(&set_id(&"x".repeat(300))),
        "ID must not be greater than 255 characters"
    );
    assert_eq!(
        refused(&|info| info.resources.clear()),
        "Task uses no resources"
    );
    assert_eq!(
        refused(&|info| info.command = None),
        "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    );
    let other = format!("{}-S7", support::MASTER);
    assert_eq!(
        refused(&|info| info.agent_id.value = other.clone()),
        format!(
            "Task uses invalid agent {other} while agent {} is expected",
            format_args!("{}-S0", support::MASTER)
        )
    );
    assert_eq!(
        refused(&|info| info.resources = task("t", "", "cpus:1000;mem:16").resources),
        "Total resources cpus(allocated: peer):1000; mem(allocated: peer):16 required by task and its executor is more than available cpus(allocated: peer):4; mem(allocated: peer):4096"
    );
}

#[test]
fn agents_come_back_and_go() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let mut info = framework("life", "peer");
    info.checkpoint = Some(true);
    let scheduler = world.subscribe(info);
    let offer = world.take_offers(&scheduler)[0].id.value.clone();
    let tasks = vec![
        task("kept", &agent, "cpus:1;mem:16"),
        task("never", &agent, "cpus:1;mem:16"),
        task("gone", &agent, "cpus:1;mem:16"),
    ];
    world.accept(&scheduler, &[&offer], tasks);
    world.update(1, &scheduler, &agent, "kept", TaskState::TaskRunning, 1);
    world.update(1, &scheduler, &agent, "gone", TaskState::TaskRunning, 2);
    world.call(
        &scheduler,
        scheduler::Call {
            r#type: Some(Type::Kill as i32),
            kill: Some(scheduler::call::Kill {
                task_id: v1::TaskId {
                    value: "kept".into(),
                },
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    world.take(&scheduler);
    world.apply(Event::AgentClosed {
        session: SessionKey(1),
    });
    assert!(world.take(&scheduler).is_empty(), "checkpointed tasks wait");
    world.hello(2, Some(&agent), 2);
    assert_eq!(world.welcome(2), agent);
    let kept = v1::Task {
        name: "kept".into(),
        task_id: v1::TaskId {
            value: "kept".into(),
        },
        framework_id: v1::FrameworkId {
            value: scheduler.id.clone(),
        },
        agent_id: v1::AgentId {
            value: agent.clone(),
        },
        state: TaskState::TaskRunning as i32,
        ..Default::default()
    };
    let sync = link::Sync {
        tasks: vec![link::SyncTask {
            task: kept.encode_to_vec().into(),
        }],
        ..Default::default()
    };
    world.sync(2, AGENT, sync.clone());
    assert_eq!(
        names(&world.take(&scheduler))[..2],
        [
            "gone TASK_GONE Reconciliation: Task is unknown to the agent",
            "never TASK_DROPPED Reconciliation: Task is unknown to the agent",
        ]
    );
    let frames = world.take_frames(SessionKey(2));
    assert!(matches!(frames[..], [Body::Kill(_)]), "{frames:?}");

    // Silence makes it unreachable; it may still come back with the task.
    world.apply(Event::AgentSilent {
        session: SessionKey(2),
    });
    let seen = names(&world.take(&scheduler));
    assert_eq!(
        seen,
        [
            "RESCIND",
            "kept TASK_UNREACHABLE Agent localhost is unreachable",
            "FAILURE"
        ]
    );
    assert_eq!(world.state.view().globals.unreachable_agents.len(), 1);
    world.hello(3, Some(&agent), 3);
    world.welcome(3);
    let mut kept = kept;
    kept.resources = task("kept", &agent, "cpus:1;mem:16").resources;
    for resource in &mut kept.resources {
        resource.allocation_info = Some(v1::resource::AllocationInfo {
            role: Some("peer".into()),
        });
    }
    let sync = link::Sync {
        tasks: vec![link::SyncTask {
            task: kept.encode_to_vec().into(),
        }],
        ..Default::default()
    };
    world.sync(3, AGENT, sync);
    assert_eq!(
        names(&world.take(&scheduler))[0],
        "kept TASK_RUNNING Unreachable agent re-reregistered"
    );
    let view = world.state.view();
    assert!(view.globals.unreachable_agents.is_empty());
    assert_eq!(view.frameworks[0].tasks.len(), 1);
    assert_eq!(
        view.agents
            .iter()
            .next()
            .map(|row| row.used.cpus().to_f64()),
        Some(1.0)
    );
}

#[test]
fn operators_tear_down() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework("life", "peer"));
    let teardown = |world: &mut World, id: &str| {
        let call = world.call_id();
        world.apply(Event::Operator {
            call,
            principal: None,
            request: OperatorCall::Teardown {
                framework_id: id.into(),
            },
            class: None,
        });
        world.replies[&call].clone()
    };
    assert_eq!(teardown(&mut world, &scheduler.id), Reply::Ok);
    assert!(world.closed.contains(&scheduler.stream));
    assert_eq!(
        teardown(&mut world, &scheduler.id),
        Reply::BadRequest("No framework found with specified ID".into())
    );
    let kinds: Vec<&str> = world
        .operators
        .iter()
        .map(|event| event.r#type().as_str_name())
        .collect();
    assert_eq!(kinds, ["FRAMEWORK_ADDED", "FRAMEWORK_REMOVED"]);
}

#[test]
fn refused_subscriptions() {
    let mut world = World::new();
    let mut refused = |edit: &dyn Fn(&mut scheduler::call::Subscribe)| {
        let mut subscribe = scheduler::call::Subscribe {
            framework_info: framework("odd", "peer"),
            ..Default::default()
        };
        edit(&mut subscribe);
        let scheduler = world.subscribe_with(subscribe);
        assert!(world.closed.contains(&scheduler.stream));
        let events = world.take(&scheduler);
        assert_eq!(names(&events), ["ERROR"]);
        events[0].error.clone().expect("an error").message
    };
    let role = |role: &str| {
        let role = role.to_owned();
        move |subscribe: &mut scheduler::call::Subscribe| {
            subscribe.framework_info.roles = vec![role.clone()];
        }
    };
    assert_eq!(
        refused(&role("-a")),
        "'FrameworkInfo.roles' contains invalid role: Role component '-a' is invalid because it starts with a dash"
    );
    assert_eq!(
        refused(&role("/a")),
        "'FrameworkInfo.roles' contains invalid role: Role '/a' cannot start with a slash"
    );
    assert_eq!(
        refused(&role("a b")),
        "'FrameworkInfo.roles' contains invalid role: Role component 'a b' is invalid because it contains backspace or whitespace"
    );
    assert_eq!(
        refused(&|subscribe| subscribe.framework_info.roles = vec!["a".into(), "a".into()]),
        "'FrameworkInfo.roles' contains duplicate items: { a }"
    );
    assert_eq!(
        refused(&|subscribe| subscribe.framework_info.capabilities.clear()),
        "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
    );
    assert_eq!(
        refused(&|subscribe| subscribe.suppressed_roles = vec!["zzz".into()]),
        "Suppressed role 'zzz' is not contained in the list of roles"
    );
    assert_eq!(
        refused(
            &|subscribe| subscribe.framework_info.id = Some(v1::FrameworkId {
                value: "a/b".into()
            })
        ),
        "'a/b' contains invalid characters"
    );
}

#[test]
fn updates_of_a_framework() {
    let mut world = World::new();
    let scheduler = world.subscribe(framework("life", "peer"));
    let mut update = |edit: &dyn Fn(&mut v1::FrameworkInfo)| {
        let mut info = framework("life", "peer");
        edit(&mut info);
        world.call(
            &scheduler,
            scheduler::Call {
                r#type: Some(Type::UpdateFramework as i32),
                update_framework: Some(scheduler::call::UpdateFramework {
                    framework_info: info,
                    ..Default::default()
                }),
                ..Default::default()
            },
        )
    };
    assert_eq!(update(&|info| info.roles.push("peer2".into())), Reply::Ok);
    assert_eq!(
        update(&|info| info.user = "somebody-else".into()),
        Reply::BadRequest(
            "FrameworkInfo update is not valid: Updating 'FrameworkInfo.user' is unsupported; attempted to update from 'root' to 'somebody-else'".into()
        )
    );
    assert_eq!(
        update(&|info| info.checkpoint = Some(true)),
        Reply::BadRequest(
            "FrameworkInfo update is not valid: Updating 'FrameworkInfo.checkpoint' is unsupported; attempted to update from 'false' to 'true'".into()
        )
    );
}
