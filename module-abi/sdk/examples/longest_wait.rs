//! An allocator for which only time counts: whoever waited longest gets the next agent.

#![allow(missing_docs, reason = "shown in the tutorial as it is")]
// begin
use tepui_module_sdk::prelude::*;

#[config]
pub struct Config {
    /// Agents one framework may get in a round; 0 = no limit.
    #[serde(default)]
    per_round: u32,
}
pub struct LongestWait {
    per_round: u32,
    served: BTreeMap<Client, Mono>,
}

#[rustfmt::skip]
impl Module for LongestWait {
    type Config = Config;
    const NAME: &'static str = "acme/longest-wait";
    fn create(c: Config, _: Context) -> Result<Self> { Ok(Self { per_round: c.per_round, served: BTreeMap::new() }) }
}

#[rustfmt::skip]
impl Allocator for LongestWait {
    fn allocate(&mut self, cluster: &Cluster, round: &Round, out: &mut Proposals<'_>) {
        let mut queue = cluster.clients().to_vec();
        queue.sort_by_key(|client| (self.served.get(client).copied(), *client));
        let mut given: BTreeMap<FrameworkKey, u32> = BTreeMap::new();
        for &agent in &round.candidates {
            let next = queue.iter().position(|client| {
                let got = given.get(&client.framework).copied().unwrap_or(0);
                let full = self.per_round > 0 && got >= self.per_round;
                !full && cluster.may_offer(client, agent) // capabilities, filters, minimum
            });
            let Some(at) = next else { continue };
            let client = queue.remove(at);
            let _ = out.all_free(&client, agent);
            *given.entry(client.framework).or_default() += 1;
            self.served.insert(client, round.now);
            queue.push(client);
        }
    }
}
export!(allocator: LongestWait);
