//! What image stores answer, in the words of the module contract.

use std::sync::Arc;

use tepui_module_sdk::proto::common::Code;
use tepui_module_sdk::{Failure, Host, Prune, Pruned, Pulled, Result, mesos, progress};

use crate::{Error, Image, Progress, Pulls, Store};

/// Answers a pull: with what is in the store, unless the image is to be looked up anew, or with what `begin` brings.
/// Equal pulls at a time, which have one `key`, are one.
///
/// # Errors
///
/// When the image cannot be had.
pub async fn pull<F>(
    store: &Store,
    pulls: &Pulls,
    host: Host,
    (name, key): (String, String),
    image: &mesos::Image,
    begin: impl FnOnce(Arc<Progress>) -> F,
) -> Result<Pulled>
where
    F: Future<Output = crate::Result<Image>> + Send + 'static,
{
    if image.cached()
        && let Some(found) = store.find(&name)
    {
        return Ok(pulled(store, &found));
    }
    host.count("image_store_pulls", 1.0);
    // Who wants it looked up anew may not get what was found before.
    let key = format!("{key} {}", image.cached());
    let told = |at: &Progress| progress(&format!("Pulling image '{name}': {at}"));
    match pulls.join(key, begin, told).await {
        Ok(image) => Ok(Pulled {
            fresh: true,
            ..pulled(store, &image)
        }),
        Err(error) => {
            host.count("image_store_failed_pulls", 1.0);
            Err(failure(error).context(format!("Failed to pull the image '{name}'")))
        }
    }
}

fn pulled(store: &Store, image: &Image) -> Pulled {
    let layers = image.layers.iter();
    Pulled {
        id: image.id.to_string(),
        layers: layers.map(|layer| store.layer(layer)).collect(),
        config: image.config.clone().into_bytes(),
        fresh: false,
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
