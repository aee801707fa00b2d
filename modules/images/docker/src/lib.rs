//! Image store `docker`: images of registries, and archives of `docker save`.
//!
//! Mirrors `src/slave/containerizer/mesos/provisioner/docker/`. A panic of a pull would leave its key among those under
//! way, so the work is a task of its own whose end is seen in any case.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use tepui_image_content::{
    self as content, Access, DockerConfig, Error, Image, Pulls, Reference, Registry, Settings,
    Source, Store, failure, pulled,
};
use tepui_module_sdk::mesos::{image, secret};
use tepui_module_sdk::prelude::*;

/// Settings of `docker`; those that are flags of Mesos have their names.
#[config]
pub struct Config {
    /// Where images without a registry in their name come from: the URL of a registry, or a directory with archives
    /// `NAME:TAG.tar` as `docker save` writes them.
    #[serde(default = "docker_hub")]
    docker_registry: String,
    /// Where pulled images are kept. Without it in the module's own directory below the work directory.
    #[serde(default)]
    docker_store_dir: Option<PathBuf>,
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
    #[serde(default = "max_bytes")]
    max_image_bytes: u64,
    /// Most files that one image may have.
    #[serde(default = "max_files")]
    max_image_files: u64,
    /// Seconds that a registry may be silent during a pull.
    #[serde(default = "stall")]
    docker_stall_timeout_secs: u64,
}

fn docker_hub() -> String {
    "https://registry-1.docker.io".to_owned()
}
fn max_bytes() -> u64 {
    64 << 30
}
fn max_files() -> u64 {
    4_000_000
}
fn stall() -> u64 {
    60
}

/// See the crate.
pub struct DockerImages {
    inner: Arc<Inner>,
    pulls: Pulls,
}

struct Inner {
    config: Config,
    credentials: DockerConfig,
    access: Access,
    dir: PathBuf,
    opened: OnceLock<(Store, reqwest::Client)>,
    context: Context,
}

impl Module for DockerImages {
    type Config = Config;
    const NAME: &'static str = "docker";
    const DESCRIPTION: &'static str = "Docker images: of registries and of docker save";

    fn create(config: Config, context: Context) -> Result<Self> {
        let credentials = match &config.docker_config {
            Some(text) => DockerConfig::read(text.to_string().as_bytes(), true)
                .map_err(|error| Failure::invalid(error.to_string()).setting("docker_config"))?,
            None => DockerConfig::default(),
        };
        let urls = config.mirrors.values().map(|url| ("mirrors", url));
        let default = Some(("docker_registry", &config.docker_registry));
        for (setting, url) in urls.chain(default.filter(|(_, url)| !url.starts_with('/'))) {
            match url::Url::parse(url) {
                Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => {}
                _ => {
                    return Err(Failure::invalid(format!(
                        "'{url}' is no URL of a registry: http:// or https://, HOST and :PORT (or, for \
                         'docker_registry', an absolute path of a directory)"
                    ))
                    .setting(setting));
                }
            }
        }
        let access = Access {
            certificates: config.certificates.clone(),
            insecure: config.insecure_registries.clone(),
            stall: Duration::from_secs(config.docker_stall_timeout_secs),
        };
        let own = context.state_dir();
        let dir = config.docker_store_dir.clone().unwrap_or(own);
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                credentials,
                access,
                dir,
                opened: OnceLock::new(),
                context,
            }),
            pulls: Pulls::default(),
        })
    }

    async fn activate(&self) -> Result<()> {
        let settings = Settings {
            dir: self.inner.dir.clone(),
            max_image_bytes: self.inner.config.max_image_bytes,
            max_image_files: self.inner.config.max_image_files,
        };
        let client = self.inner.access.client().map_err(failure)?;
        let store = blocking(move || Store::open(settings))
            .await?
            .map_err(failure)?;
        let _ = self.inner.opened.set((store, client));
        Ok(())
    }

    fn report(&self) -> Report {
        let mut report = Report::default();
        if let Some((store, _)) = self.inner.opened.get() {
            let facts = [
                (
                    "downloaded_bytes",
                    store.counters.downloaded.load(Ordering::Relaxed),
                ),
                (
                    "unpacked_layers",
                    store.counters.layers.load(Ordering::Relaxed),
                ),
            ];
            report.facts = facts
                .map(|(name, value)| (name.to_owned(), value.to_string()))
                .into();
        }
        report
    }
}

