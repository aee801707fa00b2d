//! What frameworks hear of tasks on agents that went away and came back, and how long history is kept.

mod support;

use std::time::Duration;

use support::{Scheduler, World, framework, names, task};
use tepui_model::Attributes;
use tepui_model::allocation::Fact;
use tepui_proto::Message as _;
use tepui_proto::link::{self, link_frame::Body, refuse::Code};
use tepui_proto::v1::{self, TaskState, scheduler, scheduler::call::Type, task_status};
use tepui_proto::{Wire, convert};
use tepui_state_master::{Effect, Event, OperatorCall, Reply, SessionKey, Settings};

const AGENT: &str = "cpus:4;mem:4096";

fn with(change: impl FnOnce(&mut Settings)) -> World {
    let mut settings = Settings {
        seed: 7,
        master_id: support::MASTER.into(),
        ..Settings::default()
    };
    change(&mut settings);
    World::with(settings)
}

/// A framework that does not know of partitions.
fn old(name: &str) -> v1::FrameworkInfo {
    let aware = v1::framework_info::capability::Type::PartitionAware as i32;
    let mut info = framework(name, "role");
    info.capabilities.retain(|one| one.r#type != Some(aware));
    info.checkpoint = Some(true);
    info
}

/// Launches tasks on an agent that has just come, and lets them run.
fn launch(world: &mut World, scheduler: &Scheduler, agent: &str, ids: &[&str]) {
    let offer = world.take_offers(scheduler).remove(0).id.value;
    let tasks = ids.iter().map(|id| task(id, agent, "cpus:1;mem:16"));
    world.accept(scheduler, &[&offer], tasks.collect());
    for id in ids {
        world.update(1, scheduler, agent, id, TaskState::TaskRunning, 1);
    }
    world.take(scheduler);
}

/// A running task as its agent tells of it.
fn told(scheduler: &Scheduler, agent: &str, id: &str) -> link::SyncTask {
    let mut info = task(id, agent, "cpus:1;mem:16");
    for resource in &mut info.resources {
        resource.allocation_info = Some(v1::resource::AllocationInfo {
            role: Some("role".into()),
        });
    }
    let framework_id = v1::FrameworkId {
        value: scheduler.id.clone(),
    };
    let task = v1::Task {
        name: info.name,
        task_id: info.task_id,
        framework_id,
        agent_id: info.agent_id,
        resources: info.resources,
        state: TaskState::TaskRunning as i32,
        ..Default::default()
    };
    link::SyncTask {
        task: task.encode_to_vec().into(),
    }
}

/// Statuses among what a scheduler was sent.
fn statuses(events: Vec<scheduler::Event>) -> Vec<v1::TaskStatus> {
    let updates = events.into_iter().filter_map(|event| event.update);
    updates.map(|update| update.status).collect()
}

fn reconcile(id: &str, agent: &str) -> scheduler::Call {
    let task = scheduler::call::reconcile::Task {
        task_id: v1::TaskId { value: id.into() },
        agent_id: Some(v1::AgentId {
            value: agent.into(),
        }),
    };
    scheduler::Call {
        r#type: Some(Type::Reconcile as i32),
        reconcile: Some(scheduler::call::Reconcile { tasks: vec![task] }),
        ..Default::default()
    }
}

#[test]
fn who_knows_nothing_of_partitions_hears_of_lost_tasks_that_come_back() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(old("old"));
    launch(&mut world, &scheduler, &agent, &["t"]);
    let session = SessionKey(1);
    world.apply(Event::AgentSilent { session });
    let since = world.now.wall;
    let lost = statuses(world.take(&scheduler)).remove(0);
    assert_eq!(lost.state(), TaskState::TaskLost);
    let nanoseconds = since.0;
    let time = Some(v1::TimeInfo { nanoseconds });
    assert_eq!(lost.unreachable_time, time);

    world.wait(Duration::from_secs(5));
    world.call(&scheduler, reconcile("t", &agent));
    let said = statuses(world.take(&scheduler)).remove(0);
    assert_eq!(said.state(), TaskState::TaskLost);
    assert_eq!(said.unreachable_time, time, "since it was so");

    world.hello(2, Some(&agent), 2);
    world.welcome(2);
    let sync = link::Sync {
        tasks: vec![told(&scheduler, &agent, "t")],
        ..Default::default()
    };
    world.sync(2, AGENT, sync);
    let back = statuses(world.take(&scheduler)).remove(0);
    assert_eq!(back.state(), TaskState::TaskRunning);
    assert_eq!(back.unreachable_time, None);
    assert_eq!(world.state.view().frameworks[0].tasks.len(), 1);
    let frames = world.take_frames(SessionKey(2));
    assert!(
        !frames.iter().any(|frame| matches!(frame, Body::Kill(_))),
        "releases before 1.5 killed it: {frames:?}"
    );
}

