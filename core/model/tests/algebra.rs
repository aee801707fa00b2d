//! Laws of the resource algebra, checked on random resources.

use proptest::prelude::*;
use tepui_model::attributes::{AttributeValue, Attributes};
use tepui_model::resources::{
    Disk, Name, Persistence, Range, Ranges, Reservation, Resource, Resources, Scalar, Set, Source,
    SourceKind, Value, Volume,
};
use tepui_model::{Label, Labels, Quantities, Role};

fn reservation() -> impl Strategy<Value = Reservation> {
    let labels = prop::option::of(Just(Labels(vec![
        Label {
            key: "k".into(),
            value: Some("v".into()),
        },
        Label {
            key: "only".into(),
            value: None,
        },
    ])));
    let principal = prop::option::of(prop_oneof!["p", "ops"]);
    (prop_oneof!["a", "b"], any::<bool>(), principal, labels).prop_map(
        |(role, dynamic, principal, labels)| Reservation {
            role: Role::from(role),
            dynamic,
            principal: principal.map(Into::into),
            labels,
        },
    )
}

/// Few different ones on purpose, so that sums and differences meet.
fn reservations() -> impl Strategy<Value = Vec<Reservation>> {
    let refined = reservation().prop_map(|below| {
        let top = Reservation {
            role: Role::from(format!("{}/x", below.role)),
            dynamic: true,
            ..below.clone()
        };
        vec![below, top]
    });
    prop_oneof![
        4 => Just(Vec::new()),
        2 => reservation().prop_map(|r| vec![r]),
        1 => refined,
    ]
}

fn source() -> impl Strategy<Value = Source> {
    let kind = prop_oneof![
        Just(SourceKind::Path),
        Just(SourceKind::Mount),
        Just(SourceKind::Block),
        Just(SourceKind::Raw)
    ];
    (kind, any::<bool>(), any::<bool>()).prop_map(|(kind, id, root)| {
        let mut source = Source::new(kind);
        if id {
            source.id = Some("i".into());
            source.vendor = Some("w".into());
            source.profile = Some("p".into());
        }
        if root && matches!(kind, SourceKind::Path | SourceKind::Mount) {
            source.root = Some("/mnt/x".into());
        }
        source
    })
}

fn disk() -> impl Strategy<Value = Disk> {
    let persistence = prop::option::of(prop_oneof!["v1", "v2"]);
    (prop::option::of(source()), persistence).prop_map(|(source, id)| Disk {
        source,
        volume: id.as_ref().map(|_| Volume {
            container_path: "data".into(),
            host_path: None,
            read_only: false,
        }),
        persistence: id.map(|id| Persistence {
            id: id.into(),
            principal: None,
        }),
    })
}

fn ranges() -> impl Strategy<Value = Ranges> {
    prop::collection::vec((0_u64..40, 0_u64..6), 1..4).prop_map(|pairs| {
        Ranges::new(pairs.into_iter().map(|(begin, more)| Range {
            begin,
            end: begin + more,
        }))
    })
}

fn plain() -> impl Strategy<Value = Resource> {
    let amount = (1_i64..5000).prop_map(Scalar);
    let set = prop::collection::vec(prop_oneof!["x", "y", "z"], 1..4).prop_map(Set::new);
    prop_oneof![
        4 => (prop_oneof!["cpus", "mem", "gpus", "bytes"], amount)
            .prop_map(|(name, amount)| Resource::scalar(name.as_str(), amount)),
        1 => ranges().prop_map(|r| Resource::ranges("ports", r)),
        1 => set.prop_map(|s| Resource::set("zones", s)),
    ]
}

fn resource() -> impl Strategy<Value = Resource> {
    // Whole things have one size each, as they do in a cluster.
    let disks = (disk(), any::<bool>()).prop_map(|(disk, shared)| {
        let volume = disk.persistence.is_some();
        Resource::scalar(Name::DISK, Scalar::units(64))
            .with_disk((disk.source.is_some() || volume).then_some(disk))
            .with_shared(shared && volume)
    });
    let what = prop_oneof![3 => plain(), 1 => disks];
    let role = prop::option::of(prop_oneof!["r", "s/t"]);
    (what, reservations(), role, prop::bool::weighted(0.2)).prop_map(
        |(resource, reservations, role, revocable)| {
            let resource = resource
                .with_reservations(reservations)
                .with_revocable(revocable);
            match role {
                Some(role) => resource.allocated(Role::from(role)),
                None => resource,
            }
        },
    )
}

