//! Facts and proposals arrive as they were packed, and are numbered once.

use std::time::Duration;

use tepui_model::allocation::{
    Agent, AgentKey, Fact, FilterScope, Framework, FrameworkKey, Holding, Quota, Round,
    Unavailability, Wanted,
};
use tepui_model::attributes::Attributes;
use tepui_model::id::Role;
use tepui_model::resources::{Name, Ranges, Reservation, Resource, Resources, Scalar, Set};
use tepui_model::time::{Mono, Wall};
use tepui_module_proto::Message;
use tepui_module_proto::allocator::{Facts, Proposals};
use tepui_module_proto::columns::{Columns, ColumnsError, pack_round, unpack_round};

fn resources() -> Resources {
    let reservation = Reservation {
        role: Role::from("eng"),
        dynamic: true,
        principal: None,
        labels: None,
    };
    let mut resources = Resources::cpus_mem(4.5, 1024.0);
    resources.push(Resource::ranges("ports", Ranges::one(31000, 32000)));
    resources.push(Resource::set("zones", Set::new(["a", "b"])));
    resources.push(Resource::scalar("cpus", Scalar::units(2)).with_reservations(vec![reservation]));
    resources.push(Resource::scalar("cpus", Scalar::units(1)).with_revocable(true));
    resources
}

fn agent(key: u32) -> Agent {
    Agent {
        key: AgentKey(key),
        id: format!("S{key}").as_str().into(),
        hostname: "host".to_owned(),
        total: resources(),
        attributes: Attributes::parse("rack:r1;level:10;keys:[1-5]").unwrap(),
        active: true,
        capabilities: vec!["MULTI_ROLE".to_owned()],
        domain: Some(("r".to_owned(), "z".to_owned())),
        remote: true,
    }
}

fn framework(key: u32) -> Framework {
    Framework {
        key: FrameworkKey(key),
        id: "F".into(),
        principal: Some("p".into()),
        roles: vec![Role::from("eng"), Role::from("web")],
        suppressed: vec![Role::from("web")],
        active: true,
        capabilities: vec!["GPU_RESOURCES".to_owned()],
        minimums: vec![(
            Role::from("eng"),
            Resources::cpus_mem(1.0, 0.0).quantities(),
        )],
    }
}

fn holding(agent: u32) -> Holding {
    Holding {
        framework: FrameworkKey(1),
        role: Role::from("eng"),
        agent: AgentKey(agent),
        resources: resources(),
    }
}

fn all() -> Vec<Fact> {
    let role = Role::from("eng");
    let quota = Quota {
        guarantees: Resources::cpus_mem(1.0, 5.0).quantities(),
        limits: vec![(Name::CPUS, Scalar::ZERO), (Name::MEM, Scalar::units(7))],
    };
    let unavailable = Unavailability {
        from: Wall(-5),
        duration: Some(Duration::from_secs(3)),
    };
    vec![
        Fact::Reset,
        Fact::Minimum(vec![
            Resources::cpus_mem(0.01, 0.0).quantities(),
            Resources::cpus_mem(0.0, 32.0).quantities(),
        ]),
        Fact::AgentAdded(agent(1)),
        Fact::AgentAdded(agent(2)),
        Fact::FrameworkAdded(framework(1)),
        Fact::Taken(holding(1)),
        Fact::Filter(holding(2), Mono(9)),
        Fact::Returned(holding(1)),
        Fact::Filter(holding(1), Mono(10)),
        Fact::Refused(holding(2)),
        Fact::AgentActive(AgentKey(2), false),
        Fact::FrameworkActive(FrameworkKey(1), true),
        Fact::AgentUnavailable(AgentKey(1), Some(unavailable)),
        Fact::AgentUnavailable(
            AgentKey(1),
            Some(Unavailability {
                duration: None,
                ..unavailable
            }),
        ),
        Fact::AgentUnavailable(AgentKey(1), None),
        Fact::Suppressed(FrameworkKey(1), vec![role.clone()]),
        Fact::Revived(FrameworkKey(1), Vec::new()),
        Fact::FiltersCleared(FilterScope {
            framework: Some(FrameworkKey(0)),
            roles: vec![role.clone()],
            agent: None,
        }),
        Fact::FiltersCleared(FilterScope {
            framework: None,
            roles: Vec::new(),
            agent: Some(AgentKey(0)),
        }),
        Fact::Weight(role.clone(), 2500),
        Fact::Quota(role, quota),
        Fact::AgentUpdated(agent(1)),
        Fact::FrameworkUpdated(framework(1)),
        Fact::FrameworkRemoved(FrameworkKey(1)),
        Fact::AgentRemoved(AgentKey(2)),
        Fact::Requested(
            FrameworkKey(1),
            vec![
                Wanted {
                    agent: Some(AgentKey(0)),
                    resources: resources(),
                },
                Wanted {
                    agent: None,
                    resources: Resources::parse("strange(nobody):7", "*").unwrap(),
                },
            ],
        ),
        Fact::Requested(FrameworkKey(1), Vec::new()),
    ]
}

