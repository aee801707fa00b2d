//! Isolators of volumes: `docker/volume`, `volume/host_path`, `volume/image`, `volume/sandbox_path` and
//! `volume/secret`.
//!
//! Each plans mounts, which the container's first process makes in its own mount namespace; they vanish with it.

mod docker;
mod host_path;
mod image;
mod sandbox_path;
mod secret;

pub use docker::{Config as DockerConfig, DockerVolumes};
pub use host_path::{Config as HostPathConfig, HostPathVolumes};
pub use image::ImageVolumes;
pub use sandbox_path::{Config as SandboxPathConfig, SandboxPathVolumes};
pub use secret::SecretVolumes;

use std::path::{Component, Path};

use tepui_module_sdk::mesos::{Volume, volume::Mode};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::mount::Create;

const MS_RDONLY: u64 = 1;
const MS_BIND: u64 = 4096;
const MS_REC: u64 = 16384;

/// The bind mount of a volume, whose source is still to be named. `create` is what a missing target is made as; the
/// host's own tree is not added to, but for the sandbox.
fn bind(container: &Container, volume: &Volume, create: Create) -> Result<Mount> {
    let container_path = &volume.container_path;
    let path = Path::new(container_path);
    if has_parent_parts(path) {
        return Err(Failure::invalid(format!(
            "the volume's 'container_path' '{container_path}' must not contain '..'"
        )));
    }
    let on_host = path.is_absolute() && container.plan.rootfs.is_none();
    if on_host && !path.exists() {
        return Err(Failure::invalid(format!(
            "the volume's 'container_path' '{container_path}' does not exist on the host, whose file system the \
             container uses: give a path that exists, one that is relative to the sandbox, or an image"
        )));
    }
    let target = Path::new(&container.config.sandbox_inside).join(path);
    let read_only = match volume.mode() {
        Mode::Ro => MS_RDONLY,
        Mode::Rw => 0,
    };
    Ok(Mount {
        target: target.to_string_lossy().into_owned(),
        flags: MS_BIND | MS_REC | read_only,
        create: create.into(),
        ..Mount::default()
    })
}

fn has_parent_parts(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}
