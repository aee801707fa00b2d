//! One cgroup: a directory of kernel files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// A file of a cgroup that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} '{path}': {source}")]
pub struct CgroupError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl CgroupError {
    /// Whether there is no such cgroup or file.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }

    /// Whether the cgroup still has processes or cgroups below it.
    pub fn is_busy(&self) -> bool {
        self.source.kind() == io::ErrorKind::ResourceBusy
    }
}

/// A cgroup of one hierarchy. Dropping it leaves the directory alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The cgroup at a path, which need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it exists.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Makes the directory; one that is there is taken as it is.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn create(&self) -> Result<(), CgroupError> {
        match fs::create_dir(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                Err(self.error("create", "", source))
            }
            _ => Ok(()),
        }
    }

    /// The text of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read(&self, file: &str) -> Result<String, CgroupError> {
        fs::read_to_string(self.path.join(file)).map_err(|source| self.error("read", file, source))
    }

    /// The number in a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read or is no number.
    pub fn read_u64(&self, file: &str) -> Result<u64, CgroupError> {
        let text = self.read(file)?;
        text.trim()
            .parse()
            .map_err(|error| self.error("read a number from", file, io::Error::other(error)))
    }

    /// The lines `name number` of a file; other lines are left out.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn read_table(&self, file: &str) -> Result<BTreeMap<String, u64>, CgroupError> {
        let text = self.read(file)?;
        let entry = |line: &str| {
            let (name, number) = line.split_once(' ')?;
            Some((name.to_owned(), number.trim().parse().ok()?))
        };
        Ok(text.lines().filter_map(entry).collect())
    }

    /// Writes a file.
    ///
    /// # Errors
    ///
    /// When the kernel does not take it.
    pub fn write(&self, file: &str, text: &str) -> Result<(), CgroupError> {
        // The file must exist: nothing is created where there is no such control.
        fs::OpenOptions::new()
            .write(true)
            .open(self.path.join(file))
            .and_then(|mut opened| io::Write::write_all(&mut opened, text.as_bytes()))
            .map_err(|source| self.error("write", file, source))
    }

    /// Gives a new cgroup of v1's cpuset the processors and memory nodes of the one above: the kernel gives it none of
    /// either, and takes no process into it then.
    ///
    /// # Errors
    ///
    /// When they cannot be read or written.
    pub fn inherit_cpuset(&self) -> Result<(), CgroupError> {
        let Some(above) = self.path.parent().map(Cgroup::at) else {
            return Ok(());
        };
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if self.read(file)?.trim().is_empty() {
                self.write(file, above.read(file)?.trim())?;
            }
        }
        Ok(())
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self, file: &str) -> Result<fs::File, CgroupError> {
        fs::File::open(self.path.join(file)).map_err(|source| self.error("open", file, source))
    }

    /// The processes in it, not those of cgroups below.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn processes(&self) -> Result<Vec<i32>, CgroupError> {
        let text = self.read("cgroup.procs")?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().parse().ok())
            .collect())
    }

    /// The cgroups below it, each after those below that one; none where it does not exist.
    pub fn below(&self) -> Vec<Cgroup> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let cgroup = Self::at(entry.path());
                found.extend(cgroup.below());
                found.push(cgroup);
            }
        }
        found
    }

    /// Sends SIGKILL to every process in it and tells how many there were.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn kill(&self) -> Result<usize, CgroupError> {
        let processes = self.processes()?;
        for pid in &processes {
            // Zero is a process of another pid namespace, and would be this process's own group.
            if *pid > 0 {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(*pid),
                    nix::sys::signal::Signal::SIGKILL,
                );
            }
        }
        Ok(processes.len())
    }

    /// Removes the directory; one that is not there is fine.
    ///
    /// # Errors
    ///
    /// [`CgroupError::is_busy`] while anything is in it.
    pub fn remove(&self) -> Result<(), CgroupError> {
        match fs::remove_dir(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(self.error("remove", "", source))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn error(&self, what: &'static str, file: &str, source: io::Error) -> CgroupError {
        let path = if file.is_empty() {
            self.path.clone()
        } else {
            self.path.join(file)
        };
        CgroupError { what, path, source }
    }
}
