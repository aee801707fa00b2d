//! P2 and P2b, an allocation cycle of a large cluster: `cargo bench -p tepui-allocator-hierarchical`.
//!
//! Each line is the best of five, in processor time of the one thread that an allocator has: facts into the
//! cluster, one round over all agents with nothing filtered, and its proposals booked.

use std::time::Duration;

use tepui_allocator_hierarchical::{Config, Hierarchical};
use tepui_module_sdk::model::allocation::{Agent, Framework, Holding, Quota};
use tepui_module_sdk::model::id::Role;
use tepui_module_sdk::model::resources::{Name, Quantities, Scalar};
use tepui_module_sdk::prelude::*;

/// Who is there.
#[derive(Clone, Copy)]
struct Size {
    agents: u32,
    frameworks: u32,
    roles: u32,
}

fn main() {
    let one_role = [(1_000, 1_000), (5_000, 200), (20_000, 2_000)];
    for (agents, frameworks) in one_role {
        let size = Size {
            agents,
            frameworks,
            roles: 1,
        };
        let best = (0..5).map(|_| whole(size)).min_by_key(|times| times.1);
        let (added, cycle) = best.expect("five runs");
        println!(
            "{agents} agents x {frameworks} frameworks in one role: added in {:.1} ms, cycle {:.1} ms",
            millis(added),
            millis(cycle)
        );
    }
    let size = Size {
        agents: 20_000,
        frameworks: 2_000,
        roles: 200,
    };
    let best = (0..5).map(|_| changed(size)).min().expect("five runs");
    println!(
        "{} agents x {} frameworks in {} roles, half of them with quota, a tenth of the agents changed: cycle {:.1} ms",
        size.agents,
        size.frameworks,
        size.roles,
        millis(best)
    );
}

/// All agents are new and free: how long it takes to add them, and to offer them.
fn whole(size: Size) -> (Duration, Duration) {
    let mut cluster = Cluster::default();
    let mut allocator = Hierarchical::new(Config::default());
    let facts: Vec<Fact> = (0..size.agents).map(agent).collect();
    let begun = cpu();
    tell(&mut cluster, &mut allocator, &facts);
    let added = cpu() - begun;
    let frameworks: Vec<Fact> = (0..size.frameworks)
        .map(|key| framework(key, size.roles))
        .collect();
    tell(&mut cluster, &mut allocator, &frameworks);
    let candidates = (0..size.agents).map(AgentKey).collect();
    let (cycle, made) = round(&mut cluster, &mut allocator, 1, candidates);
    assert_eq!(made.len(), size.agents as usize, "all agents are offered");
    (added, cycle)
}

/// A tenth of the agents have come back since all were offered.
fn changed(size: Size) -> Duration {
    let mut cluster = Cluster::default();
    let mut allocator = Hierarchical::new(Config::default());
    let agents = (0..size.agents).map(agent);
    let frameworks = (0..size.frameworks).map(|key| framework(key, size.roles));
    let limit = |name, amount| (name, Scalar::from_f64(amount));
    let quotas = (0..size.roles).step_by(2).map(|number| {
        let guarantees: Quantities = [limit(Name::CPUS, 640.0)].into_iter().collect();
        let limits = vec![limit(Name::CPUS, 64_000.0)];
        Fact::Quota(role(number), Quota { guarantees, limits })
    });
    let facts: Vec<Fact> = agents.chain(frameworks).chain(quotas).collect();
    tell(&mut cluster, &mut allocator, &facts);
    let all = (0..size.agents).map(AgentKey).collect();
    let (_, made) = round(&mut cluster, &mut allocator, 1, all);
    let returned: Vec<_> = made.into_iter().step_by(10).collect();
    let candidates = returned.iter().map(|holding| holding.agent).collect();
    let facts: Vec<Fact> = returned.into_iter().map(Fact::Returned).collect();
    tell(&mut cluster, &mut allocator, &facts);
    let (cycle, made) = round(&mut cluster, &mut allocator, 2, candidates);
    assert_eq!(
        made.len(),
        size.agents as usize / 10,
        "all are offered again"
    );
    cycle
}

fn tell(cluster: &mut Cluster, allocator: &mut Hierarchical, facts: &[Fact]) {
    for fact in facts {
        cluster.apply(fact);
        allocator.observe(fact, cluster);
    }
}

fn round(
    cluster: &mut Cluster,
    allocator: &mut Hierarchical,
    number: u64,
    candidates: Vec<AgentKey>,
) -> (Duration, Vec<Holding>) {
    let round = Round {
        now: Mono(number),
        seed: number,
        candidates,
    };
    let begun = cpu();
    cluster.set_now(round.now);
    let mut out = Proposals::new(cluster);
    allocator.allocate(cluster, &round, &mut out);
    let made = out.into_vec();
    cluster.book(&made);
    (cpu() - begun, made)
}

fn agent(key: u32) -> Fact {
    Fact::AgentAdded(Agent {
        key: AgentKey(key),
        id: format!("c3e1b8a0-4f5e-4b8e-9a57-5d3c2d6f1a10-S{key}").into(),
        hostname: format!("host-{key}.example.org"),
        total: Resources::parse("cpus:32;mem:131072;disk:1048576;ports:[31000-32000]", "*")
            .expect("resources"),
        attributes: Default::default(),
        active: true,
        capabilities: ["MULTI_ROLE", "HIERARCHICAL_ROLE"]
            .map(str::to_owned)
            .to_vec(),
        domain: None,
        remote: false,
    })
}

fn role(number: u32) -> Role {
    format!("role-{number}").as_str().into()
}

fn framework(key: u32, roles: u32) -> Fact {
    Fact::FrameworkAdded(Framework {
        key: FrameworkKey(key),
        id: format!("c3e1b8a0-4f5e-4b8e-9a57-5d3c2d6f1a10-{key:04}").into(),
        principal: None,
        roles: vec![role(key % roles)],
        suppressed: Vec::new(),
        active: true,
        capabilities: vec!["MULTI_ROLE".to_owned()],
        minimums: Vec::new(),
    })
}

/// Time that this thread has had a processor: other load does not count.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