/// Each end that the master tells is followed by the word that the task is back, before another end.
#[test]
fn frameworks_hear_that_tasks_of_a_removed_agent_are_back() {
    for (info, end) in [
        (framework("aware", "role"), TaskState::TaskGone),
        (old("old"), TaskState::TaskLost),
    ] {
        let mut world = World::new();
        let address = "127.0.0.1:5051";
        let scheduler = world.subscribe(v1::FrameworkInfo {
            checkpoint: Some(true),
            ..info
        });
        world.hello_from(address, 1, None, 1);
        let agent = world.welcome(1);
        world.sync(1, AGENT, link::Sync::default());
        launch(&mut world, &scheduler, &agent, &["t"]);
        for session in [1, 3] {
            let closed = SessionKey(session);
            world.apply(Event::AgentClosed { session: closed });
            world.hello_from(address, session + 1, None, 1);
            let over = statuses(world.take(&scheduler)).remove(0);
            assert_eq!(
                (over.state(), over.message()),
                (end, "Agent localhost removed")
            );
            assert_eq!(world.state.view().frameworks[0].completed.len(), 1);

            world.hello_from(address, session + 2, Some(&agent), session + 1);
            let sync = link::Sync {
                tasks: vec![told(&scheduler, &agent, "t")],
                ..Default::default()
            };
            world.sync(session + 2, AGENT, sync);
            let back = statuses(world.take(&scheduler));
            let [back] = &back[..] else {
                panic!("one status: {back:?}");
            };
            assert_eq!(back.state(), TaskState::TaskRunning);
            assert_eq!(back.reason(), task_status::Reason::AgentReregistered);
            let view = world.state.view();
            assert_eq!(view.frameworks[0].tasks.len(), 1);
            assert_eq!(view.frameworks[0].completed.len(), 0, "it is not over");
            let frames = world.take_frames(SessionKey(session + 2));
            let killed = frames.iter().any(|frame| matches!(frame, Body::Kill(_)));
            assert!(!killed, "{frames:?}");
        }
    }
}

#[test]
fn an_end_that_its_agent_forgot_is_told_again() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let mut info = framework("f", "role");
    info.checkpoint = Some(true);
    let scheduler = world.subscribe(info);
    launch(&mut world, &scheduler, &agent, &["seen", "unseen"]);
    for id in ["seen", "unseen"] {
        world.update(1, &scheduler, &agent, id, TaskState::TaskFinished, 2);
    }
    world.acknowledge(&scheduler, &agent, "seen", 2);
    world.take(&scheduler);
    // Its machine was started anew.
    let session = SessionKey(1);
    world.apply(Event::AgentClosed { session });
    world.hello(2, Some(&agent), 2);
    world.welcome(2);
    world.sync(2, AGENT, link::Sync::default());
    let said = statuses(world.take(&scheduler));
    let [again] = &said[..] else {
        panic!("one is told of, not {said:?}")
    };
    assert_eq!(again.task_id.value, "unseen");
    assert_eq!(again.state(), TaskState::TaskFinished);
    assert_eq!(again.uuid, None, "there is nobody to acknowledge it to");
    let view = world.state.view();
    let framework = &view.frameworks[0];
    assert_eq!((framework.tasks.len(), framework.completed.len()), (0, 2));
}

