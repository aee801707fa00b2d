//! Offers agents to frameworks in turn, whatever they have already. The simplest useful allocator, and an example.

use tepui_module_sdk::prelude::*;

/// See the crate.
#[derive(Default)]
pub struct RoundRobin {
    /// Who got the last offer; the next in the order of numbers comes next.
    last: Option<Client>,
}

impl Module for RoundRobin {
    type Config = NoConfig;
    const NAME: &'static str = "round-robin";
    const DESCRIPTION: &'static str = "offers agents to frameworks in turn";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self { last: None })
    }
}

impl Allocator for RoundRobin {
    fn allocate(&mut self, cluster: &Cluster, round: &Round, out: &mut Proposals<'_>) {
        let clients = cluster.clients();
        for &agent in &round.candidates {
            let start = clients.partition_point(|client| Some(*client) <= self.last);
            let (before, after) = clients.split_at(start);
            for client in after.iter().chain(before) {
                if out.free(agent).is_empty() {
                    break;
                }
                if out.all_free(client, agent).is_ok() {
                    self.last = Some(*client);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_module_sdk::model::allocation::{Agent, Framework};

    fn agent(key: u32) -> Fact {
        Fact::AgentAdded(Agent {
            key: AgentKey(key),
            id: "S".into(),
            hostname: "host".to_owned(),
            total: Resources::cpus_mem(1.0, 1.0),
            attributes: Default::default(),
            active: true,
            capabilities: Vec::new(),
            domain: None,
            remote: false,
        })
    }

    fn framework(key: u32) -> Fact {
        Fact::FrameworkAdded(Framework {
            key: FrameworkKey(key),
            id: "F".into(),
            principal: None,
            roles: vec!["*".into()],
            suppressed: Vec::new(),
            active: true,
            capabilities: Vec::new(),
            minimums: Vec::new(),
        })
    }

    #[test]
    fn everybody_has_a_turn() {
        let mut cluster = Cluster::default();
        let facts = (0..5).map(agent).chain((1..3).map(framework));
        facts.for_each(|fact| cluster.apply(&fact));
        let mut allocator = RoundRobin { last: None };
        let mut served = Vec::new();
        for candidates in [
            vec![AgentKey(0), AgentKey(1), AgentKey(2)],
            vec![AgentKey(3), AgentKey(4)],
        ] {
            let mut out = Proposals::new(&cluster);
            allocator.allocate(
                &cluster,
                &Round {
                    candidates,
                    ..Round::default()
                },
                &mut out,
            );
            let made = out.into_vec();
            served.extend(made.iter().map(|proposal| proposal.framework.0));
            cluster.book(&made);
        }
        assert_eq!(served, [1, 2, 1, 2, 1]);
    }
}
