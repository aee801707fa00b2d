//! Leader election `acme/module`: whoever contends last leads. Replace it by a service that masters share.
use tepui_module_sdk::mesos::MasterInfo;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::tokio::sync::watch;

/// The module: the leader and the number of its election.
pub struct AcmeModule(watch::Sender<(Option<MasterInfo>, u64)>);

impl Module for AcmeModule {
    type Config = NoConfig;
    const NAME: &'static str = "acme/module";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self(watch::Sender::new((None, 0))))
    }
}

impl LeaderContender for AcmeModule {
    async fn contend(&self, master: MasterInfo) -> Result<Candidacy> {
        self.0.send_modify(|(leader, epoch)| {
            *leader = Some(master);
            *epoch += 1;
        });
        let epoch = self.0.borrow().1;
        Ok(Candidacy {
            id: epoch.to_string(),
            epoch,
        })
    }

    async fn lost(&self, candidacy: &str) -> Result<String> {
        let mut state = self.0.subscribe();
        state
            .wait_for(|(leader, epoch)| leader.is_none() || epoch.to_string() != candidacy)
            .await?;
        Ok("another was elected, or the candidate withdrew".to_owned())
    }

    async fn withdraw(&self, candidacy: &str) -> Result<()> {
        self.0.send_if_modified(|(leader, epoch)| {
            epoch.to_string() == candidacy && leader.take().is_some()
        });
        Ok(())
    }
}

impl LeaderDetector for AcmeModule {
    async fn detect(&self, previous: Option<MasterInfo>) -> Result<Option<MasterInfo>> {
        let mut state = self.0.subscribe();
        Ok(state
            .wait_for(|(leader, _)| *leader != previous)
            .await?
            .0
            .clone())
    }
}
