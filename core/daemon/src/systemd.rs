//! Under systemd, what has to outlive the agent is moved out of its unit, into `mesos_executors.slice`: a unit is ended with
//! all processes of its cgroup, unless it says otherwise (`KillMode=process`). Mirrors `src/linux/systemd.cpp` of Mesos.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use tepui_isolators_linux::Hierarchies;

/// The slice, as in Mesos.
const SLICE: &str = "mesos_executors.slice";

/// No `Delegate=`: it is for units with processes of their own, and systemd ignores it in a slice with a warning.
const UNIT: &str = "[Unit]\nDescription=Supervisors of tasks, which outlive the agent\n";

/// Where systemd says that it runs the machine (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Starts the slice, and answers its cgroups: what is started for containers is placed there. None where systemd does not
/// run the machine.
///
/// # Errors
/// If the unit cannot be written, or systemd does not start it.
pub(crate) fn slice(units: &Path, hierarchies: &Hierarchies) -> anyhow::Result<Vec<PathBuf>> {
    if !Path::new(BOOTED).is_dir() {
        return Ok(Vec::new());
    }
    start(units).context(
        "--systemd_enable_support: tasks would end with the agent's unit (--systemd_enable_support=false goes on, for a unit with \
         KillMode=process)",
    )?;
    let cgroups = cgroups(hierarchies);
    if cgroups.is_empty() {
        bail!("--systemd_enable_support: systemd has started {SLICE}, which has no cgroup");
    }
    Ok(cgroups)
}

fn start(units: &Path) -> anyhow::Result<()> {
    let path = units.join(SLICE);
    if fs::read_to_string(&path).ok().as_deref() != Some(UNIT) {
        fs::create_dir_all(units)
            .and_then(|()| fs::write(&path, UNIT))
            .with_context(|| format!("'{}' cannot be written", path.display()))?;
        systemctl(&["daemon-reload"])?;
    }
    systemctl(&["start", SLICE])
}

fn systemctl(arguments: &[&str]) -> anyhow::Result<()> {
    let shown = format!("systemctl {}", arguments.join(" "));
    let output = Command::new("systemctl")
        .args(arguments)
        .output()
        .with_context(|| format!("'{shown}' cannot be run"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("'{shown}' failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}

/// The slice in the hierarchies that systemd has units in: its own of version 1, and version 2.
fn cgroups(hierarchies: &Hierarchies) -> Vec<PathBuf> {
    let own = hierarchies.v1.get("name=systemd");
    let mounts = own.into_iter().chain(&hierarchies.v2);
    let slices = mounts.map(|mount| mount.join(SLICE));
    slices.filter(|slice| slice.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slice_is_where_systemd_has_its_units() {
        let at = tempfile::tempdir().unwrap();
        let [own, unified, memory] = ["systemd", "unified", "memory"].map(|name| {
            let mount = at.path().join(name);
            fs::create_dir_all(mount.join(SLICE)).unwrap();
            mount
        });
        let mut hierarchies = Hierarchies {
            v1: [("memory", memory), ("name=systemd", own.clone())]
                .map(|(name, mount)| (name.to_owned(), mount))
                .into(),
            v2: Some(unified.clone()),
        };
        let slices = [own.join(SLICE), unified.join(SLICE)];
        assert_eq!(cgroups(&hierarchies), slices);
        // One without it is not systemd's.
        fs::remove_dir(&slices[1]).unwrap();
        assert_eq!(cgroups(&hierarchies), [own.join(SLICE)]);
        hierarchies.v1.clear();
        assert_eq!(cgroups(&hierarchies), Vec::<PathBuf>::new());
    }
}
