//! Reading flags: command line, environment, file, in one precedence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tepui_host::config::{ConfigError, ModuleConfig};

use super::{Daemon, Fate, Flag, Kind, Source, Value, Values, file};

/// A flag, a variable or a key of the file is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum FlagError {
    #[error("unknown flag '{name}'{}", did_you_mean(*.nearest))]
    Unknown {
        name: String,
        nearest: Option<&'static str>,
    },
    #[error("{}: unknown key '{name}'{}", file.display(), did_you_mean(*.nearest))]
    UnknownKey {
        file: PathBuf,
        name: String,
        nearest: Option<&'static str>,
    },
    #[error("flag '{0}' is given twice")]
    Twice(String),
    #[error("flag '{0}' needs a value")]
    NoValue(String),
    #[error("flag 'no-{0}' takes no value and works for true/false flags only")]
    BadNegation(String),
    #[error("flag '{name}' ({origin}): {message}")]
    Value {
        name: &'static str,
        origin: Source,
        message: String,
    },
    #[error("flag '{name}' ({origin}) is refused: {why}")]
    Refused {
        name: &'static str,
        origin: Source,
        why: &'static str,
    },
    #[error("{}: {message}", file.display())]
    File { file: PathBuf, message: String },
    #[error(transparent)]
    Modules(#[from] ConfigError),
    #[error("{0}")]
    Together(String),
}

fn did_you_mean(nearest: Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |n| format!("; did you mean '{n}'?"))
}

/// What the daemon shall do.
#[derive(Debug)]
pub enum Read {
    /// Start.
    Run(Box<Values>),
    /// Print [`super::help`] and exit.
    Help,
    /// Print the version and exit.
    Version,
}

/// A value as written, before it is checked.
pub(super) struct Raw {
    pub(super) flag: &'static Flag,
    pub(super) text: String,
    pub(super) source: Source,
}

/// Reads everything. `args` is without the program's name; of `env` only known names are taken.
pub fn read(
    daemon: Daemon,
    args: impl IntoIterator<Item = String>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Read, FlagError> {
    let mut notices = Vec::new();
    let line = command_line(daemon, args, &mut notices)?;
    let asked = |name| line.iter().any(|r| r.flag.name == name && r.text == "true");
    if asked("help") {
        return Ok(Read::Help);
    }
    if asked("version") {
        return Ok(Read::Version);
    }
    let environment = environment(daemon, env);

    let config = line
        .iter()
        .chain(&environment)
        .find(|r| r.flag.name == "config");
    let (from_file, mut modules) = match config {
        Some(raw) => file::read(daemon, Path::new(&raw.text))?,
        None => (Vec::new(), ModuleConfig::default()),
    };

    let mut values = BTreeMap::new();
    for flag in daemon.flags() {
        if let Some(default) = flag.default {
            let text = default.to_string();
            values.insert(
                flag.name,
                Value {
                    shown: text.clone(),
                    text,
                    source: Source::Default,
                },
            );
        }
    }
    for raw in from_file.into_iter().chain(environment).chain(line) {
        let value = check(&raw, &mut notices)?;
        values.insert(raw.flag.name, value);
    }
    for (name, value) in &values {
        judge(daemon, name, value, &mut notices)?;
    }

    let text = |name: &str| values.get(name).map(|v: &Value| v.text.as_str());
    match (text("modules"), text("modules_dir")) {
        (Some(_), Some(_)) => {
            return Err(FlagError::Together(
                "'modules' and 'modules_dir' exclude each other".into(),
            ));
        }
        (Some(json), None) => modules.add_mesos_manifest("--modules", json)?,
        (None, Some(dir)) => modules.add_mesos_dir(Path::new(dir))?,
        (None, None) => {}
    }
    if let Some(dirs) = text("module_dirs") {
        modules.dirs = dirs
            .split(',')
            .filter(|d| !d.is_empty())
            .map(PathBuf::from)
            .collect();
    }
    Ok(Read::Run(Box::new(Values {
        daemon,
        modules,
        notices,
        values,
    })))
}

/// `--name=value`, `--name value`, `--name` and `--no-name` of true/false flags; ends at `--`.
fn command_line(
    daemon: Daemon,
    args: impl IntoIterator<Item = String>,
    notices: &mut Vec<String>,
) -> Result<Vec<Raw>, FlagError> {
    let mut found: Vec<Raw> = Vec::new();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next() {
        if arg == "--" {
            break;
        }
        let Some(body) = arg.strip_prefix("--") else {
            // Mesos skips these, too, but says nothing.
            notices.push(format!("argument '{arg}' is ignored: it is not a flag"));
            continue;
        };
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (body, None),
        };
        let (flag, negated) = find(daemon, name)?;
        let text = match (value, negated) {
            (Some(_), true) => return Err(FlagError::BadNegation(flag.name.into())),
            (None, true) => "false".into(),
            (Some(value), false) => value,
            (None, false) if flag.kind == Kind::Flag => "true".into(),
            (None, false) => args
                .next_if(|next| !next.starts_with("--"))
                .ok_or_else(|| FlagError::NoValue(flag.name.into()))?,
        };
        if found.iter().any(|raw| raw.flag.name == flag.name) {
            return Err(FlagError::Twice(flag.name.into()));
        }
        if name.replace('-', "_") != flag.name && !negated {
            notices.push(format!("flag '{name}' is an older name of '{}'", flag.name));
        }
        found.push(Raw {
            flag,
            text,
            source: Source::CommandLine,
        });
    }
    Ok(found)
}

