//! What operators decide: kept by the registry before it is said, and by the ledger whatever is proposed.

mod support;

use support::{World, framework, names};
use tepui_model::allocation::{Fact, Quota};
use tepui_model::id::{AgentId, Role};
use tepui_proto::Wire;
use tepui_proto::link::link_frame::Body;
use tepui_proto::v1::quota::{QuotaConfig, QuotaRequest};
use tepui_proto::v1::{self, MachineId, WeightInfo, maintenance, value};
use tepui_state_master::{Effect, OperatorCall, Reply, SessionKey};

const AGENT: &str = "cpus:4;mem:4096";

fn weights(role: &str, weight: f64) -> OperatorCall {
    let info = WeightInfo {
        weight,
        role: Some(role.into()),
    };
    OperatorCall::UpdateWeights {
        weights: vec![Wire(info)],
    }
}

fn amount(cpus: f64) -> std::collections::BTreeMap<String, value::Scalar> {
    [("cpus".to_owned(), value::Scalar { value: cpus })].into()
}

fn limit(role: &str, cpus: f64) -> OperatorCall {
    let config = QuotaConfig {
        role: role.into(),
        limits: amount(cpus),
        ..Default::default()
    };
    OperatorCall::UpdateQuota {
        configs: vec![Wire(config)],
        force: false,
    }
}

fn guarantee(role: &str, cpus: f64, force: bool) -> OperatorCall {
    let guarantee = v1::Resource {
        name: "cpus".into(),
        scalar: Some(value::Scalar { value: cpus }),
        ..Default::default()
    };
    OperatorCall::SetQuota {
        request: Wire(QuotaRequest {
            force: Some(force),
            role: Some(role.into()),
            guarantee: vec![guarantee],
        }),
    }
}

/// The machine of the agent with that session.
fn machine() -> MachineId {
    MachineId {
        hostname: Some("LocalHost".into()),
        ip: Some("127.0.0.1".into()),
    }
}

fn schedule(machines: Vec<MachineId>) -> OperatorCall {
    let windows = match machines.is_empty() {
        true => Vec::new(),
        false => vec![maintenance::Window {
            machine_ids: machines,
            unavailability: v1::Unavailability {
                start: v1::TimeInfo { nanoseconds: 9 },
                duration: None,
            },
        }],
    };
    OperatorCall::UpdateMaintenance {
        schedule: Wire(maintenance::Schedule { windows }),
    }
}

fn facts(world: &World) -> impl Iterator<Item = &Fact> {
    world.all.iter().flat_map(|effect| match effect {
        Effect::Facts(facts) => facts.as_slice(),
        _ => &[],
    })
}

#[test]
fn the_next_leader_knows_what_was_decided() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let calls = [
        weights("a/b", 2.5),
        weights("b", 0.0001),
        limit("peer", 3.0),
        guarantee("old", 1.0, false),
        schedule(vec![machine()]),
        OperatorCall::Deactivate {
            agent_id: AgentId::from(agent.as_str()),
        },
    ];
    for call in calls {
        assert_eq!(world.operate(call.clone()), Reply::Ok, "{call:?}");
    }
    let mut next = world.failover();
    let (old, new) = (world.state.view(), next.state.view());
    assert_eq!(new.globals.weights, old.globals.weights);
    assert_eq!(new.globals.weights.len(), 2);
    assert_eq!(new.globals.quotas.len(), 2);
    assert!(
        old.globals
            .quotas
            .iter()
            .all(|quota| new.globals.quotas.contains(quota))
    );
    assert_eq!(
        new.globals.maintenance.schedule,
        old.globals.maintenance.schedule
    );
    let told: Vec<&Fact> = facts(&next).collect();
    assert!(told.contains(&&Fact::Weight(Role::from("a/b"), 2500)));
    assert!(told.contains(&&Fact::Weight(Role::from("b"), 1)));
    assert!(
        told.iter()
            .any(|fact| matches!(fact, Fact::Quota(role, _) if role.as_str() == "peer"))
    );

    next.hello(1, Some(&agent), 2);
    assert_eq!(next.welcome(1), agent);
    next.sync(1, AGENT, Default::default());
    let row = next.state.view().agents.iter().next().cloned();
    let row = row.expect("it is back");
    assert!(row.deactivated && !row.active);
    let reactivate = OperatorCall::Reactivate {
        agent_id: AgentId::from(agent.as_str()),
    };
    assert_eq!(next.operate(reactivate), Reply::Ok);
    let scheduler = next.subscribe(framework("peer", "else"));
    assert_eq!(next.take_offers(&scheduler).len(), 1);
    // Back in service is not out of service at the next leader either.
    assert!(!next.registry.keys().any(|key| key.starts_with("drain/")));
}

