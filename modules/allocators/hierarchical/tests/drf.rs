//! Who gets what, by the rules of weighted dominant resource fairness, and what must hold for any cluster.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tepui_allocator_hierarchical::{Config, Hierarchical};
use tepui_module_sdk::model::allocation::{Agent, Framework, Holding, Quota};
use tepui_module_sdk::model::id::Role;
use tepui_module_sdk::model::resources::{Quantities, Scalar};
use tepui_module_sdk::prelude::*;

struct Test {
    cluster: Cluster,
    allocator: Hierarchical,
    round: u64,
}

impl Test {
    fn new(facts: Vec<Fact>) -> Self {
        Self::with(Config::default(), facts)
    }

    fn with(config: Config, facts: Vec<Fact>) -> Self {
        let mut test = Self {
            cluster: Cluster::default(),
            allocator: Hierarchical::new(config),
            round: 0,
        };
        test.tell(facts);
        test
    }

    fn tell(&mut self, facts: impl IntoIterator<Item = Fact>) {
        for fact in facts {
            self.cluster.apply(&fact);
            self.allocator.observe(&fact, &self.cluster);
        }
    }

    /// A round over all agents; what is proposed is booked.
    fn round(&mut self) -> Vec<Holding> {
        self.round += 1;
        let candidates = self.cluster.agents().map(|(key, _)| *key).collect();
        let round = Round {
            now: Mono(self.round),
            seed: self.round,
            candidates,
        };
        self.cluster.set_now(round.now);
        let mut out = Proposals::new(&self.cluster);
        self.allocator.allocate(&self.cluster, &round, &mut out);
        let made = out.into_vec();
        self.cluster.book(&made);
        made
    }

    /// Cpus that each framework has.
    fn cpus(&self) -> BTreeMap<u32, i64> {
        let mut all = BTreeMap::new();
        for client in self.cluster.clients() {
            let taken = self
                .cluster
                .taken(client)
                .map_or(0, |taken| taken.get(&"cpus".into()).0);
            *all.entry(client.framework.0).or_default() += taken / 1000;
        }
        all
    }
}

fn agent(key: u32, cpus: f64, mem: f64) -> Fact {
    Fact::AgentAdded(Agent {
        key: AgentKey(key),
        id: format!("S{key:04}").into(),
        hostname: format!("host{key}"),
        total: Resources::cpus_mem(cpus, mem),
        attributes: Default::default(),
        active: true,
        capabilities: vec!["MULTI_ROLE".to_owned(), "HIERARCHICAL_ROLE".to_owned()],
        domain: None,
        remote: false,
    })
}

fn framework(key: u32, role: &str) -> Fact {
    Fact::FrameworkAdded(Framework {
        key: FrameworkKey(key),
        id: format!("F{key:04}").into(),
        principal: None,
        roles: vec![Role::from(role)],
        suppressed: Vec::new(),
        active: true,
        capabilities: vec!["MULTI_ROLE".to_owned()],
        minimums: Vec::new(),
    })
}

#[test]
fn roles_share_by_weight_and_frameworks_alike() {
    let mut facts: Vec<Fact> = (0..12).map(|key| agent(key, 1.0, 100.0)).collect();
    facts.extend([framework(1, "a"), framework(2, "b"), framework(3, "b")]);
    facts.push(Fact::Weight(Role::from("b"), 2000));
    let mut test = Test::new(facts);
    assert_eq!(test.round().len(), 12);
    assert_eq!(
        test.cpus(),
        BTreeMap::from([(1, 4), (2, 4), (3, 4)]),
        "role b has twice a's, its frameworks half each"
    );
    assert!(test.round().is_empty(), "nothing is left");
}

