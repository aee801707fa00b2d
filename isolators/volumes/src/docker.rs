//! Isolator `docker/volume`: volumes of Docker's volume drivers, mounted on the agent by `dvdcli`.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/docker/volume/isolator.cpp`. A driver knows a volume once for the whole
//! machine, so one is unmounted only when no container has it any more, and what is done to one volume is done in
//! turn. Which volumes a container has is on the disk before the first is mounted, so that none is forgotten whenever
//! the agent ends. A `dvdcli` may outlive the agent that started it: each has a lock, as its empty standard input, and the
//! next agent process waits for it.

use std::collections::{BTreeSet, HashMap};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use serde::{Deserialize, Serialize};
use tepui_module_sdk::mesos::{Volume, volume::source};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::mount::Create;
use tepui_module_sdk::tokio::{process::Command, sync, time, time::Instant};

use crate::bind;

/// Bytes of `dvdcli`'s complaints that an error repeats: the last ones.
const WORDS: usize = 512;

/// A file in the directory of the checkpoints, locked by each `dvdcli` that runs.
const LOCK: &str = "lock";

/// How long a `dvdcli` of an earlier agent process is waited for.
const STRAGGLER: Duration = Duration::from_secs(60);

/// Settings of `docker/volume`; those that are flags of Mesos have their names.
#[config]
pub struct Config {
    /// Where it is noted which volumes containers have. Without it in the module's own directory below the work
    /// directory. No two agents may have the same.
    #[serde(default)]
    docker_volume_checkpoint_dir: Option<PathBuf>,
    /// Give what is mounted to the container's user; not the files in it.
    #[serde(default)]
    docker_volume_chown: bool,
    /// The program that mounts: a path, or a name on the PATH.
    #[serde(default = "dvdcli")]
    dvdcli: PathBuf,
}

fn dvdcli() -> PathBuf {
    "dvdcli".into()
}

/// See the module.
pub struct DockerVolumes {
    config: Config,
    directory: PathBuf,
    containers: Mutex<BTreeMap<ContainerId, Vec<Held>>>,
    /// One at a time does something to a volume.
    turns: Mutex<HashMap<Name, Weak<sync::Mutex<()>>>>,
}

/// What a driver knows a volume by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
struct Name {
    driver: String,
    name: String,
}

/// A volume of a container.
#[derive(Debug, Clone)]
struct Held {
    name: Name,
    /// Certainly mounted; others may be, when the agent or a call ended in between.
    mounted: bool,
}

/// The file of a container, as Mesos writes it.
#[derive(Debug, Serialize, Deserialize)]
struct Checkpoint {
    volumes: Vec<Name>,
}

impl Module for DockerVolumes {
    type Config = Config;
    const NAME: &'static str = "docker/volume";
    const DESCRIPTION: &'static str = "volumes of Docker's volume drivers, by dvdcli";

    fn create(config: Config, context: Context) -> Result<Self> {
        let own = context.state_dir();
        let directory = config.docker_volume_checkpoint_dir.clone().unwrap_or(own);
        if !directory.is_absolute() {
            return Err(
                Failure::invalid(format!("'{}' is no absolute path", directory.display()))
                    .setting("docker_volume_checkpoint_dir"),
            );
        }
        Ok(Self {
            config,
            directory,
            containers: Mutex::default(),
            turns: Mutex::default(),
        })
    }
}

