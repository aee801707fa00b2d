//! Image store `appc`: App Container images, found by simple discovery.
//!
//! Mirrors `src/slave/containerizer/mesos/provisioner/appc/`. An image is an archive with a manifest and a root file system;
//! those that it depends on lie below its own. Nothing is asked for by meta discovery, and signatures are not checked,
//! as in Mesos.

mod aci;
mod names;

use std::sync::{Arc, OnceLock};

use tepui_image_content::{
    self as content, Access, Download, Image, Progress, Pulls, Settings, Store, failure,
};
use tepui_module_sdk::mesos::image;
use tepui_module_sdk::prelude::*;

use names::Wanted;

/// Settings of `appc`; those that are flags of Mesos have their names.
#[config]
pub struct Config {
    /// What stands before the name of an image's archive: `http://`, `https://HOST/DIR/`, or `/DIR/` of this
    /// machine.
    #[serde(default = "http")]
    appc_simple_discovery_uri_prefix: String,
    /// Where pulled images are kept. Without it in the module's own directory below the work directory.
    #[serde(default)]
    appc_store_dir: Option<PathBuf>,
    /// A file of certificates (PEM) that are trusted beside the system's.
    #[serde(default)]
    certificates: Option<PathBuf>,
    /// Most bytes that one image may have, packed or unpacked.
    #[serde(default = "content::defaults::max_image_bytes")]
    max_image_bytes: u64,
    /// Most files that one image may have.
    #[serde(default = "content::defaults::max_image_files")]
    max_image_files: u64,
    /// Seconds that a server may be silent during a pull.
    #[serde(default = "content::defaults::stall_secs")]
    stall_timeout_secs: u64,
}

fn http() -> String {
    "http://".to_owned()
}

/// See the crate.
pub struct AppcImages {
    inner: Arc<Inner>,
    pulls: Pulls,
}

struct Inner {
    config: Config,
    dir: PathBuf,
    opened: OnceLock<(Store, Download)>,
    context: Context,
}

impl Module for AppcImages {
    type Config = Config;
    const NAME: &'static str = "appc";
    const DESCRIPTION: &'static str = "App Container images, by simple discovery";

    fn create(config: Config, context: Context) -> Result<Self> {
        let prefix = &config.appc_simple_discovery_uri_prefix;
        let known = ["http://", "https://", "/"];
        if !known.iter().any(|scheme| prefix.starts_with(scheme)) {
            return Err(Failure::invalid(format!(
                "'{prefix}' begins with none of http://, https:// and the / of a path"
            ))
            .setting("appc_simple_discovery_uri_prefix"));
        }
        let own = context.state_dir();
        let dir = config.appc_store_dir.clone().unwrap_or(own);
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                dir,
                opened: OnceLock::new(),
                context,
            }),
            pulls: Pulls::default(),
        })
    }

    async fn activate(&self) -> Result<()> {
        let config = &self.inner.config;
        let settings = Settings {
            dir: self.inner.dir.clone(),
            max_image_bytes: config.max_image_bytes,
            max_image_files: config.max_image_files,
        };
        let access = Access {
            certificates: config.certificates.clone(),
            insecure: Vec::new(),
            stall: Duration::from_secs(config.stall_timeout_secs),
        };
        let download = Download::new(&access, config.max_image_bytes).map_err(failure)?;
        let store = blocking(move || Store::open(settings))
            .await?
            .map_err(failure)?;
        let _ = self.inner.opened.set((store, download));
        Ok(())
    }
}

impl ImageStore for AppcImages {
    async fn pull(&self, image: mesos::Image) -> Result<Pulled> {
        let appc = image
            .appc
            .as_ref()
            .filter(|_| image.r#type() == image::Type::Appc)
            .ok_or_else(|| Failure::invalid("'image' must be of type APPC and have 'appc'"))?;
        let wanted = Wanted::of(appc).map_err(failure)?;
        let name = wanted.to_string();
        let inner = self.inner.clone();
        let begin = |progress: Arc<Progress>| async move { inner.pull(&wanted, &progress).await };
        let (store, host) = (&self.inner.opened()?.0, self.inner.context.host());
        let key = (name.clone(), name);
        let mut pulled = content::pull(store, &self.pulls, host, key, &image, begin).await?;
        for layer in &mut pulled.layers {
            layer.push(aci::ROOTFS);
        }
        Ok(pulled)
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        let store = &self.inner.opened()?.0;
        let appc = prune.keep.iter().filter_map(|image| image.appc.as_ref());
        let keep = appc.filter_map(|appc| Some(Wanted::of(appc).ok()?.to_string()));
        let keep = keep.collect();
        // What containers use is the root file system in an image's directory.
        let in_use = prune.in_use.iter().filter_map(|root| root.parent());
        let in_use: Vec<PathBuf> = in_use.map(PathBuf::from).collect();
        let gone = store.prune(&keep, &in_use, prune.dry_run).await;
        let gone = gone.map_err(failure)?;
        Ok(Pruned {
            images: gone.images,
            layers: gone.layers,
            bytes: gone.bytes,
        })
    }
}

impl Inner {
    fn opened(&self) -> Result<&(Store, Download)> {
        let opened = self.opened.get();
        opened.ok_or_else(|| Failure::unavailable("the store has not been opened"))
    }

    async fn pull(&self, wanted: &Wanted, progress: &Progress) -> content::Result<Image> {
        let (store, download) = self.opened.get().expect("opened before a pull begins");
        let name = wanted.to_string();
        info!(image = name, "pulling");
        let prefix = &self.config.appc_simple_discovery_uri_prefix;
        aci::pull(store, download, prefix, wanted, progress).await
    }
}
