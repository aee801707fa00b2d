//! The store: layers by digest, images by name.
//!
//! ```text
//! DIR/layers/<digest of the unpacked layer>/   one unpacked layer, complete
//! DIR/images/<digest of the name>.json         which layers and which configuration an image has
//! DIR/staging/                                 what is being unpacked or removed; emptied at start
//! ```
//!
//! A layer appears under its digest by one rename, after both of its digests were checked and it was synced, so a pull
//! that is interrupted leaves nothing but something in `staging`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, RwLock, RwLockReadGuard};

use crate::archive::Archive;
use crate::error::{Error, Result, on_disk};
use crate::fetched::Fetched;
use crate::layer;
use crate::layout::Layout;
use crate::manifest::{self, CONFIG_BYTES, Digest, MANIFEST_BYTES, Manifest, Part};
use crate::progress::Progress;
use crate::registry::Registry;
use crate::unpack::Allowance;

/// Layers of one image that are pulled at once.
const AT_ONCE: usize = 3;

/// Bounds and place of a store.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub dir: PathBuf,
    /// Most bytes that an image may unpack to.
    pub max_image_bytes: u64,
    /// Most files that an image may have.
    pub max_image_files: u64,
}

/// Where an image comes from.
#[derive(Debug)]
pub enum Source {
    /// A repository, and the tag or digest of the image in it.
    Registry(Box<Registry>, String),
    /// What `docker save` wrote, and the image's name in it.
    Archive(PathBuf, String),
    /// An archive that has to be brought here first.
    Fetched(Fetched),
    /// A layout directory, and the tag or digest of the image in it.
    Layout(Layout, Option<String>),
}

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The name it was pulled by.
    pub name: String,
    /// The digest of its configuration, which is the image's identity.
    pub id: Digest,
    /// Its configuration.
    pub config: String,
    /// Digests of its unpacked layers, lowest first.
    pub layers: Vec<Digest>,
}

/// What a removal comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names of images that are, or would be, gone.
    pub images: Vec<String>,
    /// Their directories.
    pub layers: Vec<PathBuf>,
    /// Bytes of these.
    pub bytes: u64,
}

/// What pulls have done since the store was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes that came from registries.
    pub downloaded: AtomicU64,
    /// Layers that were unpacked.
    pub layers: AtomicU64,
}

/// A store. One process uses it at a time.
#[derive(Debug)]
pub struct Store {
    settings: Settings,
    /// One pull of a layer at a time, whatever image it is for.
    pulling: Mutex<HashMap<String, Weak<AsyncMutex<()>>>>,
    /// Held by pulls together, by removals alone.
    removing: RwLock<()>,
    /// What has been done.
    pub counters: Counters,
}

/// The parts of an image, with where each layer is.
struct Parts {
    config: Vec<u8>,
    layers: Vec<LayerAt>,
}

enum LayerAt {
    Remote(Part),
    Local(Part),
    InArchive(PathBuf),
}