fn resources() -> impl Strategy<Value = Resources> {
    prop::collection::vec(resource(), 0..6).prop_map(|all| all.into_iter().collect())
}

/// Volumes and whole disks exist once, so a sum of two collections that hold the same one is not
/// a thing that happens; those laws are for the rest.
fn divisible() -> impl Strategy<Value = Resources> {
    resources().prop_map(|all| all.filter(|r| r.disk().is_none()))
}

/// What `b` has and `a` has not, where they are sets: numbers and names cannot be counted twice.
fn apart(a: &Resources, b: &Resources) -> Resources {
    &b.scalars() + &(&b.filter(|r| r.amount().is_none()) - a)
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn sums_do_not_depend_on_order(a in divisible(), b in divisible(), c in divisible()) {
        prop_assert_eq!(&a + &b, &b + &a);
        prop_assert_eq!(&(&a + &b) + &c, &a + &(&b + &c));
        prop_assert_eq!(&a + &Resources::new(), a);
    }

    #[test]
    fn what_was_added_can_be_taken_away(a in resources(), b in resources()) {
        let b = apart(&a, &b);
        let sum = &a + &b;
        prop_assert!(sum.contains(&a) && sum.contains(&b));
        prop_assert_eq!(sum.try_sub(&b), Some(a.clone()));
        prop_assert_eq!(&sum - &a, b);
        prop_assert!((&a - &a).is_empty());
    }

    #[test]
    fn containing_is_an_order(a in resources(), b in resources(), c in resources()) {
        prop_assert!(a.contains(&a));
        prop_assert!(a.contains(&Resources::new()));
        let (ab, abc) = (&a + &b, &(&a + &b) + &c);
        prop_assert!(ab.contains(&a) && abc.contains(&ab) && abc.contains(&a));
        // Both ways means equal, and equal means that nothing is left of either.
        prop_assert_eq!(a.contains(&b) && b.contains(&a), a == b);
        prop_assert_eq!(b.try_sub(&a).is_some(), b.contains(&a));
        if let Some(rest) = a.try_sub(&b) {
            prop_assert_eq!(&rest + &b, a);
        }
    }

    #[test]
    fn nothing_empty_or_splittable_is_kept(a in resources(), b in resources()) {
        for all in [&a + &b, &a - &b] {
            for (i, resource) in all.iter().enumerate() {
                prop_assert!(!resource.is_empty());
                // Adding a part again must find its own place.
                let mut twice = Resources::from(resource.clone());
                twice.push(resource.clone());
                let whole = twice.len() == 2;
                for other in all.iter().skip(i + 1) {
                    let mut both = Resources::from(resource.clone());
                    both.push(other.clone());
                    prop_assert_eq!(both.len(), 2, "{} and {}", resource, other);
                }
                prop_assert!(!whole || resource.disk().is_some());
            }
        }
    }

    #[test]
    fn the_text_is_read_back(a in resources()) {
        let text = a.to_string();
        prop_assert_eq!(Resources::parse(&text, "*"), Ok(a.clone()), "{}", text);
        // In a recording too.
        let json = serde_json::to_string(&a).expect("serializable");
        let back: Resources = serde_json::from_str(&json).expect("the same");
        prop_assert_eq!(back.to_string(), text);
    }

    #[test]
    fn allocation_and_reservation_split_without_loss(a in resources()) {
        let role = Role::from("q");
        prop_assert_eq!(a.allocate(&role).allocations().len(), usize::from(!a.is_empty()));
        let mut sum = a.unreserved();
        for part in a.reserved().values() {
            sum += part;
        }
        prop_assert_eq!(&sum, &a);
        prop_assert_eq!(&a.revocable() + &a.non_revocable(), a.clone());
        let mut quantities = Quantities::of(&a);
        prop_assert_eq!(quantities.get(&Name::CPUS), a.cpus());
        prop_assert!(quantities.contains(&Quantities::of(&a.unreserved())));
        quantities -= &Quantities::of(&a);
        prop_assert!(quantities.is_empty());
    }

    #[test]
    fn ranges_are_sets_of_numbers(a in ranges(), b in ranges()) {
        let (mut sum, mut rest) = (a.clone(), a.clone());
        sum.add(&b);
        rest.sub(&b);
        for n in 0..50 {
            prop_assert_eq!(sum.has(n), a.has(n) || b.has(n));
            prop_assert_eq!(rest.has(n), a.has(n) && !b.has(n));
        }
        prop_assert_eq!(sum.count(), (0..50).filter(|&n| sum.has(n)).count() as u64);
        for pair in sum.as_slice().windows(2) {
            prop_assert!(pair[0].end + 1 < pair[1].begin);
        }
        prop_assert_eq!(a.contains(&b), (0..50).all(|n| !b.has(n) || a.has(n)));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z(){}\\[\\]<>:;,0-9 *./-]{0,40}") {
        let _ = Resources::parse(&text, "*");
    }
}

