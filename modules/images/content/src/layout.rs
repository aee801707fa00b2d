//! Image layouts of the OCI: directories with an index and content by digest.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use oci_spec::image::ImageIndex;

use crate::error::{Error, Result, on_disk};
use crate::manifest::{Digest, MANIFEST_BYTES};

/// A layout.
#[derive(Debug, Clone)]
pub struct Layout(PathBuf);

/// What names an image in an index.
const NAME: &str = "org.opencontainers.image.ref.name";

impl Layout {
    /// The layout in a directory.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn open(directory: PathBuf) -> Result<Self> {
        match directory.join("oci-layout").is_file() {
            true => Ok(Self(directory)),
            false => Err(Error::Missing(format!(
                "there is no image layout at '{}'",
                directory.display()
            ))),
        }
    }

    /// The digest of the manifest with this tag; without one, of the only manifest or of `latest`.
    pub(crate) fn manifest(&self, tag: Option<&str>) -> Result<Digest> {
        let path = self.0.join("index.json");
        let text = read(&path, MANIFEST_BYTES)?;
        let index: ImageIndex = serde_json::from_slice(&text).map_err(|error| {
            Error::Refused(format!("'{}' cannot be read: {error}", path.display()))
        })?;
        let is_tagged = |wanted: &str| {
            index.manifests().iter().find(|manifest| {
                let annotations = manifest.annotations().as_ref();
                annotations
                    .and_then(|all| all.get(NAME))
                    .is_some_and(|name| name == wanted)
            })
        };
        let found = match (tag, &**index.manifests()) {
            (Some(tag), _) => is_tagged(tag),
            (None, [only]) => Some(only),
            (None, _) => is_tagged("latest"),
        };
        let found = found.ok_or_else(|| {
            Error::Missing(format!(
                "'{}' has no image '{}'",
                self.0.display(),
                tag.unwrap_or("latest")
            ))
        })?;
        Digest::parse(found.digest().as_ref())
    }

    pub(crate) fn content(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        read(&self.path(digest), limit)
    }

    pub(crate) fn file(&self, digest: &Digest) -> Result<File> {
        let path = self.path(digest);
        File::open(&path).map_err(|error| {
            Error::Missing(format!("the layout lacks '{}': {error}", path.display()))
        })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join("blobs/sha256").join(digest.hex())
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path)
        .map_err(on_disk("read", path))?
        .len();
    if length > limit {
        return Err(Error::Refused(format!("'{}' is too long", path.display())));
    }
    std::fs::read(path).map_err(on_disk("read", path))
}
