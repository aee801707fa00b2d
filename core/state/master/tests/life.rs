//! How long agents are waited for, what the registry keeps of them, and from which of them offers are made.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use support::{World, framework, names};
use tepui_model::allocation::Fact;
use tepui_model::id::Role;
use tepui_model::resources::Resources;
use tepui_proto::link::link_frame::Body;
use tepui_proto::v1::scheduler::{self, call::Type, offer_constraints};
use tepui_proto::v1::{self, domain_info, scheduler::attribute_constraint};
use tepui_proto::{Message as _, Wire, convert, link};
use tepui_state_master::{Effect, Event, Reply, SessionKey, Settings, excluded};
use tepui_view::encode::Visibility;

const AGENT: &str = "cpus:2;mem:64";
const MINUTE: Duration = Duration::from_mins(1);

fn unreachable(world: &World) -> usize {
    let keys = world.registry.keys();
    keys.filter(|key| key.starts_with("unreachable/")).count()
}

fn silent(world: &mut World, session: u64) {
    let session = SessionKey(session);
    world.apply(Event::AgentSilent { session });
}

fn count(world: &World, name: &str) -> u64 {
    let counted = world.state.counted();
    let found = counted.master.iter().find(|(known, _)| *known == name);
    found.map_or(0, |(_, value)| *value)
}

#[test]
fn agents_are_given_up_one_at_a_time_and_not_when_they_come_back() {
    let mut world = World::with(Settings {
        agent_removal_rate_limit: Some((1, MINUTE)),
        ..Settings::default()
    });
    let agents: Vec<String> = (1..=3).map(|session| world.agent(session, AGENT)).collect();
    for session in 1..=3 {
        silent(&mut world, session);
    }
    assert_eq!(unreachable(&world), 1, "the first at once");
    world.wait(MINUTE / 2);
    assert_eq!(unreachable(&world), 1);
    world.hello(12, Some(&agents[1]), 2);
    assert_eq!(world.welcome(12), agents[1]);
    world.wait(MINUTE);
    assert_eq!(unreachable(&world), 2);
    assert!(
        world
            .registry
            .contains_key(&format!("unreachable/{}", agents[2]))
    );
    assert_eq!(count(&world, "slave_unreachable_canceled"), 1);
    assert_eq!(count(&world, "slave_unreachable_scheduled"), 3);
    assert_eq!(count(&world, "slave_unreachable_completed"), 2);
}

#[test]
fn a_leader_to_whom_too_few_agents_come_back_steps_down() {
    let mut before = World::new();
    let agents: Vec<String> = (1..=4)
        .map(|session| before.agent(session, AGENT))
        .collect();
    for (returning, lives) in [(1, false), (2, true)] {
        let mut world = before.failover_with(Settings {
            recovery_agent_removal_limit: 0.5,
            ..Settings::default()
        });
        for (session, agent) in (1..).zip(&agents[..returning]) {
            world.hello(session, Some(agent), 2);
        }
        world.wait(Duration::from_mins(11));
        let steps_down = |effect: &Effect| matches!(effect, Effect::StepDown { .. });
        assert_eq!(
            !world.all.iter().any(steps_down),
            lives,
            "{returning} came back"
        );
        assert_eq!(unreachable(&world), if lives { 2 } else { 0 });
    }
}

#[test]
fn the_registry_forgets_what_is_old_or_too_much() {
    let week = Duration::from_hours(7 * 24);
    let mut world = World::with(Settings {
        registry_max_agent_age: week,
        registry_max_agent_count: 2,
        ..Settings::default()
    });
    for session in 1..=3 {
        world.agent(session, AGENT);
        world.wait(Duration::from_secs(1));
        silent(&mut world, session);
    }
    assert_eq!(unreachable(&world), 3);
    world.wait(Duration::from_mins(16));
    assert_eq!(unreachable(&world), 2, "the oldest makes room");
    world.wait(week);
    assert_eq!(unreachable(&world), 0);
    assert_eq!(world.state.view().globals.unreachable_agents, Vec::new());
}

