//! Validated settings of the daemons: what the flags mean together.
//!
//! Flags that tune a module's policy (`--acls`) become settings of that module here, so that there is
//! one way to configure it. A flag of the command line or the environment wins over the module's table
//! in the file; one of the file does not.

mod images;
mod isolation;
mod services;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;
use tepui_host::HostSettings;
use tepui_host::config::ModuleConfig;
use tepui_host::value::parse_duration;

use crate::flags::{Daemon, FlagError, Source, Values};
pub use images::{Collection, Images};
use isolation::{cgroup_v1, cgroups, isolation_of, isolators, sandbox_directory};

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

/// Where the registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registry {
    /// The embedded store below this work directory.
    Embedded(PathBuf),
    /// Nowhere: forgotten at exit.
    InMemory,
}

/// Settings of the master.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the flag of its name; see --help")]
pub struct MasterSettings {
    pub common: CommonSettings,
    pub cluster: Option<String>,
    pub work_dir: Option<PathBuf>,
    pub registry: Registry,
    pub registry_fetch_timeout: Duration,
    pub registry_store_timeout: Duration,
    pub agent_reregister_timeout: Duration,
    /// So many agents may be given up in so long.
    pub agent_removal_rate_limit: Option<(u32, Duration)>,
    /// As a share of 1.
    pub recovery_agent_removal_limit: f64,
    pub registry_gc_interval: Duration,
    pub registry_max_agent_age: Duration,
    pub registry_max_agent_count: usize,
    pub require_agent_domain: bool,
    pub roles: Option<Vec<String>>,
    pub whitelist: Option<PathBuf>,
    pub agent_ping_timeout: Duration,
    pub max_agent_ping_timeouts: u32,
    pub allocator: String,
    pub allocation_interval: Duration,
    pub offer_timeout: Option<Duration>,
    pub min_allocatable_resources: String,
    /// Modules of the leader's election and detection; `standalone` where none is named.
    pub master_contender: String,
    pub master_detector: String,
    pub max_completed_frameworks: usize,
    pub max_completed_tasks_per_framework: usize,
    pub max_unreachable_tasks_per_framework: usize,
    pub max_operator_event_stream_subscribers: usize,
    /// Export metrics of each framework.
    pub publish_per_framework_metrics: bool,
}

/// How an agent finds the leading master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindMaster {
    /// At `host:port`, or where the master there says.
    At(String),
    /// By this leader-detector module.
    By(String),
}

/// Settings of the agent.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the flag of its name; see --help")]
pub struct AgentSettings {
    pub common: CommonSettings,
    /// How the leading master is found.
    pub master: FindMaster,
    pub work_dir: PathBuf,
    pub runtime_dir: PathBuf,
    /// Where `tepui-init` is looked for before the daemon's own directory.
    pub launcher_dir: Option<PathBuf>,
    /// `tepui-init` itself.
    pub init: Option<PathBuf>,
    /// In the configured order; empty is allowed.
    pub isolation: Vec<String>,
    /// Whether isolation is what the site asked for, or our choice for this user.
    pub isolation_given: bool,
    pub images: Images,
    pub switch_user: bool,
    /// Where containers with a root file system of their own find their sandbox.
    pub sandbox_directory: PathBuf,
    /// The logger module; none leaves output in files of the sandbox.
    pub container_logger: Option<String>,
    /// The fetcher module.
    pub fetcher: Option<String>,
    /// Whether it is what the site asked for: without the usual one an agent starts all the same.
    pub fetcher_given: bool,
    /// As written; parsed by the agent, which adds what is missing from the machine.
    pub resources: Option<String>,
    pub default_role: String,
    pub attributes: Option<String>,
    pub executor_environment_variables: Option<serde_json::Map<String, Json>>,
    /// Where executors find a socket in the file system, if they are to have one.
    pub domain_socket: Option<PathBuf>,
    pub executor_registration_timeout: Duration,
    pub executor_reregistration_timeout: Duration,
    pub executor_shutdown_grace_period: Duration,
    pub registration_backoff_factor: Duration,
    pub recover: Recover,
    pub strict: bool,
    pub recovery_timeout: Duration,
    pub gc_delay: Duration,
    pub gc_disk_headroom: f64,
    pub disk_watch_interval: Duration,
    pub max_completed_executors_per_framework: usize,
}

