//! Containers inside of others: what they have of those around them.

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use tepui_model::id::ContainerId;
use tepui_model::resources::Resources;
use tepui_module_proto::isolator::{self as messages, LaunchPlan, Namespace, NamespaceJoin};
use tepui_proto::v1::{self, environment::variable};

use crate::{
    Class, Command, ContainerConfig, Containerizer, Error, Sandbox, containerizer::Container, os,
};

/// The directory below a sandbox with the sandboxes of what is nested in its container, as in Mesos.
pub(crate) const SANDBOXES: &str = "containers";

impl Containerizer {
    /// A container for whoever looks into another one, or checks it: it has its namespaces, cgroups, user and
    /// environment, and ends with the agent process. Launch it, wait for its end and forget it as any other; its
    /// output is in its sandbox, which stays.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn inside(
        &self,
        parent: &ContainerId,
        name: &str,
        command: Command,
    ) -> Result<ContainerConfig, Error> {
        let around = self.get(parent)?;
        let own = v1::CommandInfo::decode(&*around.config.command_info).unwrap_or_default();
        let own = own.environment.unwrap_or_default().variables;
        let planned = around.plan.get().into_iter();
        let planned = planned.flat_map(|plan| &plan.environment);
        let planned = planned.map(|one| (one.name.clone(), one.value.clone()));
        let mut environment: Vec<(String, String)> = planned.collect();
        let mut secrets = Vec::new();
        for variable in own {
            if variable.r#type() == variable::Type::Secret {
                secrets.push((variable.name, variable.secret.unwrap_or_default()));
            } else {
                environment.push((variable.name, variable.value.unwrap_or_default()));
            }
        }
        // Whoever looks into one that looks itself is told of the sandbox that this one was told of.
        if class_of(&around.config) != Class::Debug {
            let seen = around.sandbox_inside(&self.inner.context.settings.sandbox_directory);
            let seen = seen.to_string_lossy().into_owned();
            environment.push(("MESOS_SANDBOX".to_owned(), seen));
        }
        Ok(ContainerConfig {
            id: parent.child(name),
            class: Class::Debug,
            user: around.config.user.clone(),
            sandbox: Path::new(&around.config.sandbox).join(SANDBOXES).join(name),
            stdin: false,
            command: Some(command),
            environment,
            secrets,
            uris: Vec::new(),
            resources: Resources::new(),
            limits: Default::default(),
            container: None,
            share_cgroups: true,
            is_command_task: false,
            checkpoint: false,
        })
    }

    /// The sandbox of a container.
    ///
    /// # Errors
    ///
    /// When there is no such container.
    pub fn sandbox(&self, id: &ContainerId) -> Result<Sandbox, Error> {
        Ok(self.get(id)?.sandbox.clone())
    }

    pub(crate) fn parent(&self, id: &ContainerId) -> Option<Arc<Container>> {
        id.parent
            .as_deref()
            .and_then(|parent| self.get(parent).ok())
    }
}

/// Whether anything can be sent to a command: it has a terminal, or is there for somebody.
pub(crate) fn takes_input(config: &messages::ContainerConfig) -> bool {
    let info = v1::ContainerInfo::decode(&*config.container_info).unwrap_or_default();
    info.tty_info.is_some() || class_of(config) == Class::Debug
}

pub(crate) fn class_of(config: &messages::ContainerConfig) -> Class {
    match config.class() {
        messages::ContainerClass::Debug => Class::Debug,
        messages::ContainerClass::Default if config.standalone => Class::Standalone,
        messages::ContainerClass::Default => Class::Task,
    }
}

impl Container {
    /// Where its command finds its sandbox: in `sandbox_directory` of its root, if it has one of its own.
    fn sandbox_inside<'a>(&'a self, sandbox_directory: &'a Path) -> &'a Path {
        match self.plan.get() {
            Some(plan) if plan.rootfs.is_some() => sandbox_directory,
            _ => Path::new(&self.config.sandbox_inside),
        }
    }
}

/// What a sandbox on the host is called inside its container: below the parent's, where that one's root is the root.
pub(crate) fn seen_inside(
    config: &ContainerConfig,
    parent: Option<&Container>,
    sandbox_directory: &Path,
) -> String {
    let parent = parent.filter(|_| config.class == Class::Debug);
    let below = parent.and_then(|parent| {
        let below = config.sandbox.strip_prefix(&parent.config.sandbox).ok()?;
        Some(parent.sandbox_inside(sandbox_directory).join(below))
    });
    let seen = below.as_deref().unwrap_or(&config.sandbox);
    seen.to_string_lossy().into_owned()
}

/// Adds to a plan that the container enters the namespaces around it which are not the agent's own, but for those that
/// it has another of. A new pid namespace is below the one around it, whose processes see it.
///
/// Whoever looks into a container also has its mount namespace, or a copy of it, and with that its root file system;
/// what else is nested has the host's or an own one, as in Mesos.
pub(crate) fn enter(plan: &mut LaunchPlan, class: Class, parent: u32) {
    for (kind, path) in os::namespaces(parent) {
        let Ok(namespace) = Namespace::try_from(kind.cast_signed()) else {
            continue;
        };
        let is_planned = plan.joins.iter().any(|join| join.namespace() == namespace);
        let is_new = plan.namespaces().any(|new| new == namespace);
        let is_wanted = match namespace {
            Namespace::Mount => class == Class::Debug,
            Namespace::Pid => true,
            Namespace::Network | Namespace::Uts | Namespace::Ipc => !is_new,
            Namespace::User | Namespace::Cgroup | Namespace::Unspecified => false,
        };
        if is_wanted && !is_planned && !os::is_own_namespace(&path) {
            plan.joins.push(NamespaceJoin {
                namespace: namespace.into(),
                path,
            });
        }
    }
}
