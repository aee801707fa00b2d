//! The clients of modules as parts of a master.

use async_trait::async_trait;
use bytes::Bytes;
use tepui_host::kinds::allocator::AllocatorClient;
use tepui_host::kinds::leader::{Candidacy, LeaderClient};
use tepui_model::allocation::{Fact, Proposal, Round};
use tokio::sync::watch;

use crate::leadership::Leadership;
use crate::parts::Allocator;

impl Allocator for AllocatorClient {
    fn apply(&mut self, facts: Vec<Fact>) -> Result<(), String> {
        AllocatorClient::apply(self, &facts).map_err(|error| error.to_string())
    }

    fn allocate(&mut self, round: &Round) -> Result<Vec<Proposal>, String> {
        AllocatorClient::allocate(self, round).map_err(|error| error.to_string())
    }
}

/// Contender and detector modules.
pub struct ModuleLeadership {
    contender: LeaderClient,
    detector: LeaderClient,
    candidacy: watch::Sender<Option<Candidacy>>,
}

impl ModuleLeadership {
    /// Leadership by these modules, which may be one.
    pub fn new(contender: LeaderClient, detector: LeaderClient) -> ModuleLeadership {
        ModuleLeadership {
            contender,
            detector,
            candidacy: watch::Sender::new(None),
        }
    }
}

#[async_trait]
impl Leadership for ModuleLeadership {
    async fn contend(&self, info: Bytes) -> Result<(), String> {
        let candidacy = self
            .contender
            .contend(info.to_vec())
            .await
            .map_err(|error| error.to_string())?;
        self.candidacy.send_replace(Some(candidacy));
        Ok(())
    }

    async fn lost(&self) -> String {
        let mut entered = self.candidacy.subscribe();
        let candidacy = entered
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|candidacy| candidacy.clone());
        match candidacy {
            Some(candidacy) => self.contender.lost(&candidacy).await,
            None => "no candidacy was entered".to_owned(),
        }
    }

    async fn detect(&self, previous: Option<Bytes>) -> Result<Option<Bytes>, String> {
        let leader = self
            .detector
            .detect(previous.as_deref())
            .await
            .map_err(|error| error.to_string())?;
        Ok(leader.master_info.map(Bytes::from))
    }
}