#[test]
fn a_scheduler_that_is_back_hears_at_once_what_it_did_not_acknowledge() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("f", "role"));
    launch(&mut world, &scheduler, &agent, &["t"]);
    world.take_frames(SessionKey(1));
    let mut info = framework("f", "role");
    info.id = Some(v1::FrameworkId {
        value: scheduler.id.clone(),
    });
    world.subscribe(info);
    let asked = world.take_frames(SessionKey(1));
    let asked = asked.iter().find_map(|frame| match frame {
        Body::ResendUpdates(asked) => asked.framework_id.clone(),
        _ => None,
    });
    assert_eq!(asked.map(|id| id.value), Some(scheduler.id));
}

#[test]
fn histories_end() {
    let mut world = with(|settings| {
        settings.max_completed_frameworks = 2;
        settings.max_completed_tasks_per_framework = 2;
        settings.max_unreachable_tasks_per_framework = 1;
    });
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("f", "role"));
    launch(&mut world, &scheduler, &agent, &["a", "b", "c"]);
    for id in ["a", "b", "c"] {
        world.update(1, &scheduler, &agent, id, TaskState::TaskFinished, 2);
        world.acknowledge(&scheduler, &agent, id, 2);
    }
    let ids = |rows: &tepui_view::Rows<tepui_view::DoneRow>| -> Vec<String> {
        rows.iter().map(|row| row.id.to_string()).collect()
    };
    let kept = ids(&world.state.view().frameworks[0].completed);
    assert_eq!(kept, ["b", "c"], "the newest");

    world.wait(Duration::from_secs(2));
    launch(&mut world, &scheduler, &agent, &["d", "e"]);
    let session = SessionKey(1);
    world.apply(Event::AgentSilent { session });
    let kept = ids(&world.state.view().frameworks[0].unreachable);
    assert_eq!(kept, ["e"], "the newest");

    for name in ["one", "two", "three"] {
        let other = world.subscribe(framework(name, "role"));
        world.simple(&other, Type::Teardown);
    }
    let view = world.state.view();
    let infos = view.completed_frameworks.iter().map(|done| {
        let info = done.row.info.clone();
        <v1::FrameworkInfo as tepui_proto::Message>::decode(info)
    });
    let names: Vec<String> = infos.map(|info| info.expect("an info").name).collect();
    assert_eq!(names, ["two", "three"], "the newest");
}

#[test]
fn offers_that_nobody_answers_are_taken_back() {
    let mut world = with(|settings| settings.offer_timeout = Some(Duration::from_secs(30)));
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("f", "role"));
    let offer = world.take_offers(&scheduler).remove(0).id;
    world.wait(Duration::from_secs(29));
    assert!(!names(&world.take(&scheduler)).contains(&"RESCIND".to_owned()));
    world.wait(Duration::from_secs(2));
    let events = world.take(&scheduler);
    let rescinded = events.iter().find_map(|event| event.rescind.as_ref());
    assert_eq!(rescinded.map(|rescind| &rescind.offer_id), Some(&offer));
    let next = events.iter().find_map(|event| event.offers.as_ref());
    let next = &next.expect("what was rescinded is offered anew").offers[0].id;
    // Once accepted it is not taken back.
    world.accept(&scheduler, &[&next.value], vec![task("t", &agent, AGENT)]);
    world.wait(Duration::from_secs(60));
    assert!(!names(&world.take(&scheduler)).contains(&"RESCIND".to_owned()));
}

#[test]
fn a_framework_that_only_agents_know_can_be_torn_down() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let mut info = framework("f", "role");
    info.checkpoint = Some(true);
    let scheduler = world.subscribe(info.clone());
    launch(&mut world, &scheduler, &agent, &["t"]);
    info.id = Some(v1::FrameworkId {
        value: scheduler.id.clone(),
    });
    let mut next = world.failover();
    next.hello(2, Some(&agent), 2);
    next.welcome(2);
    let sync = link::Sync {
        frameworks: vec![link::SyncFramework {
            info: Some(info),
            ..Default::default()
        }],
        tasks: vec![told(&scheduler, &agent, "t")],
        ..Default::default()
    };
    next.sync(2, AGENT, sync);
    let row = next.state.view().frameworks[0].row.clone();
    assert!(row.recovered && !row.connected);
    let framework_id = scheduler.id.clone();
    let reply = next.operate(OperatorCall::Teardown { framework_id });
    assert_eq!(reply, Reply::Ok);
    let frames = next.take_frames(SessionKey(2));
    assert!(matches!(frames.last(), Some(Body::ShutdownFramework(_))));
    let view = next.state.view();
    assert!(view.frameworks.is_empty());
    assert_eq!(view.completed_frameworks[0].completed.len(), 1);
}

