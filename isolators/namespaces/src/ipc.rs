//! Isolator `namespaces/ipc`: System V and POSIX message queues, semaphores and shared memory.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/namespaces/ipc.cpp`. A container's own `/dev/shm` is mounted on the
//! host, in this module's runtime directory, so that containers nested in it can have the same.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tepui_module_sdk::mesos::linux_info::IpcMode;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::ContainerClass;

/// Settings of `namespaces/ipc`, named as Mesos' flags.
#[config]
pub struct Config {
    /// Bytes of a container's own /dev/shm, where it asks for no size. Without it the kernel's default: half the memory.
    #[serde(default)]
    default_container_shm_size: Option<u64>,
    /// Refuse containers that ask to share the agent's ipc namespace.
    #[serde(default)]
    disallow_sharing_agent_ipc_namespace: bool,
}

/// See the module.
pub struct IpcNamespaces {
    config: Config,
    /// Where the shared memory of containers is mounted, one directory each.
    directory: PathBuf,
    containers: Mutex<BTreeMap<ContainerId, Known>>,
}

/// What nested containers have to know of the one around them.
#[derive(Clone, Debug, Default)]
struct Known {
    /// First process, once there is one.
    pid: Option<u32>,
    /// Its `/dev/shm` on the host; none is the host's.
    shm: Option<PathBuf>,
}

/// What a container gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// A namespace of its own, and the host's /dev/shm.
    Own,
    /// A namespace and a /dev/shm of its own; bytes where they are limited.
    Private(Option<u64>),
    /// What the agent has.
    OfAgent,
    /// The namespace of the container around it; the /dev/shm too, or the host's.
    OfParent { shm: bool },
}

impl Module for IpcNamespaces {
    type Config = Config;
    const NAME: &'static str = "namespaces/ipc";
    const DESCRIPTION: &'static str = "an ipc namespace and /dev/shm of its own for each container";

    fn create(config: Config, context: Context) -> Result<Self> {
        Ok(Self {
            config,
            directory: context.runtime_dir(),
            containers: Mutex::default(),
        })
    }
}

impl Isolator for IpcNamespaces {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["root"];

    async fn recover(&self, running: Vec<Container>, orphans: Vec<ContainerId>) -> Result<()> {
        let mut running = running;
        // Those around others first.
        running.sort_by(|a, b| a.id.cmp(&b.id));
        for container in running {
            let own = self.directory.join(container.id.as_str());
            let shm = match self.choose(&container)? {
                Choice::Private(_) => Some(own),
                Choice::OfParent { shm: true } => self.parent(&container.id).shm,
                _ => None,
            };
            let pid = Some(container.pid).filter(|pid| *pid != 0);
            self.containers().insert(container.id, Known { pid, shm });
        }
        for orphan in orphans {
            self.cleanup(&orphan).await?;
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let choice = self.choose(&container)?;
        let mut plan = LaunchPlan::none();
        let shm = match choice {
            Choice::OfAgent => None,
            Choice::Own => {
                plan = plan.namespace(Namespace::Ipc);
                None
            }
            Choice::Private(size) => {
                plan = plan.namespace(Namespace::Ipc);
                Some(self.mount(&container.id, size)?)
            }
            Choice::OfParent { shm } => {
                let parent = self.parent(&container.id);
                let pid = parent.pid.ok_or_else(|| {
                    Failure::unavailable("the container around this one is not running")
                })?;
                plan = plan.join(Namespace::Ipc, format!("/proc/{pid}/ns/ipc"));
                parent.shm.filter(|_| shm)
            }
        };
        if let Some(shm) = &shm {
            let bound = Mount {
                source: shm.to_string_lossy().into_owned(),
                target: "/dev/shm".to_owned(),
                flags: MsFlags::MS_BIND.bits(),
                ..Mount::default()
            };
            plan = plan.namespace(Namespace::Mount).mount(bound);
        }
        self.containers()
            .insert(container.id, Known { pid: None, shm });
        Ok(plan)
    }

    async fn isolate(&self, id: &ContainerId, pid: u32) -> Result<()> {
        if let Some(known) = self.containers().get_mut(id) {
            known.pid = Some(pid);
        }
        Ok(())
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        self.containers().remove(id);
        let own = self.directory.join(id.as_str());
        match umount2(&own, MntFlags::MNT_DETACH) {
            // Nothing is there, or nothing is mounted there.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(error) => return Err(failed("unmount", &own, error.into())),
        }
        match std::fs::remove_dir(&own) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &own, error))
            }
            _ => Ok(()),
        }
    }
}

impl IpcNamespaces {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Known>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn parent(&self, id: &ContainerId) -> Known {
        let known = id
            .parent()
            .and_then(|parent| self.containers().get(&parent).cloned());
        known.unwrap_or_default()
    }

    fn choose(&self, container: &Container) -> Result<Choice> {
        let info = container.info()?.linux_info.unwrap_or_default();
        let mode = info.ipc_mode();
        if info.shm_size.is_some() && mode != IpcMode::Private {
            return Err(Failure::invalid(
                "'linux_info.shm_size' is the size of a container's own /dev/shm: it needs the 'ipc_mode' PRIVATE",
            ));
        }
        let megabytes = |size: u32| u64::from(size) << 20;
        let size = info.shm_size.map(megabytes);
        let private = Choice::Private(size.or(self.config.default_container_shm_size));
        let is_nested = container.id.parent().is_some();
        let is_debug = container.config.class() == ContainerClass::Debug;
        Ok(match mode {
            IpcMode::Private if is_debug => {
                return Err(Failure::invalid(
                    "a container for debugging shares the ipc namespace of the one around it: it cannot have the \
                     'ipc_mode' PRIVATE",
                ));
            }
            IpcMode::Private => private,
            _ if is_debug => Choice::OfParent { shm: true },
            IpcMode::ShareParent if is_nested => Choice::OfParent { shm: true },
            IpcMode::ShareParent if self.config.disallow_sharing_agent_ipc_namespace => {
                return Err(Failure::invalid(
                    "Sharing agent ipc namespace with container is not allowed",
                ));
            }
            IpcMode::ShareParent => Choice::OfAgent,
            IpcMode::Unknown if is_nested => Choice::OfParent { shm: false },
            IpcMode::Unknown => Choice::Own,
        })
    }

    /// Mounts a container's own shared memory on the host.
    fn mount(&self, id: &ContainerId, size: Option<u64>) -> Result<PathBuf> {
        let own = self.directory.join(id.as_str());
        std::fs::create_dir_all(&own).map_err(|error| failed("create", &own, error))?;
        let mut options = "mode=1777".to_owned();
        if let Some(size) = size {
            options += &format!(",size={size}");
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_STRICTATIME;
        mount(
            Some("tmpfs"),
            &own,
            Some("tmpfs"),
            flags,
            Some(options.as_str()),
        )
        .map_err(|error| failed("mount a tmpfs at", &own, error.into()))?;
        Ok(own)
    }
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Failure {
    Failure::unavailable(format!("failed to {what} '{}': {error}", path.display()))
}
