//! Agents that come at once are admitted in turn.

mod support;

use support::World;
use tepui_proto::link::{self, link_frame::Body};
use tepui_state_master::{Event, SessionKey, Settings};

const AGENT: &str = "cpus:4;mem:4096";

fn welcomed(world: &mut World, session: u64) -> bool {
    let frames = world.take_frames(SessionKey(session));
    let refused = frames.iter().any(|body| matches!(body, Body::Refuse(_)));
    assert!(!refused, "nobody is sent away");
    frames.iter().any(|body| matches!(body, Body::Welcome(_)))
}

#[test]
fn agents_are_admitted_in_turn_and_keep_their_connection() {
    let mut world = World::with(Settings {
        max_syncing_agents: 2,
        ..Settings::default()
    });
    for session in 1..=6 {
        world.hello(session, None, 1);
    }
    let admitted: Vec<u64> = (1..=6).filter(|s| welcomed(&mut world, *s)).collect();
    assert_eq!(admitted, [1, 2]);

    // A sync makes room for the next, and so does a session that ends before its sync.
    world.sync(1, AGENT, link::Sync::default());
    assert!(welcomed(&mut world, 3));
    let closed = |session| Event::AgentClosed {
        session: SessionKey(session),
    };
    world.apply(closed(4));
    world.apply(closed(2));
    assert!(!welcomed(&mut world, 4), "its session is over");
    assert!(welcomed(&mut world, 5));
    assert!(!welcomed(&mut world, 6));
    world.sync(3, AGENT, link::Sync::default());
    world.sync(5, AGENT, link::Sync::default());
    assert!(welcomed(&mut world, 6));
}
