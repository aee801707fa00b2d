//! What a container is made of.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use tepui_model::{
    id::ContainerId,
    resources::{Resources, Scalar},
};
use tepui_module_proto::isolator;
use tepui_proto::v1;

use crate::{Fetcher, Logger, Provisioner, Termination};

/// Settings of a [`crate::Containerizer`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// Records of containers; below the work directory, so that they are there after a reboot.
    pub meta_dir: PathBuf,
    /// Locks, sockets and exit files of supervisors; emptied by a reboot. Keep it short: the path of a socket in it
    /// is at most 107 bytes.
    pub runtime_dir: PathBuf,
    /// The `tepui-init` program.
    pub init: PathBuf,
    /// Cgroups that supervisors are in, of different hierarchies; in those of the agent where none is named.
    pub supervisors_in: Vec<PathBuf>,
    /// Run commands as the user of their configuration; otherwise as the agent's own.
    pub switch_user: bool,
    /// Resource limits that every container begins with, before those of its isolators: an agent
    /// that raised its own says what they were.
    pub rlimits: Vec<isolator::Rlimit>,
    /// Where a container with a root file system of its own finds its sandbox.
    pub sandbox_directory: PathBuf,
    /// Pulls images and makes root file systems of them; none where containers have none.
    pub provisioner: Option<Provisioner>,
    /// Fail to recover when a record cannot be read; otherwise its container is ended, and the record kept in
    /// `damaged/` beside the others.
    pub strict: bool,
    /// How long a supervisor may take to hold its container at the gate, and to open it.
    pub start_timeout: Duration,
    /// Brings what commands ask for. Without one, a command that asks for something is not started.
    pub fetcher: Option<Arc<dyn Fetcher>>,
    /// Says where output goes; without one it goes to files of the sandbox.
    pub logger: Option<Arc<dyn Logger>>,
    /// For tests of recovery: this process kills itself instead of performing its n-th effect, counted from zero.
    #[doc(hidden)]
    pub crash_at_effect: Option<u64>,
}

impl Settings {
    /// Settings with the usual timeouts; users are switched when the agent is root.
    pub fn new(
        meta_dir: impl Into<PathBuf>,
        runtime_dir: impl Into<PathBuf>,
        init: impl Into<PathBuf>,
    ) -> Self {
        Self {
            meta_dir: meta_dir.into(),
            runtime_dir: runtime_dir.into(),
            init: init.into(),
            supervisors_in: Vec::new(),
            switch_user: nix::unistd::geteuid().is_root(),
            rlimits: Vec::new(),
            sandbox_directory: "/mnt/mesos/sandbox".into(),
            provisioner: None,
            strict: true,
            start_timeout: Duration::from_secs(60),
            fetcher: None,
            logger: None,
            crash_at_effect: None,
        }
    }
}

/// What to run, as in `CommandInfo`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Run `value` by `/bin/sh -c`.
    pub shell: bool,
    /// The shell's text, or the program, which is looked for in the container's PATH.
    pub value: String,
    /// The whole argument vector with `shell` false, name of the program included; ignored for a shell.
    pub arguments: Vec<String>,
}

/// An upper limit on a resource, as in `TaskInfo.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As much as the machine has.
    Infinite,
    /// At most this.
    Amount(Scalar),
}

/// Limits by resource name (`cpus`, `mem`); what is not named is limited to the resources themselves, as Mesos does.
pub type Limits = BTreeMap<String, Limit>;

/// Whom a container is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Class {
    /// An executor, or a task in one.
    #[default]
    Task,
    /// An operator: it has no parent, and nobody but its records knows of it.
    Standalone,
    /// Somebody who looks into the container around it, or checks it: it has that one's namespaces and cgroups, and
    /// ends with the agent process.
    Debug,
}

/// A container to launch.
#[derive(Clone, Debug, PartialEq)]
pub struct ContainerConfig {
    /// Never used before, and not again until [`crate::Containerizer::forget`]. One with a parent is nested: it has
    /// the parent's namespaces and root file system, but for those that an isolator makes for it.
    pub id: ContainerId,
    /// Whom it is for.
    pub class: Class,
    /// Who runs the command and owns the sandbox; none means the user of the container around it, or the agent's own.
    pub user: Option<String>,
    /// The sandbox on the host. It is made if it is missing, with its parents, mode 0750, owned by the user.
    pub sandbox: PathBuf,
    /// Its standard input is what [`crate::Containerizer::input`] sends, not /dev/null. So it is, in any case, for a
    /// container that has a terminal, by its container info.
    pub stdin: bool,
    /// What to run; none for a container that only keeps its namespaces and cgroups, for what is nested in it. That
    /// one ends with status 0 when it is stopped.
    pub command: Option<Command>,
    /// The whole environment; of two entries with one name the later wins. PATH is added when it is missing.
    pub environment: Vec<(String, String)>,
    /// Variables of the environment whose values are secrets, which an isolator resolves.
    pub secrets: Vec<(String, v1::Secret)>,
    /// What is to be in the sandbox before the command starts.
    pub uris: Vec<v1::command_info::Uri>,
    /// What is set aside for it.
    pub resources: Resources,
    /// What it may use beyond that.
    pub limits: Limits,
    /// What isolators look at.
    pub container: Option<v1::ContainerInfo>,
    /// A nested container is in the cgroups of its parent, and accounted to it.
    pub share_cgroups: bool,
    /// Whether this is a command task (isolators treat its memory differently from an executor's).
    pub is_command_task: bool,
    /// Whether it outlives the agent process; without it the container is killed when the agent ends.
    pub checkpoint: bool,
}

/// A container whose command was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The first process, as the host numbers it: `executor_pid` of the container's status.
    pub pid: u32,
}

/// A container as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: ContainerId,
    /// Whom it is for.
    pub class: Class,
    /// It is over, and kept until it is forgotten.
    pub over: bool,
}

/// A container that was found running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningContainer {
    /// Its id.
    pub id: ContainerId,
    /// The first process, as the host numbers it.
    pub pid: u32,
}

/// What a new agent process found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recovered {
    /// Containers that run on, nested and standalone ones too.
    pub running: Vec<RunningContainer>,
    /// Known containers that are over, or were never started; kept until they are forgotten.
    pub ended: Vec<(ContainerId, Termination)>,
    /// Known containers that no launch was recorded of.
    pub missing: Vec<ContainerId>,
    /// Containers that nobody asked for any more; they were destroyed and forgotten.
    pub orphans: Vec<ContainerId>,
}
