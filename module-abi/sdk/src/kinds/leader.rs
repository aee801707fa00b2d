//! Kinds `leader-contender` and `leader-detector`: which master leads.

use std::sync::Arc;

use prost::Message;
use tepui_module_proto::leader::{
    ContendReply, ContendRequest, DetectReply, DetectRequest, LostReply, LostRequest, Method,
    WithdrawReply, WithdrawRequest,
};

use super::{common_call, common_start, decode};
use crate::export::Made;
use crate::failure::undecodable;
use crate::instance::{Service, Started};
use crate::mesos::MasterInfo;
use crate::{Module, Result};

/// A candidacy that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidacy {
    /// Names it in `lost` and `withdraw`.
    pub id: String,
    /// Grows with every election; 0 when this module has no epochs of its own.
    pub epoch: u64,
}

/// Enters a master into the election. Mirrors `mesos::master::contender::MasterContender`.
pub trait LeaderContender: Module {
    /// Enters the election and answers when the candidacy stands, which is before it is known who leads. Called when
    /// the master is ready to lead, and again after a loss; a candidacy that stood before is then withdrawn by it.
    /// An error ends the master.
    fn contend(&self, master: MasterInfo) -> impl Future<Output = Result<Candidacy>> + Send;

    /// Answers, with the reason, once the candidacy is lost, and waits until then. Runs beside everything else. The
    /// master steps down then; it does so too when this fails.
    fn lost(&self, candidacy: &str) -> impl Future<Output = Result<String>> + Send;

    /// Gives the candidacy up, so that another may lead at once. Called at an orderly end, if there is time.
    fn withdraw(&self, candidacy: &str) -> impl Future<Output = Result<()>> + Send;
}

/// Tells who leads. Mirrors `mesos::master::detector::MasterDetector`.
pub trait LeaderDetector: Module {
    /// Answers as soon as the leader differs from `previous`, and waits until then; none is no leader. Called again
    /// after each answer. After an error the daemon goes on without a leader and asks again.
    fn detect(
        &self,
        previous: Option<MasterInfo>,
    ) -> impl Future<Output = Result<Option<MasterInfo>>> + Send;
}

pub(crate) struct ContenderService<M>(Arc<M>);
pub(crate) struct DetectorService<M>(Arc<M>);
pub(crate) struct LeaderService<M>(Arc<M>);

impl<M: LeaderContender> ContenderService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Arc::new(made.module))
    }
}

impl<M: LeaderDetector> DetectorService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Arc::new(made.module))
    }
}

impl<M: LeaderContender + LeaderDetector> LeaderService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Arc::new(made.module))
    }
}

impl<M: LeaderContender> Service for ContenderService<M> {
    fn call(&self, method: u32, _: &[u8]) -> Option<Result<Vec<u8>>> {
        common_call(&*self.0, method)
    }

    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>> {
        contend(&self.0, method, request).or_else(|| common_start(self.0.clone(), method))
    }
}

impl<M: LeaderDetector> Service for DetectorService<M> {
    fn call(&self, method: u32, _: &[u8]) -> Option<Result<Vec<u8>>> {
        common_call(&*self.0, method)
    }

    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>> {
        detect(&self.0, method, request).or_else(|| common_start(self.0.clone(), method))
    }
}

impl<M: LeaderContender + LeaderDetector> Service for LeaderService<M> {
    fn call(&self, method: u32, _: &[u8]) -> Option<Result<Vec<u8>>> {
        common_call(&*self.0, method)
    }

    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>> {
        contend(&self.0, method, request)
            .or_else(|| detect(&self.0, method, request))
            .or_else(|| common_start(self.0.clone(), method))
    }
}

fn method(number: u32) -> Option<Method> {
    Method::try_from(i32::try_from(number).ok()?).ok()
}

fn contend<M: LeaderContender>(
    module: &Arc<M>,
    number: u32,
    request: &[u8],
) -> Option<Result<Started>> {
    let module = module.clone();
    match method(number)? {
        Method::Contend => Some(decode::<ContendRequest>(request).and_then(|request| {
            let master = master_info(&request.master_info)?;
            Ok(Started::new(async move {
                let Candidacy { id, epoch } = module.contend(master).await?;
                Ok(ContendReply {
                    candidacy: id,
                    epoch,
                }
                .encode_to_vec())
            }))
        })),
        Method::Lost => Some(decode::<LostRequest>(request).map(|request| {
            Started::new(async move {
                let reason = module.lost(&request.candidacy).await?;
                Ok(LostReply { reason }.encode_to_vec())
            })
        })),
        Method::Withdraw => Some(decode::<WithdrawRequest>(request).map(|request| {
            Started::new(async move {
                module.withdraw(&request.candidacy).await?;
                Ok(WithdrawReply {}.encode_to_vec())
            })
        })),
        Method::Detect | Method::Unspecified => None,
    }
}

fn detect<M: LeaderDetector>(
    module: &Arc<M>,
    number: u32,
    request: &[u8],
) -> Option<Result<Started>> {
    let module = module.clone();
    match method(number)? {
        Method::Detect => Some(decode::<DetectRequest>(request).and_then(|request| {
            let previous = request.previous.as_deref().map(master_info).transpose()?;
            Ok(Started::new(async move {
                let leader = module.detect(previous).await?;
                let leader = leader.map(|leader| leader.encode_to_vec());
                Ok(DetectReply { leader, epoch: 0 }.encode_to_vec())
            }))
        })),
        _ => None,
    }
}

fn master_info(bytes: &[u8]) -> Result<MasterInfo> {
    MasterInfo::decode(bytes).map_err(|error| undecodable(&error))
}