/// What to do with containers found at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recover {
    /// Go on with them.
    Reconnect,
    /// End them and exit.
    Cleanup,
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

impl MasterSettings {
    /// For the module host.
    pub fn host(&self) -> HostSettings {
        HostSettings {
            // In memory the copies of the libraries would count as the daemon's.
            runtime_dir: self.work_dir.as_ref().map(|dir| dir.join("run")),
            work_dir: self.work_dir.clone(),
            ..self.common.host("master")
        }
    }

    /// Kind and name of each module that is selected.
    pub fn modules(&self) -> Vec<(&'static str, String)> {
        let mut modules = vec![
            ("allocator", self.allocator.clone()),
            ("authorizer", self.common.authorizer.clone()),
            ("leader-contender", self.master_contender.clone()),
            ("leader-detector", self.master_detector.clone()),
        ];
        modules.extend(self.common.exporters());
        modules
    }

    /// Validates what was read.
    pub fn new(mut values: Values) -> Result<Self, FlagError> {
        debug_assert_eq!(values.daemon, Daemon::Master);
        one_of(&values, "registry", &["replicated_log", "in_memory"])?;
        let work_dir = values.path("work_dir");
        let registry = match (values.text("registry"), &work_dir) {
            (Some("in_memory"), _) => Registry::InMemory,
            (_, Some(dir)) => {
                if values.given("registry") {
                    values.notices.push(
                        "flag 'registry': the replicated log is Tepui's embedded store here".into(),
                    );
                }
                Registry::Embedded(dir.clone())
            }
            _ => {
                return Err(together(
                    "'work_dir' is needed unless registry is 'in_memory'",
                ));
            }
        };
        let contender = values.text("master_contender").map(String::from);
        let detector = values.text("master_detector").map(String::from);
        if contender.is_some() != detector.is_some() {
            return Err(together(
                "'master_contender' and 'master_detector' need each other",
            ));
        }
        let authorizer = single(&values, "authorizers")?;
        Ok(MasterSettings {
            common: common(&mut values, authorizer)?,
            cluster: values.text("cluster").map(String::from),
            work_dir,
            registry,
            registry_fetch_timeout: duration(&values, "registry_fetch_timeout"),
            registry_store_timeout: duration(&values, "registry_store_timeout"),
            agent_reregister_timeout: duration(&values, "agent_reregister_timeout"),
            agent_removal_rate_limit: values
                .text("agent_removal_rate_limit")
                .map(rate)
                .transpose()?,
            recovery_agent_removal_limit: share(&text(&values, "recovery_agent_removal_limit"))?,
            registry_gc_interval: duration(&values, "registry_gc_interval"),
            registry_max_agent_age: duration(&values, "registry_max_agent_age"),
            registry_max_agent_count: number(&values, "registry_max_agent_count"),
            require_agent_domain: values.is("require_agent_domain"),
            roles: values.text("roles").map(roles).transpose()?,
            whitelist: values.path("whitelist"),
            agent_ping_timeout: duration(&values, "agent_ping_timeout"),
            max_agent_ping_timeouts: number(&values, "max_agent_ping_timeouts") as u32,
            allocator: text(&values, "allocator"),
            allocation_interval: duration(&values, "allocation_interval"),
            offer_timeout: values.duration("offer_timeout"),
            min_allocatable_resources: text(&values, "min_allocatable_resources"),
            master_contender: contender.unwrap_or_else(|| "standalone".into()),
            master_detector: detector.unwrap_or_else(|| "standalone".into()),
            max_completed_frameworks: number(&values, "max_completed_frameworks"),
            max_completed_tasks_per_framework: number(&values, "max_completed_tasks_per_framework"),
            max_unreachable_tasks_per_framework: number(
                &values,
                "max_unreachable_tasks_per_framework",
            ),
            publish_per_framework_metrics: values.is("publish_per_framework_metrics"),
            max_operator_event_stream_subscribers: number(
                &values,
                "max_operator_event_stream_subscribers",
            ),
        })
    }
}