impl Isolator for DockerVolumes {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["filesystem/linux", "root"];

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        std::fs::create_dir_all(&self.directory)
            .map_err(|error| failed("create", &self.directory, &error))?;
        self.wait_for_stragglers().await?;
        let running: BTreeSet<ContainerId> = running.into_iter().map(|one| one.id).collect();
        let entries = std::fs::read_dir(&self.directory)
            .map_err(|error| failed("list", &self.directory, &error))?;
        let ids = entries.flatten().filter_map(|entry| {
            let id = entry.file_name().into_string().ok()?;
            entry.path().is_dir().then(|| ContainerId::from(id))
        });
        let mut gone = Vec::new();
        for id in ids {
            let mounted = running.contains(&id);
            let volumes = self.read(&id)?.into_iter();
            let held = volumes.map(|name| Held { name, mounted });
            self.containers().insert(id.clone(), held.collect());
            if !mounted {
                gone.push(id);
            }
        }
        // All are known before one is unmounted, which others may have as well.
        for id in gone {
            if let Err(error) = self.cleanup(&id).await {
                warn!(container = %id, %error, "volumes are left mounted");
            }
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let mut wanted = Vec::new();
        let mut names = BTreeSet::new();
        for volume in container.info()?.volumes {
            let Some((name, options)) = asked(&volume)? else {
                continue;
            };
            if !names.insert(name.clone()) {
                return Err(Failure::invalid(format!(
                    "the volume '{}' of the driver '{}' is asked for twice",
                    name.name, name.driver
                )));
            }
            let mount = bind(&container, &volume, Create::Directory)?;
            wanted.push((name, options, mount));
        }
        let mut plan = LaunchPlan::none();
        if wanted.is_empty() {
            return Ok(plan);
        }
        self.write(&container.id, &names)?;
        let held = names.into_iter().map(|name| Held {
            name,
            mounted: false,
        });
        self.containers()
            .insert(container.id.clone(), held.collect());
        for (name, options, mount) in wanted {
            let path = self.mount(&container, &name, &options).await?;
            plan = plan.mount(Mount {
                source: path,
                ..mount
            });
        }
        Ok(plan)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        let held = self.containers().get(id).cloned().unwrap_or_default();
        for Held { name, mounted } in held {
            match self.unmount(id, &name).await {
                Ok(()) => {}
                Err(error) if mounted => return Err(error),
                Err(error) => {
                    // It was not mounted, as it seems: the launch failed, or the machine was started anew.
                    warn!(container = %id, %error, "a volume may be left mounted");
                    self.forget(id, &name);
                }
            }
        }
        self.containers().remove(id);
        let own = self.directory.join(id.as_str());
        match std::fs::remove_dir_all(&own) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &own, &error))
            }
            _ => Ok(()),
        }
    }
}

/// The volume that is asked for and the options for its driver; none of a volume from elsewhere.
fn asked(volume: &Volume) -> Result<Option<(Name, Vec<String>)>> {
    let source = volume.source.as_ref();
    let Some(source) = source.filter(|source| source.r#type() == source::Type::DockerVolume) else {
        return Ok(None);
    };
    let asked = source.docker_volume.clone().unwrap_or_default();
    let bad = |what: &str| {
        let path = &volume.container_path;
        Failure::invalid(format!(
            "the volume at '{path}': 'source.docker_volume.{what}"
        ))
    };
    let driver = asked.driver.unwrap_or_default();
    if driver.is_empty() || driver.contains(['/', '\0']) {
        return Err(bad("driver' must name a volume driver"));
    }
    if asked.name.is_empty() || asked.name.contains('\0') {
        return Err(bad("name' must name a volume"));
    }
    let options = asked.driver_options.unwrap_or_default().parameter;
    let options = options
        .iter()
        .map(|option| format!("--volumeopts={}={}", option.key, option.value));
    let name = Name {
        driver,
        name: asked.name,
    };
    Ok(Some((name, options.collect())))
}

