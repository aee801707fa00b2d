//! Inverse offers: who is asked about maintenance, how often, and what becomes of the answers.

mod support;

use std::time::Duration;

use support::{Scheduler, World, framework, task};
use tepui_proto::Message as _;
use tepui_proto::v1::allocator::inverse_offer_status::Status;
use tepui_proto::v1::scheduler::{self, call::Type};
use tepui_proto::v1::{self, maintenance};
use tepui_state_master::{Event, OperatorCall, Reply, SessionKey};
use tepui_view::encode::{self, Form, Visibility};

const AGENT: &str = "cpus:2;mem:64";
const SECOND: Duration = Duration::from_secs(1);

fn schedule(world: &mut World, start: i64) {
    let machine = v1::MachineId {
        hostname: Some("localhost".into()),
        ip: Some("127.0.0.1".into()),
    };
    let schedule = maintenance::Schedule {
        windows: vec![maintenance::Window {
            machine_ids: vec![machine],
            unavailability: v1::Unavailability {
                start: v1::TimeInfo { nanoseconds: start },
                duration: None,
            },
        }],
    };
    let schedule = schedule.into();
    let reply = world.operate(OperatorCall::UpdateMaintenance { schedule });
    assert_eq!(reply, Reply::Ok);
}

/// What was asked (by start of the maintenance) and taken back since the last look; ids in `open` are the newest.
fn asked(world: &mut World, scheduler: &Scheduler, open: &mut Vec<v1::OfferId>) -> Vec<String> {
    let mut seen = Vec::new();
    for event in world.take(scheduler) {
        if let Some(inverse) = event.inverse_offers {
            open.clear();
            for offer in inverse.inverse_offers {
                assert!(offer.resources.is_empty(), "{offer:?}");
                let start = offer.unavailability.start.nanoseconds;
                let path = offer.url.and_then(|url| url.path).unwrap_or_default();
                seen.push(format!("asked {start} {path}"));
                open.push(offer.id);
            }
        }
        if let Some(rescind) = event.rescind_inverse_offer {
            assert!(open.contains(&rescind.inverse_offer_id));
            seen.push("rescinded".to_owned());
        }
    }
    seen
}

fn answer(
    world: &mut World,
    scheduler: &Scheduler,
    ids: &[v1::OfferId],
    accept: bool,
    refuse_seconds: f64,
) {
    let filters = Some(v1::Filters {
        refuse_seconds: Some(refuse_seconds),
    });
    let inverse_offer_ids = ids.to_vec();
    let call = if accept {
        scheduler::Call {
            r#type: Some(Type::AcceptInverseOffers as i32),
            accept_inverse_offers: Some(scheduler::call::AcceptInverseOffers {
                inverse_offer_ids,
                filters,
            }),
            ..Default::default()
        }
    } else {
        scheduler::Call {
            r#type: Some(Type::DeclineInverseOffers as i32),
            decline_inverse_offers: Some(scheduler::call::DeclineInverseOffers {
                inverse_offer_ids,
                filters,
            }),
            ..Default::default()
        }
    };
    assert_eq!(world.call(scheduler, call), Reply::Accepted);
}

/// What is shown with the machine.
fn answers(world: &mut World) -> Vec<Status> {
    let machine = v1::MachineId {
        hostname: Some("LocalHost".into()),
        ip: Some("127.0.0.1".into()),
    };
    let maintenance = &world.state.view().globals.maintenance;
    let answers = maintenance.answers_of(&machine).iter();
    answers.map(|answer| answer.status()).collect()
}

/// The inverse offers that GET_FRAMEWORKS shows.
fn shown(world: &mut World) -> Vec<v1::OfferId> {
    let (view, see) = (world.state.view(), Visibility::all());
    let answer = encode::collect(|sink| encode::get_frameworks(&view, &see, Form::Protobuf, sink));
    let answer = v1::master::Response::decode(answer.as_slice()).expect("an answer");
    let frameworks = answer.get_frameworks.expect("frameworks").frameworks;
    let offers = frameworks
        .into_iter()
        .flat_map(|framework| framework.inverse_offers);
    offers.map(|offer| offer.id).collect()
}