#[test]
fn a_new_agent_whose_welcomes_are_lost_is_one_agent_in_the_end() {
    let mut world = World::new();
    let address = "127.0.0.1:5051";
    // The master learns late that nobody is there any more.
    for session in 1..=3 {
        world.hello_from(address, session, None, 1);
    }
    for session in (1..=3).map(SessionKey) {
        world.apply(Event::AgentClosed { session });
    }
    assert_eq!(world.state.view().agents.iter().count(), 3);
    world.hello_from(address, 4, None, 1);
    world.sync(4, AGENT, link::Sync::default());
    assert_eq!(world.state.view().agents.iter().count(), 1);
    let records = world
        .registry
        .keys()
        .filter(|key| key.starts_with("agents/"));
    assert_eq!(records.count(), 1, "{:?}", world.registry);
}

#[test]
fn a_new_agent_that_comes_again_while_its_record_is_written_gets_no_second_one() {
    let mut world = World::new();
    world.slow_registry = true;
    let address = "127.0.0.1:5051";
    for session in 1..=3 {
        world.hello_from(address, session, None, 1);
    }
    for session in 2..=3 {
        let frames = world.take_frames(SessionKey(session));
        let busy =
            |body: &Body| matches!(body, Body::Refuse(refuse) if refuse.code() == Code::Busy);
        assert!(frames.iter().any(busy), "{frames:?}");
    }
    world.write();
    let is_agent = |key: &&String| key.starts_with("agents/");
    assert_eq!(world.registry.keys().filter(is_agent).count(), 1);
    // Its record is there: the address is free for the next one.
    world.apply(Event::AgentClosed {
        session: SessionKey(1),
    });
    world.hello_from(address, 4, None, 1);
    world.write();
    world.sync(4, AGENT, link::Sync::default());
    assert_eq!(world.state.view().agents.iter().count(), 1);
    assert_eq!(world.registry.keys().filter(is_agent).count(), 1);
}

#[test]
fn a_new_agent_that_is_lost_before_its_record_is_written_is_forgotten() {
    let mut world = World::new();
    world.slow_registry = true;
    world.hello(1, None, 1);
    let session = SessionKey(1);
    world.apply(Event::AgentClosed { session });
    world.write();
    world.write();
    assert!(world.state.view().globals.recovered_agents.is_empty());
    let mut records = world.registry.keys();
    assert!(!records.any(|key| key.starts_with("agents/")));
}

#[test]
fn an_agent_comes_back_as_it_is_now() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("f", "role"));
    let offer = world.take_offers(&scheduler).remove(0).id.value;
    world.decline(&scheduler, &offer, Some(3600.0));
    let session = SessionKey(1);
    world.apply(Event::AgentClosed { session });
    // With more of everything, and another attribute: what was refused of it may be of interest now.
    let attributes = Attributes::parse("rack:a").expect("attributes");
    let hello = link::Hello {
        protocol: Some(link::ProtocolRange { min: 1, max: 1 }),
        info: Some(v1::AgentInfo {
            hostname: "localhost".into(),
            id: Some(v1::AgentId {
                value: agent.clone(),
            }),
            attributes: attributes.0.iter().map(Into::into).collect(),
            resources: convert::parse_resources("cpus:8", "*")
                .map(|resources| convert::to_proto(&resources))
                .expect("resources"),
            ..Default::default()
        }),
        run_number: 2,
        ..Default::default()
    };
    world.apply(Event::AgentHello {
        session: SessionKey(2),
        principal: None,
        hello: Wire(hello),
    });
    world.sync(2, "cpus:8;mem:8192", link::Sync::default());
    let offers = world.take_offers(&scheduler);
    assert_eq!(offers.len(), 1, "the filter is over");
    assert_eq!(offers[0].attributes[0].name, "rack");
    let facts = world.all.iter().filter_map(|effect| match effect {
        Effect::Facts(facts) => Some(facts),
        _ => None,
    });
    let cleared = facts.flatten().any(|fact| {
        matches!(fact, Fact::FiltersCleared(scope) if scope.agent.is_some() && scope.framework.is_none())
    });
    assert!(cleared);
    let kept = world.registry.get(&format!("agents/{agent}"));
    let kept = kept.expect("its record").windows(4).any(|at| at == b"rack");
    assert!(kept, "the next leader knows");
}