fn domain(region: &str) -> v1::DomainInfo {
    v1::DomainInfo {
        fault_domain: Some(domain_info::FaultDomain {
            region: domain_info::fault_domain::RegionInfo {
                name: region.into(),
            },
            zone: domain_info::fault_domain::ZoneInfo { name: "z".into() },
        }),
    }
}

/// A master in a region, or in none.
fn settings(region: Option<&str>) -> Settings {
    let info = v1::MasterInfo {
        domain: region.map(domain),
        ..Default::default()
    };
    Settings {
        master_info: info.encode_to_vec().into(),
        ..Settings::default()
    }
}

fn says_hello(world: &mut World, session: u64, info: v1::AgentInfo) -> Vec<Body> {
    let info = v1::AgentInfo {
        port: Some(5051),
        ..info
    };
    world.apply(Event::AgentHello {
        session: SessionKey(session),
        principal: None,
        hello: Wire(link::Hello {
            protocol: Some(link::ProtocolRange { min: 1, max: 1 }),
            version: "1.11.0".into(),
            info: Some(info),
            address: format!("127.0.0.1:{}", 5051 + session),
            run_number: 1,
            ..Default::default()
        }),
    });
    world.take_frames(SessionKey(session))
}

#[test]
fn agents_come_from_domains_that_the_master_can_tell_apart() {
    let refusal = |settings: Settings, region: Option<&str>| {
        let info = v1::AgentInfo {
            hostname: "a".into(),
            domain: region.map(domain),
            ..Default::default()
        };
        match says_hello(&mut World::with(settings), 1, info).pop() {
            Some(Body::Refuse(refuse)) => Some(refuse.reason),
            _ => None,
        }
    };
    let strict = |region| Settings {
        require_agent_domain: true,
        ..settings(region)
    };
    assert_eq!(refusal(settings(None), None), None);
    assert_eq!(refusal(settings(Some("r")), Some("other")), None);
    let none = refusal(settings(None), Some("r")).expect("refused");
    assert!(none.contains("this master has none"), "{none}");
    assert_eq!(refusal(strict(Some("r")), Some("r")), None);
    let needed = refusal(strict(Some("r")), None).expect("refused");
    assert!(needed.contains("--require_agent_domain"), "{needed}");
    // What an allocator is told: it offers remote agents to REGION_AWARE frameworks only.
    for (region, remote) in [("r", false), ("other", true)] {
        let mut world = World::with(settings(Some("r")));
        let info = v1::AgentInfo {
            hostname: "a".into(),
            domain: Some(domain(region)),
            ..Default::default()
        };
        says_hello(&mut world, 1, info);
        world.sync(1, AGENT, link::Sync::default());
        let added = world.all.iter().find_map(|effect| match effect {
            Effect::Facts(facts) => facts.iter().find_map(|fact| match fact {
                tepui_model::allocation::Fact::AgentAdded(agent) => Some(agent.remote),
                _ => None,
            }),
            _ => None,
        });
        assert_eq!(added, Some(remote), "{region}");
    }
}

#[test]
fn only_hosts_on_the_whitelist_are_offered() {
    let mut world = World::new();
    let list = |world: &mut World, hosts: &[&str]| {
        let hostnames = Some(hosts.iter().map(|host| (*host).to_owned()).collect());
        world.apply(Event::Whitelist { hostnames });
    };
    list(&mut world, &["elsewhere"]);
    let scheduler = world.subscribe(framework("f", "role"));
    world.agent(1, AGENT);
    world.wait(MINUTE);
    assert!(world.take_offers(&scheduler).is_empty());
    list(&mut world, &["elsewhere", "localhost"]);
    world.wait(MINUTE);
    assert_eq!(world.take_offers(&scheduler).len(), 1);
}

