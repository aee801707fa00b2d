//! What is reserved on an agent: finding it by role, so that nobody has to spell out reservations.

use anyhow::{Result, bail};
use tepui_model::id::{Principal, Role};
use tepui_model::{Resource, Resources};

/// Which reservations are meant.
#[derive(clap::Args, Clone)]
pub(crate) struct Reserved {
    /// Role that the resources are reserved to
    #[arg(long)]
    pub(crate) role: String,
    /// Principal who reserved them; needed where several did for the role
    #[arg(long)]
    pub(crate) principal: Option<String>,
}

impl Reserved {
    /// Resources of the role that were reserved at run time and are no volumes.
    pub(crate) fn of(&self, total: &Resources) -> Resources {
        let role = Role::from(self.role.as_str());
        let principal = self.principal.as_deref().map(Principal::from);
        total.filter(|resource| {
            let top = resource.reservations().last();
            resource.is_dynamically_reserved()
                && resource.reservation_role() == Some(&role)
                && !resource.is_persistent_volume()
                && (principal.is_none()
                    || top.and_then(|top| top.principal.as_ref()) == principal.as_ref())
        })
    }

    /// The part of what is reserved that has this name and value.
    pub(crate) fn part(&self, total: &Resources, wanted: &Resource) -> Result<Resource> {
        let reserved = self.of(total);
        let named = reserved.iter().filter(|one| one.name() == wanted.name());
        let parts = named.filter_map(|one| {
            let part = one.of_value(wanted.value().clone());
            one.contains(&part).then_some(part)
        });
        let parts: Vec<Resource> = parts.collect();
        match &parts[..] {
            [part] => Ok(part.clone()),
            [] if reserved.is_empty() => {
                bail!(
                    "nothing is reserved to role {:?} there that is no volume: `tepui reserve` does so",
                    self.role
                )
            }
            [] => bail!(
                "{wanted} is not among what is reserved to role {:?} there: {reserved}",
                self.role
            ),
            several => {
                let several: Vec<String> = several.iter().map(ToString::to_string).collect();
                bail!(
                    "{wanted} may be one of several, say which with --principal: {}",
                    several.join(" or ")
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Resources {
        Resources::parse(text, "*").expect("resources of a test")
    }

    fn part(role: &str, principal: Option<&str>, wanted: &str) -> Result<String, String> {
        let total = parse(
            "cpus:4;cpus(reservations: [(DYNAMIC,a,ann)]):2;cpus(reservations: [(DYNAMIC,a,bob)]):1;\
             mem(reservations: [(STATIC,a)]):64;mem(reservations: [(STATIC,b),(DYNAMIC,b/c)]):32;\
             ports(reservations: [(DYNAMIC,a)]):[1-9];disk(reservations: [(DYNAMIC,a)])[v:path]:10",
        );
        let reserved = Reserved {
            role: role.to_owned(),
            principal: principal.map(str::to_owned),
        };
        let wanted = parse(wanted);
        let part = reserved.part(&total, wanted.iter().next().expect("one"));
        part.map(|part| part.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_reserved_is_found_by_role_and_amount() {
        let is = |text: &str| Ok(text.to_owned());
        assert_eq!(
            part("a", None, "cpus:2"),
            is("cpus(reservations: [(DYNAMIC,a,ann)]):2")
        );
        assert_eq!(
            part("a", Some("bob"), "cpus:1"),
            is("cpus(reservations: [(DYNAMIC,a,bob)]):1")
        );
        assert_eq!(
            part("a", None, "ports:[2-3]"),
            is("ports(reservations: [(DYNAMIC,a)]):[2-3]")
        );
        assert_eq!(
            part("b/c", None, "mem:32"),
            is("mem(reservations: [(STATIC,b),(DYNAMIC,b/c)]):32")
        );
        let refused = |role, wanted| part(role, None, wanted).expect_err("refused");
        assert!(refused("a", "cpus:1").contains("--principal"));
        assert!(refused("a", "cpus:3").contains("is not among"));
        assert!(
            refused("a", "mem:1").contains("is not among"),
            "the flag's reservations stay"
        );
        assert!(
            refused("a", "disk:1").contains("is not among"),
            "volumes are destroyed first"
        );
        assert!(refused("c", "cpus:1").contains("nothing is reserved"));
    }
}
