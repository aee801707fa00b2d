//! An authorizer that knows groups: their members see and run the tasks of the group's users.

#![allow(missing_docs, reason = "shown in the tutorial as it is")]
// begin
use tepui_module_sdk::prelude::*;

#[config]
pub struct Config {
    /// Group whose members may do everything.
    admins: String,
    /// Group -> users (Unix) whose tasks its members may see and run.
    groups: BTreeMap<String, BTreeSet<String>>,
}
pub struct GroupAuthorizer {
    config: Config,
}
impl Module for GroupAuthorizer {
    type Config = Config;
    const NAME: &'static str = "acme/group";
    fn create(config: Config, _: Context) -> Result<Self> {
        if !config.groups.contains_key(&config.admins) {
            return Err(Failure::invalid(format!(
                "admins: no group named {:?}",
                config.admins
            )));
        }
        Ok(Self { config })
    }
}
#[rustfmt::skip]
impl Authorizer for GroupAuthorizer {
    async fn approver(&self, subject: Option<&Subject>, action: Action) -> Result<Approver> {
        let Some(group) = subject.and_then(|s| s.claims.get("group")) else { return Ok(Approver::Never) };
        if *group == self.config.admins { return Ok(Approver::Always) }
        let users = self.config.groups.get(group).cloned().unwrap_or_default();
        Ok(match action {
            Action::ViewTask | Action::RunTask => Approver::by_value(move |user| users.contains(user)),
            _ => Approver::Never,
        })
    }
}
export!(authorizer: GroupAuthorizer);
