//! Isolator `volume/sandbox_path`: directories of the own sandbox, or of the container around it.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/volume/sandbox_path.cpp`. What is in a sandbox is its user's, so the
//! source is resolved inside the sandbox when it is mounted, and made there when it is missing.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tepui_isolators_linux::{gids::VolumeGids, mounts::Place};
use tepui_module_sdk::mesos::volume::source::{self, sandbox_path};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::mount::Create;

use crate::{bind, has_parent_parts};

/// Settings of `volume/sandbox_path`.
#[config]
pub struct Config {
    /// First and last group of each range from which a volume of PARENT gets one whose container's user is not root.
    #[serde(default)]
    volume_gid_ranges: Vec<(u32, u32)>,
}

/// See the module.
pub struct SandboxPathVolumes {
    gids: Option<VolumeGids>,
    /// Sandboxes of containers, for those nested in them.
    sandboxes: Mutex<BTreeMap<ContainerId, PathBuf>>,
}

impl Module for SandboxPathVolumes {
    type Config = Config;
    const NAME: &'static str = "volume/sandbox_path";
    const DESCRIPTION: &'static str = "directories of the sandbox, or of the parent's, as volumes";

    fn create(config: Config, context: Context) -> Result<Self> {
        Ok(Self {
            gids: VolumeGids::new(config.volume_gid_ranges, &context.work_dir()),
            sandboxes: Mutex::default(),
        })
    }
}

impl Isolator for SandboxPathVolumes {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["filesystem/linux"];

    async fn recover(&self, running: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        if let Some(gids) = &self.gids {
            // Some may have ended without an agent to see it.
            let sandboxes = running.iter().map(|container| container.sandbox.as_path());
            let released = gids.release_all_but(&sandboxes.collect::<Vec<_>>());
            if let Err(error) = released {
                warn!(%error, "groups of volumes are not taken back");
            }
        }
        let sandboxes = running
            .into_iter()
            .map(|container| (container.id, container.sandbox));
        self.sandboxes().extend(sandboxes);
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        self.sandboxes()
            .insert(container.id.clone(), container.sandbox.clone());
        let mut plan = LaunchPlan::none();
        for volume in container.info()?.volumes {
            let Some(source) = volume.source.as_ref() else {
                continue;
            };
            if source.r#type() != source::Type::SandboxPath {
                continue;
            }
            let (sandbox, path) = self.source(&container, source)?;
            if sandbox != container.sandbox {
                plan.supplementary_groups
                    .extend(self.group(&container, &sandbox, &path)?);
            }
            plan = plan.mount(Mount {
                source: path,
                source_root: sandbox.to_string_lossy().into_owned(),
                ..bind(&container, &volume, Create::Directory)?
            });
        }
        Ok(plan)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        let sandbox = self.sandboxes().remove(id);
        if let Some((gids, sandbox)) = self.gids.clone().zip(sandbox) {
            let released = blocking(move || gids.release(&sandbox)).await?;
            released.map_err(|error| Failure::unavailable(error.to_string()))?;
        }
        Ok(())
    }
}

impl SandboxPathVolumes {
    fn sandboxes(&self) -> MutexGuard<'_, BTreeMap<ContainerId, PathBuf>> {
        self.sandboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The group that a container of a user other than root shares a directory of its parent's sandbox by.
    fn group(&self, container: &Container, sandbox: &Path, path: &str) -> Result<Option<u32>> {
        let is_root = |user: &String| user == "root";
        let Some(gids) = &self.gids else {
            return Ok(None);
        };
        if container.user.as_ref().is_none_or(is_root) {
            return Ok(None);
        }
        let place = Place {
            base: sandbox.into(),
            below: Path::new(path).into(),
        };
        let shared = gids.share(&place);
        shared.map(Some).map_err(|error| {
            Failure::unavailable(format!(
                "the volume '{path}' of the parent's sandbox cannot be shared: {error}"
            ))
        })
    }

    /// Whose sandbox it is, and the path in it.
    fn source(
        &self,
        container: &Container,
        source: &mesos::volume::Source,
    ) -> Result<(PathBuf, String)> {
        let asked = source.sandbox_path.as_ref().ok_or_else(|| {
            Failure::invalid(
                "a volume whose 'source' is of type SANDBOX_PATH needs 'source.sandbox_path'",
            )
        })?;
        let path = Path::new(&asked.path);
        if path.is_absolute() || has_parent_parts(path) {
            return Err(Failure::invalid(format!(
                "'source.sandbox_path.path' '{}' must be relative and without '..'",
                asked.path
            )));
        }
        let sandbox = match asked.r#type() {
            sandbox_path::Type::Self_ => container.sandbox.clone(),
            sandbox_path::Type::Parent => self.of_parent(&container.id)?,
            sandbox_path::Type::Unknown => {
                return Err(Failure::invalid(
                    "'source.sandbox_path.type' must be SELF or PARENT",
                ));
            }
        };
        Ok((sandbox, asked.path.clone()))
    }

    fn of_parent(&self, id: &ContainerId) -> Result<PathBuf> {
        let parent = id
            .parent()
            .ok_or_else(|| Failure::invalid("PARENT type only works for nested container"))?;
        self.sandboxes()
            .get(&parent)
            .cloned()
            .ok_or_else(|| Failure::unavailable("the container around this one is not known"))
    }
}
