//! Sandboxes that nobody needs any more: kept for a while, less long as the disk fills, then removed.
//!
//! What is due is first renamed into a trash directory, under a lock that a launch takes as well: a directory that is
//! wanted again is either kept or gone as a whole, never half removed. The trash is emptied by a task of its own, and at
//! the next start where an agent died meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;
use tepui_containerizer::{Class, Sandbox};
use tepui_http::shared::{Files, Sample};
use tepui_model::id::ContainerId;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::containers::Containers;
use crate::paths::Paths;

/// When what is removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// `gc_delay`.
    pub(crate) delay: Duration,
    /// `gc_disk_headroom`.
    pub(crate) headroom: f64,
    /// `disk_watch_interval`.
    pub(crate) interval: Duration,
    /// `gc_non_executor_container_sandboxes`.
    pub(crate) of_all: bool,
}

impl Policy {
    /// How old directories may get when this share of the disk is in use, as in Mesos: the fuller, the less.
    fn age(&self, used: f64) -> Duration {
        self.delay.mul_f64((1.0 - self.headroom - used).max(0.0))
    }
}

/// The directories that wait for their end.
#[derive(Clone, Debug)]
pub(crate) struct Gc(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    work_dir: PathBuf,
    trash: PathBuf,
    policy: Policy,
    waiting: Mutex<Waiting>,
    news: Notify,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    paths: BTreeMap<PathBuf, Due>,
    /// None of them is due earlier; none when nothing waits. There may be very many, so they are not looked through for it
    /// each time that one comes.
    next: Option<Instant>,
    /// Directories in the trash so far.
    trashed: u64,
    /// How old they may get now.
    age: Option<Duration>,
}

/// A directory that waits for its end.
#[derive(Debug)]
struct Due {
    at: Instant,
    directory: Sandbox,
}

impl Gc {
    pub(crate) fn new(paths: &Paths, work_dir: &Path, policy: Policy) -> Self {
        Self(Arc::new(Shared {
            work_dir: work_dir.to_owned(),
            trash: paths.trash(),
            policy,
            waiting: Mutex::default(),
            news: Notify::new(),
            succeeded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().expect("no panic under it")
    }

    /// The directory is not needed from now on.
    pub(crate) fn schedule(&self, path: PathBuf) {
        self.schedule_aged(Sandbox::new(&path), Duration::ZERO);
    }

    /// The same of the sandbox of a container that is over and no executor's, where those are not kept for it.
    pub(crate) fn schedule_of(&self, containers: &dyn Containers, id: &ContainerId) {
        if self.0.policy.of_all
            && let Ok(sandbox) = containers.sandbox(id)
        {
            self.schedule_aged(sandbox, Duration::ZERO);
        }
    }

    /// The same once the container is over.
    pub(crate) fn schedule_after(&self, containers: &Arc<dyn Containers>, id: ContainerId) {
        let (containers, gc) = (containers.clone(), self.clone());
        tokio::spawn(async move {
            // Removed by somebody before, or over.
            if containers.wait(&id).await.is_ok() {
                gc.schedule_of(&*containers, &id);
            }
        });
    }

    /// The same of one that has not been needed for some time.
    fn schedule_aged(&self, directory: Sandbox, age: Duration) {
        let at = Instant::now() + self.0.policy.delay.saturating_sub(age);
        let path = directory.path();
        let mut waiting = self.waiting();
        waiting.paths.insert(path, Due { at, directory });
        if waiting.next.is_none_or(|next| at < next) {
            waiting.next = Some(at);
            self.0.news.notify_one();
        }
    }

    /// The directory is needed again, or for the first time.
    pub(crate) fn unschedule(&self, path: &Path) {
        self.waiting().paths.remove(path);
    }

    /// Schedules what earlier processes left below `slaves/`, but for what runs.
    pub(crate) fn take_over(
        &self,
        slaves: &Path,
        agent: Option<&Path>,
        running: &BTreeSet<String>,
    ) {
        for old in directories(slaves) {
            if Some(old.as_path()) == agent {
                for framework in directories(&old.join("frameworks")) {
                    self.take_over_framework(framework, running);
                }
            } else {
                self.schedule_old(old);
            }
        }
    }

    /// The same of the sandboxes of standalone containers, where those are not kept; those that run go in their time.
    pub(crate) fn take_over_standalone(&self, sandboxes: &Path, containers: &Arc<dyn Containers>) {
        if !self.0.policy.of_all {
            return;
        }
        let mut running = BTreeSet::new();
        for one in containers.list() {
            if one.class == Class::Standalone {
                running.insert(one.id.root().value.to_string());
                self.schedule_after(containers, one.id);
            }
        }
        let over = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            !running.contains(&*name.to_string_lossy())
        };
        let old = directories(sandboxes).into_iter();
        old.filter(over).for_each(|path| self.schedule_old(path));
    }

    fn take_over_framework(&self, framework: PathBuf, running: &BTreeSet<String>) {
        let mut in_use = false;
        for executor in directories(&framework.join("executors")) {
            let (live, over): (Vec<_>, Vec<_>) = directories(&executor.join("runs"))
                .into_iter()
                .partition(|run| {
                    run.file_name()
                        .is_some_and(|name| running.contains(&*name.to_string_lossy()))
                });
            over.into_iter().for_each(|run| self.schedule_old(run));
            if live.is_empty() {
                self.schedule_old(executor);
            } else {
                in_use = true;
            }
        }
        if !in_use {
            self.schedule_old(framework);
        }
    }

    /// Its age is what the file system says of its last change.
    fn schedule_old(&self, path: PathBuf) {
        let changed = fs::symlink_metadata(&path).and_then(|data| data.modified());
        let age = changed
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        self.schedule_aged(Sandbox::new(&path), age.unwrap_or_default());
    }

    /// Removes what is due until told to stop.
    pub(crate) async fn run(self, files: Files, stop: CancellationToken) {
        self.empty_trash().await;
        let mut watch = tokio::time::interval(self.0.policy.interval.max(Duration::from_millis(1)));
        watch.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = self.waiting().next;
            // Without anything due the interval wakes it.
            let due = next.unwrap_or_else(|| {
                Instant::now() + self.0.policy.delay.max(self.0.policy.interval)
            });
            tokio::select! {
                () = stop.cancelled() => return,
                _ = watch.tick() => self.watch_disk(),
                () = tokio::time::sleep_until(due) => {}
                () = self.0.news.notified() => {}
            }
            self.remove_due(&files).await;
        }
    }

    /// Brings ends forward as far as the disk is full.
    fn watch_disk(&self) {
        let used = match usage(&self.0.work_dir) {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!(path = %self.0.work_dir.display(), %error, "disk usage not known");
                return;
            }
        };
        let age = self.0.policy.age(used);
        let mut waiting = self.waiting();
        waiting.age = Some(age);
        // What is due within this time is older than that.
        let latest = Instant::now() + self.0.policy.delay.saturating_sub(age);
        let now = Instant::now();
        let mut moved = false;
        for due in waiting.paths.values_mut().filter(|due| due.at <= latest) {
            due.at = due.at.min(now);
            moved = true;
        }
        if moved {
            waiting.next = Some(now);
        }
    }