#[test]
fn only_roles_on_the_list_subscribe() {
    let mut world = World::with(Settings {
        roles: Some(BTreeSet::from(["known".into()])),
        ..Settings::default()
    });
    let known = world.subscribe(framework("f", "known"));
    assert!(!known.id.is_empty());
    assert!(!world.subscribe(framework("f", "*")).id.is_empty());
    let other = world.subscribe(framework("f", "other"));
    let error = world.take(&other).remove(0).error.expect("an error");
    assert_eq!(
        error.message,
        "Roles 'other' are not present in the master's --roles"
    );
    let call = scheduler::Call {
        r#type: Some(Type::UpdateFramework as i32),
        update_framework: Some(scheduler::call::UpdateFramework {
            framework_info: v1::FrameworkInfo {
                id: Some(v1::FrameworkId {
                    value: known.id.clone(),
                }),
                ..framework("f", "other")
            },
            ..Default::default()
        }),
        ..Default::default()
    };
    assert!(
        matches!(world.call(&known, call), Reply::BadRequest(text) if text.contains("--roles"))
    );
}

/// One group with one constraint, for the role of the tests.
fn constraints(
    selector: attribute_constraint::selector::Selector,
    predicate: attribute_constraint::predicate::Predicate,
) -> scheduler::OfferConstraints {
    let constraint = scheduler::AttributeConstraint {
        selector: attribute_constraint::Selector {
            selector: Some(selector),
        },
        predicate: attribute_constraint::Predicate {
            predicate: Some(predicate),
        },
    };
    let group = offer_constraints::role_constraints::Group {
        attribute_constraints: vec![constraint],
    };
    let role = offer_constraints::RoleConstraints {
        groups: vec![group],
    };
    scheduler::OfferConstraints {
        role_constraints: [("role".to_owned(), role)].into(),
    }
}

