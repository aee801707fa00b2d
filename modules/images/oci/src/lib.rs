//! Image store `oci`: image layouts of the Open Container Initiative in directories of the agent's machine.
//!
//! Mesos has no type for these images: they are asked for as Docker images with a name `oci:NAME[:TAG]` or
//! `oci:NAME@sha256:HEX`, where NAME is the path of a layout below the directory that the site names.

use std::path::{Component, Path};
use std::sync::OnceLock;

use tepui_image_content::{
    self as content, Digest, Layout, Pulls, Settings, Source, Store, failure, pulled,
};
use tepui_module_sdk::prelude::*;

/// Settings of `oci`.
#[config]
pub struct Config {
    /// The directory whose subdirectories are image layouts. Frameworks may run any image in it.
    layouts_dir: PathBuf,
    /// Most bytes that one image may unpack to.
    #[serde(default = "max_bytes")]
    max_image_bytes: u64,
    /// Most files that one image may have.
    #[serde(default = "max_files")]
    max_image_files: u64,
}

fn max_bytes() -> u64 {
    64 << 30
}
fn max_files() -> u64 {
    4_000_000
}

/// See the crate.
pub struct OciImages {
    config: Config,
    dir: PathBuf,
    store: std::sync::Arc<OnceLock<Store>>,
    pulls: Pulls,
}

impl Module for OciImages {
    type Config = Config;
    const NAME: &'static str = "oci";
    const DESCRIPTION: &'static str = "OCI images: layouts in directories";

    fn create(config: Config, context: Context) -> Result<Self> {
        if !config.layouts_dir.is_absolute() {
            return Err(
                Failure::invalid("'layouts_dir' must be an absolute path").setting("layouts_dir")
            );
        }
        Ok(Self {
            config,
            dir: context.state_dir(),
            store: std::sync::Arc::default(),
            pulls: Pulls::default(),
        })
    }

    async fn activate(&self) -> Result<()> {
        let settings = Settings {
            dir: self.dir.clone(),
            max_image_bytes: self.config.max_image_bytes,
            max_image_files: self.config.max_image_files,
        };
        let store = blocking(move || Store::open(settings))
            .await?
            .map_err(failure)?;
        let _ = self.store.set(store);
        Ok(())
    }
}

impl ImageStore for OciImages {
    async fn pull(&self, image: mesos::Image) -> Result<Pulled> {
        let docker = image.docker.clone();
        let docker = docker.ok_or_else(|| Failure::invalid("'image.docker' is missing"))?;
        let name = docker.name;
        let (layout, which) = split(&name)?;
        let store = self
            .store
            .get()
            .ok_or_else(|| Failure::unavailable("the store has not been opened"))?;
        if image.cached()
            && let Some(found) = store.find(&name)
        {
            return Ok(pulled(store, &found));
        }
        let layout = Layout::open(self.config.layouts_dir.join(layout)).map_err(failure)?;
        let source = Source::Layout(layout, which.map(str::to_owned));
        let (opened, of) = (self.store.clone(), name.clone());
        let pull = async move {
            let store = opened.get().expect("opened before a pull begins");
            store.pull(&of, &source).await
        };
        let found = self
            .pulls
            .join(format!("{name} {}", image.cached()), pull)
            .await;
        let found = found.map_err(|error| {
            failure(error).context(format!("Failed to pull the image '{name}'"))
        })?;
        Ok(pulled(store, &found))
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        let store = self
            .store
            .get()
            .ok_or_else(|| Failure::unavailable("the store has not been opened"))?;
        content::prune(store, &prune, |name| Some(name.to_owned())).await
    }
}

/// The layout's path and the tag or digest.
fn split(name: &str) -> Result<(&Path, Option<&str>)> {
    let bad =
        |why: &str| Failure::invalid(format!("'{name}' is no name of an image layout: {why}"));
    let rest = name
        .strip_prefix("oci:")
        .ok_or_else(|| bad("it does not begin with 'oci:'"))?;
    let (path, which) = match rest.split_once('@').or_else(|| rest.split_once(':')) {
        Some((path, which)) => (path, Some(which)),
        None => (rest, None),
    };
    if rest.contains('@') && which.is_some_and(|which| Digest::parse(which).is_err()) {
        return Err(bad("what follows '@' is no digest sha256:HEX"));
    }
    let path = Path::new(path);
    let is_plain = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if path.as_os_str().is_empty() || !is_plain {
        return Err(bad("the path must be relative and without '..'"));
    }
    Ok((path, which))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_directory() {
        assert_eq!(split("oci:a/b:t").unwrap(), (Path::new("a/b"), Some("t")));
        assert_eq!(split("oci:a").unwrap(), (Path::new("a"), None));
        for name in ["a", "oci:", "oci:/etc", "oci:../x", "oci:a/../b", "oci:a@x"] {
            assert!(split(name).is_err(), "{name}");
        }
    }
}