#[test]
fn siblings_share_what_their_parent_gets() {
    // eng has half of all, and its own frameworks compete with the two roles below it.
    let mut facts: Vec<Fact> = (0..24).map(|key| agent(key, 1.0, 100.0)).collect();
    let names = ["eng", "eng/web", "eng/ads", "ops/a/b"];
    facts.extend((1..).zip(names).map(|(key, role)| framework(key, role)));
    facts.push(Fact::Weight(Role::from("eng/ads"), 2000));
    let mut test = Test::new(facts);
    test.round();
    assert_eq!(
        test.cpus(),
        BTreeMap::from([(1, 3), (2, 3), (3, 6), (4, 12)])
    );

    // What a role has that wants nothing now counts for the roles above it.
    let mut facts: Vec<Fact> = (0..4).map(|key| agent(key, 1.0, 100.0)).collect();
    facts.push(framework(1, "eng/old"));
    let mut test = Test::new(facts);
    test.round();
    test.tell([
        Fact::FrameworkActive(FrameworkKey(1), false),
        framework(2, "eng/new"),
        framework(3, "ops"),
    ]);
    test.tell((4..8).map(|key| agent(key, 1.0, 100.0)));
    test.round();
    let cpus: Vec<i64> = [2, 3].map(|key| cpus_of(&test, key)).into();
    assert_eq!(cpus, [0, 4], "eng has four already");
}

/// Cpus of a framework.
fn cpus_of(test: &Test, framework: u32) -> i64 {
    test.cpus().get(&framework).copied().unwrap_or_default()
}

