//! Isolator `namespaces/pid`: a pid namespace for each container, with a /proc that shows it.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/namespaces/pid.cpp`. The container also gets a mount namespace of
//! its own, so that its /proc is seen nowhere else and vanishes with it. Nothing is left to clean up.
//!
//! A nested container enters the pid namespace around it in any case, which is the containerizer's doing; its own is
//! below that one, unless it asks to share it or is there to look into it.

use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::ContainerClass;

/// Settings of `namespaces/pid`.
#[config]
pub struct Config {
    /// Refuse containers that ask to share the agent's pid namespace.
    #[serde(default)]
    disallow_sharing_agent_pid_namespace: bool,
}

/// See the module.
pub struct PidNamespaces(Config);

const MS_NOSUID: u64 = 2;
const MS_NODEV: u64 = 4;
const MS_NOEXEC: u64 = 8;

impl Module for PidNamespaces {
    type Config = Config;
    const NAME: &'static str = "namespaces/pid";
    const DESCRIPTION: &'static str = "a pid namespace and /proc of its own for each container";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Isolator for PidNamespaces {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["root"];

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let share = container
            .info()?
            .linux_info
            .as_ref()
            .and_then(|info| info.share_pid_namespace)
            .unwrap_or(false);
        let is_nested = container.id.parent().is_some();
        let is_debug = container.config.class() == ContainerClass::Debug;
        if share && !is_nested && self.0.disallow_sharing_agent_pid_namespace {
            return Err(Failure::invalid(
                "Sharing agent pid namespace with container is not allowed",
            ));
        }
        if share || is_debug {
            return Ok(LaunchPlan::none());
        }
        let plan = LaunchPlan::none()
            .namespace(Namespace::Pid)
            .namespace(Namespace::Mount);
        // A root of its own has one by filesystem/linux, and it is mounted in the new namespace.
        let mut planned = container.plan.mounts.iter();
        if planned.any(|mount| mount.target == "/proc" && mount.fstype == "proc") {
            return Ok(plan);
        }
        let proc = Mount {
            source: "proc".to_owned(),
            target: "/proc".to_owned(),
            fstype: "proc".to_owned(),
            flags: MS_NOSUID | MS_NODEV | MS_NOEXEC,
            ..Mount::default()
        };
        Ok(plan.mount(proc))
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_module_sdk::proto::isolator::ContainerConfig;
    use tepui_module_sdk::tokio::runtime::Builder;

    #[test]
    fn a_root_that_has_its_proc_gets_no_second() {
        let prepare = |plan: LaunchPlan| {
            let container = Container {
                id: "c".into(),
                sandbox: PathBuf::from("/s"),
                user: None,
                labels: Default::default(),
                resources: Vec::new(),
                pid: 0,
                plan,
                former_volumes: Vec::new(),
                config: ContainerConfig::default(),
            };
            let isolator = PidNamespaces(Config {
                disallow_sharing_agent_pid_namespace: false,
            });
            let runtime = Builder::new_current_thread().build().unwrap();
            runtime.block_on(isolator.prepare(container)).unwrap()
        };
        let own = prepare(LaunchPlan::none());
        assert_eq!(own.mounts.len(), 1);
        let again = prepare(own.clone());
        assert_eq!((again.namespaces, again.mounts.len()), (own.namespaces, 0));
    }
}
