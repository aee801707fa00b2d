//! Suite of kind `image-store`.

use std::path::Path;

use anyhow::{Result, ensure};
use prost::Message as _;
use tepui_host::kinds::image_store::ImageStoreClient;
use tepui_module_proto::image_store::{Method, PruneRequest, PullReply};
use tepui_module_proto::kind;
use tepui_proto::v1::Image;

use crate::Subject;
use crate::common::{block_on, common};

/// Checks that requests which name no image are refused; and with an image that the store can pull that the layers are
/// directories, equal pulls have equal answers, what is to be kept or in use stays, what is only asked about stays, and
/// the rest goes.
pub fn image_store(subject: &Subject, image: Option<&Image>) -> Result<()> {
    block_on(async {
        let instance = subject.load(kind::IMAGE_STORE)?;
        let started = [Method::Pull as u32, Method::Prune as u32];
        common(&instance, &started, &[]).await?;
        let client = ImageStoreClient::new(instance);
        for bad in [
            Vec::new(),
            Image::default().encode_to_vec(),
            b"\xff\xff".to_vec(),
        ] {
            ensure!(
                client.pull(bad.clone(), None).await.is_err(),
                "{bad:?} was pulled"
            );
        }
        client.prune(PruneRequest::default()).await?;
        let Some(image) = image.map(Image::encode_to_vec) else {
            return Ok(());
        };
        let first = client.pull(image.clone(), None).await?;
        ensure!(!first.layers.is_empty(), "an image without layers");
        for layer in &first.layers {
            let path = Path::new(layer);
            ensure!(
                path.is_absolute() && path.is_dir(),
                "{layer:?} is no directory by absolute path"
            );
        }
        let config: serde_json::Value = serde_json::from_slice(&first.config)?;
        ensure!(
            config["rootfs"].is_object(),
            "the configuration is that of no image: {config}"
        );
        let same = |reply: &PullReply| {
            (&reply.id, &reply.layers, &reply.config) == (&first.id, &first.layers, &first.config)
        };
        let (again, beside) = tokio::join!(
            client.pull(image.clone(), None),
            client.pull(image.clone(), None)
        );
        ensure!(
            same(&again?) && same(&beside?),
            "another answer for the same image"
        );

        let all_there = || first.layers.iter().all(|layer| Path::new(layer).is_dir());
        for stays in [
            PruneRequest {
                dry_run: true,
                ..PruneRequest::default()
            },
            PruneRequest {
                keep: vec![image.clone()],
                ..PruneRequest::default()
            },
            PruneRequest {
                in_use: first.layers.clone(),
                ..PruneRequest::default()
            },
        ] {
            let shown = format!("{stays:?}");
            let is_dry = stays.dry_run;
            let pruned = client.prune(stays).await?;
            ensure!(all_there(), "{shown} removed layers");
            ensure!(
                !is_dry || pruned.layers.len() == first.layers.len(),
                "a dry run tells {pruned:?}"
            );
        }
        client.prune(PruneRequest::default()).await?;
        ensure!(!all_there(), "nothing was removed");
        client.prune(PruneRequest::default()).await?;
        let last = client.pull(image, None).await?;
        ensure!(last.id == first.id, "pulled again it is another image");
        Ok(())
    })
}
