//! Roles of a framework: several, hierarchical, changing.

mod support;

use std::time::Duration;

use support::{World, framework, names};
use tepui_proto::v1::{self, scheduler, scheduler::call::Type};
use tepui_state_master::Reply;

const AGENT: &str = "cpus:4;mem:4096;disk:10240;ports:[31000-32000]";

/// An UPDATE_FRAMEWORK to these roles, some of them suppressed.
fn update_roles(roles: &[&str], suppressed: &[&str]) -> scheduler::Call {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut info = framework("many", "a");
    info.roles = owned(roles);
    scheduler::Call {
        r#type: Some(Type::UpdateFramework as i32),
        update_framework: Some(scheduler::call::UpdateFramework {
            framework_info: info,
            suppressed_roles: owned(suppressed),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn roles_come_and_go_with_their_offers_and_filters() {
    let mut world = World::new();
    world.agent(1, AGENT);
    let mut info = framework("many", "a");
    info.roles.push("b/c".into());
    let scheduler = world.subscribe(info);
    let role_of = |offers: &[v1::Offer]| -> Vec<String> {
        let role = |offer: &v1::Offer| offer.allocation_info.as_ref()?.role.clone();
        offers.iter().filter_map(role).collect()
    };
    let offers = world.take_offers(&scheduler);
    assert_eq!(role_of(&offers), ["a"]);

    // Refused for one role for an hour: the other gets it.
    world.decline(&scheduler, &offers[0].id.value, Some(3600.0));
    assert_eq!(role_of(&world.take_offers(&scheduler)), ["b/c"]);
    // That role is left: its offer goes, the filter of the other holds.
    assert_eq!(world.call(&scheduler, update_roles(&["a"], &[])), Reply::Ok);
    assert_eq!(names(&world.take(&scheduler)), ["RESCIND"]);
    world.wait(Duration::from_secs(3));
    assert!(world.take(&scheduler).is_empty());
    // A role that was left and taken again has no filters.
    world.call(&scheduler, update_roles(&["d"], &["d"]));
    world.wait(Duration::from_secs(3));
    assert!(world.take_offers(&scheduler).is_empty(), "suppressed");
    world.call(&scheduler, update_roles(&["a", "d"], &["d"]));
    world.wait(Duration::from_secs(1));
    let offers = world.take_offers(&scheduler);
    assert_eq!(role_of(&offers), ["a"]);

    // Suppressed by a call, revived by an update: at once, without filters.
    world.decline(&scheduler, &offers[0].id.value, Some(3600.0));
    let suppress = scheduler::Call {
        r#type: Some(Type::Suppress as i32),
        suppress: Some(scheduler::call::Suppress {
            roles: vec!["a".into()],
        }),
        ..Default::default()
    };
    assert_eq!(world.call(&scheduler, suppress), Reply::Accepted);
    let row = world.state.view().frameworks[0].row.clone();
    let names: Vec<&str> = row.suppressed.iter().map(|role| role.as_str()).collect();
    assert_eq!(names, ["a", "d"]);
    world.call(&scheduler, update_roles(&["a", "d"], &["d"]));
    assert_eq!(role_of(&world.take_offers(&scheduler)), ["a"]);
}
