//! The folder of a test, and the end of what works below it.
//!
//! Containers outlive their agent, and agents outlive a test that is killed: nobody's destructor runs then. So each folder
//! has a reaper, a process of its own that waits for the end of the test and ends what is left.

use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tepui_containerizer::leaks;

use crate::cluster::own_target;
use crate::wait::wait_for;

/// A folder of the test's own, removed at the end unless the test fails. What works below it ends with the test in any
/// case.
pub struct Scratch {
    dir: PathBuf,
    reaper: Child,
}

impl Scratch {
    /// A new folder that all users may enter: tasks run as others than root.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("tepui-e2e-")
            .tempdir()
            .expect("a temporary folder")
            .keep();
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("own folder");
        // What kills the test's process group must not kill it.
        let reaper = Command::new(own_target().join("tepui-e2e-reaper"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the reaper is built with the tests");
        // Its input ends with this process, however that ends.
        let mut input = reaper.stdin.as_ref().expect("it is piped");
        input
            .write_all(dir.as_os_str().as_bytes())
            .expect("it reads");
        Self { dir, reaper }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Waiting closes its input.
        let _ = self.reaper.wait();
        if std::thread::panicking() {
            eprintln!("kept {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The cgroup root of the agents of a folder: no other test's containers are there.
pub fn cgroups_root(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Waits until nothing of the containers of a folder's agents is left: processes, mounts, cgroups, sockets.
pub fn wait_clean(dir: &Path) {
    wait_for("an end without leftovers", || {
        let mut left = leaks::find(dir, Some(&cgroups_root(dir)), &[]);
        left.retain(|line| !line.contains("tepui-agent ") && !line.contains("tepui-master "));
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}
