//! Isolator `linux/nnp`: programs of containers gain nothing by set-user-id bits or file capabilities.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/linux/nnp.cpp`.

use tepui_module_sdk::prelude::*;

/// See the module.
pub struct NoNewPrivileges;

impl Module for NoNewPrivileges {
    type Config = NoConfig;
    const NAME: &'static str = "linux/nnp";
    const DESCRIPTION: &'static str = "sets no_new_privs for every container";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Isolator for NoNewPrivileges {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, _: Container) -> Result<LaunchPlan> {
        Ok(LaunchPlan {
            no_new_privileges: Some(true),
            ..LaunchPlan::none()
        })
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}