impl Store {
    /// Opens the store, and removes what an interrupted pull has left. Blocks.
    ///
    /// # Errors
    ///
    /// When a directory cannot be made or emptied.
    pub fn open(settings: Settings) -> Result<Self> {
        let staging = settings.dir.join("staging");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(on_disk("remove", &staging)(error));
            }
            _ => {}
        }
        for name in ["staging", "layers", "images"] {
            let path = settings.dir.join(name);
            fs::create_dir_all(&path).map_err(on_disk("create", &path))?;
        }
        // What is in images is nobody's on the host but root's, set-user-id programs among it.
        let private = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o700);
        fs::set_permissions(&settings.dir, private).map_err(on_disk("protect", &settings.dir))?;
        Ok(Self {
            settings,
            pulling: Mutex::default(),
            removing: RwLock::default(),
            counters: Counters::default(),
        })
    }

    /// The image of a name, if all of it is here.
    pub fn find(&self, name: &str) -> Option<Image> {
        let image: Image = serde_json::from_slice(&fs::read(self.record(name)).ok()?).ok()?;
        let is_whole = image.layers.iter().all(|layer| self.layer(layer).is_dir());
        (image.name == name && is_whole).then_some(image)
    }

    /// The directory of a layer.
    pub fn layer(&self, layer: &Digest) -> PathBuf {
        self.settings.dir.join("layers").join(layer.hex())
    }

    /// Pulls an image under a name, whether it is here or not; layers that are here are not pulled again.
    ///
    /// # Errors
    ///
    /// When it cannot be had. Nothing is left of layers that were not complete.
    pub async fn pull(&self, name: &str, source: &Source, progress: &Progress) -> Result<Image> {
        let _shared = self.removing.read().await;
        let Source::Fetched(fetched) = source else {
            return self.pull_from(name, source, progress).await;
        };
        let staged = Staged::new(&self.settings.dir)?;
        let file = staged.0.join("archive.tar");
        let most = self.settings.max_image_bytes;
        fetched.bring(&file, most, progress).await?;
        let source = Source::Archive(file, fetched.name.clone());
        self.pull_from(name, &source, progress).await
    }

    async fn pull_from(&self, name: &str, source: &Source, progress: &Progress) -> Result<Image> {
        let parts = parts(source).await?;
        let diff_ids = manifest::diff_ids(&parts.config)?;
        if diff_ids.len() != parts.layers.len() {
            return Err(Error::Refused(format!(
                "the image's manifest names {} layers and its configuration {}",
                parts.layers.len(),
                diff_ids.len()
            )));
        }
        let archive = match source {
            Source::Archive(path, _) => Some(open_archive(path.clone()).await?),
            _ => None,
        };
        let allowance = Arc::new(self.allowance());
        let sizes = parts.layers.iter().map(|layer| match layer {
            LayerAt::Remote(part) => part.size,
            LayerAt::Local(_) | LayerAt::InArchive(_) => 0,
        });
        progress.expect(parts.layers.len(), sizes.sum());
        let pulls = parts.layers.iter().zip(&diff_ids).map(|(at, diff_id)| {
            let of = (source, archive.as_deref(), progress);
            self.pull_layer(of, at, diff_id, allowance.clone())
        });
        // Boxed: the compiler does not see that these borrow for long enough.
        let pulls: Vec<futures::future::BoxFuture<'_, Result<()>>> =
            pulls.map(|pull| Box::pin(pull) as _).collect();
        stream::iter(pulls)
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        let config = String::from_utf8(parts.config)
            .map_err(|_| Error::Refused("the image's configuration is no text".to_owned()))?;
        let image = Image {
            name: name.to_owned(),
            id: Digest::of(config.as_bytes()),
            config,
            layers: diff_ids,
        };
        self.remember(&image)?;
        Ok(image)
    }

    async fn pull_layer(
        &self,
        (source, archive, progress): (&Source, Option<&Archive>, &Progress),
        at: &LayerAt,
        diff_id: &Digest,
        allowance: Arc<Allowance>,
    ) -> Result<()> {
        let alone = self.alone(diff_id.hex());
        let _alone = alone.lock().await;
        let place = self.layer(diff_id);
        if place.is_dir() {
            if let LayerAt::Remote(part) = at {
                progress.bytes_done(part.size);
            }
            progress.layer_done();
            return Ok(());
        }
        let staged = Staged::new(&self.settings.dir)?;
        let into = &staged.0;
        match (at, source) {
            (LayerAt::Remote(part), Source::Registry(registry, _)) => {
                let count = |bytes| {
                    self.counters.downloaded.fetch_add(bytes, Relaxed);
                    progress.bytes_done(bytes);
                };
                layer::download(registry, part, diff_id, into, allowance, count).await?;
            }
            (LayerAt::Local(part), Source::Layout(layout, _)) => {
                let file = layout.file(&part.digest)?;
                layer::install(file, Some(part.clone()), diff_id.clone(), into, allowance).await?;
            }
            (LayerAt::InArchive(name), _) => {
                let archive = archive.expect("layers of archives come with one");
                layer::install(archive.file(name)?, None, diff_id.clone(), into, allowance).await?;
            }
            (LayerAt::Remote(_) | LayerAt::Local(_), _) => {
                unreachable!("parts are of their source")
            }
        }
        let staged_at = into.clone();
        tokio::task::spawn_blocking(move || keep(&staged_at, &place))
            .await
            .map_err(|error| Error::Disk(error.to_string()))??;
        self.counters.layers.fetch_add(1, Relaxed);
        progress.layer_done();
        Ok(())
    }

    /// What the layers of one image may come to.
    pub fn allowance(&self) -> Allowance {
        Allowance::new(self.settings.max_image_bytes, self.settings.max_image_files)
    }

    /// Nothing is removed while this is held. For pulls by [`Self::add`].
    pub async fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.removing.read().await
    }

    /// Unpacks an archive whose digest is not known beforehand, and keeps it as a layer if `check` takes what came of it.
    /// Answers the digest of the unpacked archive.
    ///
    /// # Errors
    ///
    /// Those of `open` and `check`; when the archive is refused, or the disk fails. Nothing of it is left then.
    pub async fn add<T: Send + 'static>(
        &self,
        open: impl FnOnce() -> Result<fs::File> + Send + 'static,
        allowance: Arc<Allowance>,
        check: impl FnOnce(&Path) -> Result<T> + Send + 'static,
    ) -> Result<(Digest, T)> {
        let staged = self.stage()?;
        let layers = self.settings.dir.join("layers");
        let work = move || {
            let digest = layer::unpack_all(&mut open()?, &staged.0, &allowance)?;
            let checked = check(&staged.0)?;
            let place = layers.join(digest.hex());
            match keep(&staged.0, &place) {
                // Another pull had it at the same time, or before.
                Err(_) if place.is_dir() => {}
                kept => kept?,
            }
            Ok((digest, checked))
        };
        let added = tokio::task::spawn_blocking(work).await;
        let added = added.map_err(|error| Error::Disk(error.to_string()))??;
        self.counters.layers.fetch_add(1, Relaxed);
        Ok(added)
    }

    /// A directory for what is on its way.
    pub(crate) fn stage(&self) -> Result<Staged> {
        Staged::new(&self.settings.dir)
    }

    /// Removes images but those to keep, and the layers that then nobody needs; those `in_use` stay. With `dry_run` it
    /// only says what it would remove.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub async fn prune(
        &self,
        keep: &BTreeSet<String>,
        in_use: &[PathBuf],
        dry_run: bool,
    ) -> Result<Pruned> {
        let _alone = self.removing.write().await;
        let mut needed: BTreeSet<String> = in_use
            .iter()
            .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
            .collect();
        let mut pruned = Pruned::default();
        let mut records = Vec::new();
        for path in list(&self.settings.dir.join("images"))? {
            let image = fs::read(&path)
                .ok()
                .and_then(|text| serde_json::from_slice::<Image>(&text).ok());
            match image {
                Some(image) if keep.contains(&image.name) => {
                    needed.extend(image.layers.iter().map(|layer| layer.hex().to_owned()));
                }
                Some(image) => {
                    pruned.images.push(image.name);
                    records.push(path);
                }
                // Not readable, so of no use.
                None => records.push(path),
            }
        }
        for path in list(&self.settings.dir.join("layers"))? {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if !needed.contains(&name) {
                pruned.bytes += size_of_tree(&path);
                pruned.layers.push(path);
            }
        }
        if !dry_run {
            // Names first: an image is never here without its layers.
            for record in records {
                fs::remove_file(&record).map_err(on_disk("remove", &record))?;
            }
            for layer in &pruned.layers {
                let staged = Staged::new(&self.settings.dir)?;
                fs::rename(layer, &staged.0).map_err(on_disk("remove", layer))?;
            }
        }
        Ok(pruned)
    }

    /// Images that are here.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn images(&self) -> Result<BTreeMap<String, Image>> {
        let paths = list(&self.settings.dir.join("images"))?.into_iter();
        let images =
            paths.filter_map(|path| serde_json::from_slice::<Image>(&fs::read(path).ok()?).ok());
        Ok(images.map(|image| (image.name.clone(), image)).collect())
    }

    fn alone(&self, key: &str) -> Arc<AsyncMutex<()>> {
        let mut pulling = self.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        pulling.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = pulling.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(AsyncMutex::new(()));
        pulling.insert(key.to_owned(), Arc::downgrade(&lock));
        lock
    }

    fn record(&self, name: &str) -> PathBuf {
        let file = format!("{}.json", Digest::of(name.as_bytes()).hex());
        self.settings.dir.join("images").join(file)
    }

    /// Notes an image whose layers are all here.
    ///
    /// # Errors
    ///
    /// When the disk fails.
    pub fn remember(&self, image: &Image) -> Result<()> {
        let path = self.record(&image.name);
        let temporary = path.with_extension(format!("{}.tmp", uuid::Uuid::new_v4()));
        let text = serde_json::to_vec(image).expect("plain data");
        let write = || {
            fs::write(&temporary, text)?;
            fs::File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            // It may not have been made.
            let _ = fs::remove_file(&temporary);
            on_disk("write", &path)(error)
        })
    }
}

