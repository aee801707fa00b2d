//! Offers agents to frameworks in turn, whatever they have already. The simplest useful allocator, and an example.

use tepui_module_sdk::prelude::*;

/// See the crate.
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
    fn observe(&mut self, fact: &Fact, _: &Cluster) {
        if matches!(fact, Fact::Reset) {
            self.last = None;
        }
    }

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
