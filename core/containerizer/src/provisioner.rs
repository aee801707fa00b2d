//! Root file systems for containers with images.
//!
//! The provisioner is the first step of a launch, and takes part in it as isolators do: `prepare` has the images of a
//! container pulled and plans how their layers become directories of the container; `cleanup` removes what the container
//! wrote. What it keeps lies where Mesos keeps it:
//!
//! ```text
//! DIR/containers/<id>/backends/<backend>/layers/<n>/<i>   links to the layers of the n-th image, the top one first
//! DIR/containers/<id>/backends/<backend>/scratch/<n>/     what the container writes (overlay)
//! DIR/containers/<id>/backends/<backend>/rootfses/<n>/    the root, or where it is mounted
//! ```
//!
//! Everything is mounted in the container's own namespace, so nothing has to be unmounted here. The links say, also to a
//! later agent process, which layers are in use.

mod backend;
mod copy;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::FutureExt;
use prost::Message;
use tepui_host::CallError;
use tepui_host::kinds::image_store::ImageStoreClient;
use tepui_module_proto::image_store::{PruneReply, PruneRequest, PullReply};
use tepui_module_proto::isolator::{
    self as messages, CleanupReply, LaunchPlan, LimitedReply, StatusReply, UsageReply,
};
use tepui_proto::v1::{self, ContainerInfo};

pub use backend::{Backend, try_overlay};

use crate::{
    Error,
    isolation::{Called, Images, Isolator, PROVISIONER},
};

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Provisioner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// By the name of the module.
    stores: BTreeMap<String, ImageStoreClient>,
    backend: Backend,
    dir: PathBuf,
    timed: Timed,
    containers: Mutex<BTreeMap<String, Known>>,
    /// How many removals there were. Held by those who link layers together, by removals alone: what is linked is in use.
    removals: tokio::sync::RwLock<u64>,
    /// Containers whose directories could not be removed.
    removal_errors: AtomicU64,
}

/// Is told how long each pull took that was one, and by which store.
struct Timed(Box<Told>);

type Told = dyn Fn(&str, Duration) + Send + Sync;

impl std::fmt::Debug for Timed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Timed(..)")
    }
}

/// What is known of a container with images.
#[derive(Clone, Debug, Default)]
struct Known {
    images: Images,
    /// What is pulled for it now: the store and the image.
    pulling: Option<(String, String)>,
    /// Held while its directories are made, so that they are not removed meanwhile.
    work: Arc<tokio::sync::Mutex<()>>,
}

impl Provisioner {
    /// Takes the stores by the names of their modules. `asked` is the back end to use; without one the best that works
    /// here is chosen, and the log says why. `timed` is told how long each pull took, and by which store; images that
    /// were there already are not pulled.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, or the back end is unknown or does not work here.
    pub fn new(
        stores: BTreeMap<String, ImageStoreClient>,
        asked: Option<&str>,
        dir: PathBuf,
        timed: impl Fn(&str, Duration) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let containers = dir.join("containers");
        fs::create_dir_all(&containers).map_err(|source| Error::Io {
            what: "create",
            path: containers,
            source,
        })?;
        let backend = Backend::choose(asked, &dir).map_err(Error::Settings)?;
        Ok(Self(Arc::new(Inner {
            stores,
            backend,
            dir,
            timed: Timed(Box::new(timed)),
            containers: Mutex::default(),
            removals: tokio::sync::RwLock::default(),
            removal_errors: AtomicU64::new(0),
        })))
    }

    /// As the first step of launches.
    pub fn isolator(&self) -> Arc<dyn Isolator> {
        Arc::new(self.clone())
    }

    pub(crate) fn removal_errors(&self) -> u64 {
        self.0.removal_errors.load(Ordering::Relaxed)
    }

    /// Removes images that no container uses, but those to keep; with `dry_run` only says which.
    ///
    /// # Errors
    ///
    /// When a store fails, in words.
    pub async fn prune(&self, keep: &[v1::Image], dry_run: bool) -> Result<PruneReply, String> {
        let mut removals = self.0.removals.write().await;
        *removals += u64::from(!dry_run);
        let in_use = self.0.layers_in_use().map_err(|error| error.to_string())?;
        let mut all = PruneReply::default();
        for store in self.0.stores.values() {
            let request = PruneRequest {
                keep: keep.iter().map(Message::encode_to_vec).collect(),
                in_use: in_use.clone(),
                dry_run,
            };
            let reply = store
                .prune(request)
                .await
                .map_err(|error| error.to_string())?;
            all.images.extend(reply.images);
            all.layers.extend(reply.layers);
            all.bytes += reply.bytes;
        }
        Ok(all)
    }

