//! Where things are below the work directory.
//!
//! Sandboxes lie exactly where Mesos has them, because clients see and use their paths. What lies
//! below `meta/` is ours: `version`, `boot_id`, `lock`, `agent.pb`, `resources.pb`, `executors/<container>/`, `damaged/`, `trash/`,
//! and `containers/` of the containerizer.

use std::path::{Path, PathBuf};

use tepui_model::id::{AgentId, ContainerId, ExecutorId, FrameworkId};

/// The layout of one work directory.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    work_dir: PathBuf,
}

impl Paths {
    pub(crate) fn new(work_dir: PathBuf) -> Self {
        Self { work_dir }
    }

    pub(crate) fn meta(&self) -> PathBuf {
        self.work_dir.join("meta")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.meta().join("lock")
    }

    pub(crate) fn version(&self) -> PathBuf {
        self.meta().join("version")
    }

    pub(crate) fn boot_id(&self) -> PathBuf {
        self.meta().join("boot_id")
    }

    pub(crate) fn agent(&self) -> PathBuf {
        self.meta().join("agent.pb")
    }

    pub(crate) fn resources(&self) -> PathBuf {
        self.meta().join("resources.pb")
    }

    pub(crate) fn work_dir(&self) -> &Path {
        &self.work_dir
    }

    pub(crate) fn executors(&self) -> PathBuf {
        self.meta().join("executors")
    }

    pub(crate) fn executor(&self, container: &ContainerId) -> PathBuf {
        self.executors().join(container.to_string())
    }

    /// Where records that cannot be read are kept, once an agent goes on without them.
    pub(crate) fn damaged(&self) -> PathBuf {
        self.meta().join("damaged")
    }

    /// Sandboxes of standalone containers.
    pub(crate) fn standalone(&self) -> PathBuf {
        self.work_dir.join("containers")
    }

    /// Where directories are moved to that are being removed.
    pub(crate) fn trash(&self) -> PathBuf {
        self.meta().join("trash")
    }

    /// `slaves/<agent>/frameworks/<framework>`
    pub(crate) fn framework(&self, agent: &AgentId, framework: &FrameworkId) -> PathBuf {
        let mut path = self.slaves();
        path.push(agent.as_str());
        path.push("frameworks");
        path.push(framework.as_str());
        path
    }

    pub(crate) fn slaves(&self) -> PathBuf {
        self.work_dir.join("slaves")
    }

    /// `slaves/<agent>/frameworks/<framework>/executors/<executor>/runs`
    pub(crate) fn runs(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
    ) -> PathBuf {
        let mut path = self.framework(agent, framework);
        path.push("executors");
        path.push(executor.as_str());
        path.push("runs");
        path
    }

    /// The sandbox of an executor's container.
    pub(crate) fn sandbox(
        &self,
        agent: &AgentId,
        framework: &FrameworkId,
        executor: &ExecutorId,
        container: &ContainerId,
    ) -> PathBuf {
        self.runs(agent, framework, executor)
            .join(&*container.value)
    }
}

/// Points `link` at `target`, whatever it was before.
pub(crate) fn relink(target: &Path, link: &Path) -> std::io::Result<()> {
    // Mostly there was nothing.
    match std::os::unix::fs::symlink(target, link) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        linked => return linked,
    }
    let fresh = link.with_extension("new");
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(target, &fresh)?;
    std::fs::rename(&fresh, link)
}
