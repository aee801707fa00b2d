//! Permits every action to everybody. The choice for a cluster that is protected by its network alone.

use tepui_module_sdk::prelude::*;

/// See the crate.
pub struct AllowAll;

impl Module for AllowAll {
    type Config = NoConfig;
    const NAME: &'static str = "allow-all";
    const DESCRIPTION: &'static str = "permits every action to everybody";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Authorizer for AllowAll {
    async fn approver(&self, _: Option<&Subject>, _: Action) -> Result<Approver> {
        Ok(Approver::Always)
    }
}
