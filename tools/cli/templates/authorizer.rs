//! Authorizer `{{name}}`: only tasks of certain users may run.
use tepui_module_sdk::prelude::*;

#[cfg(test)]
mod tests;

/// Settings of `{{name}}`.
#[config]
pub struct Config {
    /// Users whose tasks may run and be seen.
    users: BTreeSet<String>,
}

/// The module.
pub struct {{Type}}(Config);

impl Module for {{Type}} {
    type Config = Config;
    const NAME: &'static str = "{{name}}";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self(config))
    }
}

impl Authorizer for {{Type}} {
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

export!(authorizer: {{Type}});