impl AgentSettings {
    /// For the module host.
    pub fn host(&self) -> HostSettings {
        HostSettings {
            work_dir: Some(self.work_dir.clone()),
            runtime_dir: Some(self.runtime_dir.clone()),
            ..self.common.host("agent")
        }
    }

    /// Kind and name of each module that is selected.
    pub fn modules(&self) -> Vec<(&'static str, String)> {
        let authorizer = self.common.agent_authorizer();
        let detector = match &self.master {
            FindMaster::At(_) => None,
            FindMaster::By(module) => Some(module),
        };
        self.isolation
            .iter()
            .map(|name| ("isolator", name.clone()))
            .chain(
                self.container_logger
                    .iter()
                    .map(|name| ("container-logger", name.clone())),
            )
            .chain(self.fetcher.iter().map(|name| ("fetcher", name.clone())))
            .chain(
                self.images
                    .stores
                    .iter()
                    .map(|name| ("image-store", name.clone())),
            )
            .chain(detector.map(|name| ("leader-detector", name.clone())))
            .chain(authorizer.map(|name| ("authorizer", name.to_owned())))
            .chain(self.common.exporters())
            .collect()
    }

    /// Validates what was read.
    pub fn new(mut values: Values) -> Result<Self, FlagError> {
        debug_assert_eq!(values.daemon, Daemon::Agent);
        let root = nix::unistd::geteuid().is_root();
        let isolation_given = values.given("isolation");
        let isolation = match (root, cgroup_v1("cpu") && cgroup_v1("memory")) {
            (true, true) => "cgroups/cpu,cgroups/mem,namespaces/pid",
            (true, false) => "posix/cpu,posix/mem,namespaces/pid",
            (false, _) => "posix/cpu,posix/mem",
        };
        if root && isolation.starts_with("posix") && !isolation_given {
            values.notices.push(
                "tasks have no limits of cpu and memory: the cgroup v1 hierarchies of cpu and memory are not \
                 mounted, and those of v2 are used only when --isolation names cgroups/cpu and cgroups/mem"
                    .into(),
            );
        }
        values.set_default("isolation", isolation.into());
        values.set_default("launcher", if root { "linux" } else { "posix" }.into());
        values.set_default("runtime_dir", default_runtime_dir());
        one_of(&values, "launcher", &["linux", "posix"])?;
        one_of(&values, "recover", &["reconnect", "cleanup"])?;
        one_of(&values, "containerizers", &["mesos"])?;

        let work_dir = values
            .path("work_dir")
            .ok_or_else(|| together("'work_dir' is needed"))?;
        let master = values.text("master").map(str::trim).map(String::from);
        let master = match (master, values.text("master_detector").map(String::from)) {
            (Some(_), Some(_)) => {
                return Err(together(
                    "'master' and 'master_detector' exclude each other",
                ));
            }
            (Some(master), None) if master.starts_with("zk://") => {
                return Err(together(
                    "'master': ZooKeeper is not supported yet; give host:port",
                ));
            }
            (Some(master), None) => FindMaster::At(master),
            (None, Some(module)) => FindMaster::By(module),
            (None, None) => return Err(together("'master' is needed")),
        };
        cgroups(&mut values);
        isolators(&mut values)?;
        services::fetcher(&mut values);
        let images = images::images(&mut values)?;
        let authorizer = single(&values, "authorizer")?;
        let environment = values
            .text("executor_environment_variables")
            .map(environment)
            .transpose()?;
        Ok(AgentSettings {
            common: common(&mut values, authorizer)?,
            master,
            work_dir,
            runtime_dir: values.path("runtime_dir").expect("has a default"),
            launcher_dir: values.path("launcher_dir"),
            init: values.path("init"),
            isolation: isolation_of(&values)?,
            isolation_given,
            images,
            switch_user: values.is("switch_user"),
            sandbox_directory: sandbox_directory(&values)?,
            container_logger: values.text("container_logger").map(String::from),
            fetcher: services::service(&values, "fetcher", services::URI),
            fetcher_given: values.given("fetcher"),
            resources: values.text("resources").map(String::from),
            default_role: text(&values, "default_role"),
            attributes: values.text("attributes").map(String::from),
            executor_environment_variables: environment,
            domain_socket: domain_socket(&values)?,
            executor_registration_timeout: duration(&values, "executor_registration_timeout"),
            executor_reregistration_timeout: duration(&values, "executor_reregistration_timeout"),
            executor_shutdown_grace_period: duration(&values, "executor_shutdown_grace_period"),
            registration_backoff_factor: duration(&values, "registration_backoff_factor"),
            strict: values.is("strict"),
            recover: match values.text("recover") {
                Some("cleanup") => Recover::Cleanup,
                _ => Recover::Reconnect,
            },
            recovery_timeout: duration(&values, "recovery_timeout"),
            gc_delay: duration(&values, "gc_delay"),
            gc_disk_headroom: text(&values, "gc_disk_headroom")
                .parse()
                .expect("checked when read"),
            disk_watch_interval: duration(&values, "disk_watch_interval"),
            max_completed_executors_per_framework: number(
                &values,
                "max_completed_executors_per_framework",
            ),
        })
    }
}

