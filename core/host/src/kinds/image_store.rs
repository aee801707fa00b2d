//! Client of image stores.

use std::time::Duration;

use prost::Message as _;
use tepui_module_proto::image_store::{Method, PruneReply, PruneRequest, PullReply, PullRequest};

use super::decode;
use crate::error::CallError;
use crate::instance::Instance;

/// A store gives up on a registry that is silent long before this; a large image may take its time.
const PULL: Duration = Duration::from_hours(1);
/// Removing many small files takes long.
const PRUNE: Duration = Duration::from_mins(10);

/// An image store.
#[derive(Debug, Clone)]
pub struct ImageStoreClient {
    instance: Instance,
}

impl ImageStoreClient {
    /// A client of this instance.
    pub fn new(instance: Instance) -> Self {
        ImageStoreClient { instance }
    }

    /// The instance.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Makes an image ready (an encoded mesos.v1.Image), for a container if it is for one.
    pub async fn pull(
        &self,
        image: Vec<u8>,
        container: Option<&str>,
    ) -> Result<PullReply, CallError> {
        let request = PullRequest { image }.encode_to_vec();
        let method = Method::Pull as u32;
        let bytes = self
            .instance
            .start(method, container, Some(PULL), request)
            .await?;
        decode(&self.instance, "PULL", &bytes)
    }

    /// How far the pull for a container is, in the store's words; `None` before it has said anything.
    pub fn progress(&self, container: &str) -> Option<String> {
        self.instance.progress(Method::Pull as u32, container)
    }

    /// Removes what nobody needs.
    pub async fn prune(&self, request: PruneRequest) -> Result<PruneReply, CallError> {
        let method = Method::Prune as u32;
        let request = request.encode_to_vec();
        let bytes = self
            .instance
            .start(method, None, Some(PRUNE), request)
            .await?;
        decode(&self.instance, "PRUNE", &bytes)
    }
}