#[test]
fn where_quota_is_kept_the_next_leader_waits_for_most_agents() {
    let mut world = World::new();
    for session in 1..=5 {
        world.agent(session, AGENT);
    }
    let amount = [("cpus".to_owned(), v1::value::Scalar { value: 1.0 })].into();
    let config = v1::quota::QuotaConfig {
        role: "sure".into(),
        guarantees: amount,
        ..Default::default()
    };
    let no_quota = world.failover();
    let configs = vec![Wire(config)];
    let force = false;
    let reply = world.operate(OperatorCall::UpdateQuota { configs, force });
    assert_eq!(reply, Reply::Ok);
    let back = |next: &mut World, number: usize| {
        let session = 10 + number as u64;
        let id = format!("{}-S{number}", support::MASTER);
        next.hello(session, Some(&id), 2);
        next.welcome(session);
        next.sync(session, AGENT, link::Sync::default());
    };
    for (mut next, awaited) in [(no_quota, 1), (world.failover(), 4), (world.failover(), 9)] {
        let scheduler = next.subscribe(framework("f", "role"));
        for number in 0..3 {
            back(&mut next, number);
            let offered = !next.take_offers(&scheduler).is_empty();
            assert_eq!(offered, number + 1 >= awaited, "{number} of {awaited}");
        }
        if awaited == 9 {
            next.wait(Duration::from_secs(599));
            assert!(next.take_offers(&scheduler).is_empty());
            next.wait(Duration::from_secs(2));
            assert_eq!(next.take_offers(&scheduler).len(), 3, "in time at least");
        } else if awaited == 4 {
            back(&mut next, 3);
            assert_eq!(
                next.take_offers(&scheduler).len(),
                4,
                "four of five are enough"
            );
        }
    }
}

#[test]
fn agents_with_gpus_are_for_everybody_where_the_site_says_so() {
    for filter in [true, false] {
        let mut world = with(|settings| settings.filter_gpu_resources = filter);
        world.subscribe(framework("f", "role"));
        let facts = world.all.iter().filter_map(|effect| match effect {
            Effect::Facts(facts) => Some(facts),
            _ => None,
        });
        let told = facts.flatten().find_map(|fact| match fact {
            Fact::FrameworkAdded(framework) => Some(&framework.capabilities),
            _ => None,
        });
        let told = told
            .expect("the framework")
            .contains(&"GPU_RESOURCES".to_owned());
        assert_eq!(told, !filter);
    }
}

/// What cannot be read might be a task that runs: nothing of such a sync counts.
#[test]
fn an_agent_that_tells_what_is_no_task_loses_its_session() {
    let mut world = World::new();
    world.subscribe(framework("life", "role"));
    world.hello(1, None, 1);
    world.welcome(1);
    let task = bytes::Bytes::from_static(b"no task");
    let sync = link::Sync {
        tasks: vec![link::SyncTask { task }],
        ..Default::default()
    };
    world.sync(1, "cpus:1;mem:16", sync);
    let view = world.state.view();
    let agents: Vec<_> = view.agents.iter().collect();
    assert!(agents.iter().all(|agent| !agent.connected && !agent.active));
    world.state.check().expect("the state is sound");
}
