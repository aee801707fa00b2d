//! Isolator `volume/image`: volumes that are images.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/volume/image.cpp`. The image is made ready by the provisioner, which
//! says where; this isolator has it bound at the volume's path.

use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::mount::Create;

use crate::bind;

/// See the module.
pub struct ImageVolumes;

impl Module for ImageVolumes {
    type Config = NoConfig;
    const NAME: &'static str = "volume/image";
    const DESCRIPTION: &'static str = "images as volumes";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Isolator for ImageVolumes {
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
            if volume.image.is_none() {
                continue;
            }
            let path = &volume.container_path;
            let root = container.config.image_roots.get(path).ok_or_else(|| {
                Failure::invalid(format!(
                    "the image of the volume at '{path}' needs an image store: the agent has no --image_providers"
                ))
            })?;
            plan = plan.mount(Mount {
                source: root.clone(),
                ..bind(&container, &volume, Create::Directory)?
            });
        }
        Ok(plan)
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}
