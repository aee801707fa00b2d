//! Image store `docker`: images of registries, and archives of `docker save`.
//!
//! Mirrors `src/slave/containerizer/mesos/provisioner/docker/`. A panic of a pull would leave its key among those under
//! way, so the work is a task of its own whose end is seen in any case.

use std::sync::{Arc, OnceLock, atomic::Ordering};

use tepui_image_content::{
    self as content, Access, DockerConfig, Error, Fetched, Image, Program, Progress, Pulls,
    Reference, Registries, Settings, Source, Store, failure,
};
use tepui_module_sdk::mesos::image;
use tepui_module_sdk::prelude::*;

/// Settings of `docker`; those that are flags of Mesos have their names.
#[config]
pub struct Config {
    /// Where images without a registry in their name come from: the URL of a registry, or a directory with archives
    /// `NAME:TAG.tar` as `docker save` writes them, of this machine or of HDFS (`hdfs://HOST:PORT/DIR`).
    #[serde(default = "docker_hub")]
    docker_registry: String,
    /// Hadoop's directory, whose `bin/hadoop` copies archives from HDFS. By default the one that HADOOP_HOME names, else
    /// the `hadoop` of the PATH.
    #[serde(default)]
    hadoop_home: Option<PathBuf>,
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
    #[serde(default = "content::defaults::max_image_bytes")]
    max_image_bytes: u64,
    /// Most files that one image may have.
    #[serde(default = "content::defaults::max_image_files")]
    max_image_files: u64,
    /// Seconds that a registry may be silent during a pull.
    #[serde(default = "content::defaults::stall_secs")]
    docker_stall_timeout_secs: u64,
}

fn docker_hub() -> String {
    "https://registry-1.docker.io".to_owned()
}

/// See the crate.
pub struct DockerImages {
    inner: Arc<Inner>,
    pulls: Pulls,
}

struct Inner {
    config: Config,
    registries: Registries,
    dir: PathBuf,
    store: OnceLock<Store>,
    context: Context,
}

impl Module for DockerImages {
    type Config = Config;
    const NAME: &'static str = "docker";
    const DESCRIPTION: &'static str = "Docker images: of registries and of docker save";

    fn create(config: Config, context: Context) -> Result<Self> {
        if !config.docker_registry.starts_with('/') && !is_hdfs(&config.docker_registry) {
            let or = "; or a directory with archives of docker save: an absolute path or hdfs://";
            content::is_url(&config.docker_registry, or)
                .map_err(|failure| failure.setting("docker_registry"))?;
        }
        let access = Access {
            certificates: config.certificates.clone(),
            insecure: config.insecure_registries.clone(),
            stall: Duration::from_secs(config.docker_stall_timeout_secs),
        };
        let docker_config = config.docker_config.as_ref();
        let registries = Registries::new(access, docker_config, &config.mirrors)?;
        let own = context.state_dir();
        let dir = config.docker_store_dir.clone().unwrap_or(own);
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                registries,
                dir,
                store: OnceLock::new(),
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
        self.inner.registries.open().map_err(failure)?;
        let store = blocking(move || Store::open(settings))
            .await?
            .map_err(failure)?;
        let _ = self.inner.store.set(store);
        Ok(())
    }

    fn report(&self) -> Report {
        let mut report = Report::default();
        if let Some(store) = self.inner.store.get() {
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
        let own = content::own_credentials(docker)?;
        // Who has other credentials may not have what these get.
        let of = docker.config.as_ref().map(|config| config.value.clone());
        let key = format!("{name} {of:?}");
        let inner = self.inner.clone();
        let begin = |progress: Arc<Progress>| async move {
            inner.pull(&reference, own.as_ref(), &progress).await
        };
        let (store, host) = (self.inner.store()?, self.inner.context.host());
        content::pull(store, &self.pulls, host, (name, key), &image, begin).await
    }

    async fn prune(&self, prune: Prune) -> Result<Pruned> {
        let store = self.inner.store()?;
        let name = |name: &str| Reference::parse(name).ok().map(|name| name.to_string());
        content::prune(store, &prune, name).await
    }
}

impl Inner {
    fn store(&self) -> Result<&Store> {
        let store = self.store.get();
        store.ok_or_else(|| Failure::unavailable("the store has not been opened"))
    }

    async fn pull(
        &self,
        reference: &Reference,
        own: Option<&DockerConfig>,
        progress: &Progress,
    ) -> Result<Image, Error> {
        let name = reference.to_string();
        let store = self.store.get().expect("opened before a pull begins");
        let default = &self.config.docker_registry;
        info!(image = name, "pulling");
        let is_archive = default.starts_with('/') || is_hdfs(default);
        if let (None, true, Some(digest)) = (&reference.registry, is_archive, &reference.digest) {
            return Err(Error::Refused(format!(
                "{digest} is asked for, and what 'docker save' writes has no manifest to compare it with: ask by a tag, or \
                 name the registry"
            )));
        }
        if reference.registry.is_none() && default.starts_with('/') {
            let source = self.archive(reference)?;
            return store.pull(&name, &source, progress).await;
        }
        if reference.registry.is_none() && is_hdfs(default) {
            let source = self.archive_of_hdfs(reference);
            return store.pull(&name, &source, progress).await;
        }
        let origin = reference.registry.as_ref().unwrap_or(default);
        let into = (store, name.as_str(), progress);
        self.registries.pull(into, origin, reference, own).await
    }

    /// `docker save` archives are named by image and tag, or by the name as it was given.
    fn archive(&self, reference: &Reference) -> Result<Source, Error> {
        let dir = PathBuf::from(&self.config.docker_registry);
        let name = name_in_archive(reference);
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

    /// As in Mesos the archive has the name that the image is asked by: without a tag (there are no colons in names of
    /// HDFS), unless it is asked for by one.
    fn archive_of_hdfs(&self, reference: &Reference) -> Source {
        let dir = self.config.docker_registry.trim_end_matches('/');
        let name = name_in_archive(reference);
        let tagged = format!("{dir}/{name}.tar");
        let uris = match reference.tag.as_deref() {
            None | Some("latest") => vec![format!("{dir}/{}.tar", reference.repository), tagged],
            Some(_) => vec![tagged],
        };
        let hadoop = Program::hadoop(self.config.hadoop_home.as_deref());
        Source::Fetched(Fetched::new(hadoop, uris, name))
    }
}

/// What `docker save` calls an image.
fn name_in_archive(reference: &Reference) -> String {
    let tag = reference.tag.as_deref().unwrap_or("latest");
    format!("{}:{tag}", reference.repository)
}

fn is_hdfs(registry: &str) -> bool {
    let path = registry.strip_prefix("hdfs://");
    path.is_some_and(|path| path.contains('/'))
}
