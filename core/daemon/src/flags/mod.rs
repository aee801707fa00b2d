//! Flags of the daemons: one table a daemon, read from the command line, the environment and a file.
//!
//! Every flag of Mesos 1.11 is known. It is effective, or accepted with a notice, or refused with the
//! reason; a value that equals the default never complains. Precedence: command line, environment
//! (`TEPUI_NAME`, then `MESOS_NAME`), file, default. What the values mean together is the business of
//! [`crate::settings`].

mod agent;
mod file;
mod help;
mod master;
mod page;
mod read;
mod reasons;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tepui_host::config::ModuleConfig;
use tepui_host::value::{self, parse_bytes, parse_duration};

pub use help::help;
pub use page::page;
pub use read::{FlagError, Read, read};

/// Which daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// `tepui-master`.
    Master,
    /// `tepui-agent`.
    Agent,
}

impl Daemon {
    /// Name of the program.
    pub fn program(self) -> &'static str {
        match self {
            Daemon::Master => "tepui-master",
            Daemon::Agent => "tepui-agent",
        }
    }

    /// The flags Mesos has, in the order of their names.
    pub fn mesos_flags(self) -> &'static [Flag] {
        match self {
            Daemon::Master => master::FLAGS,
            Daemon::Agent => agent::FLAGS,
        }
    }

    /// The flags that only Tepui has.
    pub fn own_flags(self) -> &'static [Flag] {
        match self {
            Daemon::Master => OWN,
            Daemon::Agent => OWN_AGENT,
        }
    }

    /// All flags.
    pub fn flags(self) -> impl Iterator<Item = &'static Flag> {
        self.own_flags().iter().chain(self.mesos_flags())
    }

    /// The flag of this name or older name; `-` and `_` are the same.
    pub fn flag(self, name: &str) -> Option<&'static Flag> {
        let name = name.replace('-', "_").to_ascii_lowercase();
        self.flags()
            .find(|f| f.name == name || f.alias == Some(name.as_str()))
    }

    /// The known name most like this one, if any is like it.
    pub fn nearest(self, name: &str) -> Option<&'static str> {
        let name = name.replace('-', "_").to_ascii_lowercase();
        tepui_host::config::nearest(&name, self.flags().map(|f| f.name))
    }
}

const OWN: &[Flag] = &[
    path(
        "config",
        "TOML file with flags, [modules.\"NAME\"] and [load.\"NAME\"].",
    )
    .group(Group::Program),
    list(
        "module_dirs",
        "Directories searched for module libraries, first one first.",
    )
    .group(Group::Modules),
    list(
        "exporters",
        "Exporter modules that serve metrics in their form, such as `prometheus` at `/metrics`.",
    )
    .group(Group::Modules),
    path(
        "module_host",
        "The program that tries modules and runs those with run_in = \"process\".",
    )
    .group(Group::Modules),
];

const OWN_AGENT: &[Flag] = &[
    OWN[0],
    OWN[1],
    OWN[2],
    OWN[3],
    path(
        "init",
        "The program that supervises containers (tepui-init).",
    )
    .group(Group::Containers),
    text(
        "fetcher",
        "Fetcher module that brings the URIs of commands into their sandboxes, or `none`; unset means uri.",
    )
    .group(Group::Modules),
    duration(
        "image_pull_progress_interval",
        "How often tasks that wait for an image tell how far its pull is; 0secs is never.",
    )
    .default("10secs")
    .hidden()
    .group(Group::Containers),
];

