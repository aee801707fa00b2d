//! The cgroup that nothing but the container is in: a way to kill all of it that no fork outruns.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use nix::unistd::Pid;

use crate::sys;

/// What those who were killed have to end before the others are frozen again.
const ROUND: Duration = Duration::from_millis(1);

/// A cgroup of version 2, or of the freezer of version 1.
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// Kills all that is in it; on return nothing is, but for what has been killed and not yet gone. Does nothing where the
    /// kernel does not say who is in it.
    pub(crate) fn kill_all(&self) {
        // The second since Linux 5.14.
        if self.processes().is_empty() || self.write("cgroup.kill", "1") {
            return;
        }
        let mut killed = BTreeSet::new();
        loop {
            // Who is frozen forks no more, and a child of who is not frozen yet is from its first moment: it is for the next
            // round.
            self.write("freezer.state", "FROZEN");
            let mut new = self.processes();
            new.retain(|pid| killed.insert(*pid));
            for pid in &new {
                sys::kill(pid.as_raw(), libc::SIGKILL);
            }
            self.write("freezer.state", "THAWED");
            if new.is_empty() {
                return;
            }
            // They end only while they are not frozen.
            std::thread::sleep(ROUND);
        }
    }

    fn write(&self, file: &str, word: &str) -> bool {
        sys::write_word(&self.0.join(file), word).is_ok()
    }

    fn processes(&self) -> Vec<Pid> {
        let text = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        let numbers = text.lines().filter_map(|line| line.parse().ok());
        numbers.map(Pid::from_raw).collect()
    }
}
