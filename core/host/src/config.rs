//! What the configuration says about modules: where to look, their settings, how to load them.
//!
//! One form for all sources: `[modules."NAME"]` and `[load."NAME"]` of the file, and Mesos' JSON
//! manifests (`--modules`, `--modules_dir`), whose parameters are strings until the module's schema
//! says what they are ([`schema`]). Settings are merged per key; a manifest, being nearer to the
//! command line, wins over the file.

pub mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::value::parse_duration;

/// The configuration of modules is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConfigError {
    #[error("{}: [{table}.\"{module}\"]: {message}", file.display())]
    Table {
        file: PathBuf,
        table: &'static str,
        module: String,
        message: String,
    },
    #[error("{origin}: {message}")]
    Manifest { origin: String, message: String },
    #[error("module '{module}' is given twice, in {first} and in {second}")]
    Twice {
        module: String,
        first: String,
        second: String,
    },
}

/// Everything the configuration says about modules.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModuleConfig {
    /// Directories to search, first one first.
    pub dirs: Vec<PathBuf>,
    /// Settings by module name.
    pub settings: BTreeMap<String, Map<String, Value>>,
    /// What to do otherwise than by default when loading, by module name.
    pub load: BTreeMap<String, Load>,
    /// Parameters of Mesos' manifests by module name, with the manifest they came from.
    pub parameters: BTreeMap<String, Parameters>,
}

/// Settings of one module as a Mesos manifest has them: all strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// The manifest.
    pub origin: String,
    /// Keys and values; a key may come twice where the setting is a list.
    pub pairs: Vec<(String, String)>,
}

/// How one module is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The library, wherever it is.
    pub file: Option<PathBuf>,
    /// What the file's digest must be, in hex.
    pub sha256: Option<String>,
    /// Deadline of its calls, in place of the host's.
    pub timeout: Option<Duration>,
    /// Whether the daemon may start without it.
    pub required: bool,
    /// In the daemon or in a child process.
    pub run_in: RunIn,
}

impl Default for Load {
    fn default() -> Self {
        Load {
            file: None,
            sha256: None,
            timeout: None,
            required: true,
            run_in: RunIn::Daemon,
        }
    }
}

/// Where a module runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunIn {
    /// In the daemon.
    Daemon,
    /// In a child process.
    Process,
}

impl ModuleConfig {
    /// What is said about loading this module, or the defaults.
    pub fn load(&self, module: &str) -> Load {
        self.load.get(module).cloned().unwrap_or_default()
    }

    /// Sets one setting unless the file has it.
    pub fn set_if_absent(&mut self, module: &str, key: &str, value: Value) {
        self.settings
            .entry(module.into())
            .or_default()
            .entry(key)
            .or_insert(value);
    }

    /// Sets one setting.
    pub fn set(&mut self, module: &str, key: &str, value: Value) {
        self.settings
            .entry(module.into())
            .or_default()
            .insert(key.into(), value);
    }

    /// Takes the `[modules."NAME"]` tables of a file.
    pub fn add_settings(&mut self, file: &Path, tables: toml::Table) -> Result<(), ConfigError> {
        each_table(file, "modules", tables, |module, table| {
            let settings = self.settings.entry(module.into()).or_default();
            for (key, value) in table {
                let value = serde_json::to_value(value).map_err(|error| error.to_string())?;
                settings.insert(key, value);
            }
            Ok(())
        })
    }

    /// Takes the `[load."NAME"]` tables of a file.
    pub fn add_load(&mut self, file: &Path, tables: toml::Table) -> Result<(), ConfigError> {
        each_table(file, "load", tables, |module, table| {
            let mut load = Load::default();
            for (key, value) in table {
                load_key(&mut load, &key, &value)?;
            }
            self.load.insert(module.into(), load);
            Ok(())
        })
    }