    /// Removes images that no container uses whenever less than `headroom` of the disk is free, for as long as it is
    /// let.
    pub async fn collect(self, headroom: f64, interval: Duration, keep: Vec<v1::Image>) {
        loop {
            tokio::time::sleep(interval).await;
            let free = match rustix::fs::statvfs(&self.0.dir) {
                Ok(disk) => disk.f_bavail as f64 / (disk.f_blocks as f64).max(1.0),
                Err(error) => {
                    tracing::warn!(%error, "the disk of images cannot be looked at");
                    continue;
                }
            };
            if free >= headroom {
                continue;
            }
            match self.prune(&keep, false).await {
                Ok(gone) => tracing::info!(
                    images = gone.images.len(),
                    bytes = gone.bytes,
                    "images were removed: {:.1} % of the disk was free",
                    free * 100.0
                ),
                Err(error) => tracing::warn!(error, "images were not removed"),
            }
        }
    }

    /// What is pulled for a container and how far that is, for people; `None` when nothing is.
    pub fn pulling(&self, container: &str) -> Option<String> {
        let (store, image) = self.0.containers().get(container)?.pulling.clone()?;
        let told = self.0.stores.get(&store)?.progress(container);
        Some(told.unwrap_or_else(|| format!("Pulling image '{image}'")))
    }

    async fn provision(&self, config: &messages::ContainerConfig) -> Result<LaunchPlan, String> {
        let inner = &self.0;
        let info = ContainerInfo::decode(&*config.container_info)
            .map_err(|error| format!("the container's description cannot be read: {error}"))?;
        let mut plan = LaunchPlan::none();
        let mut images = Images::default();
        let wanted = wanted(&info);
        if wanted.is_empty() {
            return Ok(plan);
        }
        inner.known(&config.id);
        for (number, (volume, image)) in wanted.into_iter().enumerate() {
            let store = inner.store(image)?;
            let words = |error: CallError| error.to_string();
            let seen = *inner.removals.read().await;
            let (begun, for_whom) = (Instant::now(), Some(config.id.as_str()));
            let what = (store.instance().name().to_owned(), words_of(image));
            inner.set_pulling(&config.id, Some(what));
            let pulled = store.pull(image.encode_to_vec(), for_whom).await;
            inner.set_pulling(&config.id, None);
            let mut pulled = pulled.map_err(words)?;
            if pulled.fresh {
                (inner.timed.0)(store.instance().name(), begun.elapsed());
            }
            // That may have taken long, and a removal does not wait for it; so what was pulled may be gone again before it
            // is linked. A second pull finds it in the store.
            let stays = inner.removals.read().await;
            if *stays != seen {
                let there = v1::Image {
                    cached: Some(true),
                    ..image.clone()
                };
                let again = store.pull(there.encode_to_vec(), for_whom).await;
                pulled = again.map_err(words)?;
            }
            let made = self.make(&config.id, number, &pulled).await?;
            plan.mounts.extend(made.mounts);
            let root = made.root.to_string_lossy().into_owned();
            match volume {
                Some(path) => {
                    images.volumes.insert(path.to_owned(), root);
                }
                None => {
                    plan.rootfs = Some(root);
                    images.config = pulled.config;
                }
            }
        }
        if let Some(known) = inner.containers().get_mut(&config.id) {
            known.images = images;
        }
        Ok(plan)
    }

    /// Makes a root of an image's layers.
    async fn make(
        &self,
        container: &str,
        number: usize,
        pulled: &PullReply,
    ) -> Result<backend::Made, String> {
        let layers = distinct(&pulled.layers);
        let backend = self.0.backend;
        let dir = self
            .0
            .container(container)
            .join("backends")
            .join(backend.name());
        let work = self.0.known(container).work.lock_owned().await;
        let made = tokio::task::spawn_blocking(move || {
            let _work = work;
            backend.make(&dir, number, &layers)
        });
        made.await.map_err(|error| error.to_string())?
    }

    async fn remove(&self, container: &str) -> Result<(), String> {
        let known = self.0.containers().remove(container).unwrap_or_default();
        let _work = known.work.lock().await;
        let dir = self.0.container(container);
        let removed = tokio::task::spawn_blocking(move || match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("failed to remove '{}': {error}", dir.display()))
            }
            _ => Ok(()),
        });
        let removed = removed.await.map_err(|error| error.to_string())?;
        if removed.is_err() {
            self.0.removal_errors.fetch_add(1, Ordering::Relaxed);
        }
        removed
    }
}

/// The images of a container: of its root, and of volumes by their paths.
fn wanted(info: &ContainerInfo) -> Vec<(Option<&str>, &v1::Image)> {
    let root = info.mesos.as_ref().and_then(|mesos| mesos.image.as_ref());
    let volumes = info.volumes.iter().filter_map(|volume| {
        let image = volume.image.as_ref()?;
        Some((Some(volume.container_path.as_str()), image))
    });
    root.map(|image| (None, image))
        .into_iter()
        .chain(volumes)
        .collect()
}