#[test]
fn changes_are_checked_and_written_one_after_the_other() {
    let mut world = World::new();
    world.agent(1, AGENT);
    world.slow_registry = true;
    let first = world.operator(guarantee("old", 3.0, false));
    let same = world.operator(guarantee("old", 1.0, false));
    let more = world.operator(guarantee("other", 3.0, false));
    let last = world.operator(OperatorCall::RemoveQuota {
        role: Role::from("old"),
    });
    assert!(world.replies.is_empty(), "nothing is written yet");
    assert!(world.state.view().globals.quotas.is_empty());
    world.write();
    assert_eq!(world.replies[&first], Reply::Ok);
    assert_eq!(
        world.replies[&same],
        Reply::BadRequest(
            "Failed to validate set quota request: Cannot set quota for role 'old' which already has quota".into()
        )
    );
    assert!(
        matches!(&world.replies[&more], Reply::Conflict(text) if text.contains("'cpus:6' exceed cluster capacity 'cpus:4; mem:4096'")),
        "{:?}",
        world.replies[&more]
    );
    assert!(!world.replies.contains_key(&last));
    world.write();
    assert_eq!(world.replies[&last], Reply::Ok);
    let again = world.operate(OperatorCall::RemoveQuota {
        role: Role::from("old"),
    });
    assert!(matches!(again, Reply::BadRequest(_)), "{again:?}");
}

/// As in Mesos (`Master::QuotaHandler::_update`): an empty config is kept by the leader that took it, and not written.
#[test]
fn a_quota_without_amounts_is_listed_until_the_next_leader() {
    let mut world = World::new();
    let none = QuotaConfig {
        role: "peer".into(),
        ..Default::default()
    };
    let clear = OperatorCall::UpdateQuota {
        configs: vec![Wire(none)],
        force: false,
    };
    for call in [limit("peer", 3.0), clear] {
        assert_eq!(world.operate(call.clone()), Reply::Ok, "{call:?}");
    }
    let listed = &world.state.view().globals.quotas;
    assert_eq!(listed.as_slice(), [("peer".into(), Quota::default())]);
    let remove = OperatorCall::RemoveQuota {
        role: Role::from("peer"),
    };
    let refused = "Failed to remove quota: Role 'peer' has no quota set";
    assert_eq!(world.operate(remove), Reply::BadRequest(refused.into()));
    assert!(world.failover().state.view().globals.quotas.is_empty());
}

#[test]
fn a_limit_holds_whatever_is_proposed() {
    let mut world = World::new();
    assert_eq!(world.operate(limit("peer", 9.0)), Reply::Ok);
    for session in 1..=3 {
        world.agent(session, AGENT);
    }
    // Reservations count although nothing runs on them; what is reserved may be offered beyond the limit.
    world.agent(4, "cpus:1;cpus(peer/a):1;mem:32");
    let scheduler = world.subscribe(framework("peer", "peer/a"));
    let cpus = |offers: &[v1::Offer]| -> Vec<f64> {
        let of = |offer: &v1::Offer| {
            let cpus = offer.resources.iter().filter(|one| one.name == "cpus");
            cpus.filter_map(|one| Some(one.scalar.as_ref()?.value))
                .sum()
        };
        offers.iter().map(of).collect()
    };
    let offers = world.take_offers(&scheduler);
    assert_eq!(cpus(&offers), [4.0, 4.0]);
    let refused = facts(&world).filter(|fact| matches!(fact, Fact::Refused(_)));
    assert_eq!(refused.count(), 2);

    // What is only offered is not consumed; what is reserved is.
    let below = world.operate(limit("peer", 0.5));
    assert!(
        matches!(&below, Reply::BadRequest(text) if text.contains("consumes 'cpus:1'")),
        "{below:?}"
    );
    assert_eq!(world.operate(limit("peer", 8.0)), Reply::Ok);
    assert_eq!(world.operate(limit("peer", 13.0)), Reply::Ok);
    world.wait(std::time::Duration::from_secs(1));
    assert_eq!(cpus(&world.take_offers(&scheduler)), [4.0]);
}

