//! Access control lists in the form of Mesos (`--acls`), evaluated by the rules of its local authorizer
//! (`src/authorizer/local/authorizer.cpp`).
//!
//! The settings are the JSON object of `--acls` itself. The kinds of ACLs are a table ([`kinds`]): which actions each
//! decides, and what its objects are. Kinds that are not known are refused by name: an ACL that is read and not applied
//! would be worse than none.

mod acls;
mod kinds;

pub use acls::Config;

use acls::{Acls, Entity, Request};
use kinds::Objects;
use prost::Message;
use tepui_module_sdk::prelude::*;
use tepui_module_sdk::proto::authorizer::Object;

/// See the crate.
pub struct Local {
    acls: Acls,
}

impl Module for Local {
    type Config = Config;
    const NAME: &'static str = "local";
    const DESCRIPTION: &'static str = "access control lists in the form of Mesos";

    fn create(config: Config, _: Context) -> Result<Self> {
        Ok(Self {
            acls: config.validated()?,
        })
    }
}

impl Authorizer for Local {
    async fn approver(&self, subject: Option<&Subject>, action: Action) -> Result<Approver> {
        if let Some([as_user, under]) = kinds::of_nested_launch(action) {
            let as_user = self.decider(as_user, subject);
            let under = self.decider(under, subject);
            if let (Some(as_user), Some(under)) = (as_user.constant(), under.constant()) {
                let both = as_user && under;
                return Ok(if both {
                    Approver::Always
                } else {
                    Approver::Never
                });
            }
            let without_object = as_user.of(None) && under.of(None);
            let check = move |object: &Object| {
                as_user.of(object.value.as_deref()) && under.of(executor_user(object).as_deref())
            };
            return Ok(Approver::by_object(check).without_object(without_object));
        }
        let Some(kind) = kinds::of_action(action) else {
            let permissive = self.acls.permissive;
            return Ok(if permissive {
                Approver::Always
            } else {
                Approver::Never
            });
        };
        let decider = self.decider(kind, subject);
        if let Some(constant) = decider.constant() {
            return Ok(if constant {
                Approver::Always
            } else {
                Approver::Never
            });
        }
        let without_object = decider.of(None);
        Ok(Approver::by_value(move |value| decider.of(Some(value))).without_object(without_object))
    }
}

impl Local {
    fn decider(&self, kind: &kinds::Kind, subject: Option<&Subject>) -> Decider {
        let role = kind.objects == Objects::Roles;
        // Claims without a principal cannot be matched by ACLs.
        let principal = subject.and_then(|subject| subject.principal.clone());
        let request = principal.as_deref().map_or(Request::Any, Request::One);
        let relevant = self
            .acls
            .of(kind)
            .iter()
            .filter(|acl| acl.principals.matches(request, false));
        let rules = relevant.map(|acl| Rule {
            subject: acl.principals.allows(request, false),
            objects: acl.objects.clone(),
            role,
        });
        Decider {
            rules: rules.collect(),
            permissive: self.acls.permissive,
        }
    }
}

/// One list of ACLs, for one subject.
struct Decider {
    rules: Vec<Rule>,
    permissive: bool,
}

impl Decider {
    fn constant(&self) -> Option<bool> {
        self.rules.is_empty().then_some(self.permissive)
    }

    /// An action without an object is about any.
    fn of(&self, value: Option<&str>) -> bool {
        let request = value.map_or(Request::Any, Request::One);
        decide(&self.rules, request, self.permissive)
    }
}

/// The user of the executor around a container.
fn executor_user(object: &Object) -> Option<String> {
    use tepui_module_sdk::mesos::{ExecutorInfo, FrameworkInfo};
    let executor = ExecutorInfo::decode(&*object.executor_info).ok()?;
    let own = executor.command.and_then(|command| command.user);
    own.or_else(|| Some(FrameworkInfo::decode(&*object.framework_info).ok()?.user))
}

/// An ACL whose subjects match.
struct Rule {
    /// It allows the subject.
    subject: bool,
    objects: Entity,
    /// Values are roles, which may end in `/%`.
    role: bool,
}

