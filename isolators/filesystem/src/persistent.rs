//! Persistent volumes among a container's resources.
//!
//! Mirrors `paths::getPersistentVolumePath` of Mesos.

use std::path::Path;

use nix::unistd::{Gid, Uid, User};
use tepui_module_sdk::mesos::{self, resource};
use tepui_module_sdk::prelude::*;

/// Whether a disk is a persistent volume.
pub(crate) fn is_persistent(disk: &mesos::Resource) -> bool {
    let disk = disk.disk.as_ref();
    disk.is_some_and(|disk| disk.persistence.is_some())
}

/// Where a volume lies: `<root>/volumes/roles/<role>/<id>`, with spaces for the slashes of the role so that no volume
/// is inside of another; or all of a disk that is a mount.
pub(crate) fn volume_path(work_dir: &Path, resource: &mesos::Resource) -> Option<PathBuf> {
    use resource::disk_info::source::Type;
    let disk = resource.disk.as_ref()?;
    let id = &disk.persistence.as_ref()?.id;
    let below = |root: &Path| {
        let role = resource
            .reservations
            .last()
            .and_then(|last| last.role.as_deref());
        let role = role?.replace('/', " ");
        Some(root.join("volumes/roles").join(role).join(id))
    };
    let Some(source) = &disk.source else {
        return below(work_dir);
    };
    // A root that is relative is below the work directory.
    let absolute = |root: &Option<String>| root.as_ref().map(|root| work_dir.join(root));
    match source.r#type() {
        Type::Path => below(&absolute(&source.path.as_ref()?.root)?),
        Type::Mount => absolute(&source.mount.as_ref()?.root),
        _ => None,
    }
}

/// A volume is its container's, as Mesos makes it, unless others share it.
pub(crate) fn give_to(volume: &Path, name: &str) -> Result<()> {
    let user = User::from_name(name)
        .ok()
        .flatten()
        .ok_or_else(|| Failure::invalid(format!("there is no user '{name}'")))?;
    let (uid, gid): (Uid, Gid) = (user.uid, user.gid);
    nix::unistd::chown(volume, Some(uid), Some(gid)).map_err(|error| {
        Failure::unavailable(format!(
            "failed to give '{}' to '{name}': {error}",
            volume.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_module_sdk::mesos::resource::{DiskInfo, ReservationInfo, disk_info};

    #[test]
    fn volumes_lie_where_mesos_keeps_them() {
        use disk_info::source::{self, Type};
        let on = |source: Option<disk_info::Source>| mesos::Resource {
            reservations: ["a", "a/b"]
                .map(|role| ReservationInfo {
                    role: Some(role.to_owned()),
                    ..Default::default()
                })
                .to_vec(),
            disk: Some(DiskInfo {
                persistence: Some(disk_info::Persistence {
                    id: "v".to_owned(),
                    principal: None,
                }),
                source,
                ..Default::default()
            }),
            ..Default::default()
        };
        let path = |source| volume_path(Path::new("/w"), &on(source));
        let root = |root: &str| Some(root.to_owned());
        let mut source = disk_info::Source::default();
        assert_eq!(path(None), Some("/w/volumes/roles/a b/v".into()));
        source.set_type(Type::Path);
        source.path = Some(source::Path { root: root("/d") });
        assert_eq!(
            path(Some(source.clone())),
            Some("/d/volumes/roles/a b/v".into())
        );
        source.set_type(Type::Mount);
        source.mount = Some(source::Mount { root: root("m") });
        assert_eq!(path(Some(source.clone())), Some("/w/m".into()));
        source.set_type(Type::Raw);
        assert_eq!(path(Some(source)), None);
    }
}