/// Gives a layer its place. Under its digest it is complete, also after the machine has failed.
fn keep(staged: &Path, place: &Path) -> Result<()> {
    let directory = fs::File::open(staged).map_err(on_disk("open", staged))?;
    rustix::fs::syncfs(directory).map_err(|error| on_disk("sync", staged)(error.into()))?;
    fs::rename(staged, place).map_err(on_disk("move a layer to", place))
}

/// A directory that goes when it is not wanted.
#[derive(Debug)]
pub(crate) struct Staged(PathBuf);

impl Staged {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("staging").join(uuid::Uuid::new_v4().to_string());
        fs::create_dir(&path).map_err(on_disk("create", &path))?;
        Ok(Self(path))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Moved away when all went well. What remains goes at the next start.
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn open_archive(path: PathBuf) -> Result<Arc<Archive>> {
    tokio::task::spawn_blocking(move || Archive::open(&path).map(Arc::new))
        .await
        .map_err(|error| Error::Disk(error.to_string()))?
}

async fn parts(source: &Source) -> Result<Parts> {
    match source {
        Source::Registry(registry, which) => of_registry(registry, which).await,
        Source::Archive(path, name) => {
            let (config, layers) = open_archive(path.clone()).await?.image(name)?;
            Ok(Parts {
                config,
                layers: layers.into_iter().map(LayerAt::InArchive).collect(),
            })
        }
        Source::Fetched(_) => unreachable!("it is an archive when it is here"),
        Source::Layout(layout, which) => of_layout(layout, which.as_deref()),
    }
}

/// An index leads to a manifest; nothing leads further.
const HOPS: usize = 2;

async fn of_registry(registry: &Registry, which: &str) -> Result<Parts> {
    let mut which = which.to_owned();
    for _ in 0..=HOPS {
        let text = registry.manifest(&which, MANIFEST_BYTES).await?;
        // A tag is whatever the registry says; a digest is not.
        if let Ok(wanted) = Digest::parse(&which) {
            checked(&text, &wanted)?;
        }
        match manifest::read(&text)? {
            Manifest::Elsewhere(part) => which = part.digest.to_string(),
            Manifest::Image(config, layers) => {
                let text = registry
                    .content(&config.digest.to_string(), CONFIG_BYTES)
                    .await?;
                checked(&text, &config.digest)?;
                return Ok(Parts {
                    config: text,
                    layers: layers.into_iter().map(LayerAt::Remote).collect(),
                });
            }
        }
    }
    Err(Error::Refused(
        "the image's index leads from index to index".to_owned(),
    ))
}

fn of_layout(layout: &Layout, which: Option<&str>) -> Result<Parts> {
    let mut digest = match which.map(Digest::parse) {
        Some(Ok(digest)) => digest,
        _ => layout.manifest(which)?,
    };
    for _ in 0..=HOPS {
        let text = layout.content(&digest, MANIFEST_BYTES)?;
        checked(&text, &digest)?;
        match manifest::read(&text)? {
            Manifest::Elsewhere(part) => digest = part.digest,
            Manifest::Image(config, layers) => {
                let text = layout.content(&config.digest, CONFIG_BYTES)?;
                checked(&text, &config.digest)?;
                return Ok(Parts {
                    config: text,
                    layers: layers.into_iter().map(LayerAt::Local).collect(),
                });
            }
        }
    }
    Err(Error::Refused(
        "the image's index leads from index to index".to_owned(),
    ))
}

fn checked(content: &[u8], wanted: &Digest) -> Result<()> {
    let found = Digest::of(content);
    if found != *wanted {
        return Err(Error::Refused(format!(
            "{wanted} was asked for, and {found} came"
        )));
    }
    Ok(())
}

fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(on_disk("list", dir))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

/// Bytes on the disk of all files below a directory.
fn size_of_tree(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    bytes
}
