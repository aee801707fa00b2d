//! Isolator `linux/capabilities`: which capabilities a command has, and may gain.
//!
//! Mirrors `src/slave/containerizer/mesos/isolators/linux/capabilities.cpp`. The effective set is also the permitted,
//! inheritable and ambient one, so that users other than root keep it when they execute a program, and root has no
//! more than it says.

use tepui_module_sdk::mesos::LinuxInfo;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::isolator;

use crate::set::Set;

/// Settings of `linux/capabilities`, in the form of Mesos' flags.
#[config]
pub struct Config {
    /// What commands have that do not ask for capabilities. Without it root has all and others none.
    #[serde(default)]
    effective_capabilities: Option<Names>,
    /// What commands may have at most.
    #[serde(default)]
    bounding_capabilities: Option<Names>,
}

/// A set of capabilities.
#[config]
pub(crate) struct Names {
    /// Names, such as `NET_ADMIN`.
    capabilities: Vec<String>,
}

/// See the module.
pub struct Capabilities {
    effective: Option<Set>,
    bounding: Option<Set>,
    /// What this process may use, and so give.
    own: Set,
}

impl Module for Capabilities {
    type Config = Config;
    const NAME: &'static str = "linux/capabilities";
    const DESCRIPTION: &'static str = "effective and bounding capabilities of each container";

    fn create(config: Config, _: Context) -> Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").map_err(|error| {
            Failure::unavailable(format!("/proc/self/status cannot be read: {error}"))
        })?;
        let own = Set::permitted(&status)
            .ok_or_else(|| Failure::unavailable("/proc/self/status names no capabilities"))?;
        let named = |setting: &str, names: Option<Names>| {
            let Some(names) = names else { return Ok(None) };
            Set::named(&names.capabilities).map(Some).map_err(|name| {
                Failure::invalid(format!(
                    "'{name}' is not a capability: expected names such as 'NET_ADMIN'"
                ))
                .setting(setting)
            })
        };
        let created = Self {
            effective: named("effective_capabilities", config.effective_capabilities)?,
            bounding: named("bounding_capabilities", config.bounding_capabilities)?,
            own,
        };
        if let (Some(effective), Some(bounding)) = (&created.effective, &created.bounding) {
            within(effective, bounding)
                .map_err(|failure| failure.setting("effective_capabilities"))?;
        }
        Ok(created)
    }
}

impl Isolator for Capabilities {
    const NESTING: bool = true;
    const STANDALONE: bool = true;
    const LIMITS: bool = false;
    const NEEDS: &'static [&'static str] = &["root"];

    async fn recover(&self, _: Vec<Container>, _: Vec<ContainerId>) -> Result<()> {
        Ok(())
    }

    async fn prepare(&self, container: Container) -> Result<LaunchPlan> {
        let info = container.info()?.linux_info.unwrap_or_default();
        let is_root = container.user.as_deref().is_none_or(|user| user == "root");
        let capabilities = self.plan(&info, is_root)?;
        Ok(LaunchPlan {
            capabilities,
            ..LaunchPlan::none()
        })
    }

    async fn cleanup(&self, _: &ContainerId) -> Result<()> {
        Ok(())
    }
}

impl Capabilities {
    /// None leaves everything to the kernel: nobody asks for anything.
    fn plan(&self, info: &LinuxInfo, is_root: bool) -> Result<Option<isolator::Capabilities>> {
        let (effective, bounding) = asked(info)?;
        for set in [&effective, &bounding].into_iter().flatten() {
            if let Some(most) = &self.bounding {
                within(set, most)?;
            }
        }
        let effective = effective.or_else(|| self.effective.clone());
        let bounding = bounding.or_else(|| self.bounding.clone());
        let (effective, bounding) = match (effective, bounding) {
            (None, None) => return Ok(None),
            // Who names only what is in force does not want more to be gained.
            (Some(effective), None) => (effective.clone(), effective),
            // As without this isolator: root has all that it may have, others have nothing.
            (None, Some(bounding)) if is_root => (bounding.and(&self.own), bounding),
            (None, Some(bounding)) => (Set::default(), bounding),
            (Some(effective), Some(bounding)) => {
                within(&effective, &bounding)?;
                (effective, bounding)
            }
        };
        let missing = effective.without(&self.own);
        if !missing.is_empty() {
            return Err(Failure::invalid(format!(
                "the agent itself does not have the capabilities {missing}, so it cannot give them"
            )));
        }
        let effective = effective.numbers();
        Ok(Some(isolator::Capabilities {
            permitted: effective.clone(),
            inheritable: effective.clone(),
            ambient: effective.clone(),
            effective,
            bounding: bounding.numbers(),
        }))
    }
}