#[test]
fn an_old_guarantee_makes_room_at_once() {
    let mut world = World::new();
    for session in 1..=3 {
        world.agent(session, AGENT);
    }
    let scheduler = world.subscribe(framework("peer", "peer"));
    assert_eq!(world.take_offers(&scheduler).len(), 3);
    assert_eq!(world.operate(guarantee("old", 5.0, false)), Reply::Ok);
    let events = names(&world.take(&scheduler));
    let rescinded = events.iter().filter(|name| *name == "RESCIND");
    assert_eq!(rescinded.count(), 2, "{events:?}");
}

#[test]
fn an_agent_out_of_service_is_not_offered() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let agent_id = AgentId::from(agent.as_str());
    let scheduler = world.subscribe(framework("peer", "peer"));
    assert_eq!(world.take_offers(&scheduler).len(), 1);
    let deactivate = OperatorCall::Deactivate {
        agent_id: agent_id.clone(),
    };
    assert_eq!(world.operate(deactivate), Reply::Ok);
    assert_eq!(names(&world.take(&scheduler)), ["RESCIND"]);
    world.wait(std::time::Duration::from_secs(3));
    assert!(world.take_offers(&scheduler).is_empty());
    let gone = OperatorCall::MarkGone {
        agent_id: agent_id.clone(),
        at: world.now.wall,
    };
    assert_eq!(world.operate(gone), Reply::Ok);
    assert_eq!(
        world.operate(OperatorCall::Reactivate { agent_id }),
        Reply::BadRequest("Agent is not deactivated".into())
    );
    assert!(!world.registry.contains_key(&format!("drain/{agent}")));
}

#[test]
fn a_machine_goes_down_and_comes_up() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("peer", "peer"));
    assert_eq!(world.take_offers(&scheduler)[0].unavailability, None);
    assert_eq!(world.operate(schedule(vec![machine()])), Reply::Ok);
    let events = world.take(&scheduler);
    assert_eq!(names(&events), ["RESCIND", "OFFERS", "INVERSE_OFFERS"]);
    let offer = &events[1].offers.as_ref().expect("offers").offers[0];
    let start = offer.unavailability.as_ref().map(|at| at.start.nanoseconds);
    assert_eq!(start, Some(9));

    world.take_frames(SessionKey(1));
    let down = OperatorCall::StartMaintenance {
        machines: vec![Wire(machine())],
    };
    assert_eq!(world.operate(down), Reply::Ok);
    assert_eq!(
        names(&world.take(&scheduler)),
        ["RESCIND", "RESCIND_INVERSE_OFFER", "FAILURE"]
    );
    let frames = world.take_frames(SessionKey(1));
    assert!(matches!(frames[..], [Body::Shutdown(_)]), "{frames:?}");
    assert!(world.state.view().agents.is_empty());
    world.hello(2, Some(&agent), 2);
    let frames = world.take_frames(SessionKey(2));
    assert!(
        matches!(&frames[..], [Body::Refuse(refuse)] if refuse.reason.contains("down")),
        "{frames:?}"
    );
    let dropped = world.operate(schedule(Vec::new()));
    assert_eq!(
        dropped,
        Reply::BadRequest(
            r#"Machine '{"hostname":"LocalHost","ip":"127.0.0.1"}' is in DOWN mode and cannot be removed from the schedule"#.into()
        )
    );
    // It stays down at the next leader.
    let mut next = world.failover();
    next.hello(1, Some(&agent), 3);
    let frames = next.take_frames(SessionKey(1));
    assert!(matches!(frames[..], [Body::Refuse(_)]), "{frames:?}");
    let up = OperatorCall::StopMaintenance {
        machines: vec![Wire(machine())],
    };
    assert_eq!(next.operate(up), Reply::Ok);
    next.hello(2, Some(&agent), 4);
    assert_eq!(next.welcome(2), agent);
    let maintenance = next.state.view().globals.maintenance.clone();
    assert!(maintenance.schedule.windows.is_empty() && maintenance.down.is_empty());
}

