//! Kind `exporter`: the daemon's metrics in another form.

use std::sync::Arc;

use prost::Message;
use tepui_module_proto::exporter::{
    ExportReply, ExportRequest, Method, Sample, ServesReply, ServesRequest,
};

use super::{common_call, common_start, decode};
use crate::export::Made;
use crate::instance::{Service, Started};
use crate::{Module, Result};

/// What an exporter wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// `Content-Type` of the answer.
    pub content_type: String,
    /// The answer.
    pub body: Vec<u8>,
}

/// Writes metrics for a monitoring system. Mesos has no such kind: its metrics are read as they are.
pub trait Exporter: Module {
    /// Where the daemon answers with what [`Self::export`] writes, such as `/metrics`. It begins with a slash, and
    /// is no path of the daemon's own. Called once, after the module was made.
    fn path(&self) -> String;

    /// Writes all metrics, sorted by name, as one answer; `accept` is the header of who asks. Calls may overlap. After
    /// an error whoever asks gets 503.
    fn export(
        &self,
        samples: Vec<Sample>,
        accept: &str,
    ) -> impl Future<Output = Result<Exported>> + Send;
}

pub(crate) struct ExporterService<M>(Arc<M>);

impl<M: Exporter> ExporterService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Arc::new(made.module))
    }
}

impl<M: Exporter> Service for ExporterService<M> {
    fn call(&self, method: u32, request: &[u8]) -> Option<Result<Vec<u8>>> {
        if method == Method::Serves as u32 {
            let path = self.0.path();
            let asked = decode::<ServesRequest>(request);
            return Some(asked.map(|_| ServesReply { path }.encode_to_vec()));
        }
        common_call(&*self.0, method)
    }

    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>> {
        let module = self.0.clone();
        if method != Method::Export as u32 {
            return common_start(module, method);
        }
        Some(decode::<ExportRequest>(request).map(|request| {
            Started::new(async move {
                let exported = module.export(request.samples, &request.accept).await?;
                Ok(ExportReply {
                    content_type: exported.content_type,
                    body: exported.body,
                }
                .encode_to_vec())
            })
        }))
    }
}