/// The effective and the bounding set that a container asks for; the older field stands for both.
fn asked(info: &LinuxInfo) -> Result<(Option<Set>, Option<Set>)> {
    #[expect(deprecated, reason = "frameworks still send it")]
    let older = &info.capability_info;
    if older.is_some()
        && (info.effective_capabilities.is_some() || info.bounding_capabilities.is_some())
    {
        return Err(Failure::invalid(
            "'linux_info.capability_info' stands for both of 'effective_capabilities' and 'bounding_capabilities': \
             give it alone, or them",
        ));
    }
    let effective = info.effective_capabilities.as_ref().or(older.as_ref());
    let bounding = info.bounding_capabilities.as_ref().or(older.as_ref());
    Ok((
        effective.map(Set::of).transpose()?,
        bounding.map(Set::of).transpose()?,
    ))
}

fn within(set: &Set, most: &Set) -> Result<()> {
    let outside = set.without(most);
    if outside.is_empty() {
        return Ok(());
    }
    let most = if most.is_empty() {
        "none".to_owned()
    } else {
        most.to_string()
    };
    Err(Failure::invalid(format!(
        "the capabilities {outside} are not within the bounding set ({most})"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_module_sdk::mesos::{CapabilityInfo, capability_info::Capability};

    fn set(names: &str) -> Option<Set> {
        let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
        Some(Set::named(&names).unwrap())
    }

    fn info(effective: Option<&str>, bounding: Option<&str>) -> LinuxInfo {
        let capabilities = |names: &str| CapabilityInfo {
            capabilities: names
                .split_whitespace()
                .map(|name| Capability::from_str_name(name).unwrap().into())
                .collect(),
        };
        LinuxInfo {
            effective_capabilities: effective.map(capabilities),
            bounding_capabilities: bounding.map(capabilities),
            ..LinuxInfo::default()
        }
    }

    /// Effective and bounding set in words, for root and for others.
    fn planned(flags: [Option<&str>; 2], asked: [Option<&str>; 2]) -> [String; 2] {
        let isolator = Capabilities {
            effective: flags[0].and_then(set),
            bounding: flags[1].and_then(set),
            own: set("CHOWN KILL NET_RAW").unwrap(),
        };
        let words = |numbers: &[u32]| {
            Set::of(&CapabilityInfo {
                capabilities: numbers.iter().map(|number| *number as i32 + 1000).collect(),
            })
        };
        [true, false].map(
            |is_root| match isolator.plan(&info(asked[0], asked[1]), is_root) {
                Ok(None) => "as it is".to_owned(),
                Ok(Some(sets)) => {
                    assert_eq!(sets.ambient, sets.effective);
                    let [effective, bounding] =
                        [&sets.effective, &sets.bounding].map(|set| words(set).unwrap());
                    format!("{effective} of {bounding}")
                }
                Err(error) => error.to_string(),
            },
        )
    }

    #[test]
    fn who_asks_comes_before_the_flags_and_nobody_above_the_bounding_flag() {
        let both = |text: &str| [text.to_owned(), text.to_owned()];
        assert_eq!(planned([None, None], [None, None]), both("as it is"));
        assert_eq!(
            planned([Some("KILL"), None], [None, None]),
            both("KILL of KILL")
        );
        assert_eq!(
            planned([None, Some("KILL SYS_BOOT")], [None, None]),
            ["KILL of KILL,SYS_BOOT", " of KILL,SYS_BOOT"]
        );
        assert_eq!(
            planned([Some("KILL"), Some("CHOWN KILL")], [Some("CHOWN"), None]),
            both("CHOWN of CHOWN,KILL")
        );
        assert_eq!(
            planned([Some("KILL"), None], [Some(""), None]),
            both(" of ")
        );
        let outside = "the capabilities NET_RAW are not within the bounding set (KILL)";
        assert_eq!(
            planned([None, Some("KILL")], [Some("NET_RAW"), None]),
            both(outside)
        );
        assert_eq!(
            planned([None, Some("KILL")], [None, Some("NET_RAW")]),
            both(outside)
        );
        assert_eq!(
            planned([None, None], [Some("NET_RAW"), Some("KILL")]),
            both(outside)
        );
        let [said, _] = planned([None, None], [Some("SYS_BOOT"), None]);
        assert!(
            said.contains("does not have the capabilities SYS_BOOT"),
            "{said}"
        );
    }

    /// The kernel's numbers of those of Linux 5.8 and 5.9.
    #[test]
    fn newer_capabilities_have_their_names() {
        let newer = set("PERFMON CAP_BPF CHECKPOINT_RESTORE").unwrap();
        assert_eq!(newer.numbers(), [38, 39, 40]);
        assert_eq!(newer.to_string(), "PERFMON,BPF,CHECKPOINT_RESTORE");
    }
}