/// The flag, and whether the name has `no-` before it.
fn find(daemon: Daemon, name: &str) -> Result<(&'static Flag, bool), FlagError> {
    if let Some(flag) = daemon.flag(name) {
        return Ok((flag, false));
    }
    let lower = name.to_ascii_lowercase();
    let positive = lower
        .strip_prefix("no-")
        .or_else(|| lower.strip_prefix("no_"));
    match positive.and_then(|name| daemon.flag(name)) {
        Some(flag) if flag.kind == Kind::Flag => Ok((flag, true)),
        Some(flag) => Err(FlagError::BadNegation(flag.name.into())),
        None => Err(FlagError::Unknown {
            name: name.into(),
            nearest: daemon.nearest(name),
        }),
    }
}

/// Known names only: a scheduler's or a task's `MESOS_*` variables are none of our business.
fn environment(daemon: Daemon, env: impl IntoIterator<Item = (String, String)>) -> Vec<Raw> {
    let mut found: BTreeMap<&'static str, (bool, Raw)> = BTreeMap::new();
    for (variable, text) in env {
        let upper = variable.to_ascii_uppercase();
        let own = upper.starts_with("TEPUI_");
        let Some(name) = upper
            .strip_prefix("TEPUI_")
            .or_else(|| upper.strip_prefix("MESOS_"))
        else {
            continue;
        };
        // TEPUI_MODULE_DIRS adds directories behind the configured ones: the search reads it.
        if name == "MODULE_DIRS" {
            continue;
        }
        let Ok((flag, negated)) = find(daemon, name) else {
            continue;
        };
        let text = match (negated, flag.kind, text.as_str()) {
            (true, _, _) => "false".to_string(),
            // A variable that is set but empty turns a true/false flag on, as in Mesos.
            (false, Kind::Flag, "") => "true".to_string(),
            _ => text,
        };
        let raw = Raw {
            flag,
            text,
            source: Source::Environment(variable),
        };
        if own || !found.contains_key(flag.name) {
            found.insert(flag.name, (own, raw));
        }
    }
    found.into_values().map(|(_, raw)| raw).collect()
}

/// Follows `file://` and reads the value.
fn check(raw: &Raw, notices: &mut Vec<String>) -> Result<Value, FlagError> {
    let Raw { flag, text, source } = raw;
    let error = |message| FlagError::Value {
        name: flag.name,
        origin: source.clone(),
        message,
    };
    let path = match flag.kind {
        Kind::Path => None,
        Kind::Json if text.starts_with('/') => {
            notices.push(format!(
                "flag '{}': write file://{text} for a file",
                flag.name
            ));
            Some(text.as_str())
        }
        _ => text.strip_prefix("file://"),
    };
    let content = match path {
        None => text.clone(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| error(format!("cannot read {path}: {e}")))?
            .trim_end()
            .to_string(),
    };
    let normal = flag.normalise(&content).map_err(error)?;
    let shown = if flag.kind == Kind::SecretText {
        text.clone()
    } else {
        normal.clone()
    };
    Ok(Value {
        text: normal,
        shown,
        source: source.clone(),
    })
}

/// Says what becomes of a value that is not the default.
fn judge(
    daemon: Daemon,
    name: &str,
    value: &Value,
    notices: &mut Vec<String>,
) -> Result<(), FlagError> {
    let flag = daemon.flag(name).expect("values are of known flags");
    if value.source == Source::Default || flag.default == Some(value.text.as_str()) {
        return Ok(());
    }
    match flag.fate {
        Fate::Effective(_) => {}
        Fate::Ignored(why) => notices.push(format!("flag '{name}' has no effect: {why}")),
        Fate::Refused(why) => {
            let origin = value.source.clone();
            return Err(FlagError::Refused {
                name: flag.name,
                origin,
                why,
            });
        }
    }
    Ok(())
}
