//! One file a kind: the author's trait, and the service that makes calls of it.

mod allocator;
mod authorizer;
mod exporter;
mod fetcher;
mod image_store;
mod isolator;
mod leader;
mod logger;

pub use allocator::{Allocator, Explanation, Question};
pub use authorizer::{Approver, Authorizer, Check};
pub use exporter::{Exported, Exporter};
pub use fetcher::{CacheUse, Fetch, Fetcher};
pub use image_store::{ImageStore, Prune, Pruned, Pulled};
pub use isolator::{Container, ContainerId, Isolator, Limitation, Update};
pub use leader::{Candidacy, LeaderContender, LeaderDetector};
pub use logger::{ContainerLogger, Logged, Output};

pub(crate) use allocator::AllocatorService;
pub(crate) use authorizer::AuthorizerService;
pub(crate) use exporter::ExporterService;
pub(crate) use fetcher::FetcherService;
pub(crate) use image_store::ImageStoreService;
pub(crate) use isolator::IsolatorService;
pub(crate) use leader::{ContenderService, DetectorService, LeaderService};
pub(crate) use logger::LoggerService;

use prost::Message;
use tepui_module_proto::common::{
    ActivateReply, CommonMethod, ReconfigureReply, ReportReply, reconfigure_reply,
};

use crate::failure::undecodable;
use crate::instance::Started;
use crate::{Module, Report, Result};
use std::sync::Arc;

/// Reads a request.
fn decode<T: Message + Default>(request: &[u8]) -> Result<T> {
    T::decode(request).map_err(|error| undecodable(&error))
}

/// The answer to Report.
fn report(report: Report) -> Vec<u8> {
    let reply = ReportReply {
        healthy: report.unhealthy.is_none(),
        message: report.unhealthy.unwrap_or_default(),
        facts: report.facts,
    };
    reply.encode_to_vec()
}

/// Methods that all kinds answer alike by `call`.
fn common_call<M: Module>(module: &M, method: u32) -> Option<Result<Vec<u8>>> {
    (method == CommonMethod::Report as u32).then(|| Ok(report(module.report())))
}

/// Methods that all kinds answer alike by `start`.
fn common_start<M: Module>(module: Arc<M>, method: u32) -> Option<Result<Started>> {
    match CommonMethod::try_from(i32::try_from(method).ok()?).ok()? {
        CommonMethod::Activate => Some(Ok(Started::new(async move {
            module.activate().await?;
            Ok(ActivateReply {}.encode_to_vec())
        }))),
        CommonMethod::Reconfigure => Some(Ok(Started::new(async { Ok(needs_restart()) }))),
        _ => None,
    }
}

/// New settings take a new instance, which the host makes beside this one.
fn needs_restart() -> Vec<u8> {
    let setting = reconfigure_reply::Setting {
        name: String::new(),
        outcome: reconfigure_reply::Outcome::NeedsRestart.into(),
        message: String::new(),
    };
    ReconfigureReply {
        settings: vec![setting],
    }
    .encode_to_vec()
}