#[test]
fn flags_and_their_mistakes() {
    let parse = |text: &str| Resources::parse(text, "*");
    let read = |text: &str| parse(text).expect(text).to_string();
    assert_eq!(
        read("cpus:4;mem:4096;disk:10240;ports:[31000-32000]"),
        "cpus:4; mem:4096; disk:10240; ports:[31000-32000]"
    );
    assert_eq!(
        read("cpus(eng/ads):2; cpus:0.5;cpus(*):0.25; ports:[1-3,4-9, 20-21]"),
        "cpus(reservations: [(STATIC,eng/ads)]):2; cpus:0.75; ports:[1-9, 20-21]"
    );
    assert_eq!(read("zones:{a,b,a}"), "zones:{a, b}");
    let called = Attributes::parse("rack:inf;row:-nan").expect("attributes");
    let names = ["rack", "row"].map(|name| called.get(name));
    let texts = ["inf", "-nan"].map(|text| AttributeValue::Text(text.into()));
    assert_eq!(names, texts.each_ref().map(Some), "these are no amounts");
    assert_eq!(read(""), "{}");
    let role = Resources::parse("cpus:1;mem(*):2", "r").expect("a default role");
    assert_eq!(
        role.to_string(),
        "cpus(reservations: [(STATIC,r)]):1; mem:2"
    );
    for (text, said) in [
        (
            "cpus",
            "Bad value for resources, missing or extra ':' in cpus",
        ),
        (
            "cpus:1:2",
            "Bad value for resources, missing or extra ':' in cpus:1:2",
        ),
        ("cpus:x", "Bad type for resource cpus value x type TEXT"),
        ("cpus:inf", "Bad type for resource cpus value inf type TEXT"),
        (
            "cpus:-1",
            "Resource 'cpus:-1' is invalid: Invalid scalar resource: value < 0",
        ),
        (
            "cpus(-a):1",
            "Role component '-a' is invalid because it starts with a dash",
        ),
        (
            "ports:[1-x]",
            "Failed to parse resource ports value [1-x] error Expecting non-negative integers in 'x'",
        ),
    ] {
        assert_eq!(parse(text).expect_err(text).to_string(), said);
    }
    assert!(matches!(read("a:1;b:[1-2]").as_str(), "a:1; b:[1-2]"));
    assert_eq!(
        parse("a:1").map(|r| r.scalar(&Name::from("a"))),
        Ok(Scalar::units(1))
    );
}

#[test]
fn the_order_that_clients_see() {
    let mut all = Resources::parse("cpus:4;mem:64;disk:9;ports:[1-9]", "*").expect("resources");
    // The last entry moves into the place of the one that is used up.
    all -= &Resources::parse("cpus:4;disk:1", "*").expect("resources");
    assert_eq!(all.to_string(), "ports:[1-9]; mem:64; disk:8");
    all += &Resources::parse("cpus:1;mem:1", "*").expect("resources");
    assert_eq!(all.to_string(), "ports:[1-9]; mem:65; disk:8; cpus:1");
}

#[test]
fn shared_volumes_are_counted() {
    let text = "disk(reservations: [(DYNAMIC,r)])[v:data]<SHARED>:64";
    let volume = Resources::parse(text, "*").expect("a volume");
    let mut used = &volume + &volume;
    assert_eq!(used.to_string(), format!("{text}<2>"));
    assert!(used.contains(&volume) && !volume.contains(&used) && used != volume);
    assert_eq!(used.disk(), Scalar::units(64));
    used -= &volume;
    assert_eq!(used, volume);
    used -= &volume;
    assert!(used.is_empty());
}

#[test]
fn a_value_of_another_kind_is_another_thing() {
    let mut all = Resources::from(Resource::scalar("x", Scalar::units(1)));
    all.push(Resource::ranges("x", Ranges::one(1, 2)));
    assert_eq!(all.len(), 2);
    assert!(matches!(
        all.iter().next().map(Resource::value),
        Some(Value::Scalar(_))
    ));
}