#[test]
fn a_lot_is_drawn_by_weight_where_that_is_asked_for() {
    let config = |text: &str| serde_json::from_str::<Config>(text).expect("a configuration");
    let random = r#"{"role_sorter":"random","framework_sorter":"random"}"#;
    let mut facts: Vec<Fact> = (0..1000).map(|key| agent(key, 1.0, 100.0)).collect();
    facts.extend([framework(1, "a"), framework(2, "b/x"), framework(3, "b/y")]);
    facts.push(Fact::Weight(Role::from("b"), 3000));
    let mut test = Test::with(config(random), facts.clone());
    let made = test.round();
    let got = test.cpus();
    // A quarter to the first, and to the others the rest by halves; six standard deviations off at most.
    for (framework, expected) in [(1, 250), (2, 375), (3, 375)] {
        assert!((got[&framework] - expected).abs() < 95, "{got:?}");
    }
    let mut twin = Test::with(config(random), facts);
    assert_eq!(made, twin.round(), "the lot is the round's");
    let wrong = serde_json::from_str::<Config>(r#"{"role_sorter":"fair"}"#);
    assert!(wrong.is_err());
}

#[test]
fn remote_agents_are_for_those_who_know_regions() {
    let Fact::AgentAdded(near) = agent(1, 1.0, 100.0) else {
        unreachable!("made there")
    };
    let far = Fact::AgentAdded(Agent {
        remote: true,
        ..near
    });
    let aware = |key, capabilities: &[&str]| match framework(key, "a") {
        Fact::FrameworkAdded(framework) => Fact::FrameworkAdded(Framework {
            capabilities: capabilities.iter().map(|name| (*name).to_owned()).collect(),
            ..framework
        }),
        other => other,
    };
    let mut test = Test::new(vec![far, aware(1, &["MULTI_ROLE"])]);
    assert!(test.round().is_empty());
    test.tell([aware(2, &["MULTI_ROLE", "REGION_AWARE"])]);
    assert_eq!(test.round().len(), 1);
    assert_eq!(test.cpus(), BTreeMap::from([(1, 0), (2, 1)]));
}

#[test]
fn a_framework_says_what_it_has_no_use_for() {
    let wants = |key, minimums: &[Resources]| match framework(key, "a") {
        Fact::FrameworkAdded(framework) => Fact::FrameworkAdded(Framework {
            minimums: minimums
                .iter()
                .map(|minimum| (Role::from("a"), Quantities::of(minimum)))
                .collect(),
            ..framework
        }),
        other => other,
    };
    let (much, more) = (
        Resources::cpus_mem(2.0, 50.0),
        Resources::cpus_mem(1.0, 200.0),
    );
    for (minimums, offers) in [
        (&[much.clone(), more.clone()][..], 0),
        (&[much, Resources::cpus_mem(1.0, 100.0)], 1),
        (&[Resources::new()], 1),
        (&[], 0),
    ] {
        let cluster = Fact::Minimum(vec![Quantities::of(&more)]);
        let mut test = Test::new(vec![cluster, agent(1, 1.0, 100.0), wants(1, minimums)]);
        assert_eq!(test.round().len(), offers, "{minimums:?}");
    }
}

#[test]
fn a_framework_is_offered_to_in_each_of_its_roles() {
    let several = Fact::FrameworkAdded(Framework {
        roles: ["a", "b/c"].map(Role::from).to_vec(),
        ..match framework(1, "a") {
            Fact::FrameworkAdded(framework) => framework,
            _ => unreachable!("made there"),
        }
    });
    let mut test = Test::new(vec![agent(1, 1.0, 100.0), agent(2, 1.0, 100.0), several]);
    let mut roles: Vec<Role> = test.round().into_iter().map(|offer| offer.role).collect();
    roles.sort();
    assert_eq!(roles, ["a", "b/c"].map(Role::from));
}

fn guarantee(role: &str, cpus: i64) -> Fact {
    let guarantees = [("cpus".into(), Scalar::units(cpus))].into_iter().collect();
    let limits = Vec::new();
    Fact::Quota(Role::from(role), Quota { guarantees, limits })
}

#[test]
fn what_a_role_lacks_of_its_guarantee_is_held_back_from_others() {
    let mut facts: Vec<Fact> = (0..3).map(|key| agent(key, 4.0, 100.0)).collect();
    facts.extend([framework(1, "poor"), guarantee("sure", 6)]);
    let mut test = Test::new(facts);
    let first = test.round();
    assert_eq!(test.cpus(), BTreeMap::from([(1, 6)]), "{first:?}");
    let mem: i64 = first.iter().map(|one| one.resources.mem().0).sum();
    assert_eq!(mem, 300_000, "nobody is guaranteed memory");

    // Half of it is taken by a role below, of what is reserved: only the rest is held back.
    let back = first.iter().cloned().map(Fact::Returned);
    test.tell(back);
    let reserved = Resources::parse("cpus(sure/x):3;cpus:1;mem:100", "*").expect("resources");
    let Fact::AgentAdded(other) = agent(3, 0.0, 0.0) else {
        unreachable!("made there")
    };
    test.tell([Fact::AgentAdded(Agent {
        total: reserved,
        ..other
    })]);
    test.round();
    assert_eq!(test.cpus(), BTreeMap::from([(1, 10)]), "13 less 3");

    // As soon as it is asked for it is there, but for what is reserved to another role below.
    test.tell([framework(2, "sure/y")]);
    test.round();
    assert_eq!(test.cpus(), BTreeMap::from([(1, 10), (2, 3)]));
}

#[test]
fn whoever_lacks_something_of_a_guarantee_is_served_first() {
    let mut facts: Vec<Fact> = (0..4).map(|key| agent(key, 2.0, 100.0)).collect();
    facts.extend([framework(1, "a"), framework(2, "sure"), framework(3, "z")]);
    facts.extend([
        Fact::Weight(Role::from("a"), 1_000_000),
        guarantee("sure", 2),
    ]);
    let mut test = Test::new(facts);
    let made = test.round();
    let first = made.first().expect("something was offered");
    assert_eq!(first.framework, FrameworkKey(2), "{made:?}");
    let all: i64 = test.cpus().values().sum();
    assert_eq!(all, 8, "once it is met nothing is held back");
}

#[test]
fn offers_are_cut_to_the_limits_of_a_role() {
    let quota = |cpus: i64| {
        let limits = vec![("cpus".into(), Scalar::units(cpus))];
        let guarantees = Quantities::new();
        Fact::Quota(Role::from("a"), Quota { guarantees, limits })
    };
    let mut facts: Vec<Fact> = (0..3).map(|key| agent(key, 4.0, 100.0)).collect();
    let reserved = Resources::parse("cpus(a/x):1;cpus:4;mem:100", "*").expect("resources");
    if let Fact::AgentAdded(agent) = &mut facts[2] {
        agent.total = reserved;
    }
    facts.extend([framework(1, "a/x"), framework(2, "a/y"), quota(6)]);
    let mut test = Test::new(facts);
    let made = test.round();
    // One reserved, which counts though it is not the agent's to limit; five more of those that are free to all.
    let cpus: i64 = test.cpus().values().sum();
    assert_eq!(cpus, 6, "{made:?}");
    let mem: i64 = made.iter().map(|one| one.resources.mem().0).sum();
    assert_eq!(mem, 300_000, "what has no limit is offered whole");
    assert!(test.round().is_empty());

    test.tell([quota(9)]);
    let cpus = |made: &[Holding]| made.iter().map(|one| one.resources.cpus().0).sum::<i64>();
    assert_eq!(cpus(&test.round()), 3_000);
    let back = made.iter().find(|one| one.resources.cpus().0 == 4_000);
    test.tell([
        quota(0),
        Fact::Returned(back.expect("a whole agent").clone()),
    ]);
    let made = test.round();
    assert_eq!((cpus(&made), made.len()), (0, 1), "{made:?}");
}

#[test]
fn the_poorest_gets_what_comes_back() {
    let mut test = Test::new(
        (0..4)
            .map(|key| agent(key, 1.0, 100.0))
            .chain([framework(1, "a")])
            .collect(),
    );
    let first = test.round();
    assert_eq!(test.cpus(), BTreeMap::from([(1, 4)]));
    test.tell([framework(2, "a")]);
    test.tell(first[..2].iter().cloned().map(Fact::Returned));
    test.round();
    assert_eq!(test.cpus(), BTreeMap::from([(1, 2), (2, 2)]));
}

#[test]
fn filters_suppression_and_absence_keep_offers_away() {
    let mut test = Test::new(vec![
        agent(1, 1.0, 100.0),
        framework(1, "a"),
        framework(2, "a"),
    ]);
    let offer = test.round().remove(0);
    assert_eq!(offer.framework, FrameworkKey(1), "the smaller id first");
    test.tell([
        Fact::Returned(offer.clone()),
        Fact::Filter(offer.clone(), Mono(1_000)),
    ]);
    let second = test.round().remove(0);
    assert_eq!(second.framework, FrameworkKey(2));
    test.tell([
        Fact::Returned(second.clone()),
        Fact::FrameworkActive(FrameworkKey(2), false),
    ]);
    assert!(test.round().is_empty());
    test.round = 1_000;
    let third = test.round().remove(0);
    assert_eq!(third.framework, FrameworkKey(1), "the filter ended");
    test.tell([
        Fact::Returned(third),
        Fact::Suppressed(FrameworkKey(1), Vec::new()),
    ]);
    assert!(test.round().is_empty());
    test.tell([Fact::Revived(FrameworkKey(1), Vec::new())]);
    assert_eq!(test.round().len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With equal agents and one role, no framework has two agents more than another, everything is offered,
    /// nothing twice, and the same facts give the same proposals.
    #[test]
    fn fair_complete_and_repeatable(agents in 1..40_u32, frameworks in 1..8_u32, returns in prop::collection::vec(any::<prop::sample::Index>(), 0..20)) {
        let facts: Vec<Fact> = (0..agents).map(|key| agent(key, 2.0, 64.0))
            .chain((0..frameworks).map(|key| framework(key, "r"))).collect();
        let (mut test, mut twin) = (Test::new(facts.clone()), Test::new(facts));
        let made = test.round();
        prop_assert_eq!(&made, &twin.round());
        prop_assert_eq!(made.len(), agents as usize);
        let cpus = test.cpus();
        let (least, most) = (cpus.values().min().unwrap(), cpus.values().max().unwrap());
        prop_assert!(most - least <= 2, "{:?}", cpus);
        for index in returns {
            let back = index.get(&made).clone();
            if test.cluster.free(back.agent).is_empty() {
                test.tell([Fact::Returned(back.clone())]);
                twin.tell([Fact::Returned(back)]);
            }
        }
        let mut free = Quantities::new();
        for (key, _) in test.cluster.agents() {
            free += &Cluster::charged(test.cluster.free(*key));
        }
        prop_assert_eq!(test.cluster.room(), &free);
        let again = test.round();
        prop_assert_eq!(&again, &twin.round());
        for (key, _) in test.cluster.agents() {
            prop_assert!(test.cluster.free(*key).is_empty());
        }
    }
}