/// The first ACL that matches the object too decides.
fn decide(rules: &[Rule], object: Request<'_>, permissive: bool) -> bool {
    let rule = rules
        .iter()
        .find(|rule| rule.objects.matches(object, rule.role));
    rule.map_or(permissive, |rule| {
        rule.subject && rule.objects.allows(object, rule.role)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn local(settings: serde_json::Value) -> Result<Local> {
        let config: Config = serde_json::from_value(settings)?;
        Ok(Local {
            acls: config.validated()?,
        })
    }

    async fn allowed(
        local: &Local,
        principal: Option<&str>,
        action: Action,
        object: Option<&str>,
    ) -> bool {
        let subject = principal.map(Subject::principal);
        match local.approver(subject.as_ref(), action).await.unwrap() {
            Approver::Always => true,
            Approver::ByValue {
                check: tepui_module_sdk::Check::Now(check),
                without_object,
            } => object.map_or(without_object, check),
            _ => false,
        }
    }

    #[tokio::test]
    async fn the_first_acl_that_matches_decides() {
        let acls = local(json!({
            "permissive": false,
            "run_tasks": [
                {"principals": {"values": ["ops"]}, "users": {"type": "ANY"}},
                {"principals": {"values": ["web"]}, "users": {"values": ["www", "nginx"]}},
                {"principals": {"values": ["web"]}, "users": {"type": "NONE"}},
                {"principals": {"type": "ANY"}, "users": {"values": ["guest"]}},
            ],
        }))
        .unwrap();
        for (principal, user, expected) in [
            (Some("ops"), Some("root"), true),
            (Some("ops"), None, true),
            (Some("web"), Some("www"), true),
            (Some("web"), Some("root"), false),
            // NONE matches, and allows nothing; the last ACL is not reached.
            (Some("web"), Some("guest"), false),
            (Some("other"), Some("guest"), true),
            (Some("other"), Some("www"), false),
            // Unauthenticated is ANY, which only an ANY or NONE of an ACL matches.
            (None, Some("guest"), true),
            (None, Some("www"), false),
        ] {
            assert_eq!(
                allowed(&acls, principal, Action::RunTask, user).await,
                expected,
                "{principal:?} {user:?}"
            );
        }
        assert!(
            !allowed(&acls, Some("ops"), Action::ViewTask, Some("root")).await,
            "not permissive"
        );
    }

    #[tokio::test]
    async fn role_values_may_name_what_is_below() {
        let acls = local(json!({
            "register_frameworks": [
                {"principals": {"values": ["a"]}, "roles": {"values": ["eng/%", "sales"]}},
                {"principals": {"values": ["a"]}, "roles": {"type": "NONE"}},
            ],
        }))
        .unwrap();
        for (role, expected) in [
            ("eng", false),
            ("eng/dev", true),
            ("eng/dev/x", true),
            ("sales", true),
            ("hr", false),
        ] {
            assert_eq!(
                allowed(&acls, Some("a"), Action::RegisterFramework, Some(role)).await,
                expected,
                "{role}"
            );
        }
        assert!(
            allowed(&acls, Some("b"), Action::RegisterFramework, Some("hr")).await,
            "permissive by default"
        );
        // In other ACLs the form has no meaning.
        let users = json!([{"principals": {"type": "ANY"}, "users": {"values": ["a/%"]}}]);
        let acls = local(json!({"permissive": false, "run_tasks": users})).unwrap();
        assert!(!allowed(&acls, None, Action::RunTask, Some("a/b")).await);
    }

    #[tokio::test]
    async fn what_has_no_object_is_decided_without_one() {
        let agents = json!([
            {"principals": {"values": ["agent"]}, "agents": {"type": "ANY"}},
            {"principals": {"type": "ANY"}, "agents": {"type": "NONE"}},
        ]);
        let acls = local(json!({"permissive": false, "register_agents": agents})).unwrap();
        for (principal, expected) in [(Some("agent"), true), (Some("other"), false), (None, false)]
        {
            let allowed = allowed(&acls, principal, Action::RegisterAgent, None).await;
            assert_eq!(allowed, expected, "{principal:?}");
        }
    }

    #[tokio::test]
    async fn a_nested_launch_is_allowed_by_both_its_lists() {
        let acls = local(json!({
            "permissive": false,
            "launch_nested_containers_as_user": [
                {"principals": {"values": ["ops"]}, "users": {"values": ["www", "db"]}},
            ],
            "launch_nested_containers_under_parent_with_user": [
                {"principals": {"values": ["ops"]}, "users": {"values": ["www"]}},
            ],
        }))
        .unwrap();
        let object = |user: &str, around: &str| {
            let executor = tepui_module_sdk::mesos::ExecutorInfo {
                command: Some(tepui_module_sdk::mesos::CommandInfo {
                    user: Some(around.to_owned()),
                    ..Default::default()
                }),
                ..Default::default()
            };
            Object {
                value: Some(user.to_owned()),
                executor_info: executor.encode_to_vec(),
                ..Default::default()
            }
        };
        let ops = Subject::principal("ops");
        let action = Action::LaunchNestedContainer;
        let approver = acls.approver(Some(&ops), action).await.unwrap();
        let Approver::ByObject {
            check: tepui_module_sdk::Check::Now(check),
            ..
        } = approver
        else {
            panic!("decided without the object");
        };
        for (user, around, expected) in [
            ("www", "www", true),
            ("db", "www", true),
            ("www", "db", false),
            ("root", "www", false),
        ] {
            assert_eq!(check(&object(user, around)), expected, "{user} in {around}");
        }
        let sessions = Action::LaunchNestedContainerSession;
        let approver = acls.approver(Some(&ops), sessions).await.unwrap();
        assert!(matches!(approver, Approver::Never), "has lists of its own");
    }

    #[test]
    fn every_kind_and_action_has_its_acls() {
        let with_two_lists = [
            Action::LaunchNestedContainer,
            Action::LaunchNestedContainerSession,
        ];
        for action in Action::ALL {
            let kind = kinds::of_action(*action);
            let two = kinds::of_nested_launch(*action);
            assert_eq!(kind.is_none(), two.is_some(), "{action}");
            assert_eq!(two.is_some(), with_two_lists.contains(action), "{action}");
        }
        for kind in kinds::KINDS {
            let any = json!([{"principals": {}, kind.object: {"type": "ANY"}}]);
            let acls = local(json!({kind.field: any})).expect(kind.field);
            assert_eq!(acls.acls.of(kind).len(), 1, "{}", kind.field);
        }
    }

    #[test]
    fn what_is_not_enforced_is_refused_by_name() {
        let refused = |settings| {
            local(settings)
                .err()
                .map(|failure| failure.message().to_owned())
                .unwrap_or_default()
        };
        let any = json!([{"principals": {"type": "ANY"}, "users": {"type": "NONE"}}]);
        assert_eq!(
            refused(json!({"run_task": any})),
            "run_task: there are no ACLs of this kind"
        );
        let extra = json!([{"principals": {}, "users": {}, "roles": {}}]);
        assert_eq!(
            refused(json!({"view_tasks": extra})),
            "view_tasks[0]: unknown field `roles`, expected `principals` and `users`"
        );
        let named = json!([{"principals": {}, "agents": {"values": ["a1"]}}]);
        assert_eq!(
            refused(json!({"register_agents": named})),
            "register_agents[0]: agents: nothing can be named here, the type has to be ANY or NONE"
        );
        let path = json!([{"principals": {}, "paths": {"values": ["/state"]}}]);
        assert!(
            refused(json!({"get_endpoints": path})).contains("`/state` is not authorized by path")
        );
        assert!(
            refused(json!({"run_tasks": [{"principals": {"type": "ANY"}}]}))
                .contains("missing field `users`")
        );
        assert!(refused(json!({"permissive": "no"})).contains("permissive"));
        assert!(
            refused(json!({"run_tasks": [{"principals": {"type": "SOMEONE"}, "users": {}}]}))
                .contains("SOMEONE")
        );
        assert!(local(json!({})).is_ok());
        assert!(
            local(json!({"acls": {"run_tasks": any}})).is_ok(),
            "the object under the name of the flag"
        );
    }
}
