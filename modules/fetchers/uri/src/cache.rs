//! What was fetched and may be wanted again.
//!
//! A key is a user and a URI. Whoever asks first fills the entry, and others wait; each that has an entry keeps it from
//! being removed. Room is reserved before a byte is written, by removing what was used longest ago.
//! The directory is private to the agent and emptied at each start, so half a file is never found again.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tepui_module_sdk::tokio::sync::watch;
use tepui_module_sdk::{CacheUse, Failure, Result};

/// User and URI.
pub(crate) type Key = (u32, String);

/// The files that are kept.
pub(crate) struct Cache {
    directory: PathBuf,
    total: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Key, Entry>,
    used: u64,
    /// Counts uses; also makes file names.
    clock: u64,
}

struct Entry {
    path: PathBuf,
    /// Reserved, and so at least what is on the disk.
    size: u64,
    last_used: u64,
    /// Fetches that use it now.
    users: u32,
    filled: watch::Receiver<Filled>,
}

/// How far an entry is.
#[derive(Clone)]
enum Filled {
    NotYet,
    Yes,
    /// It cannot be cached: everybody fetches for himself.
    TooLarge,
    Failed(Failure),
}

/// What a caller gets that asks for a file.
pub(crate) enum Claim {
    /// It is there.
    Kept(Kept),
    /// It is to be put there by the caller.
    Fill(Filling),
    /// It does not fit.
    Direct,
}

/// A file of the cache that stays while this lives.
pub(crate) struct Kept {
    cache: Arc<Cache>,
    key: Key,
    path: PathBuf,
}

/// A file that is on its way into the cache. Dropped before its end, it leaves nothing.
pub(crate) struct Filling {
    cache: Arc<Cache>,
    key: Key,
    path: PathBuf,
    told: watch::Sender<Filled>,
    ended: bool,
}

/// A file beside the cache that goes with this.
pub(crate) struct Aside(PathBuf);

/// A directory of an agent's own in one that several share.
pub(crate) fn own_directory(shared: &Path, work_dir: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    work_dir.hash(&mut hasher);
    shared.join(format!("tepui-{:016x}", hasher.finish()))
}

impl Cache {
    /// A cache of this many bytes; nothing is done yet.
    pub(crate) fn new(directory: PathBuf, total: u64) -> Self {
        Self {
            directory,
            total,
            state: Mutex::default(),
        }
    }

    /// Makes the directory, empty and readable by the agent alone.
    pub(crate) fn open(&self) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let error = |what: &str, error: std::io::Error| {
            let message = format!(
                "cannot {what} the cache '{}': {error}",
                self.directory.display()
            );
            Failure::invalid(message).setting("fetcher_cache_dir")
        };
        match std::fs::remove_dir_all(&self.directory) {
            Err(found) if found.kind() != std::io::ErrorKind::NotFound => {
                return Err(error("empty", found));
            }
            _ => {}
        }
        if let Some(parent) = self.directory.parent() {
            std::fs::create_dir_all(parent).map_err(|found| error("make", found))?;
        }
        // It must be new: in a place like /tmp somebody else could have made it.
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.mode(0o700).create(&self.directory);
        made.map_err(|found| error("make", found))
    }

    /// What is kept, and how much may be.
    pub(crate) fn used(&self) -> CacheUse {
        CacheUse {
            total: self.total,
            used: self.state().used,
        }
    }

    /// Asks for a file, and waits if somebody fetches it just now. A failure is everybody's who waited.
    pub(crate) async fn claim(self: &Arc<Self>, key: Key, name: &str) -> Result<Claim> {
        loop {
            let mut filled = match self.enter(&key, name) {
                Entered::New(filling) => return Ok(Claim::Fill(filling)),
                Entered::There(filled) => filled,
            };
            let seen = filled
                .wait_for(|filled| !matches!(filled, Filled::NotYet))
                .await;
            let seen = seen.as_deref().cloned();
            match seen {
                Ok(Filled::Yes) => {
                    if let Some(kept) = self.keep(&key) {
                        return Ok(Claim::Kept(kept));
                    }
                }
                Ok(Filled::TooLarge) => return Ok(Claim::Direct),
                Ok(Filled::Failed(failure)) => return Err(failure),
                // Whoever filled it gave up: the next one does.
                Ok(Filled::NotYet) | Err(_) => {}
            }
        }
    }

    /// A file for one fetch that the cache is not used for.
    pub(crate) fn aside(&self) -> Result<Aside> {
        let mut state = self.state();
        state.clock += 1;
        Ok(Aside(self.directory.join(format!("{}-aside", state.clock))))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>, key: &Key, name: &str) -> Entered {
        let mut state = self.state();
        if let Some(entry) = state.entries.get(key) {
            return Entered::There(entry.filled.clone());
        }
        state.clock += 1;
        let base = Path::new(name).file_name().unwrap_or_default();
        let base = base.to_string_lossy();
        let short = base.ceil_char_boundary(base.len().saturating_sub(100));
        let path = self
            .directory
            .join(format!("{}-{}", state.clock, &base[short..]));
        let (told, filled) = watch::channel(Filled::NotYet);
        let entry = Entry {
            path: path.clone(),
            size: 0,
            last_used: state.clock,
            users: 1,
            filled,
        };
        state.entries.insert(key.clone(), entry);
        Entered::New(Filling {
            cache: self.clone(),
            key: key.clone(),
            path,
            told,
            ended: false,
        })
    }

    fn keep(self: &Arc<Self>, key: &Key) -> Option<Kept> {
        let mut state = self.state();
        state.clock += 1;
        let now = state.clock;
        let entry = state.entries.get_mut(key)?;
        if !matches!(*entry.filled.borrow(), Filled::Yes) {
            return None;
        }
        entry.users += 1;
        entry.last_used = now;
        Some(Kept {
            cache: self.clone(),
            key: key.clone(),
            path: entry.path.clone(),
        })
    }
}

