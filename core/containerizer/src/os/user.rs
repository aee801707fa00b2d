//! Users and groups, by the host's databases.

use std::{
    collections::BTreeMap,
    ffi::CString,
    io,
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::unistd::{Gid, Uid, fchown, getgrouplist};

/// For how long what the databases say of a user is believed.
const FRESH: Duration = Duration::from_secs(5);

/// The users of commands. Many begin as the same one, and the databases are read whole, or are elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Users(Mutex<BTreeMap<String, (Instant, tepui_init::User)>>);

impl Users {
    /// Whom a command is switched to; none when it is the agent's own user, which needs no right to switch.
    ///
    /// # Errors
    ///
    /// When there is no such user, or this process may not become another.
    pub(crate) fn switch_to(&self, name: &str) -> Result<Option<tepui_init::User>, String> {
        self.find(name).and_then(|user| switch_to(name, user))
    }

    fn find(&self, name: &str) -> Result<tepui_init::User, String> {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, user)) = known().get(name).filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(user.clone());
        }
        let user = lookup(name)?;
        let mut known = known();
        known.retain(|_, (at, _)| at.elapsed() < FRESH);
        known.insert(name.to_owned(), (Instant::now(), user.clone()));
        Ok(user)
    }
}

fn switch_to(name: &str, user: tepui_init::User) -> Result<Option<tepui_init::User>, String> {
    let own = nix::unistd::geteuid();
    if own.is_root() {
        return Ok(Some(user));
    }
    if user.uid == own.as_raw() {
        return Ok(None);
    }
    Err(format!(
        "Failed to run as '{name}': the agent does not run as root"
    ))
}

/// A user's numbers, supplementary groups included.
///
/// # Errors
///
/// When there is no such user, in Mesos' words.
fn lookup(name: &str) -> Result<tepui_init::User, String> {
    let user = nix::unistd::User::from_name(name)
        .map_err(|error| format!("Failed to get user information for '{name}': {error}"))?
        .ok_or_else(|| format!("Failed to get user information for '{name}': No such user"))?;
    let c_name = CString::new(name).map_err(|_| format!("'{name}' cannot be a user"))?;
    let groups = getgrouplist(&c_name, user.gid)
        .map_err(|error| format!("Failed to get supplementary groups of '{name}': {error}"))?;
    Ok(tepui_init::User {
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
        groups: groups.into_iter().map(Gid::as_raw).collect(),
    })
}

/// Makes an open file or directory the user's own.
pub(crate) fn give_to(file: &impl AsFd, user: &tepui_init::User) -> io::Result<()> {
    fchown(
        file,
        Some(Uid::from_raw(user.uid)),
        Some(Gid::from_raw(user.gid)),
    )
    .map_err(Into::into)
}