/// `1/20mins`: how many in how long.
fn rate(text: &str) -> Result<(u32, Duration), FlagError> {
    let read = |(count, duration): (&str, &str)| {
        let count = count
            .trim()
            .parse::<u32>()
            .ok()
            .filter(|count| *count > 0)?;
        let duration = parse_duration(duration.trim()).ok()?;
        (duration > Duration::ZERO).then_some((count, duration))
    };
    text.split_once('/').and_then(read).ok_or_else(|| {
        together(&format!(
            "'agent_removal_rate_limit': expected COUNT/DURATION such as 1/20mins, found '{text}'"
        ))
    })
}

/// `50%` as a share of 1.
fn share(text: &str) -> Result<f64, FlagError> {
    let number = text.trim().strip_suffix('%').map(str::trim);
    let percent = number.and_then(|number| number.parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| {
        together(&format!(
            "'recovery_agent_removal_limit': expected a percentage from 0% to 100%, found '{text}'"
        ))
    })
}

fn roles(text: &str) -> Result<Vec<String>, FlagError> {
    let names = text
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names
        .map(|name| match tepui_model::roles::validate(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => Err(together(&format!("'roles': {error}"))),
        })
        .collect()
}

fn default_runtime_dir() -> String {
    let writable = nix::unistd::access("/var/run", nix::unistd::AccessFlags::W_OK).is_ok();
    if writable {
        "/var/run/mesos".into()
    } else {
        std::env::temp_dir()
            .join("mesos/runtime")
            .display()
            .to_string()
    }
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

/// Longest path of a socket.
const SOCKET_LIMIT: usize = 107;

fn domain_socket(values: &Values) -> Result<Option<PathBuf>, FlagError> {
    if !values.is("http_executor_domain_sockets") {
        return Ok(None);
    }
    let name = "domain_socket_location";
    let socket = match values.text(name) {
        Some(text) if text.starts_with("systemd:") => {
            return Err(together(&format!(
                "'{name}': sockets of systemd are not supported; give a path"
            )));
        }
        Some(path) => PathBuf::from(path),
        None => {
            let directory = values.path("runtime_dir").expect("has a default");
            directory.join("agent.sock")
        }
    };
    let socket = std::path::absolute(&socket).unwrap_or(socket);
    if socket.as_os_str().len() > SOCKET_LIMIT {
        let shown = socket.display();
        return Err(together(&format!(
            "'{name}': '{shown}' is longer than {SOCKET_LIMIT} bytes, which no socket's path can be"
        )));
    }
    Ok(Some(socket))
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

fn environment(json: &str) -> Result<serde_json::Map<String, Json>, FlagError> {
    let name = "executor_environment_variables";
    let Ok(Json::Object(map)) = serde_json::from_str(json) else {
        return Err(together(&format!("'{name}': expected a JSON object")));
    };
    match map.iter().find(|(_, value)| !value.is_string()) {
        Some((key, _)) => Err(together(&format!(
            "'{name}': the value of '{key}' is not a string"
        ))),
        None => Ok(map),
    }
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
