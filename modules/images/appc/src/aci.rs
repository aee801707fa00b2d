//! Archives of images: brought, unpacked, checked, and with them those that they depend on.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha512};
use tepui_image_content::{
    Allowance, Digest, Download, Error, Image, Progress, Result, Store, decoder,
};

use crate::names::Wanted;

/// The root file system in an archive.
pub(crate) const ROOTFS: &str = "rootfs";
/// What says what is in an archive.
const MANIFEST: &str = "manifest";
/// Longest manifest that is read.
const MANIFEST_BYTES: u64 = 4 << 20;
/// Images that one may depend on, all together.
const IMAGES: usize = 64;

/// A manifest, as far as it is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    ac_kind: String,
    name: String,
    #[serde(default)]
    labels: Vec<Pair>,
    #[serde(default)]
    app: Option<App>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    name: String,
    value: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct App {
    #[serde(default)]
    exec: Vec<String>,
    #[serde(default)]
    environment: Vec<Pair>,
    #[serde(default)]
    working_directory: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dependency {
    image_name: String,
    #[serde(rename = "imageID", default)]
    image_id: Option<String>,
    #[serde(default)]
    labels: Vec<Pair>,
}

/// Images on their way.
struct Bringing<'a> {
    store: &'a Store,
    download: &'a Download,
    prefix: &'a str,
    progress: &'a Progress,
    allowance: Arc<Allowance>,
    /// Their root file systems, lowest first.
    layers: Vec<Digest>,
    /// How many were asked for.
    count: usize,
}

/// Pulls an image with all that it depends on.
///
/// # Errors
///
/// When one of them cannot be had, is not what was asked for, or they are too many.
pub(crate) async fn pull(
    store: &Store,
    download: &Download,
    prefix: &str,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Image> {
    let _held = store.hold().await;
    let mut bringing = Bringing {
        store,
        download,
        prefix,
        progress,
        allowance: Arc::new(store.allowance()),
        layers: Vec::new(),
        count: 0,
    };
    let manifest = bringing.bring(wanted.clone()).await?;
    let config = manifest.config();
    let image = Image {
        name: wanted.to_string(),
        id: Digest::of(config.as_bytes()),
        config,
        layers: bringing.layers,
    };
    store.remember(&image)?;
    Ok(image)
}

impl Bringing<'_> {
    /// Brings an image, after those that it depends on.
    fn bring(&mut self, wanted: Wanted) -> BoxFuture<'_, Result<Manifest>> {
        let work = async move {
            self.count += 1;
            if self.count > IMAGES {
                return Err(Error::Refused(format!(
                    "'{}' and what it depends on are more than {IMAGES} images, or depend on one another",
                    wanted.name
                )));
            }
            let (layer, manifest) = self.one(&wanted).await?;
            for dependency in &manifest.dependencies {
                let labels = dependency.labels.iter();
                let labels = labels.map(|label| (label.name.clone(), label.value.clone()));
                let id = dependency.image_id.as_deref();
                let needed = Wanted::new(&dependency.image_name, id, labels.collect())?;
                self.bring(needed).await?;
            }
            self.layers.push(layer);
            Ok(manifest)
        };
        work.boxed()
    }

    /// Brings one image; answers its directory in the store and its manifest.
    async fn one(&self, wanted: &Wanted) -> Result<(Digest, Manifest)> {
        let uri = wanted.uri(self.prefix);
        let failed = |error: Error| error.about(&format!("'{uri}'"));
        let brought;
        let archive = match uri.starts_with('/') {
            true => PathBuf::from(&uri),
            false => {
                let download = self.download.bring(&uri, self.store, self.progress);
                brought = download.await.map_err(failed)?;
                brought.path()
            }
        };
        let of = wanted.clone();
        let open = move || {
            let file = File::open(&archive).map_err(|error| Error::Missing(error.to_string()))?;
            if let Some(id) = &of.id {
                is_wanted(&archive, id)?;
            }
            Ok(file)
        };
        let of = wanted.clone();
        let check = move |dir: &Path| check(dir, &of);
        let added = self.store.add(open, self.allowance.clone(), check);
        added.await.map_err(failed)
    }
}

/// Compares an archive's digest with the one that was asked for.
fn is_wanted(archive: &Path, wanted: &str) -> Result<()> {
    let broken = |error: std::io::Error| Error::Refused(format!("it cannot be read: {error}"));
    let mut packed = BufReader::new(File::open(archive).map_err(broken)?);
    let mut plain = decoder(&mut packed)?;
    let (mut hasher, mut piece) = (Sha512::new(), vec![0; 64 << 10]);
    loop {
        match plain.read(&mut piece).map_err(broken)? {
            0 => break,
            length => hasher.update(&piece[..length]),
        }
    }
    let found = hex::encode(hasher.finalize());
    match found == wanted {
        true => Ok(()),
        false => Err(Error::Refused(format!(
            "sha512-{wanted} was asked for, and sha512-{found} came"
        ))),
    }
}

/// Reads the manifest of an unpacked archive, and compares it with what was asked for.
fn check(dir: &Path, wanted: &Wanted) -> Result<Manifest> {
    let refused = |why: String| Error::Refused(format!("it is no image: {why}"));
    // Links in it lead to the host, here.
    let is_root = fs::symlink_metadata(dir.join(ROOTFS)).is_ok_and(|found| found.is_dir());
    if !is_root {
        return Err(refused(format!("it has no directory '{ROOTFS}'")));
    }
    let path = dir.join(MANIFEST);
    let is_file = fs::symlink_metadata(&path).is_ok_and(|found| found.is_file());
    if !is_file {
        return Err(refused(format!("it has no file '{MANIFEST}'")));
    }
    let mut text = Vec::new();
    let file = File::open(&path).map_err(|error| refused(error.to_string()))?;
    let read = file.take(MANIFEST_BYTES + 1).read_to_end(&mut text);
    read.map_err(|error| refused(error.to_string()))?;
    if text.len() as u64 > MANIFEST_BYTES {
        return Err(refused(format!(
            "its manifest has more than {MANIFEST_BYTES} bytes"
        )));
    }
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| refused(format!("its manifest cannot be read: {error}")))?;
    if manifest.ac_kind != "ImageManifest" {
        return Err(refused(format!(
            "its manifest is of kind '{}'",
            manifest.ac_kind
        )));
    }
    let has = |(key, value): (&String, &String)| {
        let mut labels = manifest.labels.iter();
        labels.any(|label| label.name == *key && label.value == *value)
    };
    if manifest.name != wanted.name || !wanted.labels.iter().all(has) {
        return Err(Error::Refused(format!(
            "it is '{}' with other labels or another name than '{wanted}', which was asked for",
            manifest.name
        )));
    }
    Ok(manifest)
}

impl Manifest {
    /// What it says of how it is run, in the form of the OCI.
    fn config(&self) -> String {
        let mut run = json!({});
        if let Some(app) = &self.app {
            let variables = app.environment.iter();
            let variables = variables.map(|one| format!("{}={}", one.name, one.value));
            run = json!({
                "Entrypoint": app.exec,
                "Env": variables.collect::<Vec<_>>(),
                "WorkingDir": app.working_directory,
            });
        }
        json!({ "os": "linux", "config": run, "rootfs": { "type": "layers", "diff_ids": [] } })
            .to_string()
    }
}
