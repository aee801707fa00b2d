//! Clients of leader election: contender and detector.

use prost::Message as _;
use tepui_module_proto::leader::{
    ContendReply, ContendRequest, DetectReply, DetectRequest, LostReply, LostRequest, Method,
    WithdrawRequest,
};

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// A candidacy that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidacy {
    /// Its name, in the module's words.
    pub id: String,
    /// Grows with every election; 0 when the module has none.
    pub epoch: u64,
    generation: u64,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leader {
    /// `mesos.v1.MasterInfo`, encoded; none when nobody leads.
    pub master_info: Option<Vec<u8>>,
    /// Epoch of the election, 0 when unknown.
    pub epoch: u64,
}

/// Contender, detector, or both.
#[derive(Debug, Clone)]
pub struct LeaderClient {
    instance: Instance,
}

impl LeaderClient {
    /// A client of this instance.
    pub fn new(instance: Instance) -> Self {
        LeaderClient { instance }
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Enters the election with this `mesos.v1.MasterInfo`.
    pub async fn contend(&self, master_info: Vec<u8>) -> Result<Candidacy, CallError> {
        let generation = self.instance.generation();
        let request = ContendRequest { master_info }.encode_to_vec();
        let timeout = Some(self.instance.timeout());
        let bytes = self
            .instance
            .start(Method::Contend as u32, None, timeout, request)
            .await?;
        let reply: ContendReply = decode(&self.instance, "CONTEND", &bytes)?;
        Ok(Candidacy {
            id: reply.candidacy,
            epoch: reply.epoch,
            generation,
        })
    }

    /// Returns when the candidacy is lost, with the reason. A module that fails or is gone has lost it,
    /// too: the caller steps down.
    pub async fn lost(&self, candidacy: &Candidacy) -> String {
        if self.instance.generation() != candidacy.generation {
            return "the module that held the candidacy is gone".into();
        }
        let request = LostRequest {
            candidacy: candidacy.id.clone(),
        }
        .encode_to_vec();
        match self
            .instance
            .start(Method::Lost as u32, None, None, request)
            .await
        {
            Ok(bytes) => match decode::<LostReply>(&self.instance, "LOST", &bytes) {
                Ok(reply) => reply.reason,
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        }
    }

    /// Leaves the election.
    pub async fn withdraw(&self, candidacy: &Candidacy) -> Result<(), CallError> {
        let request = WithdrawRequest {
            candidacy: candidacy.id.clone(),
        }
        .encode_to_vec();
        let timeout = Some(self.instance.timeout());
        self.instance
            .start(Method::Withdraw as u32, None, timeout, request)
            .await
            .map(drop)
    }

    /// Returns as soon as the leader differs from `previous`. Dropping the future ends the poll.
    pub async fn detect(&self, previous: Option<&[u8]>) -> Result<Leader, CallError> {
        let request = DetectRequest {
            previous: previous.map(Into::into),
        }
        .encode_to_vec();
        let bytes = self
            .instance
            .start(Method::Detect as u32, None, None, request)
            .await?;
        let reply: DetectReply = decode(&self.instance, "DETECT", &bytes)?;
        Ok(Leader {
            master_info: reply.leader,
            epoch: reply.epoch,
        })
    }
}