impl ImageStore for DockerImages {
    async fn pull(&self, image: mesos::Image) -> Result<Pulled> {
        let docker = image
            .docker
            .as_ref()
            .filter(|_| image.r#type() == image::Type::Docker)
            .ok_or_else(|| Failure::invalid("'image' must be of type DOCKER and have 'docker'"))?;
        let reference = Reference::parse(&docker.name).map_err(failure)?;
        let name = reference.to_string();
        let (store, _) = self.inner.opened()?;
        if image.cached()
            && let Some(found) = store.find(&name)
        {
            return Ok(pulled(store, &found));
        }
        let own = own_credentials(docker)?;
        let (inner, credentials) = (self.inner.clone(), own.clone());
        let pull = async move { inner.pull(&reference, credentials).await };
        // Who has other credentials may not have what these get, and who wants no cached one no older one.
        let of = docker.config.as_ref().map(|config| config.value.clone());
        let key = format!("{name} {} {of:?}", image.cached());
        self.inner.count("image_store_pulls");
        let image = self.pulls.join(key, pull).await;
        let image = image.map_err(|error| {
            self.inner.count("image_store_failed_pulls");
            failure(error).context(format!("Failed to pull the image '{name}'"))
        })?;
        Ok(pulled(store, &image))
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        let (store, _) = self.inner.opened()?;
        let name = |name: &str| Reference::parse(name).ok().map(|name| name.to_string());
        content::prune(store, &prune, name).await
    }
}

/// Credentials that came with the image.
fn own_credentials(docker: &image::Docker) -> Result<Option<DockerConfig>> {
    let Some(config) = &docker.config else {
        return Ok(None);
    };
    if config.r#type() != secret::Type::Value {
        return Err(Failure::invalid(
            "'image.docker.config' is a reference, and there is no secret resolver to look it up: give the secret of \
             type VALUE",
        ));
    }
    let value = config.value.clone().unwrap_or_default();
    let read = DockerConfig::read(&value.data, false);
    read.map(Some)
        .map_err(|error| failure(error).context("'image.docker.config' cannot be used"))
}

impl Inner {
    fn opened(&self) -> Result<&(Store, reqwest::Client)> {
        let opened = self.opened.get();
        opened.ok_or_else(|| Failure::unavailable("the store has not been opened"))
    }

    fn count(&self, metric: &str) {
        self.context.host().count(metric, 1.0);
    }

    async fn pull(&self, reference: &Reference, own: Option<DockerConfig>) -> Result<Image, Error> {
        let name = reference.to_string();
        let (store, _) = self.opened.get().expect("opened before a pull begins");
        if reference.registry.is_none() && self.config.docker_registry.starts_with('/') {
            let source = self.archive(reference)?;
            return store.pull(&name, &source).await;
        }
        info!(image = name, "pulling");
        let mut failed = None;
        for host in self.hosts(reference) {
            match self.pull_from(&host, reference, own.as_ref()).await {
                Ok(image) => return Ok(image),
                // What one registry says that is wrong with an image, the next is not asked to bend.
                Err(error @ (Error::Refused(_) | Error::Disk(_))) => return Err(error),
                Err(error) => {
                    warn!(image = name, registry = host, %error, "not pulled");
                    failed = Some(error);
                }
            }
        }
        Err(failed.expect("there is a registry for every name"))
    }

    /// `docker save` archives are named by image and tag, or by the name as it was given.
    fn archive(&self, reference: &Reference) -> Result<Source, Error> {
        let dir = PathBuf::from(&self.config.docker_registry);
        let tag = reference.tag.as_deref().unwrap_or("latest");
        let name = format!("{}:{tag}", reference.repository);
        let names = [
            format!("{name}.tar"),
            format!("{}.tar", reference.repository),
        ];
        let found = names
            .iter()
            .map(|file| dir.join(file))
            .find(|path| path.is_file());
        let path = found.ok_or_else(|| {
            Error::Missing(format!(
                "there is neither '{}' nor '{}' in '{}'",
                names[0],
                names[1],
                dir.display()
            ))
        })?;
        Ok(Source::Archive(path, name))
    }

    /// Registries to ask, a mirror first, as `HOST:PORT` or URLs.
    fn hosts(&self, reference: &Reference) -> Vec<String> {
        let default = &self.config.docker_registry;
        let origin = reference.registry.as_ref().unwrap_or(default);
        let host = origin
            .split("://")
            .last()
            .unwrap_or(origin)
            .trim_end_matches('/');
        let mirror = self.config.mirrors.get(host).cloned();
        mirror.into_iter().chain([origin.clone()]).collect()
    }

    async fn pull_from(
        &self,
        at: &str,
        reference: &Reference,
        own: Option<&DockerConfig>,
    ) -> Result<Image, Error> {
        let (store, client) = self.opened.get().expect("opened before a pull begins");
        let base = match at.contains("://") {
            true => {
                let with_slash = format!("{}/", at.trim_end_matches('/'));
                url::Url::parse(&with_slash)
                    .map_err(|error| Error::Refused(format!("'{at}': {error}")))?
            }
            false => self.access.base(client, at).await?,
        };
        let host = &base[url::Position::BeforeHost..url::Position::AfterPort];
        let is_hub = host.ends_with("docker.io");
        let repository = match reference.repository.contains('/') || !is_hub {
            true => reference.repository.clone(),
            false => format!("library/{}", reference.repository),
        };
        let mut credential = None;
        // Those of the image come before those of the agent.
        for config in own.into_iter().chain([&self.credentials]) {
            if credential.is_none() {
                credential = config.find(host).await?;
            }
        }
        let which = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        let registry = Registry::new(client.clone(), base.clone(), repository, credential);
        store
            .pull(
                &reference.to_string(),
                &Source::Registry(Box::new(registry), which),
            )
            .await
    }
}
