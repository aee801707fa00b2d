//! Isolator `volume/secret`: secrets as files.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/volume/secret.cpp`. A value is written to a ramfs in this module's
//! runtime directory, which only root can look into and which is never swapped, and bound from there; so it is on no
//! disk, nor in the description of a running container. The ramfs is there only while there are secrets.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::User;
use tepui_module_sdk::mesos::{Volume, secret, volume::source};
use tepui_module_sdk::prelude::{
    Container, ContainerId, Context, Failure, Isolator, LaunchPlan, Module, Mount, NoConfig,
    PathBuf, Result,
};
use tepui_module_sdk::proto::isolator::mount::Create;

use crate::bind;

/// See the module.
pub struct SecretVolumes {
    directory: PathBuf,
    /// One at a time mounts and unmounts.
    mounting: std::sync::Mutex<()>,
}

/// The kernel's number of ramfs.
const RAMFS: FsType = FsType(0x8584_58f6);
const MS_RDONLY: u64 = 1;

impl Module for SecretVolumes {
    type Config = NoConfig;
    const NAME: &'static str = "volume/secret";
    const DESCRIPTION: &'static str = "secrets as files";

    fn create(_: NoConfig, context: Context) -> Result<Self> {
        Ok(Self {
            directory: context.runtime_dir(),
            mounting: std::sync::Mutex::default(),
        })
    }
}

impl Isolator for SecretVolumes {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["filesystem/linux"];

    async fn recover(&self, _: Vec<Container>, orphans: Vec<ContainerId>) -> Result<()> {
        for orphan in orphans {
            self.cleanup(&orphan).await?;
        }
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let mut plan = LaunchPlan::none();
        for (number, volume) in container.info()?.volumes.iter().enumerate() {
            let Some(value) = value(volume)? else {
                continue;
            };
            let path = self.write(&container, number, &value)?;
            let mut mount = Mount {
                source: path.to_string_lossy().into_owned(),
                ..bind(&container, volume, Create::File)?
            };
            mount.flags |= MS_RDONLY;
            plan = plan.mount(mount);
        }
        Ok(plan)
    }

    async fn cleanup(&self, id: &ContainerId) -> Result<()> {
        let _mounting = self
            .mounting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = self.directory.join(id.as_str());
        match fs::remove_dir_all(&own) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("remove", &own, error));
            }
            _ => {}
        }
        let is_empty =
            fs::read_dir(&self.directory).is_ok_and(|mut entries| entries.next().is_none());
        if is_empty && self.is_mounted() {
            // Whoever still looks keeps it for a moment.
            umount2(&self.directory, MntFlags::MNT_DETACH)
                .map_err(|error| failed("unmount", &self.directory, error.into()))?;
        }
        Ok(())
    }
}

/// The secret of a volume; none of a volume from elsewhere. What is said of a bad one does not tell it.
fn value(volume: &Volume) -> Result<Option<Vec<u8>>> {
    let Some(source) = volume
        .source
        .as_ref()
        .filter(|source| source.r#type() == source::Type::Secret)
    else {
        return Ok(None);
    };
    let secret = source.secret.clone().unwrap_or_default();
    match (secret.r#type(), secret.value) {
        (secret::Type::Value, Some(value)) => Ok(Some(value.data.to_vec())),
        (secret::Type::Reference, _) => Err(Failure::invalid(format!(
            "the secret at '{}' is a reference, and there is no secret resolver to look it up: give the secret of type \
             VALUE",
            volume.container_path
        ))),
        _ => Err(Failure::invalid(format!(
            "the secret at '{}' has no value: 'source.secret' needs 'type' VALUE and 'value'",
            volume.container_path
        ))),
    }
}

impl SecretVolumes {
    fn is_mounted(&self) -> bool {
        statfs(&self.directory).is_ok_and(|found| found.filesystem_type() == RAMFS)
    }

    /// Writes a secret for the container's user.
    fn write(&self, container: &Container, number: usize, value: &[u8]) -> Result<PathBuf> {
        let _mounting = self
            .mounting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if !self.is_mounted() {
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            mount(
                Some("ramfs"),
                &self.directory,
                Some("ramfs"),
                flags,
                Some("mode=700"),
            )
            .map_err(|error| failed("mount a ramfs at", &self.directory, error.into()))?;
        }
        let own = self.directory.join(container.id.as_str());
        fs::create_dir_all(&own)
            .and_then(|()| fs::set_permissions(&own, fs::Permissions::from_mode(0o700)))
            .map_err(|error| failed("create", &own, error))?;
        let path = own.join(number.to_string());
        let write = || {
            let mut file = fs::OpenOptions::new()
                .create_new(true)
                .write(true)
                .mode(0o400)
                .open(&path)?;
            file.write_all(value)?;
            let user = container
                .user
                .as_ref()
                .and_then(|name| User::from_name(name).ok().flatten());
            match user {
                Some(user) => fchown(&file, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
                None => Ok(()),
            }
        };
        write().map_err(|error| failed("write", &path, error))?;
        Ok(path)
    }
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Failure {
    Failure::unavailable(format!("failed to {what} '{}': {error}", path.display()))
}
