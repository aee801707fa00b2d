//! Settings of an agent.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;
use tepui_core_agent::{CAPABILITIES, ReconfigurationPolicy};
use tepui_host::HostSettings;
use tepui_proto::v1::agent_info::capability::Type as Capability;

use super::isolation::{
    cgroups, gpu_devices, isolation_of, isolators, sandbox_directory, volume_gids,
};
use super::{
    CommonSettings, Images, cgroups_limit, common, duration, images, number, one_of, services,
    single, text, together,
};
use crate::flags::{Daemon, FlagError, Values};

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
    /// Subsystems of cgroups that the agent itself is placed in, below `cgroups_root`.
    pub agent_subsystems: Vec<String>,
    pub cgroups_root: String,
    /// Where units of systemd go, for what is to outlive the agent's own; none leaves it there.
    pub systemd_units: Option<PathBuf>,
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
    /// Indices of the GPUs that the agent offers; none where the machine decides.
    pub nvidia_gpu_devices: Option<Vec<u32>>,
    pub attributes: Option<String>,
    pub executor_environment_variables: Option<serde_json::Map<String, Json>>,
    /// Where executors find a socket in the file system, if they are to have one.
    pub domain_socket: Option<PathBuf>,
    pub executor_registration_timeout: Duration,
    pub executor_reregistration_timeout: Duration,
    pub executor_shutdown_grace_period: Duration,
    pub registration_backoff_factor: Duration,
    pub recover: Recover,
    pub reconfiguration_policy: ReconfigurationPolicy,
    /// Capabilities that are announced.
    pub agent_features: Vec<Capability>,
    pub strict: bool,
    pub recovery_timeout: Duration,
    pub gc_delay: Duration,
    pub gc_disk_headroom: f64,
    pub gc_non_executor_container_sandboxes: bool,
    /// How many groups there are for volumes that are shared, where they get some.
    pub volume_gids: Option<u64>,
    /// How often tasks that wait for an image tell how far its pull is; zero is never.
    pub image_pull_progress_interval: Duration,
    pub http_heartbeat_interval: Duration,
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
        let isolation = match (root, cgroups_limit()) {
            (true, true) => "cgroups/cpu,cgroups/mem,namespaces/pid",
            (true, false) => "posix/cpu,posix/mem,namespaces/pid",
            (false, _) => "posix/cpu,posix/mem",
        };
        if root && isolation.starts_with("posix") && !isolation_given {
            values.notices.push(
                "tasks have no limits of cpu and memory: there are neither cgroup hierarchies of version 1 for both, nor one \
                 of version 2 that can give both to cgroups below it (`tepui agent doctor` says what is missing)"
                    .into(),
            );
        }
        if !root && !isolation_given {
            values.notices.push(
                "not root: tasks run as this user, in the namespaces of the host and without limits of cpu and memory; there \
                 are no images and no other users (`tepui agent doctor` says what each isolator needs)"
                    .into(),
            );
        }
        values.set_default("isolation", isolation.into());
        values.set_default("launcher", if root { "linux" } else { "posix" }.into());
        values.set_default("runtime_dir", default_runtime_dir());
        one_of(&values, "launcher", &["linux", "posix"])?;
        one_of(&values, "recover", &["reconnect", "cleanup"])?;
        one_of(&values, "reconfiguration_policy", &["equal", "additive"])?;
        one_of(&values, "containerizers", &["mesos"])?;

        let work_dir = values
            .path("work_dir")
            .ok_or_else(|| together("'work_dir' is needed: the directory for sandboxes and for what has to survive the agent"))?;
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
            (Some(master), None) if !is_host_and_port(&master) => {
                return Err(together(&format!(
                    "'master': expected host:port, such as 10.0.0.1:5050, found '{master}'"
                )));
            }
            (Some(master), None) => FindMaster::At(master),
            (None, Some(module)) => FindMaster::By(module),
            (None, None) => {
                return Err(together(
                    "'master' is needed: host:port of the master, such as 10.0.0.1:5050",
                ));
            }
        };
        cgroups(&mut values);
        isolators(&mut values)?;
        let volume_gids = volume_gids(&mut values)?;
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
            agent_subsystems: values.list("agent_subsystems"),
            cgroups_root: text(&values, "cgroups_root"),
            systemd_units: values
                .path("systemd_runtime_directory")
                .filter(|_| root && values.is("systemd_enable_support")),
            images,
            switch_user: values.is("switch_user"),
            sandbox_directory: sandbox_directory(&values)?,
            container_logger: values.text("container_logger").map(String::from),
            fetcher: services::service(&values, "fetcher", services::URI),
            fetcher_given: values.given("fetcher"),
            resources: values.text("resources").map(String::from),
            default_role: text(&values, "default_role"),
            nvidia_gpu_devices: gpu_devices(&values)?,
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
            reconfiguration_policy: match values.text("reconfiguration_policy") {
                Some("additive") => ReconfigurationPolicy::Additive,
                _ => ReconfigurationPolicy::Equal,
            },
            agent_features: match values.text("agent_features") {
                Some(text) => features(text)?,
                None => CAPABILITIES.to_vec(),
            },
            recovery_timeout: duration(&values, "recovery_timeout"),
            gc_delay: duration(&values, "gc_delay"),
            gc_non_executor_container_sandboxes: values.is("gc_non_executor_container_sandboxes"),
            http_heartbeat_interval: duration(&values, "http_heartbeat_interval"),
            volume_gids,
            image_pull_progress_interval: duration(&values, "image_pull_progress_interval"),
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

fn is_host_and_port(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
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

/// Mesos' `SlaveCapabilities` message.
fn features(text: &str) -> Result<Vec<Capability>, FlagError> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct One {
        r#type: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Features {
        capabilities: Vec<One>,
    }
    let wrong = |what: &str| together(&format!("'agent_features': {what}"));
    let features: Features =
        serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
    let mut given = Vec::new();
    for One { r#type } in features.capabilities {
        let known = CAPABILITIES.iter().find(|one| one.as_str_name() == r#type);
        given.push(*known.ok_or_else(|| wrong(&format!("this agent has no '{type}'")))?);
    }
    let optional = Capability::ResourceProvider;
    let missing = CAPABILITIES
        .iter()
        .find(|one| **one != optional && !given.contains(one));
    match missing {
        Some(one) => Err(wrong(&format!(
            "'{}' cannot be left out",
            one.as_str_name()
        ))),
        // In the order of their numbers, as they are told.
        None => Ok(CAPABILITIES
            .into_iter()
            .filter(|one| given.contains(one))
            .collect()),
    }
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
