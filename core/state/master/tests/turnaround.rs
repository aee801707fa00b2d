//! How soon resources that come back are offered again.

mod support;

use std::time::Duration;

use support::{World, accept_call, framework, names, task};
use tepui_proto::v1::TaskState;
use tepui_proto::v1::scheduler::call::Type;
use tepui_state_master::Reply;

const AGENT: &str = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]";

/// The times at which offers come after declines, as in the recorded session, where tokens are out.
#[test]
fn declined_resources_come_back_with_the_batch() {
    let mut world = World::with(tepui_state_master::Settings {
        returns_per_second: 0,
        ..Default::default()
    });
    world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("decline", "dec"));
    let start = world.now.mono;
    for (refuse, after) in [
        (Some(0.0), 0.5),
        (Some(0.0), 1.0),
        (Some(1.0), 2.0),
        (Some(2.0), 3.0),
        (Some(-1.0), 6.0),
        (None, 6.0),
    ] {
        let offer = world.take_offers(&scheduler)[0].id.value.clone();
        let declined = world.now.mono;
        world.decline(&scheduler, &offer, refuse);
        assert!(
            world.take_offers(&scheduler).is_empty(),
            "at once, {refuse:?}"
        );
        while world
            .events
            .get(&scheduler.stream)
            .is_none_or(|events| events.iter().all(|event| event.offers.is_none()))
        {
            let next = world.state.next_deadline().expect("a batch comes");
            let step = next.since(world.now.mono);
            world.wait(step);
        }
        // The recorded client waited 0.3 s before each answer; here it answers at once.
        let waited = world.now.mono.since(declined).as_secs_f64();
        assert!(waited <= after, "{refuse:?}: {waited} s");
        assert!(
            refuse.is_some_and(|refuse| refuse <= 0.0) || waited >= refuse.unwrap_or(5.0),
            "{refuse:?}: {waited} s"
        );
    }
    assert!(world.now.mono > start);
    world.simple(&scheduler, Type::Suppress);
    let offer = world.take_offers(&scheduler)[0].id.value.clone();
    world.decline(&scheduler, &offer, Some(3600.0));
    world.wait(Duration::from_secs(30));
    assert!(world.take_offers(&scheduler).is_empty());
    assert_eq!(world.simple(&scheduler, Type::Revive), Reply::Accepted);
    assert_eq!(names(&world.take(&scheduler)), ["OFFERS"]);
}

/// Returned resources are open to others at once, and to the same framework while its tokens last.
#[test]
fn turnaround_of_offers() {
    let mut world = World::new();
    world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("spinner", "one"));
    let mut offers = 0;
    for _ in 0..300 {
        let Some(offer) = world.take_offers(&scheduler).pop() else {
            break;
        };
        offers += 1;
        world.decline(&scheduler, &offer.id.value, Some(0.0));
    }
    assert_eq!(offers, 101, "the first offer, and one for each token");
    let other = world.subscribe(framework("other", "two"));
    assert_eq!(world.take_offers(&other).len(), 1);
    world.wait(Duration::from_secs(1));
    assert!(world.take_offers(&scheduler).is_empty());
}

/// What one framework returns is open to another one at once, also when that had it before and has no
/// token left; filters that it set itself hold all the same.
#[test]
fn frameworks_that_pass_an_agent_to_and_fro_do_not_wait() {
    let mut world = World::with(tepui_state_master::Settings {
        returns_per_second: 1,
        ..Default::default()
    });
    world.agent(1, AGENT);
    let mut holder = world.subscribe(framework("one", "one"));
    let mut offer = world.take_offers(&holder).pop().expect("the first offer");
    let mut other = world.subscribe(framework("two", "two"));
    // Spends the token: what it returns comes back to the first at once.
    world.decline(&holder, &offer.id.value, Some(0.0));
    offer = world.take_offers(&holder).pop().expect("by its token");
    for cycle in 0..20 {
        world.decline(&holder, &offer.id.value, Some(0.0));
        std::mem::swap(&mut holder, &mut other);
        let passed = world.take_offers(&holder).pop();
        offer = passed.unwrap_or_else(|| panic!("cycle {cycle}: the other one is offered nothing"));
    }
    world.decline(&holder, &offer.id.value, Some(60.0));
    offer = world.take_offers(&other).pop().expect("open to the other");
    world.decline(&other, &offer.id.value, Some(0.0));
    assert!(world.take_offers(&holder).is_empty(), "it has a filter");
}

/// A framework that has no tokens left is offered at once what its ended tasks free, together with what it has returned;
/// otherwise an agent would run no more short tasks in an interval than it has room for at once.
#[test]
fn what_an_ended_task_frees_does_not_wait() {
    let mut world = World::with(tepui_state_master::Settings {
        returns_per_second: 0,
        ..Default::default()
    });
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("short", "one"));
    let start = world.now.mono;
    let mut offer = world
        .take_offers(&scheduler)
        .pop()
        .expect("the first offer");
    for number in 0..20 {
        let id = number.to_string();
        let ask = task(&id, &agent, "cpus:4;mem:32");
        // The rest is returned, and held.
        world.call(
            &scheduler,
            accept_call(&[&offer.id.value], vec![ask], Some(0.0)),
        );
        world.update(1, &scheduler, &agent, &id, TaskState::TaskFinished, number);
        // Returned resources may wait a moment after a round that gave nothing.
        world.wait(Duration::from_millis(10));
        offer = world
            .take_offers(&scheduler)
            .pop()
            .expect("what the task freed");
        let cpus = offer.resources.iter().find(|one| one.name == "cpus");
        assert!(cpus.is_some_and(|one| one.scalar.is_some_and(|cpus| cpus.value == 4.0)));
    }
    assert!(world.now.mono.since(start) < Duration::from_secs(1));
    world.decline(&scheduler, &offer.id.value, Some(0.0));
    world.wait(Duration::from_millis(100));
    assert!(
        world.take_offers(&scheduler).is_empty(),
        "refusing it waits all the same"
    );
}
