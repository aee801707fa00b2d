//! Isolator `volume/host_path`: files and directories of the host.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/volume/host_path.cpp`.

use std::path::Path;

use tepui_module_sdk::mesos::{Volume, mount_propagation, volume::source};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::mount::Create;

use crate::{bind, has_parent_parts};

/// `MS_SHARED` of Linux.
const MS_SHARED: u64 = 1 << 20;

/// Settings of `volume/host_path`.
#[config]
pub struct Config {
    /// Directories of the host, joined by colons, below which the missing directory of a volume is made. Mesos' flag
    /// of this name.
    #[serde(default)]
    host_path_volume_force_creation: String,
}

/// See the module.
pub struct HostPathVolumes {
    /// Below these a missing directory is made.
    creatable: Vec<PathBuf>,
}

impl Module for HostPathVolumes {
    type Config = Config;
    const NAME: &'static str = "volume/host_path";
    const DESCRIPTION: &'static str = "files and directories of the host as volumes";

    fn create(config: Config, _: Context) -> Result<Self> {
        let list = &config.host_path_volume_force_creation;
        let creatable: Vec<PathBuf> = list
            .split(':')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .collect();
        match creatable
            .iter()
            .find(|path| !path.is_absolute() || has_parent_parts(path))
        {
            Some(path) => Err(Failure::invalid(format!(
                "'host_path_volume_force_creation' takes absolute paths without '..', joined by colons; '{}' is none",
                path.display()
            ))),
            None => Ok(Self { creatable }),
        }
    }
}

impl Isolator for HostPathVolumes {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["filesystem/linux"];

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let mut plan = LaunchPlan::none();
        for volume in container.info()?.volumes {
            if let Some((path, propagation)) = host_path(&volume)? {
                plan = plan.mount(self.mount(&container, &volume, path, propagation)?);
            }
        }
        Ok(plan)
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

/// A volume's path on the host, and what of its mounts is shown; none of a volume from elsewhere.
fn host_path(volume: &Volume) -> Result<Option<(&str, mount_propagation::Mode)>> {
    if volume.image.is_some() {
        return Ok(None);
    }
    let unknown = mount_propagation::Mode::Unknown;
    let Some(source) = &volume.source else {
        let path = volume.host_path.as_deref().ok_or_else(|| {
            Failure::invalid(format!(
                "the volume at '{}' says neither 'host_path' nor 'source' nor 'image'",
                volume.container_path
            ))
        })?;
        return Ok(Some((path, unknown)));
    };
    if source.r#type() != source::Type::HostPath {
        return Ok(None);
    }
    let host = source.host_path.as_ref().ok_or_else(|| {
        Failure::invalid("a volume whose 'source' is of type HOST_PATH needs 'source.host_path'")
    })?;
    let mode = host.mount_propagation.as_ref();
    Ok(Some((
        &host.path,
        mode.map_or(unknown, |asked| asked.mode()),
    )))
}

impl HostPathVolumes {
    fn mount(
        &self,
        container: &Container,
        volume: &Volume,
        path: &str,
        propagation: mount_propagation::Mode,
    ) -> Result<Mount> {
        let source = Path::new(path);
        let both_ways = propagation == mount_propagation::Mode::Bidirectional;
        if source.is_relative() {
            if has_parent_parts(source) || both_ways {
                return Err(Failure::invalid(format!(
                    "the volume's path '{path}' is in the sandbox: it must not contain '..', nor be shared with the \
                     host (mode BIDIRECTIONAL)"
                )));
            }
            return Ok(Mount {
                source: path.to_owned(),
                source_root: container.sandbox.to_string_lossy().into_owned(),
                ..bind(container, volume, Create::Directory)?
            });
        }
        self.ensure(source)?;
        let create = match source.is_dir() {
            true => Create::Directory,
            false => Create::File,
        };
        Ok(Mount {
            source: path.to_owned(),
            propagation: if both_ways { MS_SHARED } else { 0 },
            ..bind(container, volume, create)?
        })
    }

    /// Makes the directory where that is allowed.
    fn ensure(&self, path: &Path) -> Result<()> {
        if path.exists() {
            return Ok(());
        }
        let shown = path.display();
        let allowed = self.creatable.iter().any(|above| path.starts_with(above));
        if !allowed || has_parent_parts(path) {
            return Err(Failure::not_found(format!(
                "Path '{shown}' in HOST_PATH volume does not exist; it is made only below a path of the agent's \
                 --host_path_volume_force_creation"
            )));
        }
        std::fs::create_dir_all(path)
            .map_err(|error| Failure::unavailable(format!("failed to create '{shown}': {error}")))
    }
}
