//! Isolator `posix/rlimits`: limits of the command by `setrlimit`, as `ContainerInfo.rlimit_info` asks.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/posix/rlimits.cpp`.

use tepui_module_sdk::mesos::r_limit_info::{RLimit, r_limit::Type};
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator::Rlimit;

/// See the module.
pub struct Rlimits;

impl Module for Rlimits {
    type Config = NoConfig;
    const NAME: &'static str = "posix/rlimits";
    const DESCRIPTION: &'static str = "limits of files, processes, stack and the like by setrlimit";

    fn create(_: NoConfig, _: Context) -> Result<Self> {
        Ok(Self)
    }
}

impl Isolator for Rlimits {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let asked = container.info()?.rlimit_info.unwrap_or_default();
        let rlimits = asked.rlimits.iter().map(plan).collect::<Result<_>>()?;
        Ok(LaunchPlan {
            rlimits,
            ..LaunchPlan::none()
        })
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

fn plan(limit: &RLimit) -> Result<Rlimit> {
    let kind = limit.r#type();
    if kind == Type::Unknown {
        return Err(Failure::invalid(
            "an entry of 'rlimit_info.rlimits' has no type, or an unknown one: expected a name such as 'RLMT_NOFILE'",
        ));
    }
    let name = kind.as_str_name();
    match (limit.soft, limit.hard) {
        (Some(_), None) | (None, Some(_)) => Err(Failure::invalid(format!(
            "the limit '{name}' has only one of 'soft' and 'hard': give both, or none for no limit"
        ))),
        (Some(soft), Some(hard)) if soft > hard => Err(Failure::invalid(format!(
            "the soft limit '{name}' of {soft} is above the hard one of {hard}"
        ))),
        (soft, hard) => Ok(Rlimit {
            r#type: name.trim_start_matches("RLMT_").to_owned(),
            soft,
            hard,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(kind: Type, soft: Option<u64>, hard: Option<u64>) -> Result<Rlimit> {
        plan(&RLimit {
            r#type: Some(kind.into()),
            hard,
            soft,
        })
    }

    #[test]
    fn both_limits_or_none() {
        let both = limit(Type::RlmtNofile, Some(1), Some(2)).unwrap();
        assert_eq!(
            (both.r#type.as_str(), both.soft, both.hard),
            ("NOFILE", Some(1), Some(2))
        );
        assert_eq!(limit(Type::RlmtCore, None, None).unwrap().soft, None);
        for (kind, soft, hard, said) in [
            (Type::Unknown, None, None, "no type"),
            (Type::RlmtAs, Some(1), None, "only one of"),
            (Type::RlmtAs, None, Some(1), "only one of"),
            (Type::RlmtAs, Some(2), Some(1), "above the hard one"),
        ] {
            let error = limit(kind, soft, hard).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
