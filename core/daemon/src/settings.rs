//! Validated settings of the daemons: what the flags mean together.
//!
//! Flags that tune a module's policy (`--acls`) become settings of that module here, so that there is
//! one way to configure it. A flag of the command line or the environment wins over the module's table
//! in the file; one of the file does not.

mod agent;
mod images;
mod isolation;
mod master;
mod services;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;
use tepui_host::HostSettings;
use tepui_host::config::ModuleConfig;

use crate::flags::{FlagError, Source, Values};
pub use agent::{AgentSettings, FindMaster, Recover};
pub use images::{Collection, Images};
use isolation::cgroups_limit;
pub use master::{MasterSettings, Registry};

/// What both daemons have.
#[derive(Debug, Clone)]
pub struct CommonSettings {
    /// Addresses.
    pub network: Network,
    /// Log.
    pub log: LogSettings,
    /// Fault domain (DomainInfo as JSON).
    pub domain: Option<Json>,
    /// Settings and loading of modules.
    pub modules: ModuleConfig,
    /// `tepui-module-host`, if not beside the daemon.
    pub module_host: Option<PathBuf>,
    /// Names of the authorizer module.
    pub authorizer: String,
    /// Paths that are answered with 403.
    pub disabled_endpoints: Vec<String>,
    /// Modules that serve metrics in their form.
    pub exporters: Vec<String>,
    /// What `/flags` shows, in this order.
    pub flags: Vec<(String, String)>,
    /// To be logged as warnings at start.
    pub notices: Vec<String>,
}

/// Where the daemon listens and what it tells others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Bind address.
    pub ip: IpAddr,
    /// Bind port; 0 lets the system choose.
    pub port: u16,
    /// Told to others instead of the bind address.
    pub advertise_ip: Option<IpAddr>,
    /// Told to others instead of the bind port.
    pub advertise_port: Option<u16>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// Whether to use a name where none is given.
    pub hostname_lookup: bool,
}

/// The log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Nothing to stderr.
    pub quiet: bool,
    /// INFO, WARNING or ERROR.
    pub level: String,
    /// Directory of log files.
    pub dir: Option<PathBuf>,
    /// File to show instead of ours.
    pub external_file: Option<PathBuf>,
}

impl CommonSettings {
    /// The authorizer module; none where it would allow everything: `local` without ACLs, as in Mesos.
    pub fn agent_authorizer(&self) -> Option<&str> {
        let rules = self.modules.settings.contains_key("local");
        (self.authorizer != "local" || rules).then_some(self.authorizer.as_str())
    }

    fn exporters(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.exporters.iter().map(|name| ("exporter", name.clone()))
    }

    fn host(&self, daemon: &'static str) -> HostSettings {
        let log_level = match self.log.level.as_str() {
            "ERROR" => "error",
            "WARNING" => "warn",
            _ => "info",
        };
        HostSettings {
            module_host: self.module_host.clone(),
            log_level: log_level.into(),
            ..HostSettings::new(daemon, self.modules.clone())
        }
    }
}

impl Network {
    /// The address that is told to others.
    pub fn advertised_ip(&self) -> IpAddr {
        if let Some(ip) = self.advertise_ip {
            return ip;
        }
        if !self.ip.is_unspecified() {
            return self.ip;
        }
        // As Mesos does for 0.0.0.0: what this machine's own name resolves to.
        let own = system_hostname().and_then(|name| (name, 0u16).to_socket_addrs().ok());
        own.into_iter()
            .flatten()
            .map(|address| address.ip())
            .find(IpAddr::is_ipv4)
            .unwrap_or(Ipv4Addr::LOCALHOST.into())
    }

    /// The name that is told to others: a loopback address is `localhost`, any other the machine's name.
    pub fn advertised_hostname(&self) -> String {
        let ip = self.advertised_ip();
        match &self.hostname {
            Some(name) => name.clone(),
            None if !self.hostname_lookup => ip.to_string(),
            None if ip.is_loopback() => "localhost".into(),
            None => system_hostname().unwrap_or_else(|| ip.to_string()),
        }
    }

    /// The bind address.
    pub fn bind(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.port)
    }
}

fn system_hostname() -> Option<String> {
    nix::unistd::gethostname().ok()?.into_string().ok()
}

