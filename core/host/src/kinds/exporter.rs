//! Client of exporters.

use prost::Message as _;
use tepui_module_proto::exporter::{
    ExportReply, ExportRequest, Method, ServesReply, ServesRequest,
};

pub use tepui_module_proto::exporter::{Label, Sample, SampleKind};

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// An exporter.
#[derive(Debug, Clone)]
pub struct ExporterClient {
    instance: Instance,
}

impl ExporterClient {
    /// A client of this instance.
    pub fn new(instance: Instance) -> Self {
        ExporterClient { instance }
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Where its answers belong. Asks the module on this thread.
    pub fn path(&self) -> Result<String, CallError> {
        let request = ServesRequest {}.encode_to_vec();
        let bytes = self.instance.call(Method::Serves as u32, &request)?;
        let reply: ServesReply = decode(&self.instance, "SERVES", &bytes)?;
        Ok(reply.path)
    }

    /// Writes samples, for somebody with this `Accept` header.
    pub async fn export(
        &self,
        samples: Vec<Sample>,
        accept: &str,
    ) -> Result<ExportReply, CallError> {
        let request = ExportRequest {
            samples,
            accept: accept.to_owned(),
        };
        let timeout = Some(self.instance.timeout());
        let bytes = self
            .instance
            .start(
                Method::Export as u32,
                None,
                timeout,
                request.encode_to_vec(),
            )
            .await?;
        decode(&self.instance, "EXPORT", &bytes)
    }
}