    async fn remove_due(&self, files: &Files) {
        let trashed = self.trash_due(files);
        for (path, trash) in trashed {
            self.remove(&path, trash).await;
        }
    }

    /// Moves what is due away, and what lies in it with it.
    fn trash_due(&self, files: &Files) -> Vec<(PathBuf, PathBuf)> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        if waiting.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        let due: Vec<PathBuf> = waiting
            .paths
            .iter()
            .filter(|(_, due)| due.at <= now)
            .map(|(path, _)| path.clone())
            .collect();
        let mut trashed = Vec::new();
        for path in due {
            // Not any more if it lay in one that was just moved.
            let Some(Due { directory, .. }) = waiting.paths.remove(&path) else {
                continue;
            };
            waiting.paths.retain(|other, _| !other.starts_with(&path));
            waiting.trashed += 1;
            let trash = self.0.trash.join(waiting.trashed.to_string());
            let moved = fs::create_dir_all(&self.0.trash).and_then(|()| directory.move_to(&trash));
            files.detach_below(&path);
            match moved {
                Ok(()) => trashed.push((path, trash)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    self.0.failed.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(path = %path.display(), %error, "not removed");
                }
            }
        }
        waiting.next = waiting.paths.values().map(|due| due.at).min();
        trashed
    }

    async fn remove(&self, path: &Path, trash: PathBuf) {
        let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(trash)).await;
        let removed = removed.unwrap_or_else(|error| Err(io::Error::other(error)));
        match removed {
            Ok(()) => {
                self.0.succeeded.fetch_add(1, Ordering::Relaxed);
                tracing::info!(path = %path.display(), "removed");
            }
            Err(error) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %path.display(), %error, "not removed: the rest lies in the trash directory");
            }
        }
    }

    /// What an agent that died left there.
    async fn empty_trash(&self) {
        for path in directories(&self.0.trash) {
            self.remove(&path.clone(), path).await;
        }
    }

    /// Metrics, by Mesos' names.
    pub(crate) fn samples(&self) -> [Sample; 4] {
        let waiting = self.waiting();
        let age = waiting.age.unwrap_or(self.0.policy.delay);
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        [
            Sample::gauge("gc/path_removals_pending", waiting.paths.len() as f64),
            Sample::counter("gc/path_removals_succeeded", count(&self.0.succeeded)),
            Sample::counter("gc/path_removals_failed", count(&self.0.failed)),
            Sample::gauge(
                "slave/executor_directory_max_allowed_age_secs",
                age.as_secs_f64(),
            ),
        ]
    }
}

/// Directories in a directory; links are none.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let directory = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    entries
        .filter(directory)
        .map(|entry| entry.path())
        .collect()
}

/// The share of a file system that is in use.
fn usage(path: &Path) -> nix::Result<f64> {
    let found = statvfs(path)?;
    let (all, free) = (found.blocks() as f64, found.blocks_free() as f64);
    Ok(if all > 0.0 { (all - free) / all } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Policy;

    #[test]
    fn a_full_disk_shortens_lives() {
        let policy = Policy {
            delay: Duration::from_secs(1000),
            headroom: 0.1,
            interval: Duration::from_secs(60),
            of_all: false,
        };
        assert_eq!(policy.age(0.0), Duration::from_secs(900));
        assert_eq!(policy.age(0.5).as_secs(), 400);
        assert_eq!(policy.age(0.95), Duration::ZERO);
    }
}
