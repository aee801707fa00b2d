//! Subsystem `net_cls`: a class for the network packets of each container, by which `tc` and netfilter know them. Mirrors
//! `subsystems/net_cls.cpp`.

use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tepui_isolators_linux::Cgroup;
use tepui_module_sdk::mesos::{CgroupInfo, cgroup_info::NetCls};
use tepui_module_sdk::prelude::*;

use crate::Config;
use crate::groups::failure;

const FILE: &str = "net_cls.classid";
const PRIMARY: &str = "cgroups_net_cls_primary_handle";
const SECONDARY: &str = "cgroups_net_cls_secondary_handles";

/// The classes of containers: a primary handle for all of them, and a secondary one for each.
#[derive(Debug)]
pub(crate) struct Handles {
    primary: u16,
    secondary: RangeInclusive<u16>,
    /// Those that are taken, with who has them.
    taken: Mutex<BTreeMap<u16, ContainerId>>,
}

impl Handles {
    /// None where no primary handle is configured: containers have a cgroup then, and no class.
    pub(crate) fn configured(config: &Config) -> Result<Option<Self>> {
        let Some(primary) = &config.cgroups_net_cls_primary_handle else {
            return match config.cgroups_net_cls_secondary_handles {
                None => Ok(None),
                Some(_) => Err(
                    Failure::invalid(format!("it means nothing without '{PRIMARY}'"))
                        .setting(SECONDARY),
                ),
            };
        };
        let primary = handle(primary, PRIMARY)?;
        let secondary = match &config.cgroups_net_cls_secondary_handles {
            None => 1..=u16::MAX,
            Some(text) => range(text)?,
        };
        Ok(Some(Self {
            primary,
            secondary,
            taken: Mutex::default(),
        }))
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<u16, ContainerId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a container the lowest free handle and writes its class.
    pub(crate) fn give(&self, id: &ContainerId, cgroup: &Cgroup) -> Result<()> {
        let mut taken = self.taken();
        let free = self
            .secondary
            .clone()
            .find(|secondary| !taken.contains_key(secondary));
        let Some(secondary) = free else {
            let (first, last) = (self.secondary.start(), self.secondary.end());
            return Err(Failure::unavailable(format!(
                "all secondary handles of net_cls from {first:#06x} to {last:#06x} are in use: there are more containers than \
                 '{SECONDARY}' has room for"
            )));
        };
        let class = u32::from(self.primary) << 16 | u32::from(secondary);
        cgroup.write(FILE, &class.to_string()).map_err(failure)?;
        taken.insert(secondary, id.clone());
        Ok(())
    }

    /// Takes note of the handle that a container was given by an earlier agent.
    pub(crate) fn recover(&self, id: &ContainerId, cgroup: &Cgroup) -> Result<()> {
        let class = class(cgroup)?;
        // Another primary handle is that of another configuration, and in nobody's way.
        if class >> 16 == u32::from(self.primary) {
            self.taken().insert(class as u16, id.clone());
        }
        Ok(())
    }

    /// Takes back the handle of a container.
    pub(crate) fn take_back(&self, id: &ContainerId) {
        self.taken().retain(|_, of| of != id);
    }
}

/// What the kernel has for a cgroup; 0 for none.
fn class(cgroup: &Cgroup) -> Result<u32> {
    let class = cgroup.read_u64(FILE).map_err(failure)?;
    u32::try_from(class).map_err(|error| Failure::unavailable(format!("'{FILE}': {error}")))
}

/// The class of a container as its status tells it, if it has one.
pub(crate) fn status(cgroup: &Cgroup) -> Result<Option<CgroupInfo>> {
    let class = class(cgroup)?;
    Ok((class != 0).then_some(CgroupInfo {
        net_cls: Some(NetCls {
            classid: Some(class),
        }),
    }))
}

fn handle(text: &str, setting: &str) -> Result<u16> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u16::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.ok().filter(|handle| *handle != 0).ok_or_else(|| {
        Failure::invalid(format!(
            "'{text}' is not a handle: expected 16 bits such as 0x0012, and not 0"
        ))
        .setting(setting)
    })
}

fn range(text: &str) -> Result<RangeInclusive<u16>> {
    let Some((first, last)) = text.split_once(',') else {
        return Err(Failure::invalid(format!(
            "'{text}' is not a range of handles: expected two such as 0x0001,0xffff"
        ))
        .setting(SECONDARY));
    };
    let (first, last) = (handle(first, SECONDARY)?, handle(last, SECONDARY)?);
    if first > last {
        return Err(
            Failure::invalid(format!("'{text}': the first handle is above the last"))
                .setting(SECONDARY),
        );
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(primary: Option<&str>, secondary: Option<&str>) -> Result<Option<Handles>> {
        let mut config: Config = serde_json::from_str("{}").unwrap();
        config.cgroups_net_cls_primary_handle = primary.map(str::to_owned);
        config.cgroups_net_cls_secondary_handles = secondary.map(str::to_owned);
        Handles::configured(&config)
    }

    #[test]
    fn the_lowest_free_handle_is_given_until_there_is_none() {
        let at = tempfile::tempdir().unwrap();
        std::fs::write(at.path().join(FILE), "0\n").unwrap();
        let cgroup = Cgroup::at(at.path());
        let handles = configured(Some("0x12"), Some("0x2,0x4")).unwrap().unwrap();
        // A container of an earlier agent has the second one.
        cgroup.write(FILE, "1179651\n").unwrap();
        handles.recover(&"earlier".into(), &cgroup).unwrap();
        let give = |id: &str| {
            handles.give(&id.into(), &cgroup).map(|()| {
                let info = status(&cgroup).unwrap().unwrap();
                info.net_cls.unwrap().classid()
            })
        };
        assert_eq!(give("a"), Ok(0x12_0002));
        assert_eq!(give("b"), Ok(0x12_0004));
        let said = give("c").unwrap_err().to_string();
        assert!(said.contains("from 0x0002 to 0x0004 are in use"), "{said}");
        handles.take_back(&"earlier".into());
        assert_eq!(give("c"), Ok(0x12_0003));
    }

    #[test]
    fn handles_are_16_bits_and_not_0() {
        assert!(configured(None, None).unwrap().is_none());
        assert!(configured(Some("7"), None).unwrap().is_some());
        for (primary, secondary, words) in [
            (Some("0x10000"), None, "'0x10000' is not a handle"),
            (Some("0"), None, "'0' is not a handle"),
            (Some("x"), None, "'x' is not a handle"),
            (Some("1"), Some("5"), "'5' is not a range"),
            (Some("1"), Some("0x5,0x4"), "above the last"),
            (Some("1"), Some("0x0,0x4"), "'0x0' is not a handle"),
            (None, Some("1,2"), "means nothing without"),
        ] {
            let said = configured(primary, secondary).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    }
}
