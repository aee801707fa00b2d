//! What is counted, against what Mesos' metrics mean.

mod support;

use std::collections::BTreeMap;

use support::{World, framework, task};
use tepui_model::id::Role;
use tepui_proto::v1::TaskState;
use tepui_proto::v1::offer::operation;
use tepui_proto::v1::scheduler::{call::Type, event};
use tepui_proto::v1::task_status::{Reason, Source};
use tepui_state_master::{Counted, Event, SessionKey};

const AGENT: &str = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]";

/// Those that are not zero.
fn raised(counted: &Counted) -> BTreeMap<&'static str, u64> {
    let raised = counted.master.iter().filter(|(_, n)| *n > 0);
    raised.copied().collect()
}

#[test]
fn a_frameworks_life_in_numbers() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let mut info = framework("life", "peer");
    info.principal = Some("ops".into());
    let scheduler = world.subscribe(info);
    let offer = world.take_offers(&scheduler)[0].id.value.clone();
    let tasks = vec![
        task("good", &agent, "cpus:0.1;mem:16"),
        task("large", &agent, "cpus:100;mem:16"),
        task("killed", &agent, "cpus:0.1;mem:16"),
    ];
    world.accept(&scheduler, &[&offer], tasks);
    for (state, uuid) in [(TaskState::TaskRunning, 1), (TaskState::TaskFinished, 2)] {
        world.update(1, &scheduler, &agent, "good", state, uuid);
        world.acknowledge(&scheduler, &agent, "good", uuid);
    }
    // Returned resources may wait a moment after a round that gave nothing.
    world.wait(std::time::Duration::from_millis(10));
    // Said again until it is acknowledged: one update more, no second end.
    world.update(1, &scheduler, &agent, "killed", TaskState::TaskKilled, 3);
    world.update(1, &scheduler, &agent, "killed", TaskState::TaskKilled, 3);
    world.wait(std::time::Duration::from_secs(2));
    let offer = world.take_offers(&scheduler)[0].id.value.clone();
    world.decline(&scheduler, &offer, Some(100.0));

    let counted = world.state.counted();
    let expected = BTreeMap::from([
        ("messages_register_framework", 1),
        ("messages_register_slave", 1),
        ("messages_update_slave", 1),
        ("slave_registrations", 1),
        ("messages_launch_tasks", 1),
        ("messages_decline_offers", 1),
        ("messages_status_update", 4),
        ("valid_status_updates", 4),
        ("messages_status_update_acknowledgement", 2),
        ("valid_status_update_acknowledgements", 2),
    ]);
    assert_eq!(raised(&counted), expected);
    let ended = |ended: &[u64]| {
        let of = |state: TaskState| ended[state as usize];
        assert_eq!(ended.iter().sum::<u64>(), 3);
        [
            TaskState::TaskFinished,
            TaskState::TaskKilled,
            TaskState::TaskError,
        ]
        .map(of)
    };
    assert_eq!(ended(&counted.ended), [1, 1, 1]);
    let refused = (TaskState::TaskError, Source::Master, Reason::TaskInvalid, 1);
    assert_eq!(counted.reasons, [refused]);
    assert_eq!(counted.principals, BTreeMap::from([("ops".to_owned(), 4)]));
    // Of what the ACCEPT left, and of the DECLINE.
    assert_eq!(counted.filters, BTreeMap::from([(Role::from("peer"), 2)]));

    let own = &counted.frameworks[0];
    assert_eq!(
        (own.id.as_str(), own.name.as_str()),
        (scheduler.id.as_str(), "life")
    );
    assert_eq!(ended(&own.ended), [1, 1, 1]);
    assert_eq!(own.calls.iter().sum::<u64>(), 5);
    assert_eq!(own.calls[Type::Acknowledge as usize], 2);
    assert_eq!(own.operations[operation::Type::Launch as usize], 2);
    assert_eq!(own.events[event::Type::Update as usize], 5);
    let offers = (own.offers_sent, own.offers_accepted, own.offers_declined);
    // The first, and what each ended task set free.
    assert_eq!(offers, (3, 1, 1));

    // What a completed framework did stays visible as long as its row.
    world.simple(&scheduler, Type::Teardown);
    assert_eq!(world.state.counted().frameworks[0].offers_sent, 3);
}

#[test]
fn agents_that_leave() {
    let mut world = World::new();
    let first = world.agent(1, AGENT);
    world.agent(2, AGENT);
    world.apply(Event::AgentSilent {
        session: SessionKey(1),
    });
    world.apply(Event::AgentUnregister {
        session: SessionKey(2),
    });
    world.hello(3, Some(&first), 2);
    let expected = BTreeMap::from([
        ("messages_register_slave", 2),
        ("messages_reregister_slave", 1),
        ("messages_unregister_slave", 1),
        ("messages_update_slave", 2),
        ("slave_registrations", 2),
        ("slave_reregistrations", 1),
        ("slave_removals", 2),
        ("slave_removals/reason_unhealthy", 1),
        ("slave_removals/reason_unregistered", 1),
        ("slave_unreachable_scheduled", 1),
        ("slave_unreachable_completed", 1),
    ]);
    assert_eq!(raised(&world.state.counted()), expected);
}
