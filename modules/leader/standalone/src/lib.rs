//! Leadership of a master that has no peers: whoever contends leads at once, until it gives up.
//!
//! One instance is contender and detector. A daemon that only detects is told by a setting where the master is.
//! Mirrors `src/master/contender/standalone.cpp` and `src/master/detector/standalone.cpp`.

use std::net::Ipv4Addr;

use tepui_module_sdk::mesos::{Address, MasterInfo};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::tokio::sync::watch;

/// Settings of `standalone`.
#[config]
pub struct Config {
    /// Where the master is: `host:port`. For daemons that do not contend.
    #[serde(default)]
    master: Option<String>,
}

/// Who leads, and by which candidacy.
#[derive(Clone, Default)]
struct State {
    leader: Option<MasterInfo>,
    candidacy: u64,
}

/// See the crate.
pub struct Standalone {
    state: watch::Sender<State>,
}

impl Module for Standalone {
    type Config = Config;
    const NAME: &'static str = "standalone";
    const DESCRIPTION: &'static str = "leadership of a master without peers";

    fn create(config: Config, _: Context) -> Result<Self> {
        let leader = config.master.as_deref().map(master_at).transpose()?;
        Ok(Self {
            state: watch::Sender::new(State {
                leader,
                candidacy: 0,
            }),
        })
    }
}

impl LeaderContender for Standalone {
    async fn contend(&self, master: MasterInfo) -> Result<Candidacy> {
        self.state.send_modify(|state| {
            state.leader = Some(master);
            state.candidacy += 1;
        });
        let id = self.state.borrow().candidacy.to_string();
        Ok(Candidacy { id, epoch: 0 })
    }

    async fn lost(&self, candidacy: &str) -> Result<String> {
        let mut states = self.state.subscribe();
        let holds =
            |state: &State| state.leader.is_some() && state.candidacy.to_string() == candidacy;
        states.wait_for(|state| !holds(state)).await?;
        Ok("the candidacy was withdrawn or replaced".to_owned())
    }

    async fn withdraw(&self, candidacy: &str) -> Result<()> {
        self.state.send_if_modified(|state| {
            let own = state.candidacy.to_string() == candidacy;
            own && state.leader.take().is_some()
        });
        Ok(())
    }
}

impl LeaderDetector for Standalone {
    async fn detect(&self, previous: Option<MasterInfo>) -> Result<Option<MasterInfo>> {
        let mut states = self.state.subscribe();
        let state = states.wait_for(|state| state.leader != previous).await?;
        Ok(state.leader.clone())
    }
}

/// The master at an address, which is all that is known of it.
fn master_at(address: &str) -> Result<MasterInfo> {
    let invalid = || {
        Failure::invalid(format!("master: expected host:port, found {address:?}")).setting("master")
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    if host.is_empty() {
        return Err(invalid());
    }
    let ip: Option<Ipv4Addr> = host.parse().ok();
    Ok(MasterInfo {
        id: address.to_owned(),
        // In network byte order, as Mesos has it.
        ip: ip.map_or(0, |ip| u32::from_ne_bytes(ip.octets())),
        port: port.into(),
        hostname: Some(host.to_owned()),
        address: Some(Address {
            hostname: Some(host.to_owned()),
            ip: ip.map(|ip| ip.to_string()),
            port: port.into(),
        }),
        ..MasterInfo::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port() {
        let master = master_at("127.0.0.1:5050").unwrap();
        assert_eq!((master.ip, master.port), (0x0100_007f, 5050));
        for wrong in ["", "host", ":5050", "host:", "host:70000"] {
            assert!(master_at(wrong).is_err(), "{wrong}");
        }
    }
}
