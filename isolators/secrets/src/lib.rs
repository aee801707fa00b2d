//! Isolator `environment_secret`: variables of the command whose values are secrets.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/environment_secret.cpp`. The value goes into the command's
//! environment and nowhere else: neither into what the agent shows nor into its log.

use tepui_module_sdk::mesos::{CommandInfo, environment::Variable, environment::variable, secret};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::Message;

/// See the crate.
pub struct EnvironmentSecrets;

impl Module for EnvironmentSecrets {
    type Config = NoConfig;
    const NAME: &'static str = "environment_secret";
    const DESCRIPTION: &'static str = "resolves variables of the command whose values are secrets";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Isolator for EnvironmentSecrets {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let command = CommandInfo::decode(&*container.config.command_info)
            .map_err(|error| Failure::invalid(format!("the command cannot be read: {error}")))?;
        let variables = command.environment.unwrap_or_default().variables;
        let secrets = variables
            .iter()
            .filter(|variable| variable.r#type() == variable::Type::Secret);
        let mut plan = LaunchPlan::none();
        for variable in secrets {
            plan = plan.env(&variable.name, value(variable)?);
        }
        Ok(plan)
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

/// The secret itself. What is said of a bad one does not tell it.
fn value(variable: &Variable) -> Result<String> {
    let name = &variable.name;
    let secret = variable.secret.clone().unwrap_or_default();
    let bytes = match (secret.r#type(), secret.value) {
        (secret::Type::Value, Some(value)) => value.data,
        (secret::Type::Reference, _) => {
            return Err(Failure::invalid(format!(
                "the secret variable '{name}' is a reference, and there is no secret resolver to look it up: give the \
                 secret of type VALUE"
            )));
        }
        _ => {
            return Err(Failure::invalid(format!(
                "the secret variable '{name}' has no 'secret' of type VALUE with a 'value'"
            )));
        }
    };
    let text = String::from_utf8(bytes.to_vec()).ok();
    text.filter(|text| !text.contains('\0')).ok_or_else(|| {
        Failure::invalid(format!(
            "the secret variable '{name}' is not text: a value of the environment is UTF-8 without NUL"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_module_sdk::mesos::Secret;

    fn said(kind: secret::Type, data: Option<&[u8]>) -> String {
        let data = data.map(|data| secret::Value {
            data: data.to_vec().into(),
        });
        let variable = Variable {
            name: "A".to_owned(),
            r#type: Some(variable::Type::Secret.into()),
            value: None,
            secret: Some(Secret {
                r#type: Some(kind.into()),
                value: data,
                reference: None,
            }),
        };
        value(&variable).unwrap_or_else(|failure| failure.to_string())
    }

    #[test]
    fn values_are_resolved_and_bad_ones_not_repeated() {
        assert_eq!(said(secret::Type::Value, Some(b" x=y ")), " x=y ");
        assert!(said(secret::Type::Reference, None).contains("'A' is a reference"));
        assert!(said(secret::Type::Value, None).contains("'A' has no 'secret'"));
        assert!(said(secret::Type::Unknown, Some(b"hidden")).contains("of type VALUE"));
        for bad in [&b"hidden\0"[..], b"hidden\xff"] {
            let said = said(secret::Type::Value, Some(bad));
            assert!(
                said.contains("is not text") && !said.contains("hidden"),
                "{said}"
            );
        }
    }
}
