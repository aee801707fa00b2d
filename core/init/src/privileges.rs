//! What the command may do: its user, its capabilities and its system call filter.
//!
//! The first process keeps all of the agent's; only the command gives them up, just before it executes its program.

use std::io;

use nix::{
    sys::prctl,
    unistd::{Gid, Uid, setgid, setgroups, setuid},
};
use tepui_init::{Capabilities, LaunchSpec, User};

use crate::sys;

/// What failed, for "failed to ...", and why.
pub(crate) type Failed = (&'static str, io::Error);

/// Becomes the command's user with the command's capabilities and filter.
pub(crate) fn give_up(spec: &LaunchSpec) -> Result<(), Failed> {
    if spec.no_new_privileges {
        prctl::set_no_new_privs().map_err(|error| ("set no_new_privs", error.into()))?;
    }
    if let Some(sets) = &spec.capabilities {
        bound(sets, spec.user.as_ref())?;
    }
    // The kernel takes a filter from those who cannot gain privileges any more, and from the mighty, which this
    // process is only now: then the filter has to let through the calls that follow, as with other container engines.
    if !spec.no_new_privileges {
        filter(spec)?;
    }
    if let Some(user) = &spec.user {
        become_user(user)?;
    }
    if let Some(sets) = &spec.capabilities {
        sys::set_capabilities(sets.effective, sets.permitted, sets.inheritable)
            .and_then(|()| sys::raise_ambient(sets.ambient))
            .map_err(|error| ("set capabilities", error))?;
    }
    if spec.no_new_privileges {
        filter(spec)?;
    }
    Ok(())
}

/// Drops what can never be gained again, and sees to it that the other sets outlive the change of user and the start
/// of the program.
fn bound(sets: &Capabilities, user: Option<&User>) -> Result<(), Failed> {
    sys::drop_bounding(sets.bounding).map_err(|error| ("drop capabilities", error))?;
    let is_root = user.is_none_or(|user| user.uid == 0);
    if !is_root {
        return prctl::set_keepcaps(true).map_err(|error| ("keep capabilities", error.into()));
    }
    if sets.effective != sets.bounding {
        // Root would gain the whole bounding set as soon as it executes its program.
        sys::give_root_no_capabilities().map_err(|error| ("set secure bits", error))?;
    }
    Ok(())
}

fn become_user(user: &User) -> Result<(), Failed> {
    let groups: Vec<Gid> = user
        .groups
        .iter()
        .map(|group| Gid::from_raw(*group))
        .collect();
    setgroups(&groups).map_err(|error| ("set supplementary groups", error.into()))?;
    setgid(Gid::from_raw(user.gid)).map_err(|error| ("set the group", error.into()))?;
    setuid(Uid::from_raw(user.uid)).map_err(|error| ("set the user", error.into()))
}

fn filter(spec: &LaunchSpec) -> Result<(), Failed> {
    if spec.seccomp.is_empty() {
        return Ok(());
    }
    sys::install_filter(&spec.seccomp).map_err(|error| ("install the system call filter", error))
}
