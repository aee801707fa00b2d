//! Authorizer `acme/module`: only tasks of certain users may run.
use tepui_module_sdk::prelude::*;

/// Settings of `acme/module`.
#[config]
pub struct Config {
    /// Users whose tasks may run and be seen.
    users: BTreeSet<String>,
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

impl Authorizer for AcmeModule {
    async fn approver(&self, _: Option<&Subject>, action: Action) -> Result<Approver> {
        let users = self.0.users.clone();
        Ok(match action {
            Action::RunTask | Action::ViewTask => {
                Approver::by_value(move |user| users.contains(user))
            }
            _ => Approver::Always,
        })
    }
}
