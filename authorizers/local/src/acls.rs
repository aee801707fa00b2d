//! Settings: the message `mesos.ACLs` as JSON, and how one entity matches.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tepui_module_sdk::macro_support::schemars::{JsonSchema, Schema, SchemaGenerator};
use tepui_module_sdk::{Failure, Result};

use crate::kinds::{self, Kind, Objects, PATHS};

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
        let mut properties = Map::new();
        let permissive = "What is decided when no ACL matches; true unless set.";
        properties.insert(
            "permissive".into(),
            json!({"type": "boolean", "description": permissive}),
        );
        for kind in kinds::KINDS {
            let names: Vec<&str> = kind.actions.iter().map(|action| action.as_str()).collect();
            let description = format!("Who may {}, the first that matches.", names.join(", "));
            properties.insert(kind.field.into(), acls(kind.object, &description));
        }
        for (action, kind) in kinds::of_pairs() {
            let description = format!(
                "Who may {action}, together with the list beside it: both have to allow it."
            );
            properties.insert(kind.field.into(), acls(kind.object, &description));
        }
        let schema = json!({
            "type": "object",
            "description": "The access control lists of `--acls`. Of each kind the first that matches decides.",
            "properties": properties,
        });
        schema.try_into().expect("an object is a schema")
    }
}

/// Settings that are known to be right.
#[derive(Debug)]
pub(crate) struct Acls {
    pub(crate) permissive: bool,
    /// By the field of [`Kind`].
    lists: BTreeMap<&'static str, Vec<Acl>>,
}

/// One ACL of any kind.
#[derive(Debug)]
pub(crate) struct Acl {
    pub(crate) principals: Entity,
    pub(crate) objects: Entity,
}

impl Acls {
    /// The ACLs of a kind, in the order of the settings.
    pub(crate) fn of(&self, kind: &Kind) -> &[Acl] {
        self.lists.get(kind.field).map_or(&[], Vec::as_slice)
    }
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
            lists: BTreeMap::new(),
        };
        for (key, value) in object {
            if key == "permissive" {
                acls.permissive = serde_json::from_value(value).map_err(|e| invalid(&key, &e))?;
            } else if let Some(kind) = kinds::of_field(&key) {
                acls.lists.insert(kind.field, list(kind, value)?);
            } else {
                return Err(invalid(&key, &"there are no ACLs of this kind"));
            }
        }
        Ok(acls)
    }
}

fn list(kind: &Kind, value: Value) -> Result<Vec<Acl>> {
    let list: Vec<Map<String, Value>> =
        serde_json::from_value(value).map_err(|e| invalid(kind.field, &e))?;
    let acl = |(index, object)| {
        acl(kind, object).map_err(|error| {
            let place = format!("{}[{index}]", kind.field);
            invalid(&place, &error)
        })
    };
    list.into_iter().enumerate().map(acl).collect()
}

fn acl(kind: &Kind, mut object: Map<String, Value>) -> std::result::Result<Acl, String> {
    let mut entity = |name: &str| -> std::result::Result<Entity, String> {
        let value = object.remove(name);
        let value = value.ok_or_else(|| format!("missing field `{name}`"))?;
        serde_json::from_value(value).map_err(|error| format!("{name}: {error}"))
    };
    let acl = Acl {
        principals: entity("principals")?,
        objects: entity(kind.object)?,
    };
    if let Some(unknown) = object.keys().next() {
        let object = kind.object;
        return Err(format!(
            "unknown field `{unknown}`, expected `principals` and `{object}`"
        ));
    }
    let Entity { r#type, values } = &acl.objects;
    match kind.objects {
        Objects::Unnamed if *r#type == EntityType::Some => Err(format!(
            "{}: nothing can be named here, the type has to be ANY or NONE",
            kind.object
        )),
        Objects::Paths => match values.iter().find(|path| !PATHS.contains(&path.as_str())) {
            Some(path) => Err(format!(
                "paths: `{path}` is not authorized by path; those that are: {}",
                PATHS.join(", ")
            )),
            None => Ok(acl),
        },
        _ => Ok(acl),
    }
}

fn invalid(key: &str, what: &dyn Display) -> Failure {
    Failure::invalid(format!("{key}: {what}")).setting(key)
}