#[test]
fn facts_arrive_as_they_were_told() {
    let (mut host, mut library) = (Columns::default(), Columns::default());
    let before = [Fact::AgentRemoved(AgentKey(99))];
    let told: Vec<Fact> = before.into_iter().chain(all()).collect();
    let bytes = host.pack_facts(&told).encode_to_vec();
    assert_eq!(
        library
            .unpack_facts(Facts::decode(&*bytes).unwrap())
            .unwrap(),
        all(),
        "what came before a reset is void"
    );

    let again = host.pack_facts(&[Fact::Taken(holding(1))]);
    assert!(
        again.roles.is_empty() && again.kinds.is_empty(),
        "what is numbered is not sent again"
    );
    assert!(again.encoded_len() < 60, "{}", again.encoded_len());
    assert_eq!(
        library.unpack_facts(again).unwrap(),
        [Fact::Taken(holding(1))]
    );

    let proposals = library.pack_proposals(&[holding(1), holding(2)]).unwrap();
    assert_eq!(
        host.unpack_proposals(&proposals).unwrap(),
        [holding(1), holding(2)]
    );

    let round = Round {
        now: Mono(7),
        seed: u64::MAX,
        candidates: vec![AgentKey(3), AgentKey(1)],
    };
    assert_eq!(unpack_round(&pack_round(&round)), round);
}

#[test]
fn columns_that_do_not_fit_are_refused() {
    let mut host = Columns::default();
    let packed = host.pack_facts(&all());
    let unpack = |damage: &dyn Fn(&mut Facts)| {
        let mut facts = packed.clone();
        damage(&mut facts);
        Columns::default().unpack_facts(facts)
    };
    assert!(unpack(&|_| ()).is_ok());
    assert_eq!(
        unpack(&|facts| facts.agents.clear()),
        Err(ColumnsError::Short("agents"))
    );
    assert_eq!(
        unpack(&|facts| facts.moves = None),
        Err(ColumnsError::Short("moves"))
    );
    assert_eq!(
        unpack(&|facts| facts.order.push(999)),
        Err(ColumnsError::UnknownFact(999))
    );
    assert!(matches!(
        unpack(&|facts| facts.roles.clear()),
        Err(ColumnsError::Undefined("role", _))
    ));
    assert!(matches!(
        unpack(&|facts| facts.kinds[0].resource = vec![0xff]),
        Err(ColumnsError::BadKind(0, _))
    ));

    let strange = Holding {
        resources: [Resource::scalar("moons", Scalar(1))].into_iter().collect(),
        ..holding(1)
    };
    assert!(matches!(
        host.pack_proposals(&[strange]),
        Err(ColumnsError::NewKind(_))
    ));
    let short = Proposals {
        frameworks: vec![1],
        ..Proposals::default()
    };
    assert!(host.unpack_proposals(&short).is_err());
}