#[test]
fn constrained_frameworks_are_offered_what_they_want() {
    use attribute_constraint::predicate::{self, Predicate};
    use attribute_constraint::selector::{PseudoattributeType, Selector};
    let matches = |regex: &str| {
        Predicate::TextMatches(predicate::TextMatches {
            regex: regex.into(),
        })
    };
    let not = |regex: &str| {
        Predicate::TextNotMatches(predicate::TextNotMatches {
            regex: regex.into(),
        })
    };
    let hostname = || Selector::PseudoattributeType(PseudoattributeType::Hostname as i32);
    let named = |name: &str| Selector::AttributeName(name.into());
    let exists = || Predicate::Exists(predicate::Exists {});
    // The agent is `localhost`, has `rack:a` and `level:3`, and no domain.
    let cases = [
        (hostname(), matches("local.*"), true),
        (hostname(), matches("local"), false),
        (hostname(), not("local"), true),
        (named("rack"), exists(), true),
        (named("none"), exists(), false),
        (named("none"), not("x"), true),
        (named("none"), matches(".*"), false),
        (
            named("rack"),
            Predicate::TextEquals(predicate::TextEquals { value: "a".into() }),
            true,
        ),
        (
            named("rack"),
            Predicate::TextNotEquals(predicate::TextNotEquals { value: "a".into() }),
            false,
        ),
        (named("level"), matches("no"), true),
        (
            Selector::PseudoattributeType(PseudoattributeType::Zone as i32),
            Predicate::NotExists(predicate::NotExists {}),
            true,
        ),
    ];
    for (selector, predicate, wanted) in cases {
        let mut world = World::new();
        let constrained = world.subscribe_with(scheduler::call::Subscribe {
            framework_info: framework("constrained", "role"),
            offer_constraints: Some(constraints(selector.clone(), predicate.clone())),
            ..Default::default()
        });
        let attributes = "rack:a;level:3";
        let attributes = tepui_model::Attributes::parse(attributes).expect("attributes");
        let info = v1::AgentInfo {
            hostname: "localhost".into(),
            attributes: attributes.0.iter().map(Into::into).collect(),
            ..Default::default()
        };
        says_hello(&mut world, 1, info);
        world.sync(1, AGENT, link::Sync::default());
        let got = |world: &mut World| !world.take_offers(&constrained).is_empty();
        assert_eq!(got(&mut world), wanted, "{selector:?} {predicate:?}");
        let shown = excluded(&world.state.view(), &Visibility::all());
        let [(id, roles)] = &shown[..] else {
            panic!("one framework, not {shown:?}")
        };
        assert_eq!(id.as_str(), constrained.id);
        assert_eq!(roles[&Role::from("role")].is_empty(), wanted, "{shown:?}");
        if wanted {
            continue;
        }
        // Neither REVIVE nor another leader's allocator forgets it, and others get what it does not want.
        world.simple(&constrained, Type::Revive);
        world.apply(Event::AllocatorRestarted);
        world.wait(MINUTE);
        assert!(!got(&mut world), "{selector:?} {predicate:?}");
        let other = world.subscribe(framework("other", "role"));
        let offer = world.take_offers(&other).remove(0);
        world.decline(&other, &offer.id.value, Some(3600.0));
        // Without constraints it is offered.
        let call = scheduler::Call {
            r#type: Some(Type::UpdateFramework as i32),
            update_framework: Some(scheduler::call::UpdateFramework {
                framework_info: v1::FrameworkInfo {
                    id: Some(v1::FrameworkId {
                        value: constrained.id.clone(),
                    }),
                    ..framework("constrained", "role")
                },
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(world.call(&constrained, call), Reply::Ok);
        world.wait(MINUTE);
        assert!(got(&mut world), "{:?}", names(&world.take(&constrained)));
    }
}

#[test]
fn allocators_are_told_what_a_framework_has_no_use_for() {
    use tepui_model::resources::{Name, Quantities, Scalar};
    use v1::offer_filters::{MinAllocatableResources, ResourceQuantities};
    let mut info = framework("f", "role");
    let quantities = [("cpus".to_owned(), v1::value::Scalar { value: 2.0 })].into();
    let filters = v1::OfferFilters {
        min_allocatable_resources: Some(MinAllocatableResources {
            quantities: vec![ResourceQuantities { quantities }],
        }),
    };
    info.offer_filters.insert("role".into(), filters);
    let mut world = World::new();
    world.subscribe(info);
    let told = world.all.iter().find_map(|effect| match effect {
        Effect::Facts(facts) => facts.iter().find_map(|fact| match fact {
            Fact::FrameworkAdded(framework) => Some(framework.minimums.clone()),
            _ => None,
        }),
        _ => None,
    });
    let minimum = Quantities::from_iter([(Name::CPUS, Scalar::units(2))]);
    assert_eq!(told, Some(vec![("role".into(), minimum)]));
}

#[test]
fn allocators_are_told_what_frameworks_ask_for() {
    let mut world = World::new();
    let agent = world.agent(1, AGENT);
    let scheduler = world.subscribe(framework("f", "role"));
    let wanted = |agent: Option<&str>, resources: &str| v1::Request {
        agent_id: agent.map(|id| v1::AgentId { value: id.into() }),
        resources: convert::to_proto(&Resources::parse(resources, "*").expect("resources")),
    };
    let call = scheduler::Call {
        r#type: Some(Type::Request as i32),
        request: Some(scheduler::call::Request {
            requests: vec![
                wanted(Some(&agent), "cpus:1"),
                wanted(Some("nobody"), "cpus:2"),
                wanted(None, "cpus:3"),
            ],
        }),
        ..Default::default()
    };
    assert_eq!(world.call(&scheduler, call), Reply::Accepted);
    let facts = world.all.iter().filter_map(|effect| match effect {
        Effect::Facts(facts) => Some(facts),
        _ => None,
    });
    let told = facts.flatten().find_map(|fact| match fact {
        Fact::Requested(_, wanted) => Some(wanted),
        _ => None,
    });
    let told: Vec<(bool, i64)> = told
        .expect("the request")
        .iter()
        .map(|wanted| (wanted.agent.is_some(), wanted.resources.cpus().0))
        .collect();
    assert_eq!(told, [(true, 1000), (false, 3000)]);
}

#[test]
fn a_failover_timeout_that_no_clock_can_hold_is_refused() {
    let mut world = World::new();
    let mut info = framework("f", "role");
    info.failover_timeout = Some(1e12);
    let scheduler = world.subscribe(info);
    let error = world.take(&scheduler).remove(0).error.expect("an error");
    assert!(
        error.message.contains("failover timeout"),
        "{}",
        error.message
    );
}
