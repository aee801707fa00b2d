//! Equal facts and rounds give equal proposals on every machine and in every build: what a large and busy cluster gets is
//! compared with what was recorded. A change of the policy changes the number; a change that only makes it quicker must not.

use std::fmt::Write as _;

use tepui_allocator_hierarchical::{Config, Hierarchical};
use tepui_module_sdk::model::Rng;
use tepui_module_sdk::model::allocation::{Agent, FilterScope, Framework, Holding, Quota};
use tepui_module_sdk::model::id::Role;
use tepui_module_sdk::model::resources::{Name, Quantities, Scalar};
use tepui_module_sdk::prelude::*;

const AGENTS: u32 = 60;
const FRAMEWORKS: u32 = 24;
const ROLES: [&str; 8] = ["a", "a/x", "a/y", "b", "b/z/z", "c", "d/w", "*"];

/// A cluster that changes at random, and what its rounds gave.
struct Busy {
    cluster: Cluster,
    allocator: Hierarchical,
    rng: Rng,
    held: Vec<Holding>,
    /// FNV-1a of all proposals.
    print: u64,
}

impl Busy {
    fn new(config: &str, seed: u64) -> Self {
        let config: Config = serde_json::from_str(config).expect("a configuration");
        let mut busy = Self {
            cluster: Cluster::default(),
            allocator: Hierarchical::new(config),
            rng: Rng::new(seed),
            held: Vec::new(),
            print: 0xcbf2_9ce4_8422_2325,
        };
        busy.tell(Fact::Minimum(vec![
            Resources::cpus_mem(0.01, 0.0).quantities(),
            Resources::cpus_mem(0.0, 32.0).quantities(),
        ]));
        for key in 0..AGENTS {
            busy.add_agent(key);
        }
        for key in 0..FRAMEWORKS {
            busy.add_framework(key);
        }
        busy.tell(Fact::Weight(Role::from("b"), 2500));
        busy.tell(Fact::Weight(Role::from("a/y"), 300));
        busy.set_quota("a", 300, 60);
        busy.set_quota("c", 90, 40);
        busy
    }

    fn tell(&mut self, fact: Fact) {
        self.cluster.apply(&fact);
        self.allocator.observe(&fact, &self.cluster);
    }

    fn pick(&mut self, number: u32) -> u32 {
        self.rng.below(u64::from(number)) as u32
    }

    fn role(&mut self) -> Role {
        let at = self.rng.below(ROLES.len() as u64) as usize;
        Role::from(ROLES[at])
    }

    fn add_agent(&mut self, key: u32) {
        let (cpus, mem) = (4 + self.pick(28), 1000 + self.pick(60_000));
        let text = match self.pick(4) {
            0 => format!("cpus:{cpus};mem:{mem};cpus(a):3;mem(b):500;disk:1000"),
            1 => format!("ports:[31000-32000];cpus:{cpus};mem:{mem};cpus(d/w):2"),
            2 => format!("cpus:{cpus};mem:{mem};gpus:2;things:{{one,two}}"),
            _ => format!("cpus:{cpus};mem:{mem}"),
        };
        let capabilities = ["MULTI_ROLE", "HIERARCHICAL_ROLE"];
        self.tell(Fact::AgentAdded(Agent {
            key: AgentKey(key),
            id: format!("S{key:04}").into(),
            hostname: format!("host{key}"),
            total: Resources::parse(&text, "*").expect("resources"),
            attributes: Default::default(),
            active: key % 17 != 3,
            capabilities: capabilities.map(str::to_owned).to_vec(),
            domain: None,
            remote: key % 11 == 5,
        }));
    }

    fn add_framework(&mut self, key: u32) {
        let mut roles = vec![self.role(), self.role()];
        roles.sort();
        roles.dedup();
        let capabilities = ["MULTI_ROLE", "GPU_RESOURCES", "REGION_AWARE"];
        let known = 1 + self.pick(3) as usize;
        self.tell(Fact::FrameworkAdded(Framework {
            key: FrameworkKey(key),
            id: format!("F{key:04}").into(),
            principal: None,
            roles,
            suppressed: Vec::new(),
            active: key % 13 != 7,
            capabilities: capabilities[..known]
                .iter()
                .map(ToString::to_string)
                .collect(),
            minimums: Vec::new(),
        }));
    }

    fn set_quota(&mut self, role: &str, limit: i64, guarantee: i64) {
        let limits = vec![(Name::CPUS, Scalar::units(limit))];
        let guarantees: Quantities = [(Name::CPUS, Scalar::units(guarantee))]
            .into_iter()
            .collect();
        self.tell(Fact::Quota(Role::from(role), Quota { guarantees, limits }));
    }

    /// Some of what is held comes back, with a filter now and then; somebody leaves and comes again.
    fn change(&mut self, now: u64) {
        for _ in 0..self.held.len() / 3 {
            let at = self.pick(self.held.len() as u32) as usize;
            let back = self.held.swap_remove(at);
            self.tell(Fact::Returned(back.clone()));
            if self.pick(3) == 0 {
                let until = Mono(now + u64::from(self.pick(5)));
                self.tell(Fact::Filter(back, until));
            }
        }
        let (agent, framework) = (self.pick(AGENTS), self.pick(FRAMEWORKS));
        match self.pick(6) {
            0 => {
                self.tell(Fact::AgentRemoved(AgentKey(agent)));
                self.held.retain(|holding| holding.agent != AgentKey(agent));
                self.add_agent(agent);
            }
            1 => self.tell(Fact::FrameworkActive(
                FrameworkKey(framework),
                now.is_multiple_of(2),
            )),
            2 => {
                let roles = vec![self.role()];
                self.tell(Fact::Suppressed(FrameworkKey(framework), roles));
            }
            3 => self.tell(Fact::Revived(FrameworkKey(framework), Vec::new())),
            4 => self.tell(Fact::FiltersCleared(FilterScope {
                framework: Some(FrameworkKey(framework)),
                ..FilterScope::default()
            })),
            _ => {
                let limit = i64::from(self.pick(500));
                self.set_quota("c", limit, limit / 3);
            }
        }
    }

    fn round(&mut self, now: u64) {
        let mut candidates: Vec<AgentKey> = (0..AGENTS).map(AgentKey).collect();
        if now.is_multiple_of(3) {
            candidates.truncate(20);
        }
        let seed = self.rng.next_u64();
        let round = Round {
            now: Mono(now),
            seed,
            candidates,
        };
        self.cluster.set_now(round.now);
        let mut out = Proposals::new(&self.cluster);
        self.allocator.allocate(&self.cluster, &round, &mut out);
        let made = out.into_vec();
        self.cluster.book(&made);
        for proposal in made {
            let mut text = String::new();
            let (framework, agent) = (proposal.framework.0, proposal.agent.0);
            write!(text, "{framework} {} {agent}", proposal.role).expect("a string grows");
            for resource in &proposal.resources {
                write!(text, " {resource}").expect("a string grows");
            }
            for byte in text.bytes() {
                self.print = (self.print ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            self.held.push(proposal);
        }
    }
}

#[test]
fn a_busy_cluster_gets_what_it_always_got() {
    let configs = [
        "{}",
        r#"{"role_sorter":"random","framework_sorter":"random"}"#,
    ];
    let prints = configs.map(|config| {
        let mut busy = Busy::new(config, 7);
        for now in 1..60 {
            busy.change(now);
            busy.round(now);
        }
        assert!(busy.held.len() > 60, "rounds give offers");
        busy.print
    });
    assert_eq!(
        prints,
        [16_151_337_199_482_688_388, 4_470_188_781_094_175_563]
    );
}