/// Type and names of the events that operators got since the last look.
fn seen(world: &mut World) -> Vec<String> {
    let events = std::mem::take(&mut world.operators);
    let line = |event: &v1::master::Event| {
        let framework = event
            .framework_added
            .as_ref()
            .map(|added| &added.framework)
            .or(event
                .framework_updated
                .as_ref()
                .map(|updated| &updated.framework));
        let framework = framework.map(|framework| {
            let info = &framework.framework_info;
            let times = [framework.registered_time, framework.reregistered_time];
            let known = times.iter().flatten().any(|time| time.nanoseconds != 0);
            format!(
                " {} active={} connected={} recovered={} since={known}",
                info.name, framework.active, framework.connected, framework.recovered
            )
        });
        let task = event.task_updated.as_ref().map(|updated| {
            let status = &updated.status;
            let state = updated.state().as_str_name();
            format!(
                " {state} {} {}",
                status.state().as_str_name(),
                status.message()
            )
        });
        let kind = event.r#type().as_str_name();
        format!(
            "{kind}{}{}",
            framework.unwrap_or_default(),
            task.unwrap_or_default()
        )
    };
    events.iter().map(line).collect()
}

/// `events/master-subscribe` of the recordings: what a framework's life looks like to an operator.
#[test]
fn operators_see_what_mesos_shows_them() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    assert_eq!(seen(&mut world), ["AGENT_ADDED"]);
    let scheduler = world.subscribe(framework("life", "peer"));
    let up = "active=true connected=true recovered=false since=true";
    assert_eq!(seen(&mut world), [format!("FRAMEWORK_ADDED life {up}")]);
    let offer = world.take_offers(&scheduler)[0].id.value.clone();
    let tasks = ["done", "stay"].map(|id| support::task(id, &agent, "cpus:1;mem:16"));
    world.accept(&scheduler, &[&offer], tasks.into());
    let done = v1::TaskState::TaskFinished;
    world.update(1, &scheduler, &agent, "done", done, 1);
    let added = [
        "TASK_ADDED",
        "TASK_ADDED",
        "TASK_UPDATED TASK_FINISHED TASK_FINISHED ",
    ];
    assert_eq!(seen(&mut world), added);

    // Gone and back with another name: not a word of its being away.
    world.apply(tepui_state_master::Event::StreamClosed {
        stream: scheduler.stream,
    });
    assert!(seen(&mut world).is_empty());
    let mut info = framework("renamed", "peer");
    info.id = Some(v1::FrameworkId {
        value: scheduler.id.clone(),
    });
    world.subscribe(info.clone());
    let last = seen(&mut world);
    assert_eq!(last.len(), 2, "{last:?}");
    assert_eq!(last[1], format!("FRAMEWORK_UPDATED renamed {up}"));
    world.subscribe(info);
    assert_eq!(seen(&mut world).len(), 1);

    let teardown = OperatorCall::Teardown {
        framework_id: scheduler.id.clone(),
    };
    assert_eq!(world.operate(teardown), Reply::Ok);
    let removed = format!("Framework {} removed", scheduler.id);
    assert_eq!(
        seen(&mut world),
        [
            format!("TASK_UPDATED TASK_FINISHED TASK_KILLED {removed}"),
            format!("TASK_UPDATED TASK_KILLED TASK_KILLED {removed}"),
            "FRAMEWORK_REMOVED".to_owned(),
        ]
    );

    let mut info = framework("brought", "peer");
    info.id = Some(v1::FrameworkId {
        value: "an-id-of-its-own".into(),
    });
    world.subscribe(info);
    assert_eq!(
        seen(&mut world),
        [
            "FRAMEWORK_ADDED brought active=false connected=false recovered=true since=false"
                .to_owned(),
            format!("FRAMEWORK_UPDATED brought {up}"),
        ]
    );

    // Nobody listens: nothing is made. Somebody came since: the word is out of date.
    let watchers = world.state.watchers();
    let leave = tepui_state_master::Event::Unwatched { watchers };
    world.apply(tepui_state_master::Event::Watched);
    world.apply(leave);
    world.subscribe(framework("seen", "peer"));
    assert_eq!(seen(&mut world).len(), 1);
    let watchers = world.state.watchers();
    world.apply(tepui_state_master::Event::Unwatched { watchers });
    world.subscribe(framework("unseen", "peer"));
    assert!(seen(&mut world).is_empty());
}