    /// Takes a Mesos manifest: `{"libraries": [{"file": .., "modules": [..]}]}`.
    pub fn add_mesos_manifest(&mut self, origin: &str, json: &str) -> Result<(), ConfigError> {
        let manifest: MesosModules =
            serde_json::from_str(json).map_err(|e| ConfigError::Manifest {
                origin: origin.into(),
                message: e.to_string(),
            })?;
        for library in manifest.libraries {
            let file = library
                .file
                .or_else(|| Some(format!("lib{}.so", library.name?).into()));
            for module in library.modules {
                let pairs: Vec<_> = module
                    .parameters
                    .into_iter()
                    .map(|p| (p.key, p.value.unwrap_or_default()))
                    .collect();
                let parameters = Parameters {
                    origin: origin.into(),
                    pairs,
                };
                if let Some(first) = self.parameters.get(&module.name) {
                    return Err(ConfigError::Twice {
                        module: module.name,
                        first: first.origin.clone(),
                        second: origin.into(),
                    });
                }
                if let Some(file) = &file {
                    let load = self.load.entry(module.name.clone()).or_default();
                    load.file.get_or_insert_with(|| file.clone());
                }
                self.parameters.insert(module.name, parameters);
            }
        }
        Ok(())
    }

    /// Takes all manifests of a directory, in the order of their names.
    pub fn add_mesos_dir(&mut self, dir: &Path) -> Result<(), ConfigError> {
        let error = |path: &Path, message: String| ConfigError::Manifest {
            origin: path.display().to_string(),
            message,
        };
        let entries = std::fs::read_dir(dir).map_err(|e| error(dir, e.to_string()))?;
        let mut files: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(|p| p.is_file())
            .collect();
        files.sort();
        for file in files {
            let json = std::fs::read_to_string(&file).map_err(|e| error(&file, e.to_string()))?;
            self.add_mesos_manifest(&file.display().to_string(), &json)?;
        }
        Ok(())
    }
}

/// Hands each table `[NAME."MODULE"]` of a file to `take`, and says where what it refuses stands.
fn each_table(
    file: &Path,
    name: &'static str,
    tables: toml::Table,
    mut take: impl FnMut(&str, toml::Table) -> Result<(), String>,
) -> Result<(), ConfigError> {
    for (module, table) in tables {
        let taken = match table {
            toml::Value::Table(table) => take(&module, table),
            other => Err(format!("expected a table, found {}", other.type_str())),
        };
        taken.map_err(|message| ConfigError::Table {
            file: file.into(),
            table: name,
            module,
            message,
        })?;
    }
    Ok(())
}

fn load_key(load: &mut Load, key: &str, value: &toml::Value) -> Result<(), String> {
    let text = || {
        value
            .as_str()
            .ok_or_else(|| format!("{key}: expected a string, found {}", value.type_str()))
    };
    match key {
        "file" => {
            let file = PathBuf::from(text()?);
            if !file.is_absolute() {
                return Err(format!("file: {} is not an absolute path", file.display()));
            }
            load.file = Some(file);
        }
        "sha256" => {
            let digest = text()?.to_ascii_lowercase();
            if digest.len() != 64 || hex::decode(&digest).is_err() {
                return Err("sha256: expected 64 hexadecimal digits".into());
            }
            load.sha256 = Some(digest);
        }
        "timeout" => {
            load.timeout = Some(parse_duration(text()?).map_err(|e| format!("timeout: {e}"))?);
        }
        "required" => {
            load.required = value.as_bool().ok_or_else(|| {
                format!(
                    "required: expected true or false, found {}",
                    value.type_str()
                )
            })?;
        }
        "run_in" => {
            load.run_in = match text()? {
                "daemon" => RunIn::Daemon,
                "process" => RunIn::Process,
                other => {
                    return Err(format!(
                        "run_in: {other:?} is not \"daemon\" or \"process\""
                    ));
                }
            }
        }
        _ => {
            let keys = ["file", "sha256", "timeout", "required", "run_in"];
            let hint = nearest(key, keys).map_or_else(
                || format!("known are {}", keys.join(", ")),
                |n| format!("did you mean '{n}'?"),
            );
            return Err(format!("unknown key '{key}'; {hint}"));
        }
    }
    Ok(())
}

/// The name most like this one, if any is like it at all.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::jaro_winkler(name, k), k))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, k)| k)
}

/// Mesos' message `Modules`; unknown fields are ignored, as Mesos does.
#[derive(Deserialize)]
struct MesosModules {
    #[serde(default)]
    libraries: Vec<MesosLibrary>,
}

#[derive(Deserialize)]
struct MesosLibrary {
    file: Option<PathBuf>,
    name: Option<String>,
    #[serde(default)]
    modules: Vec<MesosModule>,
}

#[derive(Deserialize)]
struct MesosModule {
    name: String,
    #[serde(default)]
    parameters: Vec<MesosParameter>,
}

#[derive(Deserialize)]
struct MesosParameter {
    key: String,
    value: Option<String>,
}

#[cfg(test)]
mod tests;
