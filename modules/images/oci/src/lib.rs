//! Image store `oci`: images of the Open Container Initiative, from registries and from layouts in directories of the
//! agent's machine.
//!
//! Mesos has no type for these images: they are asked for as Docker images, by names that begin with `oci:`. What follows
//! is `//HOST[:PORT]/PATH` of a registry, or the path of a layout below the directory that the site names; then `:TAG` or
//! `@sha256:HEX`.

use std::path::{Component, Path};
use std::sync::{Arc, OnceLock};

use tepui_image_content::{
    self as content, Access, Digest, DockerConfig, Error, Image, Layout, Progress, Pulls,
    Reference, Registries, Settings, Source, Store, failure,
};
use tepui_module_sdk::prelude::*;

/// Settings of `oci`; those that `docker` has too mean the same.
#[config]
pub struct Config {
    /// The directory whose subdirectories are image layouts. Frameworks may run any image in it.
    #[serde(default)]
    layouts_dir: Option<PathBuf>,
    /// Credentials for registries: the content of Docker's `config.json`, with `auths`, `credHelpers`, `credsStore`.
    #[serde(default)]
    docker_config: Option<serde_json::Value>,
    /// Registries that are asked first in the place of others: `HOST` or `HOST:PORT` -> URL.
    #[serde(default)]
    mirrors: BTreeMap<String, String>,
    /// Registries (`HOST` or `HOST:PORT`) that may be asked without TLS; those on this machine may always.
    #[serde(default)]
    insecure_registries: Vec<String>,
    /// A file of certificates (PEM) that are trusted beside the system's.
    #[serde(default)]
    certificates: Option<PathBuf>,
    /// Most bytes that one image may unpack to.
    #[serde(default = "content::defaults::max_image_bytes")]
    max_image_bytes: u64,
    /// Most files that one image may have.
    #[serde(default = "content::defaults::max_image_files")]
    max_image_files: u64,
    /// Seconds that a registry may be silent during a pull.
    #[serde(default = "content::defaults::stall_secs")]
    docker_stall_timeout_secs: u64,
}

/// See the crate.
pub struct OciImages {
    inner: Arc<Inner>,
    pulls: Pulls,
}

struct Inner {
    config: Config,
    registries: Registries,
    store: OnceLock<Store>,
    context: Context,
}

/// What a name means.
#[derive(Debug, PartialEq)]
enum Name<'a> {
    /// Of a registry, which it names.
    Remote(Reference),
    /// The layout's path, and the tag or digest.
    Local(&'a Path, Option<&'a str>),
}

impl Module for OciImages {
    type Config = Config;
    const NAME: &'static str = "oci";
    const DESCRIPTION: &'static str = "OCI images: of registries, and layouts in directories";

    fn create(config: Config, context: Context) -> Result<Self> {
        if config
            .layouts_dir
            .as_ref()
            .is_some_and(|dir| !dir.is_absolute())
        {
            return Err(
                Failure::invalid("'layouts_dir' must be an absolute path").setting("layouts_dir")
            );
        }
        let access = Access {
            certificates: config.certificates.clone(),
            insecure: config.insecure_registries.clone(),
            stall: Duration::from_secs(config.docker_stall_timeout_secs),
        };
        let registries = Registries::new(access, config.docker_config.as_ref(), &config.mirrors)?;
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                registries,
                store: OnceLock::new(),
                context,
            }),
            pulls: Pulls::default(),
        })
    }

    async fn activate(&self) -> Result<()> {
        let settings = Settings {
            dir: self.inner.context.state_dir(),
            max_image_bytes: self.inner.config.max_image_bytes,
            max_image_files: self.inner.config.max_image_files,
        };
        self.inner.registries.open().map_err(failure)?;
        let store = blocking(move || Store::open(settings))
            .await?
            .map_err(failure)?;
        let _ = self.inner.store.set(store);
        Ok(())
    }
}

impl ImageStore for OciImages {
    async fn pull(&self, image: mesos::Image) -> Result<Pulled> {
        let docker = image.docker.as_ref();
        let docker = docker.ok_or_else(|| Failure::invalid("'image.docker' is missing"))?;
        let name = docker.name.clone();
        // A bad name is refused before anything is done.
        read(&name)?;
        let own = content::own_credentials(docker)?;
        // Who has other credentials may not have what these get.
        let of = docker.config.as_ref().map(|config| config.value.clone());
        let key = format!("{name} {of:?}");
        let (inner, of) = (self.inner.clone(), name.clone());
        let begin =
            |progress: Arc<Progress>| async move { inner.pull(&of, own.as_ref(), &progress).await };
        let (store, host) = (self.inner.store()?, self.inner.context.host());
        content::pull(store, &self.pulls, host, (name, key), &image, begin).await
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        content::prune(self.inner.store()?, &prune, |name| Some(name.to_owned())).await
    }
}

impl Inner {
    fn store(&self) -> Result<&Store> {
        let store = self.store.get();
        store.ok_or_else(|| Failure::unavailable("the store has not been opened"))
    }

    async fn pull(
        &self,
        name: &str,
        own: Option<&DockerConfig>,
        progress: &Progress,
    ) -> Result<Image, Error> {
        let store = self.store.get().expect("opened before a pull begins");
        match read(name).map_err(|failure| Error::Refused(failure.to_string()))? {
            Name::Remote(reference) => {
                info!(image = name, "pulling");
                let origin = reference.registry.as_deref().expect("checked when read");
                let into = (store, name, progress);
                self.registries.pull(into, origin, &reference, own).await
            }
            Name::Local(path, which) => {
                let dir = self.config.layouts_dir.as_ref().ok_or_else(|| {
                    Error::Missing("there are no image layouts on this agent: [modules.oci] has no 'layouts_dir'".to_owned())
                })?;
                let layout = Layout::open(dir.join(path))?;
                let source = Source::Layout(layout, which.map(str::to_owned));
                store.pull(name, &source, progress).await
            }
        }
    }
}

fn read(name: &str) -> Result<Name<'_>> {
    let bad = |why: &str| Failure::invalid(format!("'{name}' is no name of an OCI image: {why}"));
    let rest = name
        .strip_prefix("oci:")
        .ok_or_else(|| bad("it does not begin with 'oci:'"))?;
    if let Some(remote) = rest.strip_prefix("//") {
        let reference = Reference::parse(remote).map_err(failure)?;
        if reference.registry.is_none() {
            return Err(bad(
                "after 'oci://' comes HOST:PORT/, or a HOST with a '.' in it and '/'",
            ));
        }
        return Ok(Name::Remote(reference));
    }
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
        return Err(bad(
            "the path of a layout must be relative and without '..'",
        ));
    }
    Ok(Name::Local(path, which))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_registries_or_stay_below_the_directory() {
        let local = |name: &str| match read(name).unwrap() {
            Name::Local(path, which) => (path.to_owned(), which.map(str::to_owned)),
            Name::Remote(reference) => panic!("{name}: {reference:?}"),
        };
        assert_eq!(local("oci:a/b:t"), ("a/b".into(), Some("t".to_owned())));
        assert_eq!(local("oci:a"), ("a".into(), None));
        let remote = Reference::parse("r.io:5000/a/b:t").unwrap();
        assert_eq!(read("oci://r.io:5000/a/b:t").unwrap(), Name::Remote(remote));
        for name in [
            "a",
            "oci:",
            "oci:/etc",
            "oci:../x",
            "oci:a/../b",
            "oci:a@x",
            "oci://a/b",
            "oci://r.io/A",
        ] {
            assert!(read(name).is_err(), "{name}");
        }
    }
}
