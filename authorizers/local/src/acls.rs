//! Settings: the message `mesos.ACLs` as JSON, and how one entity matches.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tepui_module_sdk::macro_support::schemars::{JsonSchema, Schema, SchemaGenerator};
use tepui_module_sdk::{Failure, Result};

/// Kinds of ACLs that Mesos 1.11 has and this module does not apply yet.
const NOT_YET: &[&str] = &[
    "reserve_resources",
    "unreserve_resources",
    "create_volumes",
    "destroy_volumes",
    "teardown_frameworks",
    "update_weights",
    "get_endpoints",
    "get_quotas",
    "update_quotas",
    "view_frameworks",
    "view_tasks",
    "view_executors",
    "access_sandboxes",
    "access_mesos_logs",
    "view_roles",
    "view_flags",
    "launch_nested_containers_as_user",
    "launch_nested_containers_under_parent_with_user",
    "kill_nested_containers",
    "wait_nested_containers",
    "launch_nested_container_sessions_as_user",
    "launch_nested_container_sessions_under_parent_with_user",
    "attach_containers_input",
    "attach_containers_output",
    "view_containers",
    "set_log_level",
    "remove_nested_containers",
    "register_agents",
    "update_maintenance_schedules",
    "get_maintenance_schedules",
    "start_maintenances",
    "stop_maintenances",
    "get_maintenance_statuses",
    "mark_agents_gone",
    "launch_standalone_containers",
    "kill_standalone_containers",
    "wait_standalone_containers",
    "remove_standalone_containers",
    "modify_resource_provider_configs",
    "view_standalone_containers",
    "prune_images",
    "resize_volumes",
    "create_block_disks",
    "destroy_block_disks",
    "create_mount_disks",
    "destroy_mount_disks",
    "view_resource_providers",
    "mark_resource_providers_gone",
    "destroy_raw_disks",
    "drain_agents",
    "deactivate_agents",
    "reactivate_agents",
];

/// The object of `--acls`. Checked when the module is made, so that errors name what is wrong.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Config(Map<String, Value>);

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Config".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let entity = json!({
            "type": "object",
            "properties": {
                "type": {"enum": ["SOME", "ANY", "NONE"], "description": "SOME: those in `values`."},
                "values": {"type": "array", "items": {"type": "string"}},
            },
        });
        let acls = |object: &str, description: &str| {
            json!({
                "type": "array",
                "description": description,
                "items": {
                    "type": "object",
                    "properties": {"principals": entity, object: entity},
                    "required": ["principals", object],
                },
            })
        };
        let schema = json!({
            "type": "object",
            "description": "The access control lists of `--acls`. The first that matches decides.",
            "properties": {
                "permissive": {"type": "boolean", "description": "What is decided when no ACL matches; true unless set."},
                "register_frameworks": acls("roles", "Principals whose frameworks may subscribe in these roles."),
                "run_tasks": acls("users", "Principals whose frameworks may run tasks as these users."),
            },
        });
        schema.try_into().expect("an object is a schema")
    }
}

/// Settings that are known to be right.
#[derive(Debug)]
pub(crate) struct Acls {
    pub(crate) permissive: bool,
    pub(crate) register_frameworks: Vec<Acl>,
    pub(crate) run_tasks: Vec<Acl>,
}

/// One ACL of any kind.
#[derive(Debug)]
pub(crate) struct Acl {
    pub(crate) principals: Entity,
    pub(crate) objects: Entity,
}

/// `mesos.ACL.Entity`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entity {
    #[serde(default)]
    r#type: EntityType,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum EntityType {
    #[default]
    Some,
    Any,
    None,
}

/// The entity of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Request<'a> {
    /// One principal or object.
    One(&'a str),
    /// No principal, or a check without an object.
    Any,
}

impl Entity {
    /// Whether this entity decides about the request at all.
    pub(crate) fn matches(&self, request: Request<'_>, role: bool) -> bool {
        match (request, self.r#type) {
            (_, EntityType::Any | EntityType::None) => true,
            (Request::One(value), EntityType::Some) => self.has(value, role),
            (Request::Any, EntityType::Some) => false,
        }
    }

    /// Whether it decides in favour.
    pub(crate) fn allows(&self, request: Request<'_>, role: bool) -> bool {
        match (request, self.r#type) {
            (_, EntityType::Any) => true,
            (_, EntityType::None) => false,
            (Request::One(value), EntityType::Some) => self.has(value, role),
            (Request::Any, EntityType::Some) => false,
        }
    }

    /// Whether a value is listed; of roles, `a/%` lists all below `a` and not `a` itself.
    fn has(&self, value: &str, role: bool) -> bool {
        self.values
            .iter()
            .any(|listed| match listed.strip_suffix("/%") {
                Some(above) if role => value
                    .strip_prefix(above)
                    .is_some_and(|rest| rest.starts_with('/')),
                _ => listed == value,
            })
    }
}

impl Config {
    /// Reads the object; an error names the key.
    pub(crate) fn validated(self) -> Result<Acls> {
        let mut object = self.0;
        // As `--acls` has it under the flag's own name.
        if object.len() == 1
            && let Some(Value::Object(inner)) = object.get("acls")
        {
            object = inner.clone();
        }
        let mut acls = Acls {
            permissive: true,
            register_frameworks: Vec::new(),
            run_tasks: Vec::new(),
        };
        for (key, value) in object {
            match key.as_str() {
                "permissive" => acls.permissive = read(&key, value)?,
                "register_frameworks" => {
                    let read: Vec<RegisterFramework> = read(&key, value)?;
                    let acl = |acl: RegisterFramework| Acl {
                        principals: acl.principals,
                        objects: acl.roles,
                    };
                    acls.register_frameworks = read.into_iter().map(acl).collect();
                }
                "run_tasks" => {
                    let read: Vec<RunTask> = read(&key, value)?;
                    let acl = |acl: RunTask| Acl {
                        principals: acl.principals,
                        objects: acl.users,
                    };
                    acls.run_tasks = read.into_iter().map(acl).collect();
                }
                known if NOT_YET.contains(&known) => {
                    let message = format!(
                        "ACLs of kind `{key}` are not enforced yet; enforced are `register_frameworks` and `run_tasks`"
                    );
                    return Err(Failure::invalid(message).setting(key));
                }
                _ => {
                    return Err(
                        Failure::invalid(format!("there are no ACLs of kind `{key}`")).setting(key),
                    );
                }
            }
        }
        Ok(acls)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RegisterFramework {
    principals: Entity,
    roles: Entity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunTask {
    principals: Entity,
    users: Entity,
}

fn read<T: DeserializeOwned>(key: &str, value: Value) -> Result<T> {
    serde_json::from_value(value)
        .map_err(|error| Failure::invalid(format!("{key}: {error}")).setting(key))
}
