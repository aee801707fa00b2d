//! Whether an agent that comes back may be another than it was.
//!
//! Mirrors `--reconfiguration_policy` of Mesos (`src/slave/compatibility.cpp`), but for the port: nobody dials an agent
//! by the port that it registered with, so it may change.

use std::fmt::Display;

use tepui_model::Attributes;
use tepui_model::attributes::AttributeValue;
use tepui_proto::{convert, v1};

/// What may change between two processes of an agent with one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconfigurationPolicy {
    /// Nothing.
    Equal,
    /// Resources and attributes may be added to, and a domain given.
    Additive,
}

/// What changed although it may not.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the agent has registered with {what} '{before}' and is started with '{now}', which --reconfiguration_policy={policy} does not allow: start it with the same --{flag}{or}, or as a new agent after --recover=cleanup"
)]
pub struct Reconfigured {
    what: &'static str,
    flag: &'static str,
    before: String,
    now: String,
    policy: &'static str,
    or: &'static str,
}

impl ReconfigurationPolicy {
    /// Compares what an agent has registered with and what it is now.
    pub(crate) fn check(
        self,
        before: &v1::AgentInfo,
        now: &v1::AgentInfo,
    ) -> Result<(), Reconfigured> {
        self.judge(
            ("hostname", "hostname"),
            (&before.hostname, &now.hostname),
            |one, other| one == other,
            |_, _| false,
        )?;
        let resources = |info: &v1::AgentInfo| convert::resources(&info.resources);
        // What was kept was valid.
        let (old, new) = (resources(before), resources(now));
        if let (Ok(old), Ok(new)) = (old, new) {
            self.judge(
                ("resources", "resources"),
                (&old, &new),
                |one, other| one.contains(other) && other.contains(one),
                |old, new| new.contains(old),
            )?;
        }
        let attributes = |info: &v1::AgentInfo| convert::attributes(&info.attributes);
        if let (Ok(old), Ok(new)) = (attributes(before), attributes(now)) {
            self.judge(
                ("attributes", "attributes"),
                (&old, &new),
                |one, other| one == other,
                holds,
            )?;
        }
        self.judge(
            ("the domain", "domain"),
            (&place(before), &place(now)),
            |one, other| one == other,
            |old, _| old.is_empty(),
        )
    }

    fn judge<T: Display>(
        self,
        (what, flag): (&'static str, &'static str),
        (before, now): (&T, &T),
        same: impl Fn(&T, &T) -> bool,
        added: impl Fn(&T, &T) -> bool,
    ) -> Result<(), Reconfigured> {
        if same(before, now) {
            return Ok(());
        }
        let more = added(before, now);
        if more && self == Self::Additive {
            return Ok(());
        }
        Err(Reconfigured {
            what,
            flag,
            before: before.to_string(),
            now: now.to_string(),
            policy: match self {
                Self::Equal => "equal",
                Self::Additive => "additive",
            },
            or: if more {
                ", with --reconfiguration_policy=additive"
            } else {
                ""
            },
        })
    }
}

/// Whether all attributes are there still; sets and ranges may have grown.
fn holds(old: &Attributes, new: &Attributes) -> bool {
    let grown = |old: &AttributeValue, new: &AttributeValue| match (old, new) {
        (AttributeValue::Ranges(old), AttributeValue::Ranges(new)) => new.contains(old),
        (AttributeValue::Set(old), AttributeValue::Set(new)) => new.contains(old),
        (old, new) => old == new,
    };
    old.0.iter().all(|old| {
        let mut same = new.0.iter().filter(|new| new.name == old.name);
        same.any(|new| grown(&old.value, &new.value))
    })
}

/// Region and zone; nothing without a domain.
fn place(info: &v1::AgentInfo) -> String {
    let domain = info.domain.as_ref();
    let fault = domain.and_then(|domain| domain.fault_domain.as_ref());
    fault.map_or_else(String::new, |fault| {
        format!("{}/{}", fault.region.name, fault.zone.name)
    })
}

#[cfg(test)]
mod tests {
    use tepui_model::Resources;

    use super::*;

    fn info(resources: &str, attributes: &str, zone: Option<&str>) -> v1::AgentInfo {
        let resources = Resources::parse(resources, "*").expect("resources");
        let attributes = Attributes::parse(attributes).expect("attributes");
        let fault = |zone: &str| v1::domain_info::FaultDomain {
            region: v1::domain_info::fault_domain::RegionInfo { name: "r".into() },
            zone: v1::domain_info::fault_domain::ZoneInfo { name: zone.into() },
        };
        v1::AgentInfo {
            hostname: "host".into(),
            resources: convert::to_proto(&resources),
            attributes: attributes.0.iter().map(Into::into).collect(),
            domain: zone.map(|zone| v1::DomainInfo {
                fault_domain: Some(fault(zone)),
            }),
            ..Default::default()
        }
    }

    #[test]
    fn what_may_change_and_what_is_said_otherwise() {
        let before = info("cpus:4;mem:64;ports:[1-5]", "rack:a;keys:[1-3]", None);
        let cases = [
            // Order does not matter; the port does not either.
            (
                info("mem:64;cpus:4;ports:[1-5]", "rack:a;keys:[1-3]", None),
                true,
                true,
                "",
            ),
            (
                info(
                    "cpus:5;mem:64;disk:1;ports:[1-9]",
                    "rack:a;keys:[1-3]",
                    None,
                ),
                false,
                true,
                "resources",
            ),
            (
                info("cpus:3;mem:64;ports:[1-5]", "rack:a;keys:[1-3]", None),
                false,
                false,
                "resources",
            ),
            (
                info("cpus(a):4;mem:64;ports:[1-5]", "rack:a;keys:[1-3]", None),
                false,
                false,
                "resources",
            ),
            (
                info("cpus:4;mem:64;ports:[1-5]", "rack:a;keys:[1-9];os:b", None),
                false,
                true,
                "attributes",
            ),
            (
                info("cpus:4;mem:64;ports:[1-5]", "rack:b;keys:[1-3]", None),
                false,
                false,
                "attributes",
            ),
            (
                info("cpus:4;mem:64;ports:[1-5]", "rack:a", None),
                false,
                false,
                "attributes",
            ),
            (
                info("cpus:4;mem:64;ports:[1-5]", "rack:a;keys:[1-3]", Some("z")),
                false,
                true,
                "domain",
            ),
        ];
        for (now, equal, additive, named) in cases {
            let strict = ReconfigurationPolicy::Equal.check(&before, &now);
            assert_eq!(strict.is_ok(), equal, "{strict:?}");
            let free = ReconfigurationPolicy::Additive.check(&before, &now);
            assert_eq!(free.is_ok(), additive, "{free:?}");
            if let Err(error) = strict {
                let text = error.to_string();
                assert!(text.contains(&format!("--{named}")), "{text}");
                assert_eq!(text.contains("policy=additive"), additive, "{text}");
            }
        }
        let (here, there) = (Some("here"), Some("there"));
        let moved =
            ReconfigurationPolicy::Additive.check(&info("", "", here), &info("", "", there));
        let text = moved.expect_err("it moved").to_string();
        assert!(
            text.contains("'r/here'") && text.contains("'r/there'"),
            "{text}"
        );
        let renamed = v1::AgentInfo {
            hostname: "other".into(),
            ..before.clone()
        };
        let text = ReconfigurationPolicy::Additive.check(&before, &renamed);
        assert!(
            text.expect_err("another name")
                .to_string()
                .contains("--hostname")
        );
    }
}
