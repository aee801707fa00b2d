//! The configuration file: flags by name, `[modules."NAME"]` and `[load."NAME"]`.

use std::path::Path;

use tepui_host::config::ModuleConfig;

use super::read::Raw;
use super::{Daemon, FlagError, Kind, Source};

/// Reads the file. Relative paths in it stay as they are: they mean the daemon's directory.
pub(super) fn read(daemon: Daemon, path: &Path) -> Result<(Vec<Raw>, ModuleConfig), FlagError> {
    let wrong = |message: String| FlagError::File {
        file: path.into(),
        message,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|e| wrong(format!("the configuration file cannot be read: {e}")))?;
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| wrong(e.to_string()))?;

    let mut flags: Vec<Raw> = Vec::new();
    let mut modules = ModuleConfig::default();
    for (key, value) in table {
        match (key.as_str(), value) {
            ("modules", toml::Value::Table(tables)) => modules.add_settings(path, tables)?,
            ("load", toml::Value::Table(tables)) => modules.add_load(path, tables)?,
            ("modules" | "load", _) => {
                return Err(wrong(format!(
                    "{key}: expected tables such as [{key}.\"NAME\"]"
                )));
            }
            (_, value) => {
                let flag = daemon
                    .flag(&key)
                    .filter(|f| !["config", "help", "version"].contains(&f.name))
                    .ok_or_else(|| FlagError::UnknownKey {
                        file: path.into(),
                        name: key.clone(),
                        nearest: daemon.nearest(&key),
                    })?;
                if flags.iter().any(|raw| raw.flag.name == flag.name) {
                    return Err(wrong(format!("{key}: given twice, as '{}'", flag.name)));
                }
                let text = text_of(flag.kind, value).map_err(|m| wrong(format!("{key}: {m}")))?;
                flags.push(Raw {
                    flag,
                    text,
                    source: Source::File(path.into()),
                });
            }
        }
    }
    Ok((flags, modules))
}

/// The text that the command line would have for this value.
fn text_of(kind: Kind, value: toml::Value) -> Result<String, String> {
    let found = value.type_str();
    let json = |value| serde_json::to_string(&value).map_err(|e| e.to_string());
    match (kind, value) {
        (_, toml::Value::String(text)) => Ok(text),
        (Kind::Flag, toml::Value::Boolean(on)) => Ok(on.to_string()),
        (Kind::Int | Kind::Port | Kind::Number, toml::Value::Integer(n)) => Ok(n.to_string()),
        (Kind::Number, toml::Value::Float(n)) => Ok(n.to_string()),
        (Kind::List, toml::Value::Array(items)) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            items
                .map(|i| i.join(","))
                .ok_or_else(|| "expected a list of strings".into())
        }
        (
            Kind::Json | Kind::JsonOrText,
            value @ (toml::Value::Table(_) | toml::Value::Array(_)),
        ) => json(value),
        _ => Err(format!("expected {}, found {found}", expected(kind))),
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "true or false",
        Kind::Int | Kind::Port | Kind::Number => "a number",
        Kind::List => "a list of strings",
        Kind::Json => "a table, or a string with JSON",
        Kind::Duration => "a string such as \"15secs\"",
        Kind::Bytes => "a string such as \"32MB\"",
        _ => "a string",
    }
}
