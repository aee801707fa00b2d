//! Kind `image-store`: where container images come from.

use std::path::PathBuf;
use std::sync::Arc;

use prost::Message;
use tepui_module_proto::image_store::{Method, PruneReply, PruneRequest, PullReply, PullRequest};

use super::{common_start, decode};
use crate::export::Made;
use crate::instance::{Service, Started};
use crate::mesos::Image;
use crate::{Module, Result};

/// An image whose layers are on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Names the content: images of one id are the same.
    pub id: String,
    /// Directories of the unpacked layers, lowest first, by absolute path. What a layer takes away of those below it
    /// is marked as overlayfs does: a character device 0:0 for a name, the attribute `trusted.overlay.opaque` for all
    /// of a directory.
    pub layers: Vec<PathBuf>,
    /// The image's configuration: JSON as in the image specification of the OCI.
    pub config: Vec<u8>,
    /// It was fetched or looked up for this call, which is what the time of pulls is measured by.
    pub fresh: bool,
}

/// What is to be removed, and what is not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prune {
    /// These images stay.
    pub keep: Vec<Image>,
    /// These directories of layers stay: containers use them.
    pub in_use: Vec<PathBuf>,
    /// Only say what would go.
    pub dry_run: bool,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names of images.
    pub images: Vec<String>,
    /// Directories of layers.
    pub layers: Vec<PathBuf>,
    /// Bytes that these took of the disk.
    pub bytes: u64,
}

/// Pulls container images. Mirrors `mesos::internal::slave::Store`.
///
/// All methods may run beside each other. What it has pulled belongs below
/// [`Context::state_dir`](crate::Context::state_dir) or where its settings say, and what an interrupted pull has left is
/// removed in `activate`.
pub trait ImageStore: Module {
    /// Makes the layers of an image ready; an image that is there is not looked up again unless its `cached` is false.
    /// Called for each container, so equal calls at a time should be one pull. The layers are only read, and stay until
    /// [`Self::prune`]. An error fails the launch; one about the registry should be retryable.
    fn pull(&self, image: Image) -> impl Future<Output = Result<Pulled>> + Send;

    /// Removes images that nobody needs, and layers that are of no other image.
    fn prune(&self, prune: Prune) -> impl Future<Output = Result<Pruned>> + Send;
}

pub(crate) struct ImageStoreService<M>(Arc<M>);

impl<M: ImageStore> ImageStoreService<M> {
    pub(crate) fn new(made: Made<M>) -> Self {
        Self(Arc::new(made.module))
    }
}

impl<M: ImageStore> Service for ImageStoreService<M> {
    fn call(&self, method: u32, _: &[u8]) -> Option<Result<Vec<u8>>> {
        super::common_call(&*self.0, method)
    }

    fn start(self: Arc<Self>, method: u32, request: &[u8]) -> Option<Result<Started>> {
        let module = self.0.clone();
        if method == Method::Pull as u32 {
            let request =
                decode::<PullRequest>(request).and_then(|pull| decode::<Image>(&pull.image));
            return Some(request.map(|image| {
                Started::new(async move {
                    let pulled = module.pull(image).await?;
                    Ok(PullReply {
                        id: pulled.id,
                        layers: texts(pulled.layers),
                        config: pulled.config,
                        fresh: pulled.fresh,
                    }
                    .encode_to_vec())
                })
            }));
        }
        if method == Method::Prune as u32 {
            let request = decode::<PruneRequest>(request).and_then(|prune| {
                let keep = prune.keep.iter().map(|image| decode(image));
                Ok(Prune {
                    keep: keep.collect::<Result<_>>()?,
                    in_use: prune.in_use.into_iter().map(PathBuf::from).collect(),
                    dry_run: prune.dry_run,
                })
            });
            return Some(request.map(|prune| {
                Started::new(async move {
                    let pruned = module.prune(prune).await?;
                    Ok(PruneReply {
                        images: pruned.images,
                        layers: texts(pruned.layers),
                        bytes: pruned.bytes,
                    }
                    .encode_to_vec())
                })
            }));
        }
        common_start(module, method)
    }
}

fn texts(paths: Vec<PathBuf>) -> Vec<String> {
    let paths = paths.into_iter();
    paths
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}