enum Entered {
    New(Filling),
    There(watch::Receiver<Filled>),
}

impl State {
    /// Removes what was used longest ago and is not in use until there is room; false, and nothing is removed, if
    /// there cannot be.
    fn make_room(&mut self, bytes: u64, total: u64) -> bool {
        let mut idle: Vec<(u64, Key, u64)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.users == 0)
            .map(|(key, entry)| (entry.last_used, key.clone(), entry.size))
            .collect();
        let removable: u64 = idle.iter().map(|(_, _, size)| size).sum();
        if (self.used - removable).saturating_add(bytes) > total {
            return false;
        }
        idle.sort();
        for (_, key, _) in idle {
            if self.used.saturating_add(bytes) <= total {
                break;
            }
            self.remove(&key);
        }
        true
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.used -= entry.size;
            // It may not have been made.
            let _ = std::fs::remove_file(&entry.path);
        }
    }
}

impl Kept {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(entry) = self.cache.state().entries.get_mut(&self.key) {
            entry.users -= 1;
        }
    }
}

impl Filling {
    /// The file to write.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Sets room aside; false if there is none.
    pub(crate) fn reserve(&mut self, bytes: u64) -> bool {
        let total = self.cache.total;
        let mut state = self.cache.state();
        if !state.make_room(bytes, total) {
            return false;
        }
        state.used += bytes;
        if let Some(entry) = state.entries.get_mut(&self.key) {
            entry.size += bytes;
        }
        true
    }

    /// The file is complete.
    pub(crate) fn done(mut self) -> Kept {
        self.ended = true;
        self.told.send_replace(Filled::Yes);
        Kept {
            cache: self.cache.clone(),
            key: self.key.clone(),
            path: self.path.clone(),
        }
    }

    /// The file cannot be cached.
    pub(crate) fn too_large(self) {
        self.told.send_replace(Filled::TooLarge);
    }

    /// The file cannot be had.
    pub(crate) fn failed(self, failure: &Failure) {
        self.told.send_replace(Filled::Failed(failure.clone()));
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if !self.ended {
            self.cache.state().remove(&self.key);
        }
    }
}

impl Aside {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // It may not have been made.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(uri: &str) -> Key {
        (0, uri.to_owned())
    }

    async fn fill(cache: &Arc<Cache>, uri: &str, bytes: usize) -> Option<Kept> {
        match cache.claim(key(uri), uri).await.unwrap() {
            Claim::Kept(kept) => Some(kept),
            Claim::Direct => None,
            Claim::Fill(mut filling) => {
                if !filling.reserve(bytes as u64) {
                    filling.too_large();
                    return None;
                }
                std::fs::write(filling.path(), vec![0; bytes]).unwrap();
                Some(filling.done())
            }
        }
    }

    #[tokio::test]
    async fn the_longest_unused_goes_first_and_what_is_in_use_stays() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("cache");
        let cache = Arc::new(Cache::new(at.clone(), 100));
        cache.open().unwrap();
        let held = fill(&cache, "a", 40).await.unwrap();
        drop(fill(&cache, "b", 40).await.unwrap());
        assert_eq!(cache.used().used, 80);
        // Neither the one in use nor more than there is can make room.
        assert!(fill(&cache, "too large", 61).await.is_none());
        assert_eq!(cache.used().used, 80, "nothing is removed in vain");
        drop(fill(&cache, "c", 60).await.unwrap());
        assert_eq!(cache.used().used, 100);
        assert!(held.path().is_file());
        drop(held);
        drop(fill(&cache, "d", 10).await.unwrap());
        assert_eq!(cache.used().used, 70, "a was used before c");
        let files = std::fs::read_dir(&at).unwrap().count();
        assert_eq!(files, 2);
        // One that is given up leaves nothing.
        drop(cache.claim(key("e"), "e").await);
        assert_eq!(std::fs::read_dir(&at).unwrap().count(), files);
        assert_eq!(cache.used().used, 70);
    }

    #[tokio::test]
    async fn those_who_wait_share_what_comes_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Arc::new(Cache::new(directory.path().join("cache"), 100));
        cache.open().unwrap();
        let claim = |cache: &Arc<Cache>| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.claim(key("x"), "x").await })
        };
        let Ok(Claim::Fill(filling)) = claim(&cache).await.unwrap() else {
            panic!("the first fills");
        };
        let second = claim(&cache);
        drop(filling);
        // Whoever gives up leaves it to the next.
        let Ok(Claim::Fill(filling)) = second.await.unwrap() else {
            panic!("the second fills");
        };
        let third = claim(&cache);
        tokio::task::yield_now().await;
        filling.failed(&Failure::not_found("no such file"));
        assert_eq!(
            third.await.unwrap().err().unwrap().message(),
            "no such file"
        );
        assert!(
            fill(&cache, "x", 1).await.is_some(),
            "it can be tried again"
        );
        assert!(matches!(claim(&cache).await.unwrap(), Ok(Claim::Kept(_))));
    }
}
