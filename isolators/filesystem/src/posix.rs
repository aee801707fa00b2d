//! Isolator `filesystem/posix`: persistent volumes as links in the sandbox, where containers share the host's files.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/filesystem/posix.cpp`. The sandbox may be its user's already when
//! a volume is added, so that nothing in it is followed: each part of a link's path is opened by itself.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use tepui_module_sdk::mesos::{self, volume};
use tepui_module_sdk::prelude::*;

use crate::persistent::{give_to, volume_path};

/// See the module.
pub struct PosixFilesystem {
    work_dir: PathBuf,
    containers: Mutex<BTreeMap<ContainerId, Linked>>,
}

/// A container with its links: path in the sandbox, and what it leads to.
struct Linked {
    sandbox: PathBuf,
    user: Option<String>,
    links: BTreeMap<PathBuf, PathBuf>,
    /// What it is launched with, until it is.
    first: Vec<mesos::Resource>,
}

impl Module for PosixFilesystem {
    type Config = NoConfig;
    const NAME: &'static str = "filesystem/posix";
    const DESCRIPTION: &'static str = "persistent volumes as links in the sandbox";

    fn create(_: NoConfig, context: Context) -> Result<Self> {
        Ok(Self {
            work_dir: context.work_dir(),
            containers: Mutex::default(),
        })
    }
}

impl Isolator for PosixFilesystem {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        for container in running {
            let (id, linked) = (container.id.clone(), Linked::of(&container));
            self.containers().insert(id.clone(), linked);
            // Most links are there; a change may have been recorded and not done.
            let changed = self.take_away(&container);
            let changed = changed.and_then(|()| self.update_links(&id, &container.resources));
            if let Err(error) = changed {
                warn!(container = %id, %error, "its links are not as they should be");
            }
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        // What is wrong is said before anything is there.
        self.wanted(&container.resources)?;
        let linked = Linked::of(&container);
        self.containers().insert(container.id.clone(), linked);
        Ok(LaunchPlan::none())
    }

    async fn isolate(&self, id: &ContainerId, _: u32) -> Result<()> {
        // Only now there is a sandbox to link in.
        let first = self
            .containers()
            .get_mut(id)
            .map(|linked| std::mem::take(&mut linked.first));
        self.update_links(id, &first.unwrap_or_default())
    }

    async fn update(&self, id: &ContainerId, update: Update) -> Result<()> {
        self.update_links(id, &update.resources)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        // The links go with the sandbox; what they lead to stays.
        self.containers().remove(id);
        Ok(())
    }
}

impl PosixFilesystem {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Linked>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn update_links(&self, id: &ContainerId, resources: &[mesos::Resource]) -> Result<()> {
        let wanted = self.wanted(resources)?;
        let mut containers = self.containers();
        let others = containers.iter().filter(|(other, _)| *other != id);
        let used = others.flat_map(|(_, other)| other.links.values().cloned());
        let used: BTreeSet<PathBuf> = used.collect();
        match containers.get_mut(id) {
            Some(linked) => linked.change(wanted, resources, &self.work_dir, &used),
            None => Ok(()),
        }
    }

    /// The links that the volumes among the resources need.
    fn wanted(&self, resources: &[mesos::Resource]) -> Result<BTreeMap<PathBuf, PathBuf>> {
        let mut wanted = BTreeMap::new();
        for resource in resources {
            let Some((link, source)) = self.link(resource)? else {
                continue;
            };
            if !source.is_dir() {
                return Err(Failure::not_found(format!(
                    "the directory '{}' of the volume for '{}' is missing",
                    source.display(),
                    link.display()
                )));
            }
            wanted.insert(link, source);
        }
        Ok(wanted)
    }

    /// The link that a persistent volume needs, and what it leads to; none of any other resource.
    fn link(&self, resource: &mesos::Resource) -> Result<Option<(PathBuf, PathBuf)>> {
        let disk = resource.disk.as_ref();
        let Some((persistence, volume)) =
            disk.and_then(|disk| disk.persistence.as_ref().zip(disk.volume.as_ref()))
        else {
            return Ok(None);
        };
        let id = &persistence.id;
        let invalid = |why: &str| Failure::invalid(format!("the volume '{id}' {why}"));
        let path = Path::new(&volume.container_path);
        let mut parts = path.components();
        if !parts.all(|part| matches!(part, Component::Normal(_))) || path == Path::new("") {
            return Err(invalid(&format!(
                "has the 'container_path' '{}': filesystem/posix needs a relative path without '..'",
                volume.container_path
            )));
        }
        if volume.mode() == volume::Mode::Ro {
            return Err(invalid(
                "is read-only, which a link cannot be: it needs the isolator filesystem/linux",
            ));
        }
        let source = volume_path(&self.work_dir, resource)
            .ok_or_else(|| invalid("has no place on a disk of this agent"))?;
        Ok(Some((path.to_owned(), source)))
    }

