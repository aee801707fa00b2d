//! Sandboxes: the directory a command starts in.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use crate::{Error, os};

/// Makes a sandbox: mode 0750, owned by its user, as Mesos does since 1.6.
///
/// Parents are made as the agent's own. A sandbox that is already there keeps what is in it.
pub(crate) fn prepare(sandbox: &Path, user: Option<&tepui_init::User>) -> Result<(), Error> {
    let error = |what| {
        move |source| Error::Io {
            what,
            path: sandbox.to_owned(),
            source,
        }
    };
    if let Some(parent) = sandbox.parent() {
        fs::create_dir_all(parent).map_err(error("create the parents of"))?;
    }
    match DirBuilder::new().mode(0o750).create(sandbox) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error("create")(source));
        }
        _ => {}
    }
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(sandbox)
        .map_err(error("open"))?;
    // The umask has cut the mode.
    directory
        .set_permissions(fs::Permissions::from_mode(0o750))
        .map_err(error("set the mode of"))?;
    if let Some(user) = user {
        os::give_to(&directory, user).map_err(error("change the owner of"))?;
    }
    Ok(())
}
