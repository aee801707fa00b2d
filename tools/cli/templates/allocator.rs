//! Allocator `acme/module`: each agent goes to the framework that was served least recently.
use tepui_module_sdk::prelude::*;

/// Settings of `acme/module`.
#[config]
pub struct Config {
    /// Agents one framework may get in a round; 0 is no limit.
    #[serde(default)]
    most_per_round: usize,
}

/// The module. Equal facts and rounds must give equal proposals: no clock, no randomness of its own.
pub struct AcmeModule {
    config: Config,
    /// Number of the last agent a framework got.
    served: BTreeMap<FrameworkKey, u64>,
    count: u64,
}

impl Module for AcmeModule {
    type Config = Config;
    const NAME: &'static str = "acme/module";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self {
            config,
            served: BTreeMap::new(),
            count: 0,
        })
    }
}

impl Allocator for AcmeModule {
    fn allocate(&mut self, cluster: &Cluster, round: &Round, out: &mut Proposals<'_>) {
        let mut given: BTreeMap<FrameworkKey, usize> = BTreeMap::new();
        for &agent in &round.candidates {
            let mut clients: Vec<_> = cluster.clients().iter().collect();
            clients.sort_by_key(|c| self.served.get(&c.framework).copied());
            for client in clients {
                let got = given.entry(client.framework).or_default();
                if self.config.most_per_round > 0 && *got >= self.config.most_per_round {
                    continue;
                }
                if out.all_free(client, agent).is_ok() {
                    *got += 1;
                    self.count += 1;
                    self.served.insert(client.framework, self.count);
                    break;
                }
            }
        }
    }
}