#[test]
fn an_agent_that_is_admitted_while_its_machine_goes_down_is_removed() {
    let mut world = World::new();
    assert_eq!(world.operate(schedule(vec![machine()])), Reply::Ok);
    world.slow_registry = true;
    world.operator(OperatorCall::StartMaintenance {
        machines: vec![Wire(machine())],
    });
    world.hello(1, None, 1);
    // The machine is down, the agent is admitted, then removed.
    for agents in [0, 1, 0] {
        world.write();
        assert_eq!(world.state.view().agents.len(), agents);
    }
    assert!(!world.registry.keys().any(|key| key.starts_with("agents/")));
}

fn drain(agent: &str, mark_gone: bool) -> OperatorCall {
    OperatorCall::Drain {
        agent_id: AgentId::from(agent),
        config: Wire(v1::DrainConfig {
            max_grace_period: Some(v1::DurationInfo { nanoseconds: 5 }),
            mark_gone: Some(mark_gone),
        }),
    }
}

fn drain_state(world: &mut World) -> Option<v1::DrainState> {
    let view = world.state.view();
    let row = view.agents.iter().next().expect("an agent").clone();
    assert_eq!(row.deactivated, row.drain.is_some());
    let drain = <v1::DrainInfo as tepui_proto::Message>::decode(row.drain?).expect("a drain");
    Some(drain.state())
}

#[test]
fn an_agent_drains_over_a_failover_and_comes_back() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let agent_id = AgentId::from(agent.as_str());
    let scheduler = world.subscribe(framework("peer", "peer"));
    let offer = world.take_offers(&scheduler)[0].id.value.clone();
    let task = support::task("t", &agent, "cpus:1;mem:16");
    world.accept(&scheduler, &[&offer], vec![task]);
    world.wait(std::time::Duration::from_secs(6));
    world.take(&scheduler);
    world.take_frames(SessionKey(1));
    assert_eq!(world.operate(drain(&agent, false)), Reply::Ok);
    assert_eq!(names(&world.take(&scheduler)), ["RESCIND"]);
    let is_drain = |frame: &Body| matches!(frame, Body::Drain(drain) if drain.config.as_ref().is_some_and(|config| config.max_grace_period.is_some()));
    assert!(world.take_frames(SessionKey(1)).iter().any(is_drain));
    assert_eq!(drain_state(&mut world), Some(v1::DrainState::Draining));
    let reactivate = OperatorCall::Reactivate {
        agent_id: agent_id.clone(),
    };
    assert_eq!(
        world.operate(reactivate.clone()),
        Reply::BadRequest("Agent is still in the DRAINING state".into())
    );

    // The next leader tells the agent again, whose task is over by then.
    let mut next = world.failover();
    next.hello(1, Some(&agent), 2);
    next.welcome(1);
    next.sync(1, AGENT, Default::default());
    assert!(next.take_frames(SessionKey(1)).iter().any(is_drain));
    assert_eq!(drain_state(&mut next), Some(v1::DrainState::Drained));
    let third = next.failover();
    assert_eq!(next.registry, third.registry);

    // Here the task ends, and its end is acknowledged.
    let killed = v1::TaskState::TaskKilled;
    world.update(1, &scheduler, &agent, "t", killed, 1);
    assert_eq!(drain_state(&mut world), Some(v1::DrainState::Draining));
    world.acknowledge(&scheduler, &agent, "t", 1);
    assert_eq!(drain_state(&mut world), Some(v1::DrainState::Drained));
    world.take_frames(SessionKey(1));
    assert_eq!(world.operate(reactivate), Reply::Ok);
    let frames = world.take_frames(SessionKey(1));
    assert!(
        frames
            .iter()
            .any(|frame| matches!(frame, Body::Reactivate(_)))
    );
    assert_eq!(drain_state(&mut world), None);
    assert_eq!(world.take_offers(&scheduler).len(), 1);

    // Drained for good.
    assert_eq!(world.operate(drain(&agent, true)), Reply::Ok);
    assert!(world.state.view().agents.is_empty());
    assert!(world.registry.contains_key(&format!("gone/{agent}")));
    assert!(!world.registry.contains_key(&format!("drain/{agent}")));
    assert_eq!(
        world.operate(drain(&agent, false)),
        Reply::BadRequest("Unknown agent".into())
    );
}
