//! Client of a fetcher.

use prost::Message as _;
use tepui_module_proto::fetcher::{CacheReply, CacheRequest, FetchRequest, Method};

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// A fetcher.
#[derive(Debug, Clone)]
pub struct FetcherClient {
    instance: Instance,
}

impl FetcherClient {
    /// A client of this instance.
    pub fn new(instance: Instance) -> Self {
        FetcherClient { instance }
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Brings what a container asks for, however long that takes. Dropping the future ends it; a later fetch for the
    /// same container then waits until it has.
    pub async fn fetch(&self, request: &FetchRequest) -> Result<(), CallError> {
        let (method, lane) = (Method::Fetch as u32, Some(&*request.container));
        let bytes = request.encode_to_vec();
        self.instance.start(method, lane, None, bytes).await?;
        Ok(())
    }

    /// What it keeps. Asks the module on this thread.
    pub fn cache(&self) -> Result<CacheReply, CallError> {
        let request = CacheRequest {}.encode_to_vec();
        let bytes = self.instance.call(Method::Cache as u32, &request)?;
        decode(&self.instance, "CACHE", &bytes)
    }
}
