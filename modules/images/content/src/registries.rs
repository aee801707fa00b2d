//! The registries of a site: which ones are asked for an image, in which order, and as whom.

use std::{collections::BTreeMap, sync::OnceLock};

use reqwest::Client;
use tepui_module_sdk::mesos::{image, secret};
use tepui_module_sdk::{Failure, tracing::warn};
use url::{Position, Url};

use crate::answer::failure;
use crate::credentials::DockerConfig;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::{Access, DOCKER_HUB, Registry, canonical};
use crate::store::{Image, Source, Store};

/// How all registries are reached. Settings that are wrong are refused by [`Self::new`].
pub struct Registries {
    access: Access,
    /// What the site gives for everybody.
    credentials: DockerConfig,
    /// Host -> URL that is asked in its place first.
    mirrors: BTreeMap<String, String>,
    client: OnceLock<Client>,
}

impl Registries {
    /// Takes the settings `docker_config` (the content of Docker's `config.json`) and `mirrors`.
    ///
    /// # Errors
    ///
    /// When one of them cannot be used; it is named.
    pub fn new(
        access: Access,
        docker_config: Option<&serde_json::Value>,
        mirrors: &BTreeMap<String, String>,
    ) -> tepui_module_sdk::Result<Self> {
        let credentials = match docker_config {
            Some(text) => DockerConfig::read(text.to_string().as_bytes(), true)
                .map_err(|error| Failure::invalid(error.to_string()).setting("docker_config"))?,
            None => DockerConfig::default(),
        };
        for url in mirrors.values() {
            is_url(url, "").map_err(|failure| failure.setting("mirrors"))?;
        }
        let mirrors = mirrors.iter();
        Ok(Self {
            access,
            credentials,
            mirrors: mirrors
                .map(|(host, url)| (canonical(host).to_owned(), url.clone()))
                .collect(),
            client: OnceLock::new(),
        })
    }

    /// Makes ready to ask.
    ///
    /// # Errors
    ///
    /// When the certificates cannot be read.
    pub fn open(&self) -> Result<()> {
        let client = self.access.client()?;
        let _ = self.client.set(client);
        Ok(())
    }

    /// Pulls an image into a store: from the mirror of its registry, then from the registry itself. `origin` is the
    /// registry, as `HOST[:PORT]` or URL; credentials of the image's `own` come before those of the site.
    ///
    /// # Errors
    ///
    /// When none of them has it; the words of each.
    pub async fn pull(
        &self,
        (store, name, progress): (&Store, &str, &Progress),
        origin: &str,
        reference: &Reference,
        own: Option<&DockerConfig>,
    ) -> Result<Image> {
        let host = canonical(
            origin
                .split_once("://")
                .map_or(origin, |(_, host)| host)
                .trim_end_matches('/'),
        );
        // Docker Hub has the images of one word below this, and so have its mirrors.
        let repository = match reference.repository.contains('/') || host != DOCKER_HUB {
            true => reference.repository.clone(),
            false => format!("library/{}", reference.repository),
        };
        let which = match (&reference.digest, &reference.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.clone().unwrap_or_else(|| "latest".to_owned()),
        };
        let pull = async |at: &str| {
            let registry = self.registry(at, &repository, own).await?;
            let source = Source::Registry(Box::new(registry), which.clone());
            store.pull(name, &source, progress).await
        };
        let Some(mirror) = self.mirrors.get(host) else {
            return pull(origin).await;
        };
        match pull(mirror).await {
            // The other one comes to the same disk.
            Err(error) if !matches!(error, Error::Disk(_)) => {
                // Whatever a mirror has, what counts is what it is a mirror of.
                warn!(image = name, registry = mirror, %error, "not pulled");
                let pulled = pull(origin).await;
                pulled
                    .map_err(|last| last.behind(&format!("the mirror '{mirror}' failed: {error}")))
            }
            pulled => pulled,
        }
    }

    /// A repository at a registry, with the credentials for it.
    async fn registry(
        &self,
        at: &str,
        repository: &str,
        own: Option<&DockerConfig>,
    ) -> Result<Registry> {
        let client = self.client.get();
        let client =
            client.ok_or_else(|| Error::Unavailable("the store has not been opened".to_owned()))?;
        let base = match at.contains("://") {
            true => Url::parse(&format!("{}/", at.trim_end_matches('/')))
                .map_err(|error| Error::Refused(format!("'{at}': {error}")))?,
            false => self.access.base(client, at).await?,
        };
        let host = &base[Position::BeforeHost..Position::AfterPort];
        let mut credential = None;
        for config in own.into_iter().chain([&self.credentials]) {
            if credential.is_none() {
                credential = config.find(host).await?;
            }
        }
        Ok(Registry::new(
            (client.clone(), self.access.stall),
            base.clone(),
            repository.to_owned(),
            credential,
        ))
    }
}

/// Checks a setting that is the URL of a registry; `or` is what else it might be.
///
/// # Errors
///
/// When it is none.
pub fn is_url(url: &str, or: &str) -> tepui_module_sdk::Result<()> {
    match Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => Ok(()),
        _ => Err(Failure::invalid(format!(
            "'{url}' is no URL of a registry: http:// or https://, HOST and :PORT{or}"
        ))),
    }
}

/// Credentials that came with an image.
///
/// # Errors
///
/// When they cannot be used.
pub fn own_credentials(docker: &image::Docker) -> tepui_module_sdk::Result<Option<DockerConfig>> {
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