/// One flag.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name, with underscores.
    pub name: &'static str,
    /// Its older name.
    pub alias: Option<&'static str>,
    /// What its value is.
    pub kind: Kind,
    /// Its default, as it is printed.
    pub default: Option<&'static str>,
    /// What it is for.
    pub help: &'static str,
    /// What becomes of it.
    pub fate: Fate,
    /// Not shown in `/flags` by default: Mesos has it only in some builds.
    pub hidden: bool,
    min: Option<&'static str>,
    max: Option<&'static str>,
}

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It has its effect.
    Effective(Group),
    /// Accepted, and a notice says why it has no effect.
    Ignored(&'static str),
    /// Any value but the default is refused.
    Refused(&'static str),
}

/// Where `--help` shows an effective flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the titles say it")]
pub enum Group {
    Program,
    Network,
    Cluster,
    State,
    Offers,
    Resources,
    Containers,
    Modules,
    Security,
    Logging,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Flag,
    Text,
    /// A path; `file://` is part of it and not followed.
    Path,
    Duration,
    Bytes,
    Int,
    Number,
    Port,
    /// Comma separated.
    List,
    Json,
    JsonOrText,
    /// May be read from a file, and shows the path instead of the content.
    SecretText,
}

const fn new(name: &'static str, kind: Kind, help: &'static str) -> Flag {
    let fate = Fate::Ignored("");
    Flag {
        name,
        alias: None,
        kind,
        default: None,
        help,
        fate,
        hidden: false,
        min: None,
        max: None,
    }
}

macro_rules! constructors {
    ($($name:ident $kind:ident),*) => {$(
        const fn $name(name: &'static str, help: &'static str) -> Flag {
            new(name, Kind::$kind, help)
        }
    )*};
}
constructors!(
    flag Flag, text Text, path Path, duration Duration, bytes Bytes, int Int, number Number,
    port Port, list List, json Json, json_or_text JsonOrText, secret_text SecretText
);

impl Flag {
    const fn default(self, default: &'static str) -> Flag {
        Flag {
            default: Some(default),
            ..self
        }
    }
    const fn alias(self, alias: &'static str) -> Flag {
        Flag {
            alias: Some(alias),
            ..self
        }
    }
    const fn group(self, group: Group) -> Flag {
        Flag {
            fate: Fate::Effective(group),
            ..self
        }
    }
    const fn ignored(self, why: &'static str) -> Flag {
        Flag {
            fate: Fate::Ignored(why),
            ..self
        }
    }
    const fn refused(self, why: &'static str) -> Flag {
        Flag {
            fate: Fate::Refused(why),
            ..self
        }
    }
    const fn hidden(self) -> Flag {
        Flag {
            hidden: true,
            ..self
        }
    }
    const fn min(self, min: &'static str) -> Flag {
        Flag {
            min: Some(min),
            ..self
        }
    }
    const fn max(self, max: &'static str) -> Flag {
        Flag {
            max: Some(max),
            ..self
        }
    }
    const fn range(self, min: &'static str, max: &'static str) -> Flag {
        self.min(min).max(max)
    }

    /// The value as Mesos prints it, or what is wrong with it.
    fn normalise(&self, text: &str) -> Result<String, String> {
        let normal = self.kind.normalise(text)?;
        let order = |a: &str| self.kind.measure(a);
        if self.min.is_some_and(|min| order(&normal) < order(min)) {
            return Err(format!(
                "{normal} is below the least value {}",
                self.min.unwrap_or_default()
            ));
        }
        if self.max.is_some_and(|max| order(&normal) > order(max)) {
            return Err(format!(
                "{normal} is above the largest value {}",
                self.max.unwrap_or_default()
            ));
        }
        Ok(normal)
    }
}

impl Kind {
    fn normalise(self, text: &str) -> Result<String, String> {
        let expected = |what: &str| format!("{text:?} is not {what}");
        Ok(match self {
            Kind::Flag => match text {
                "true" | "1" => "true".into(),
                "false" | "0" => "false".into(),
                _ => return Err(expected("true or false")),
            },
            Kind::Duration => {
                value::show_duration(parse_duration(text).map_err(|e| e.to_string())?)
            }
            Kind::Bytes => value::show_bytes(parse_bytes(text).map_err(|e| e.to_string())?),
            Kind::Int => text
                .trim()
                .parse::<u64>()
                .map_err(|_| expected("a whole number"))?
                .to_string(),
            Kind::Number => text
                .trim()
                .parse::<f64>()
                .map_err(|_| expected("a number"))?
                .to_string(),
            Kind::Port => text
                .trim()
                .parse::<u16>()
                .map_err(|_| expected("a port number"))?
                .to_string(),
            Kind::Json => serde_json::from_str::<serde_json::Value>(text)
                .map_err(|e| format!("not JSON: {e}"))?
                .to_string(),
            Kind::Text | Kind::Path | Kind::List | Kind::JsonOrText | Kind::SecretText => {
                text.into()
            }
        })
    }

    /// A number to compare with the limits.
    fn measure(self, text: &str) -> f64 {
        match self {
            Kind::Duration => parse_duration(text).map_or(0.0, |d| d.as_secs_f64()),
            _ => text.parse().unwrap_or(0.0),
        }
    }

    /// What `--help` calls a value.
    fn placeholder(self) -> &'static str {
        match self {
            Kind::Flag => "",
            Kind::Text | Kind::SecretText | Kind::JsonOrText => "=TEXT",
            Kind::Path => "=PATH",
            Kind::Duration => "=DURATION",
            Kind::Bytes => "=SIZE",
            Kind::Int | Kind::Number | Kind::Port => "=NUMBER",
            Kind::List => "=A,B",
            Kind::Json => "=JSON",
        }
    }
}

/// Where a value came from; a later one wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The table.
    Default,
    /// The configuration file.
    File(PathBuf),
    /// This variable.
    Environment(String),
    /// The command line.
    CommandLine,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Environment(name) => write!(f, "environment variable {name}"),
            Source::CommandLine => f.write_str("command line"),
        }
    }
}

/// A checked value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// As it is used.
    pub text: String,
    /// As it is shown.
    pub shown: String,
    /// Where it came from.
    pub source: Source,
}

/// What was read, checked one by one.
#[derive(Debug, Clone)]
pub struct Values {
    /// Whose flags.
    pub daemon: Daemon,
    /// Settings and loading of modules, from the file and from `--modules`.
    pub modules: ModuleConfig,
    /// What should be logged at start, a line each.
    pub notices: Vec<String>,
    values: BTreeMap<&'static str, Value>,
}

impl Values {
    /// The value of a flag, the default included.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Its text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(|v| v.text.as_str())
    }

    /// Whether it was given, anywhere.
    pub fn given(&self, name: &str) -> bool {
        self.get(name).is_some_and(|v| v.source != Source::Default)
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub(crate) fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name)
            .map(|t| parse_duration(t).expect("checked when read"))
    }

    pub(crate) fn int(&self, name: &str) -> Option<u64> {
        self.text(name)
            .map(|t| t.parse().expect("checked when read"))
    }

    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        let text = self.text(name).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|s| !s.is_empty())
            .map(String::from)
            .collect()
    }

    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name)
            .map(|t| PathBuf::from(t.strip_prefix("file://").unwrap_or(t)))
    }

    pub(crate) fn set_default(&mut self, name: &'static str, text: String) {
        let value = Value {
            shown: text.clone(),
            text,
            source: Source::Default,
        };
        match self.values.get(name) {
            Some(known) if known.source != Source::Default => {}
            _ => drop(self.values.insert(name, value)),
        }
    }

    /// What `/flags` shows: name and value of every flag that has one, in order.
    pub fn shown(&self) -> BTreeMap<String, String> {
        let hidden = |name: &str| self.daemon.flag(name).is_some_and(|f| f.hidden);
        self.values
            .iter()
            .filter(|(name, value)| value.source != Source::Default || !hidden(name))
            .map(|(name, value)| (name.to_string(), value.shown.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
