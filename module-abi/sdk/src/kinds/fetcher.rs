//! Kind `fetcher`: brings what a command asks for into its sandbox.

use std::sync::Arc;

use prost::Message;
use tepui_module_proto::fetcher::{
    CacheReply, CacheRequest, FetchReply, FetchRequest, Method, Uri, User,
};

use super::{common_call, common_start, decode};
use crate::export::Made;
use crate::instance::{Service, Started};
use crate::{Module, Result};

/// What one container asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetch {
    /// The container.
    pub container: String,
    /// Its sandbox, on the host. It is there, and nothing of the container runs yet; with a nested container its
    /// parent does, as the same user, and may change what is in it at any time.
    pub sandbox: std::path::PathBuf,
    /// What to bring, in this order.
    pub uris: Vec<Uri>,
    /// Whom the sandbox, and all that is brought there, belongs to; none means the agent's own user.
    pub user: Option<User>,
}

/// What a fetcher keeps for later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheUse {
    /// Bytes that it may keep.
    pub total: u64,
    /// Bytes that it keeps.
    pub used: u64,
}

/// Brings files into sandboxes. Mirrors `src/slave/containerizer/fetcher.cpp` and the `mesos-fetcher` program.
pub trait Fetcher: Module {
    /// Brings everything, or fails with a sentence that says what could not be had and what its server said: it is
    /// the message of the task's last update. Calls for different containers overlap. There is no deadline; the call
    /// is cancelled when the container is to end, and then nothing may be left but what is in the sandbox.
    fn fetch(&self, fetch: Fetch) -> impl Future<Output = Result<()>> + Send;

    /// What is kept now. Answers at once.
    fn cache(&self) -> CacheUse {
        CacheUse::default()
    }
}

pub(crate) struct FetcherService<M>(Arc<M>);

impl<M: Fetcher> FetcherService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Arc::new(made.module))
    }
}

impl<M: Fetcher> Service for FetcherService<M> {
    fn call(&self, method: u32, request: &[u8]) -> Option<Result<Vec<u8>>> {
        if method == Method::Cache as u32 {
            let CacheUse { total, used } = self.0.cache();
            let reply = CacheReply {
                total_bytes: total,
                used_bytes: used,
            };
            let asked = decode::<CacheRequest>(request);
            return Some(asked.map(|_| reply.encode_to_vec()));
        }
        common_call(&*self.0, method)
    }

    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>> {
        let module = self.0.clone();
        if method != Method::Fetch as u32 {
            return common_start(module, method);
        }
        Some(decode::<FetchRequest>(request).map(|request| {
            let fetch = Fetch {
                container: request.container.clone(),
                sandbox: request.sandbox.into(),
                uris: request.uris,
                user: request.user,
            };
            Started::about(request.container, async move {
                module.fetch(fetch).await?;
                Ok(FetchReply {}.encode_to_vec())
            })
        }))
    }
}