fn common(values: &mut Values, authorizer: String) -> Result<CommonSettings, FlagError> {
    one_of(values, "logging_level", &["INFO", "WARNING", "ERROR"])?;
    let network = network(values)?;
    if let Some(acls) = values.text("acls").map(String::from) {
        let Ok(Json::Object(acls)) = serde_json::from_str(&acls) else {
            return Err(together("'acls': expected a JSON object"));
        };
        // The module's settings are the ACLs themselves.
        for (key, value) in acls {
            set_in_module(values, "acls", "local", &key, value);
        }
        if authorizer != "local" {
            let notice = format!("flag 'acls' has no effect: the authorizer is '{authorizer}'");
            values.notices.push(notice);
        }
    }
    Ok(CommonSettings {
        network,
        log: LogSettings {
            quiet: values.is("quiet"),
            level: text(values, "logging_level"),
            dir: values.path("log_dir"),
            external_file: values.path("external_log_file"),
        },
        domain: values
            .text("domain")
            .map(|json| serde_json::from_str(json).expect("checked when read")),
        modules: values.modules.clone(),
        module_host: values.path("module_host"),
        authorizer,
        disabled_endpoints: firewall(values)?,
        exporters: values.list("exporters"),
        flags: values.shown().into_iter().collect(),
        notices: values.notices.clone(),
    })
}

/// Gives a flag that was given to the module whose setting it is. The command line and the environment
/// win over the module's table in the file; a flag of the file does not.
fn set_in_module(values: &mut Values, flag: &str, module: &str, key: &str, value: Json) {
    match values.get(flag).map(|value| &value.source) {
        None | Some(Source::Default) => {}
        Some(Source::File(_)) => values.modules.set_if_absent(module, key, value),
        Some(_) => values.modules.set(module, key, value),
    }
}

fn network(values: &Values) -> Result<Network, FlagError> {
    let address = |name: &str, text: &str| -> Result<IpAddr, FlagError> {
        text.trim()
            .parse()
            .map_err(|_| together(&format!("'{name}': {text:?} is not an IP address")))
    };
    let ip = match (values.text("ip"), values.text("ip_discovery_command")) {
        (Some(_), Some(_)) => {
            return Err(together(
                "'ip' and 'ip_discovery_command' exclude each other",
            ));
        }
        (Some(ip), None) => address("ip", ip)?,
        (None, Some(command)) => address("ip_discovery_command", &output_of(command)?)?,
        (None, None) => Ipv4Addr::UNSPECIFIED.into(),
    };
    Ok(Network {
        ip,
        port: number(values, "port") as u16,
        advertise_ip: values
            .text("advertise_ip")
            .map(|t| address("advertise_ip", t))
            .transpose()?,
        advertise_port: values.int("advertise_port").map(|n| n as u16),
        hostname: values.text("hostname").map(String::from),
        hostname_lookup: values.is("hostname_lookup"),
    })
}

fn output_of(command: &str) -> Result<String, FlagError> {
    let error = |what: String| together(&format!("'ip_discovery_command': {what}"));
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", command])
        .output()
        .map_err(|e| error(e.to_string()))?;
    if !output.status.success() {
        return Err(error(format!("{command:?} ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// The paths in `firewall_rules`; rules that Mesos does not have are errors, as a site rests on them.
fn firewall(values: &Values) -> Result<Vec<String>, FlagError> {
    #[derive(Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rules {
        #[serde(default)]
        disabled_endpoints: Endpoints,
    }
    #[derive(Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Endpoints {
        #[serde(default)]
        paths: Vec<String>,
    }
    let Some(text) = values.text("firewall_rules") else {
        return Ok(Vec::new());
    };
    let rules: Rules = serde_json::from_str(text)
        .map_err(|error| together(&format!("'firewall_rules': {error}")))?;
    let paths = rules.disabled_endpoints.paths;
    if let Some(wrong) = paths.iter().find(|path| !path.starts_with('/')) {
        let text = format!("'firewall_rules': path {wrong:?} does not begin with '/'");
        return Err(together(&text));
    }
    let whole = |path: String| format!("/{}", path.trim_matches('/'));
    Ok(paths.into_iter().map(whole).collect())
}

fn together(message: &str) -> FlagError {
    FlagError::Together(message.into())
}

fn one_of(values: &Values, name: &'static str, known: &[&str]) -> Result<(), FlagError> {
    let Some(value) = values.get(name) else {
        return Ok(());
    };
    if known.contains(&value.text.as_str()) {
        return Ok(());
    }
    let message = format!("{:?} is not one of {}", value.text, known.join(", "));
    Err(FlagError::Value {
        name,
        origin: value.source.clone(),
        message,
    })
}

/// The one name in a flag that Mesos writes as a list.
fn single(values: &Values, name: &'static str) -> Result<String, FlagError> {
    let mut names = values.list(name);
    match names.len() {
        1 => Ok(names.remove(0)),
        n => Err(together(&format!("'{name}': expected one name, found {n}"))),
    }
}

fn text(values: &Values, name: &str) -> String {
    values.text(name).unwrap_or_default().into()
}

fn duration(values: &Values, name: &str) -> Duration {
    values.duration(name).expect("has a default")
}

fn number(values: &Values, name: &str) -> usize {
    values.int(name).expect("has a default") as usize
}
