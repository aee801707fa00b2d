//! Isolator `acme/module`: gives every container one more environment variable.
use tepui_module_sdk::prelude::*;

/// Settings of `acme/module`.
#[config]
pub struct Config {
    /// Name of the variable.
    variable: String,
    /// Its value.
    value: String,
}

/// The module.
pub struct AcmeModule(Config);

impl Module for AcmeModule {
    type Config = Config;
    const NAME: &'static str = "acme/module";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Isolator for AcmeModule {
    const LIMITS: bool = false;

    async fn recover(&self, _running: Vec<Container>, orphans: Vec<ContainerId>) -> Result<()> {
        for id in &orphans {
            self.cleanup(id).await?;
        }
        Ok(())
    }

    async fn prepare(&self, _container: Container) -> Result<LaunchPlan> {
        Ok(LaunchPlan::none().env(self.0.variable.as_str(), self.0.value.as_str()))
    }

    async fn cleanup(&self, _id: &ContainerId) -> Result<()> {
        Ok(())
    }
}