impl Inner {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, container: &str) -> Known {
        self.containers()
            .entry(container.to_owned())
            .or_default()
            .clone()
    }

    fn set_pulling(&self, container: &str, what: Option<(String, String)>) {
        if let Some(known) = self.containers().get_mut(container) {
            known.pulling = what;
        }
    }

    fn container(&self, id: &str) -> PathBuf {
        self.dir.join("containers").join(id)
    }

    fn store(&self, image: &v1::Image) -> Result<&ImageStoreClient, String> {
        let store = store_of(image, |store| self.stores.contains_key(store));
        self.stores.get(store).ok_or_else(|| {
            format!(
                "no image store for this image: '{}' is not in the agent's --image_providers",
                store.to_ascii_uppercase()
            )
        })
    }

    fn layers_in_use(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for container in fs::read_dir(self.dir.join("containers"))?.flatten() {
            for backend in children(&container.path().join("backends")) {
                for image in children(&backend.join("layers")) {
                    let links = children(&image).into_iter();
                    let layers = links.filter_map(|link| fs::read_link(link).ok());
                    found.extend(layers.map(|layer| layer.to_string_lossy().into_owned()));
                }
            }
        }
        Ok(found)
    }
}

/// The name of the store that an image is of. Only Docker and Appc have types of their own in Mesos: images of other
/// stores are Docker images whose names begin with the store's and a colon. The site has chosen such a store, so its name
/// comes before that of an image with a tag.
fn store_of(image: &v1::Image, is_store: impl Fn(&str) -> bool) -> &str {
    if image.r#type() == v1::image::Type::Appc {
        return "appc";
    }
    let name = image.docker.as_ref().map_or("", |docker| &docker.name);
    match name.split_once(':') {
        Some((store, _)) if store == "oci" || is_store(store) => store,
        _ => "docker",
    }
}

/// What an image is called.
fn words_of(image: &v1::Image) -> String {
    let docker = image.docker.as_ref().map(|docker| &docker.name);
    let appc = image.appc.as_ref().map(|appc| &appc.name);
    docker.or(appc).cloned().unwrap_or_default()
}

/// None where there is no directory.
fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

impl Isolator for Provisioner {
    fn name(&self) -> &str {
        PROVISIONER
    }
    fn nesting(&self) -> bool {
        true
    }
    fn standalone(&self) -> bool {
        true
    }
    fn limits(&self) -> bool {
        false
    }
    fn needs(&self) -> Vec<String> {
        vec!["filesystem/linux".to_owned()]
    }
    fn images(&self, container: &str) -> Option<Images> {
        self.0
            .containers()
            .get(container)
            .map(|known| known.images.clone())
    }
    fn recover(&self, request: messages::RecoverRequest) -> Called<'_, ()> {
        async move {
            for orphan in &request.orphans {
                self.remove(orphan).await?;
            }
            Ok(())
        }
        .boxed()
    }
    fn prepare(&self, request: messages::PrepareRequest) -> Called<'_, LaunchPlan> {
        async move { self.provision(&request.config.unwrap_or_default()).await }.boxed()
    }
    fn isolate(&self, _: messages::IsolateRequest) -> Called<'_, ()> {
        async { Ok(()) }.boxed()
    }
    fn update(&self, _: messages::UpdateRequest) -> Called<'_, ()> {
        async { Ok(()) }.boxed()
    }
    fn cleanup(&self, container: String) -> Called<'_, CleanupReply> {
        async move {
            self.remove(&container).await?;
            Ok(CleanupReply::default())
        }
        .boxed()
    }
    fn usage(&self, _: Vec<String>) -> Called<'_, UsageReply> {
        async { Ok(UsageReply::default()) }.boxed()
    }
    fn status(&self, _: Vec<String>) -> Called<'_, StatusReply> {
        async { Ok(StatusReply::default()) }.boxed()
    }
    fn limited(&self, _: u64) -> Called<'_, LimitedReply> {
        std::future::pending().boxed()
    }
}

/// Each layer once, where it is on top: overlayfs takes none twice, and a layer that comes again undoes all that those
/// between did to its names. Images have such layers: old tools wrote an empty one for each step that changed no file.
fn distinct(layers: &[String]) -> Vec<PathBuf> {
    let is_last = |(index, layer): &(usize, &String)| !layers[index + 1..].contains(layer);
    let kept = layers.iter().enumerate().filter(is_last);
    kept.map(|(_, layer)| PathBuf::from(layer)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_the_image() {
        let of = |name: &str| {
            let docker = v1::image::Docker {
                name: name.to_owned(),
                ..Default::default()
            };
            let image = v1::Image {
                r#type: v1::image::Type::Docker.into(),
                docker: Some(docker),
                ..Default::default()
            };
            store_of(&image, |store| store == "acme/roots").to_owned()
        };
        let images = [
            "box",
            "box:1",
            "r.io:5000/box:1",
            "oci:box:1",
            "oci://r.io/box",
            "acme/roots:box",
        ];
        assert_eq!(
            images.map(of),
            ["docker", "docker", "docker", "oci", "oci", "acme/roots"]
        );
    }
}
