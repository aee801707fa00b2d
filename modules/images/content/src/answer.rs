//! What image stores answer, in the words of the module contract.

use tepui_module_sdk::proto::common::Code;
use tepui_module_sdk::{Failure, Prune, Pruned, Pulled, Result};

use crate::{Error, Image, Store};

/// An image in a store.
pub fn pulled(store: &Store, image: &Image) -> Pulled {
    let layers = image.layers.iter();
    Pulled {
        id: image.id.to_string(),
        layers: layers.map(|layer| store.layer(layer)).collect(),
        config: image.config.clone().into_bytes(),
    }
}

/// Removes from a store what is asked for; `name` is what the store calls an image.
///
/// # Errors
///
/// When the disk fails.
pub async fn prune(
    store: &Store,
    asked: &Prune,
    name: impl Fn(&str) -> Option<String>,
) -> Result<Pruned> {
    let keep = asked.keep.iter().filter_map(|image| image.docker.as_ref());
    let keep = keep.filter_map(|docker| name(&docker.name)).collect();
    let gone = store.prune(&keep, &asked.in_use, asked.dry_run).await;
    let gone = gone.map_err(failure)?;
    Ok(Pruned {
        images: gone.images,
        layers: gone.layers,
        bytes: gone.bytes,
    })
}

/// Why an image cannot be had; those that may be had later are retryable.
pub fn failure(error: Error) -> Failure {
    let message = error.to_string();
    match error {
        Error::Refused(_) => Failure::invalid(message),
        Error::Missing(_) => Failure::not_found(message),
        Error::Unavailable(_) => Failure::unavailable(message),
        Error::Disk(_) => Failure::new(Code::Internal, message),
    }
}