#[test]
fn who_uses_a_machine_is_asked_until_it_answers() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let user = world.subscribe(framework("user", "role"));
    let offer = world.take_offers(&user)[0].id.value.clone();
    world.accept(&user, &[&offer], vec![task("t", &agent, AGENT)]);
    let other = world.subscribe(framework("other", "role"));
    world.take(&user);
    let mut open = Vec::new();

    schedule(&mut world, 1);
    world.wait(SECOND * 2);
    assert_eq!(asked(&mut world, &user, &mut open), ["asked 1 /slave(1)"]);
    assert!(
        asked(&mut world, &other, &mut Vec::new()).is_empty(),
        "it has nothing there"
    );
    world.wait(SECOND * 60);
    assert!(
        asked(&mut world, &user, &mut open).is_empty(),
        "one is open"
    );
    assert_eq!(answers(&mut world), []);
    assert_eq!(shown(&mut world), open);

    // Others answer for nobody; the owner is asked again when its filter is over.
    answer(&mut world, &other, &open, true, 0.0);
    assert_eq!(answers(&mut world), []);
    answer(&mut world, &user, &open, false, 30.0);
    assert_eq!(answers(&mut world), [Status::Decline]);
    assert_eq!(shown(&mut world), [], "it was answered");
    world.wait(SECOND * 28);
    assert!(asked(&mut world, &user, &mut open).is_empty());
    world.wait(SECOND * 4);
    assert_eq!(asked(&mut world, &user, &mut open), ["asked 1 /slave(1)"]);
    answer(&mut world, &user, &open, true, 3600.0);
    assert_eq!(answers(&mut world), [Status::Accept]);

    // Another schedule is another question.
    schedule(&mut world, 2);
    assert_eq!(answers(&mut world), []);
    world.wait(SECOND * 2);
    assert_eq!(asked(&mut world, &user, &mut open), ["asked 2 /slave(1)"]);
    schedule(&mut world, 3);
    world.wait(SECOND * 2);
    assert_eq!(
        asked(&mut world, &user, &mut open),
        ["rescinded", "asked 3 /slave(1)"]
    );

    // The agent is away, and comes back.
    let session = SessionKey(1);
    world.apply(Event::AgentClosed { session });
    assert_eq!(asked(&mut world, &user, &mut open), ["rescinded"]);
    assert_eq!(shown(&mut world), []);
    world.wait(SECOND * 5);
    assert!(asked(&mut world, &user, &mut open).is_empty());
}

#[test]
fn who_is_offered_a_machine_is_asked_and_a_new_scheduler_again() {
    let mut world = World::new();
    world.agent(1, AGENT);
    let first = world.subscribe(framework("f", "role"));
    world.take(&first);
    schedule(&mut world, 1);
    world.wait(SECOND * 2);
    assert_eq!(
        asked(&mut world, &first, &mut Vec::new()),
        ["asked 1 /slave(1)"]
    );
    let mut info = framework("f", "role");
    info.id = Some(v1::FrameworkId {
        value: first.id.clone(),
    });
    let second = world.subscribe(info);
    world.wait(SECOND * 2);
    let seen = asked(&mut world, &second, &mut Vec::new());
    assert_eq!(
        seen,
        ["asked 1 /slave(1)"],
        "what the first was asked is void"
    );
    // The next leader asks anew.
    let mut next = world.failover();
    next.hello(2, None, 1);
    next.welcome(2);
    next.sync(2, AGENT, Default::default());
    let third = next.subscribe(framework("g", "role"));
    next.wait(SECOND * 2);
    assert_eq!(
        asked(&mut next, &third, &mut Vec::new()),
        ["asked 1 /slave(1)"]
    );
}
