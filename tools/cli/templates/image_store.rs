//! Image store `acme/module`: directories of this machine as images, by names `acme/module:NAME`.
use std::path::{Component, Path};

use tepui_module_sdk::prelude::*;

/// Settings, as the configuration file has them in `[modules."acme/module"]`.
#[config]
pub struct Config {
    /// The directory whose subdirectories are root file systems.
    dir: PathBuf,
}

/// The module.
pub struct AcmeModule(Config);

impl Module for AcmeModule {
    type Config = Config;
    const NAME: &'static str = "acme/module";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl ImageStore for AcmeModule {
    async fn pull(&self, image: mesos::Image) -> Result<Pulled> {
        let name = image.docker.map(|docker| docker.name).unwrap_or_default();
        let path = name
            .strip_prefix(Self::NAME)
            .and_then(|rest| rest.strip_prefix(':'));
        let plain = |path: &&str| {
            let mut parts = Path::new(path).components();
            matches!(
                (parts.next(), parts.next()),
                (Some(Component::Normal(_)), None)
            )
        };
        let path = path.filter(plain).ok_or_else(|| {
            Failure::invalid(format!(
                "'{name}' is no name of an image: {}:NAME",
                Self::NAME
            ))
        })?;
        // Here an image would be fetched; `progress` tells how far that is.
        let layer = self.0.dir.join(path);
        if !layer.is_dir() {
            return Err(Failure::not_found(format!(
                "there is no directory '{}'",
                layer.display()
            )));
        }
        Ok(Pulled {
            id: path.to_owned(),
            layers: vec![layer],
            config: br#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec(),
            fresh: false,
        })
    }

    async fn prune(&self, _: Prune) -> Result<Pruned> {
        // They belong to the site, which removes them itself.
        Ok(Pruned::default())
    }
}
