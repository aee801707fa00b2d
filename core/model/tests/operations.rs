//! Laws of operations on resources: whatever they do can be undone, and no amount changes.

use proptest::prelude::*;
use tepui_model::Role;
use tepui_model::resources::{
    Disk, Name, Operation, Persistence, Reservation, Resource, Resources, Scalar, Volume,
};

fn reserved(role: &str) -> Reservation {
    Reservation {
        role: Role::from(role),
        dynamic: true,
        principal: None,
        labels: None,
    }
}

fn volume(disk: Resource, id: &str, shared: bool) -> Resource {
    disk.with_disk(Some(Disk {
        source: None,
        persistence: Some(Persistence {
            id: id.into(),
            principal: None,
        }),
        volume: Some(Volume {
            container_path: "data".into(),
            host_path: None,
            read_only: false,
        }),
    }))
    .with_shared(shared)
}

fn disk(amount: i64) -> Resource {
    Resource::scalar(Name::DISK, Scalar(amount))
}

/// An operation with what undoes it; it is about 1 to 9 of the 10 that the agent has of each thing.
fn operation() -> impl Strategy<Value = (Operation, Operation)> {
    let names = prop_oneof![Just(Name::CPUS), Just(Name::MEM)];
    let reserve = (names, 1..10_i64, 0..3_usize).prop_map(|(name, amount, depth)| {
        let stack = ["a", "a/b", "a/b/c"].map(reserved)[..=depth].to_vec();
        let resource = Resource::scalar(name, Scalar(amount)).with_reservations(stack);
        let undo = Operation::Unreserve(vec![resource.clone()]);
        let source = Vec::new();
        let resources = vec![resource];
        (Operation::Reserve { source, resources }, undo)
    });
    let create = (1..10_i64, any::<bool>()).prop_map(|(amount, shared)| {
        let own = disk(amount).with_reservations(vec![reserved("a")]);
        let made = volume(own, "v", shared);
        (
            Operation::Create(vec![made.clone()]),
            Operation::Destroy(vec![made]),
        )
    });
    let grow = (1..9_i64).prop_map(|amount| {
        let own = disk(10).with_reservations(vec![reserved("g")]);
        let (old, new) = (volume(own.clone(), "g", false), amount + 10);
        let grown = old.clone().with_amount(Scalar(new));
        let addition = own.with_amount(Scalar(amount));
        let undo = Operation::Shrink {
            volume: grown,
            subtract: Scalar(amount),
        };
        let volume = old;
        (Operation::Grow { volume, addition }, undo)
    });
    let replace = (1..10_i64).prop_map(|amount| {
        let cpus = Resource::scalar(Name::CPUS, Scalar(amount));
        let old = vec![cpus.clone().with_reservations(vec![reserved("a")])];
        let new = vec![cpus.with_reservations(vec![reserved("z")])];
        let (source, resources) = (old.clone(), new.clone());
        let there = Operation::Reserve { source, resources };
        let (source, resources) = (new, old);
        (there, Operation::Reserve { source, resources })
    });
    prop_oneof![reserve, create, grow, replace]
}

/// Ten of everything: plain, and reserved as far as the operations need.
fn agent() -> Resources {
    let mut all = Resources::new();
    for name in [Name::CPUS, Name::MEM] {
        let plain = Resource::scalar(name, Scalar(10));
        let stack = ["a", "a/b"].map(reserved);
        for depth in 0..=2 {
            all.push(plain.clone().with_reservations(stack[..depth].to_vec()));
        }
    }
    for role in ["a", "g"] {
        all.push(disk(10).with_reservations(vec![reserved(role)]));
    }
    all.push(volume(
        disk(10).with_reservations(vec![reserved("g")]),
        "g",
        false,
    ));
    all
}

proptest! {
    #[test]
    fn an_operation_is_undone_by_its_inverse((there, back) in operation()) {
        let before = agent();
        let after = before.apply(&there).expect("the agent has it");
        let net = there.net();
        prop_assert_eq!(&(&(&before - &net.consumed) + &net.converted), &after);
        prop_assert_ne!(&after, &before);
        prop_assert_eq!(after.quantities(), before.quantities());
        prop_assert_eq!(after.apply(&back).expect("it was just made"), before);
    }

    #[test]
    fn what_operations_made_is_laid_over_what_the_agent_is_given(
        steps in prop::collection::vec(operation(), 1..6)
    ) {
        let mut total = agent();
        for (there, _) in &steps {
            // A volume's id is there once: masters see to that.
            let known = |volume: &Resource| total.iter().any(|have| have.disk() == volume.disk());
            if matches!(there, Operation::Create(volumes) if volumes.iter().any(known)) {
                continue;
            }
            if let Ok(next) = total.apply(there) {
                total = next;
            }
        }
        let plain = agent().to_unreserved();
        let configured: Resources = plain.into_iter().map(Resource::without_volume).collect();
        let again = configured.with_made(&total.made()).expect("it came from that");
        prop_assert_eq!(again, total);
    }
}

#[test]
fn a_reservation_is_refined_in_one_operation() {
    let cpus = Resource::scalar(Name::CPUS, Scalar(1000));
    let stack = ["p", "p/q"].map(reserved);
    let once = cpus.clone().with_reservations(stack[..1].to_vec());
    let twice = cpus.clone().with_reservations(stack.to_vec());
    let refine = Operation::Reserve {
        source: Vec::new(),
        resources: vec![once, twice.clone()],
    };
    let after = Resources::from(cpus.clone())
        .apply(&refine)
        .expect("it is there");
    assert_eq!(after, Resources::from(twice.clone()));
    let net = refine.net();
    assert_eq!(net.consumed, Resources::from(cpus));
    assert_eq!(net.converted, Resources::from(twice));
}

#[test]
fn what_is_not_there_is_named_in_the_words_of_mesos() {
    let have = Resources::parse("cpus:3.8;mem:4048", "*").expect("resources");
    let cpus = |amount: i64| {
        Resource::scalar(Name::CPUS, Scalar(amount * 1000)).with_reservations(vec![reserved("p")])
    };
    let reserve = |resources| Operation::Reserve {
        source: Vec::new(),
        resources,
    };
    let refused = have.apply(&reserve(vec![cpus(100)])).unwrap_err();
    let text = "cpus:3.8; mem:4048 does not contain cpus:100";
    assert_eq!(refused.to_string(), text);
    // The first of two is done already when the second is looked at.
    let refused = have.apply(&reserve(vec![cpus(1), cpus(3)])).unwrap_err();
    let text = "cpus:2.8; mem:4048; cpus(reservations: [(DYNAMIC,p)]):1 does not contain cpus:3";
    assert_eq!(refused.to_string(), text);
    // Half of a volume cannot be destroyed.
    let own = disk(10_000).with_reservations(vec![reserved("p")]);
    let whole = Resources::from(volume(own.clone(), "v", false));
    let half = volume(own.with_amount(Scalar(5_000)), "v", false);
    assert!(whole.apply(&Operation::Destroy(vec![half])).is_err());
}
