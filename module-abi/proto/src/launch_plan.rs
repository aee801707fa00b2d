//! Building and merging launch plans.

use crate::isolator::{
    CgroupJoin, File, LaunchPlan, Mount, Namespace, NamespaceJoin, Program, Variable, file, mount,
};

/// `MS_BIND` of Linux.
const MS_BIND: u64 = 4096;
/// `MS_REC` of Linux.
const MS_REC: u64 = 16384;

impl LaunchPlan {
    /// A plan that changes nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Binds a directory or file of the host at a path of the container, which is made as a directory if missing.
    pub fn bind(
        self,
        source: impl AsRef<std::path::Path>,
        target: impl AsRef<std::path::Path>,
    ) -> Self {
        self.mount(Mount {
            source: source.as_ref().to_string_lossy().into_owned(),
            target: target.as_ref().to_string_lossy().into_owned(),
            flags: MS_BIND | MS_REC,
            create: mount::Create::Directory.into(),
            ..Mount::default()
        })
    }

    /// Adds a mount.
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// Gives the container a namespace of its own.
    pub fn namespace(mut self, namespace: Namespace) -> Self {
        if !self.namespaces.contains(&namespace.into()) {
            self.namespaces.push(namespace.into());
        }
        self
    }

    /// Enters an existing namespace, named by a file of the host.
    pub fn join(mut self, namespace: Namespace, path: impl Into<String>) -> Self {
        self.joins.push(NamespaceJoin {
            namespace: namespace.into(),
            path: path.into(),
        });
        self
    }

    /// Moves the first process into a cgroup directory; `subsystem` is empty for cgroup v2.
    pub fn cgroup(mut self, path: impl Into<String>, subsystem: impl Into<String>) -> Self {
        self.cgroups.push(CgroupJoin {
            path: path.into(),
            subsystem: subsystem.into(),
            own: false,
        });
        self
    }

    /// The same for one that nothing but this container is in: of v2, or of the subsystem `freezer`. Its supervisor kills
    /// through it.
    #[must_use]
    pub fn own_cgroup(mut self, path: impl Into<String>, subsystem: impl Into<String>) -> Self {
        self = self.cgroup(path, subsystem);
        let joined = self.cgroups.last_mut().expect("it was just added");
        joined.own = true;
        self
    }

    /// Adds a variable to the command's environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push(Variable {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Writes a regular file in the container.
    pub fn file(mut self, path: impl Into<String>, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.files.push(File {
            path: path.into(),
            r#type: file::Type::Regular.into(),
            content: content.into(),
            mode,
            ..File::default()
        });
        self
    }

    /// Runs a program before the command.
    pub fn pre_exec(mut self, program: Program) -> Self {
        self.pre_exec.push(program);
        self
    }

    /// Adds what a later isolator planned: lists are appended, single values replaced.
    pub fn merge(&mut self, later: LaunchPlan) {
        for namespace in later.namespaces {
            if !self.namespaces.contains(&namespace) {
                self.namespaces.push(namespace);
            }
        }
        self.joins.extend(later.joins);
        self.cgroups.extend(later.cgroups);
        self.mounts.extend(later.mounts);
        self.files.extend(later.files);
        self.devices.extend(later.devices);
        self.masked_paths.extend(later.masked_paths);
        self.read_only_paths.extend(later.read_only_paths);
        self.pre_exec.extend(later.pre_exec);
        self.environment.extend(later.environment);
        self.rlimits.extend(later.rlimits);
        self.supplementary_groups.extend(later.supplementary_groups);
        self.sysctls.extend(later.sysctls);
        if !later.seccomp.is_empty() {
            self.seccomp = later.seccomp;
        }
        replace(&mut self.capabilities, later.capabilities);
        replace(&mut self.no_new_privileges, later.no_new_privileges);
        replace(&mut self.hostname, later.hostname);
        replace(&mut self.oom_score_adj, later.oom_score_adj);
        replace(&mut self.rootfs, later.rootfs);
        replace(&mut self.working_directory, later.working_directory);
        replace(&mut self.user, later.user);
        replace(&mut self.umask, later.umask);
        replace(&mut self.command, later.command);
        replace(&mut self.tty, later.tty);
    }
}

fn replace<T>(value: &mut Option<T>, later: Option<T>) {
    if later.is_some() {
        *value = later;
    }
}