impl DockerVolumes {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Vec<Held>>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, name: &Name) -> Arc<sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(name.clone(), Arc::downgrade(&turn));
        turn
    }

    /// Mounts a volume for a container; answers where.
    async fn mount(
        &self,
        container: &Container,
        name: &Name,
        options: &[String],
    ) -> Result<String> {
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let said = self.dvdcli("mount", name, options).await?;
        let path = said.trim();
        if !Path::new(path).is_absolute() || !Path::new(path).is_dir() {
            return Err(Failure::unavailable(format!(
                "'{}' mounted the volume '{}' of the driver '{}' at '{path}', which is no directory",
                self.config.dvdcli.display(),
                name.name,
                name.driver
            )));
        }
        let mut containers = self.containers();
        let held = containers.get_mut(&container.id).into_iter().flatten();
        held.filter(|held| held.name == *name)
            .for_each(|held| held.mounted = true);
        drop(containers);
        if let (true, Some(user)) = (self.config.docker_volume_chown, &container.user) {
            let found = nix::unistd::User::from_name(user).ok().flatten();
            let user = found.ok_or_else(|| Failure::not_found(format!("no user '{user}'")))?;
            nix::unistd::chown(Path::new(path), Some(user.uid), Some(user.gid))
                .map_err(|error| failed("give away", Path::new(path), &error.into()))?;
        }
        Ok(path.to_owned())
    }

    /// Takes a volume from a container, and unmounts it if no other has it.
    async fn unmount(&self, id: &ContainerId, name: &Name) -> Result<()> {
        let turn = self.turn(name);
        let _turn = turn.lock().await;
        let is_shared = self.containers().iter().any(|(other, volumes)| {
            other != id && volumes.iter().any(|volume| volume.name == *name)
        });
        if !is_shared {
            self.dvdcli("unmount", name, &[]).await?;
        }
        self.forget(id, name);
        Ok(())
    }

    fn forget(&self, id: &ContainerId, name: &Name) {
        if let Some(held) = self.containers().get_mut(id) {
            held.retain(|held| held.name != *name);
        }
    }

    /// The lock, not taken.
    fn lock(&self) -> Result<File> {
        let path = self.directory.join(LOCK);
        let opened = File::options()
            .create(true)
            .append(true)
            .read(true)
            .open(&path);
        opened.map_err(|error| failed("open", &path, &error))
    }

    /// What an earlier agent process has begun is done, before anything is made of what it has recorded.
    async fn wait_for_stragglers(&self) -> Result<()> {
        let lock = self.lock()?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::Error(error)) => {
                    return Err(failed("lock", &self.directory.join(LOCK), &error));
                }
                Err(TryLockError::WouldBlock) if begun.elapsed() > STRAGGLER => {
                    let program = self.config.dvdcli.display();
                    warn!(%program, "one of an earlier agent process runs still: what it mounts later may be left mounted");
                    return Ok(());
                }
                Err(TryLockError::WouldBlock) => time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Runs the program; answers what it prints. A caller that goes away ends it.
    async fn dvdcli(&self, verb: &str, name: &Name, options: &[String]) -> Result<String> {
        let program = &self.config.dvdcli;
        let what = format!(
            "Failed to {verb} the volume '{}' of the driver '{}': '{}'",
            name.name,
            name.driver,
            program.display()
        );
        let lock = self.lock()?;
        let locked = lock.try_lock_shared();
        locked.map_err(|error| Failure::unavailable(format!("{what} is not begun: {error}")))?;
        let output = Command::new(program)
            .arg(verb)
            .arg(format!("--volumedriver={}", name.driver))
            .arg(format!("--volumename={}", name.name))
            .args(options)
            .stdin(lock)
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| Failure::not_found(format!("{what} cannot be run: {error}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let from = text.ceil_char_boundary(text.len().saturating_sub(WORDS));
        let words: Vec<&str> = text[from..].split_whitespace().collect();
        Err(Failure::unavailable(format!(
            "{what} ended with {}: {}",
            output.status,
            words.join(" ")
        )))
    }

    fn file(&self, id: &ContainerId) -> PathBuf {
        self.directory.join(id.as_str()).join("volumes")
    }

    fn write(&self, id: &ContainerId, names: &BTreeSet<Name>) -> Result<()> {
        let file = self.file(id);
        let checkpoint = Checkpoint {
            volumes: names.iter().cloned().collect(),
        };
        let write = || {
            std::fs::create_dir_all(file.parent().expect("a folder of the container's own"))?;
            let temporary = file.with_extension("tmp");
            std::fs::write(&temporary, serde_json::to_vec(&checkpoint)?)?;
            std::fs::rename(temporary, &file)
        };
        write().map_err(|error| failed("write", &file, &error))
    }

    /// What was noted for a container; nothing if the agent ended before it was.
    fn read(&self, id: &ContainerId) -> Result<Vec<Name>> {
        let file = self.file(id);
        let text = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            text => text.map_err(|error| failed("read", &file, &error))?,
        };
        match serde_json::from_slice::<Checkpoint>(&text) {
            Ok(checkpoint) => Ok(checkpoint.volumes),
            Err(error) => {
                // A machine that failed has no mounts left; the agent must start.
                let file = file.display();
                warn!(%file, %error, "not readable: volumes may be left mounted");
                Ok(Vec::new())
            }
        }
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::unavailable(format!("failed to {what} '{}': {error}", path.display()))
}
