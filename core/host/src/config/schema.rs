//! Settings and a module's JSON schema: strings become what the schema wants, the rest is checked.

use serde_json::{Map, Number, Value};

use super::{ModuleConfig, nearest};

/// The settings of a module, merged and checked against its schema.
///
/// The errors are one line a setting, each with the setting's name.
pub fn settings(
    config: &ModuleConfig,
    module: &str,
    schema: &Value,
) -> Result<Map<String, Value>, Vec<String>> {
    let mut settings = config.settings.get(module).cloned().unwrap_or_default();
    if let Some(parameters) = config.parameters.get(module) {
        let (converted, errors) = convert(&parameters.pairs, schema);
        if !errors.is_empty() {
            return Err(errors
                .into_iter()
                .map(|e| format!("{}: {e}", parameters.origin))
                .collect());
        }
        settings.extend(converted);
    }
    check(&settings, schema)?;
    Ok(settings)
}

/// Checks settings against the schema.
pub fn check(settings: &Map<String, Value>, schema: &Value) -> Result<(), Vec<String>> {
    if schema.is_null() {
        return Ok(());
    }
    let validator = jsonschema::validator_for(schema)
        .map_err(|e| vec![format!("the module's schema is not a JSON schema: {e}")])?;
    let value = Value::Object(settings.clone());
    let mut errors = unknown_keys(settings, schema);
    let unknown_named = !errors.is_empty();
    for error in validator.iter_errors(&value) {
        let path = error.instance_path().to_string();
        let text = error.to_string();
        // Named above, with the nearest known key.
        if unknown_named && path.is_empty() && text.starts_with("Additional properties") {
            continue;
        }
        let place = path.trim_start_matches('/').replace('/', ".");
        errors.push(if place.is_empty() {
            text
        } else {
            format!("{place}: {text}")
        });
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn unknown_keys(settings: &Map<String, Value>, schema: &Value) -> Vec<String> {
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let empty = Map::new();
    let known = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&empty);
    settings
        .keys()
        .filter(|key| closed && !known.contains_key(*key))
        .map(|key| match nearest(key, known.keys().map(String::as_str)) {
            Some(near) => format!("unknown setting '{key}'; did you mean '{near}'?"),
            None if known.is_empty() => format!("unknown setting '{key}'; this module has none"),
            None => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                format!("unknown setting '{key}'; known are {}", names.join(", "))
            }
        })
        .collect()
}

/// Strings of a Mesos manifest to values, by the schema; one line for each that is none.
fn convert(pairs: &[(String, String)], schema: &Value) -> (Map<String, Value>, Vec<String>) {
    let mut settings = Map::new();
    let mut errors = Vec::new();
    for (key, text) in pairs {
        let wanted = schema
            .get("properties")
            .and_then(|p| p.get(key))
            .unwrap_or(&Value::Null);
        match one(text, wanted, schema) {
            Ok(Value::Array(more)) => match settings.get_mut(key) {
                Some(Value::Array(items)) => items.extend(more),
                _ => {
                    settings.insert(key.clone(), Value::Array(more));
                }
            },
            Ok(value) => {
                settings.insert(key.clone(), value);
            }
            Err(what) => errors.push(format!("parameter '{key}': {text:?} is not {what}")),
        }
    }
    (settings, errors)
}

fn one(text: &str, schema: &Value, root: &Value) -> Result<Value, &'static str> {
    let schema = resolve(schema, root);
    if schema.get("enum").is_some() || schema.get("const").is_some() {
        return Ok(Value::String(text.into()));
    }
    // Of several types the first counts; an optional setting has one.
    let kind = types(schema, root).into_iter().next().unwrap_or_default();
    let trimmed = text.trim();
    match kind.as_str() {
        "boolean" => match trimmed {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err("true or false"),
        },
        "integer" => match (trimmed.parse::<u64>(), trimmed.parse::<i64>()) {
            (Ok(n), _) => Ok(n.into()),
            (_, Ok(n)) => Ok(n.into()),
            _ => Err("a whole number"),
        },
        "number" => trimmed
            .parse::<f64>()
            .ok()
            .and_then(Number::from_f64)
            .map(Value::Number)
            .ok_or("a number"),
        "array" => array(trimmed, schema, root),
        "object" => serde_json::from_str(trimmed)
            .ok()
            .filter(Value::is_object)
            .ok_or("a JSON object"),
        _ => Ok(Value::String(text.into())),
    }
}

/// A JSON array, or items separated by commas.
fn array(text: &str, schema: &Value, root: &Value) -> Result<Value, &'static str> {
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(|_| "a JSON array");
    }
    let items = schema.get("items").unwrap_or(&Value::Null);
    let parts = text.split(',').map(str::trim).filter(|t| !t.is_empty());
    Ok(Value::Array(
        parts
            .map(|t| one(t, items, root))
            .collect::<Result<_, _>>()?,
    ))
}

/// Follows one `$ref` into the definitions.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let target = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|r| r.strip_prefix('#'));
    target
        .and_then(|pointer| root.pointer(pointer))
        .unwrap_or(schema)
}

/// The types a schema allows, `null` left out; of an optional setting those of its value.
fn types(schema: &Value, root: &Value) -> Vec<String> {
    let own = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => kinds
            .iter()
            .filter_map(Value::as_str)
            .map(String::from)
            .collect(),
        _ => schema
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .flat_map(|s| types(resolve(s, root), root))
            .collect(),
    };
    own.into_iter().filter(|kind| kind != "null").collect()
}
