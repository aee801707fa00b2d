//! Ends what a test has left behind, once the test is over: its daemons, their containers, and the cgroups of those.
//!
//! Its input is the path of the test's folder; it begins when that ends. The folder itself stays: it may be what explains
//! why the test failed.

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tepui_containerizer::leaks;
use tepui_e2e::scratch::cgroups_root;

/// A supervisor that sees its container end may do something more; nothing does so for long.
const ROUNDS: usize = 100;

fn main() -> anyhow::Result<()> {
    let mut dir = Vec::new();
    std::io::stdin().read_to_end(&mut dir)?;
    // An empty path would be that of all processes.
    ensure!(dir.starts_with(b"/"), "no absolute path");
    let dir = PathBuf::from(OsString::from_vec(dir));
    for _ in 0..ROUNDS {
        if !kill_all(&dir) && remove_cgroups(&cgroups_root(&dir)) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!(
        "left: {:?}",
        leaks::find(&dir, Some(&cgroups_root(&dir)), &[])
    )
}

/// Kills all processes of a folder; whether there were any.
fn kill_all(dir: &Path) -> bool {
    // The test itself is there while it waits for us.
    let parent = nix::unistd::getppid().as_raw().unsigned_abs();
    let found = leaks::processes(dir, &[parent]);
    for (pid, _) in &found {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
    }
    !found.is_empty()
}

/// Removes a root of cgroups from all hierarchies, after killing whoever is in it; whether nothing is left.
fn remove_cgroups(root: &str) -> bool {
    let roots = leaks::cgroup_roots(root);
    // All are tried, whichever fails.
    let left: Vec<_> = roots.iter().filter(|path| !remove_cgroup(path)).collect();
    left.is_empty()
}

fn remove_cgroup(path: &Path) -> bool {
    let Ok(entries) = fs::read_dir(path) else {
        return true;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    let procs = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    for pid in procs.lines().filter_map(|line| line.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    fs::remove_dir(path).is_ok()
}