    /// Removes the links to what a container had once and has no more, as far as they are there still.
    fn take_away(&self, container: &Container) -> Result<()> {
        let wanted = self.wanted(&container.resources)?;
        for resource in &container.former_volumes {
            let Some((link, source)) = self.link(resource)? else {
                continue;
            };
            if wanted.get(&link) == Some(&source) {
                continue;
            }
            match remove_link(&container.sandbox, &link, &source) {
                // Removed before, or something else by now.
                Ok(()) | Err(Errno::ENOENT | Errno::EINVAL | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(error) => {
                    warn!(container = %container.id, link = %link.display(), %error, "link not removed");
                }
            }
        }
        Ok(())
    }
}

impl Linked {
    fn of(container: &Container) -> Self {
        Self {
            sandbox: container.sandbox.clone(),
            user: container.user.clone(),
            links: BTreeMap::new(),
            first: container.resources.clone(),
        }
    }

    /// Makes the links that are wanted, and removes the others. A volume is its container's; a shared one is the first
    /// one's, as long as no other container has it (`used`).
    fn change(
        &mut self,
        wanted: BTreeMap<PathBuf, PathBuf>,
        resources: &[mesos::Resource],
        work_dir: &Path,
        used: &BTreeSet<PathBuf>,
    ) -> Result<()> {
        let shared = resources
            .iter()
            .filter(|resource| resource.shared.is_some());
        let shared: Vec<PathBuf> = shared.filter_map(|r| volume_path(work_dir, r)).collect();
        for (link, source) in &wanted {
            if self.links.get(link) == Some(source) {
                continue;
            }
            let is_shared = shared.contains(source);
            let is_given = |user: &&String| !is_shared || *user != "root" && !used.contains(source);
            if let Some(user) = self.user.as_ref().filter(is_given) {
                give_to(source, user)?;
            }
            make_link(&self.sandbox, link, source).map_err(|error| {
                Failure::unavailable(format!(
                    "failed to link '{}' in the sandbox to '{}': {error}",
                    link.display(),
                    source.display()
                ))
            })?;
        }
        for (link, source) in &self.links {
            if !wanted.contains_key(link)
                && let Err(error) = remove_link(&self.sandbox, link, source)
            {
                warn!(link = %link.display(), %error, "link not removed");
            }
        }
        self.links = wanted;
        Ok(())
    }
}

/// Opens the directory of a link below the sandbox, with those on the way; none of them is a link itself.
fn directory<'a>(
    sandbox: &Path,
    link: &'a Path,
    make: bool,
) -> Result<(OwnedFd, &'a OsStr), Errno> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = open(sandbox, flags, Mode::empty())?;
    let mut parts: Vec<&OsStr> = link.iter().collect();
    let name = parts.pop().ok_or(Errno::EINVAL)?;
    for part in parts {
        if make {
            match mkdirat(&at, part, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(error),
            }
        }
        at = openat(&at, part, flags, Mode::empty())?;
    }
    Ok((at, name))
}

fn make_link(sandbox: &Path, link: &Path, source: &Path) -> Result<(), Errno> {
    let (directory, name) = directory(sandbox, link, true)?;
    match symlinkat(source, &directory, name) {
        // Made before a crash.
        Err(Errno::EEXIST)
            if readlinkat(&directory, name).is_ok_and(|there| there == source.as_os_str()) =>
        {
            Ok(())
        }
        made => made,
    }
}

/// Removes a link, if it is one still and leads there.
fn remove_link(sandbox: &Path, link: &Path, source: &Path) -> Result<(), Errno> {
    let (directory, name) = directory(sandbox, link, false)?;
    if readlinkat(&directory, name)? == source.as_os_str() {
        unlinkat(&directory, name, UnlinkatFlags::NoRemoveDir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_made_and_removed_inside_the_sandbox_only() {
        let base = std::env::temp_dir().join(format!("tepui-posix-{}", std::process::id()));
        let (sandbox, volume, outside) = (
            base.join("sandbox"),
            base.join("volume"),
            base.join("outside"),
        );
        for dir in [&sandbox, &volume, &outside] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let link = Path::new("a/data");
        make_link(&sandbox, link, &volume).unwrap();
        std::fs::write(sandbox.join("a/data/file"), "x").unwrap();
        assert!(volume.join("file").exists());
        // Again, as after a crash; but not over something else.
        make_link(&sandbox, link, &volume).unwrap();
        assert_eq!(make_link(&sandbox, link, &outside), Err(Errno::EEXIST));
        remove_link(&sandbox, link, &volume).unwrap();
        assert!(!sandbox.join("a/data").exists() && volume.join("file").exists());
        // The user of a sandbox may have put a link in the way.
        std::os::unix::fs::symlink(&outside, sandbox.join("b")).unwrap();
        assert!(make_link(&sandbox, Path::new("b/data"), &volume).is_err());
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
