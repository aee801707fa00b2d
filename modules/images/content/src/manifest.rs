//! Manifests: of what an image consists. They come from strangers, so everything in them has a bound.

use std::fmt;

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Longest manifest that is read.
pub(crate) const MANIFEST_BYTES: u64 = 4 << 20;
/// Longest configuration of an image that is read.
pub(crate) const CONFIG_BYTES: u64 = 8 << 20;
/// Most layers of an image; overlayfs takes 500.
const LAYERS: usize = 256;

/// What is asked for from registries.
pub(crate) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The SHA-256 of some content.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// Parses `sha256:` and 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self> {
        let hex = text.strip_prefix("sha256:").filter(|hex| {
            hex.len() == 64
                && hex
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        });
        let hex = hex.ok_or_else(|| Error::Refused(format!("'{text}' is no digest sha256:HEX")))?;
        Ok(Self(hex.to_owned()))
    }

    /// Of this content.
    pub fn of(content: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(content))
    }

    pub(crate) fn finish(hasher: Sha256) -> Self {
        Self(hex::encode(hasher.finalize()))
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sha256:{}", self.0)
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Some content by digest and size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Part {
    fn new(descriptor: &Descriptor) -> Result<Self> {
        Ok(Self {
            digest: Digest::parse(descriptor.digest().as_ref())?,
            size: descriptor.size(),
        })
    }
}

/// What a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Manifest {
    /// Another manifest is the one for this machine.
    Elsewhere(Part),
    /// The configuration and the layers of an image, lowest first.
    Image(Part, Vec<Part>),
}

/// Reads a manifest of any kind.
///
/// # Errors
///
/// When it is none, is beyond a bound, or has nothing for this machine.
pub(crate) fn read(text: &[u8]) -> Result<Manifest> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        schema_version: u32,
        #[serde(default)]
        manifests: Option<serde::de::IgnoredAny>,
    }
    let bad =
        |error: serde_json::Error| Error::Refused(format!("the manifest cannot be read: {error}"));
    let kind: Kind = serde_json::from_slice(text).map_err(bad)?;
    if kind.schema_version != 2 {
        return Err(Error::Refused(format!(
            "the manifest is of schema version {}; push the image again with a client of today, which writes version 2",
            kind.schema_version
        )));
    }
    if kind.manifests.is_some() {
        let index: ImageIndex = serde_json::from_slice(text).map_err(bad)?;
        return choose(&index).map(Manifest::Elsewhere);
    }
    let manifest: ImageManifest = serde_json::from_slice(text).map_err(bad)?;
    let layers = manifest.layers();
    if layers.len() > LAYERS {
        return Err(Error::Refused(format!(
            "the image has {} layers; more than {LAYERS} are not taken",
            layers.len()
        )));
    }
    // By Docker's name and by that of the OCI. Where else they are, is for a stranger to say, and not asked.
    let is_elsewhere = |layer: &&Descriptor| {
        let kind = layer.media_type().to_string();
        kind.contains("foreign") || kind.contains("nondistributable")
    };
    if let Some(foreign) = layers.iter().find(is_elsewhere) {
        return Err(Error::Refused(format!(
            "the layer {} is not distributed with the image",
            foreign.digest()
        )));
    }
    let layers = layers.iter().map(Part::new).collect::<Result<_>>()?;
    let config = Part::new(manifest.config())?;
    if config.size > CONFIG_BYTES {
        return Err(Error::Refused(format!(
            "the image's configuration has {} bytes; more than {CONFIG_BYTES} are not taken",
            config.size
        )));
    }
    Ok(Manifest::Image(config, layers))
}

/// The manifest for this machine.
fn choose(index: &ImageIndex) -> Result<Part> {
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    };
    let fits = |descriptor: &&Descriptor| match descriptor.platform() {
        Some(platform) => {
            platform.os().to_string() == "linux" && platform.architecture().to_string() == own
        }
        None => index.manifests().len() == 1,
    };
    let found = index.manifests().iter().find(fits);
    let found =
        found.ok_or_else(|| Error::Missing(format!("the image is not there for linux/{own}")))?;
    let part = Part::new(found)?;
    if part.size > MANIFEST_BYTES {
        return Err(Error::Refused(
            "the index names a manifest that is too long".to_owned(),
        ));
    }
    Ok(part)
}

/// The digests of the unpacked layers, from an image's configuration.
///
/// # Errors
///
/// When it is no configuration of an image.
pub(crate) fn diff_ids(config: &[u8]) -> Result<Vec<Digest>> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Vec<Digest>,
    }
    let config: Config = serde_json::from_slice(config).map_err(|error| {
        Error::Refused(format!("the image's configuration cannot be read: {error}"))
    })?;
    if config.rootfs.diff_ids.len() > LAYERS {
        return Err(Error::Refused("the image has too many layers".to_owned()));
    }
    Ok(config.rootfs.diff_ids)
}
