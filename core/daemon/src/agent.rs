//! `tepui-agent`: flags to settings, modules to isolators, signals to endings.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tepui_containerizer::{Containerizer, Fetcher, Logger, Provisioner};
use tepui_core_agent::{
    Agent, Configured, Detector, Ended, ModuleDetector, Settings, attach_endpoints,
};
use tepui_host::kinds::authorizer::AuthorizerClient;
use tepui_host::kinds::fetcher::FetcherClient;
use tepui_host::kinds::image_store::ImageStoreClient;
use tepui_host::kinds::isolator::IsolatorClient;
use tepui_host::kinds::leader::LeaderClient;
use tepui_host::kinds::logger::LoggerClient;
use tepui_host::{HostSettings, LoadError, ModuleHost};
use tepui_http::authorize::{AllowAll, Authorizer, ModuleAuthorizer, Object};
use tepui_http::shared::{Files, Guard, Logging, Metrics, Shared, VersionInfo};
use tepui_http::{Listener, Router, Server, ServerSettings};
use tepui_isolators_linux::{Hierarchies, Mounted};
use tepui_model::authorization::Action;
use tepui_model::{Attributes, Resources};
use tepui_module_proto::isolator::Rlimit;
use tepui_proto::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::Daemon;
use crate::gpus;
use crate::own_cgroup;
use crate::settings::{AgentSettings, FindMaster, Recover};
use crate::start::{self, LogLevel};
use crate::systemd;

/// How long the times of pulls count for the percentiles of their metric, as in Mesos.
const PULLS: Duration = Duration::from_hours(1);

/// Names of the logger with programs of its own.
const ROTATING: [&str; 2] = ["rotating", "org_apache_mesos_LogrotateContainerLogger"];

/// Runs the daemon; the answer is the process's exit code.
pub fn main() -> ExitCode {
    start::main(
        Daemon::Agent,
        AgentSettings::new,
        |settings| &settings.common,
        run,
    )
}

async fn run(mut settings: AgentSettings, level: LogLevel) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let mut leave = signal(SignalKind::user_defined1()).context("cannot wait for SIGUSR1")?;

    std::fs::create_dir_all(&settings.work_dir)
        .and_then(|()| settings.work_dir.canonicalize())
        .map(|absolute| settings.work_dir = absolute)
        .with_context(|| format!("--work_dir: cannot make {}", settings.work_dir.display()))?;
    // Tasks and supervisors have other working directories.
    settings.runtime_dir = std::path::absolute(&settings.runtime_dir)
        .with_context(|| format!("--runtime_dir: {}", settings.runtime_dir.display()))?;
    let outliving = enter_cgroups(&settings)?;
    let (total, gpus) = gpus::resources(&settings)?;
    let host = ModuleHost::new(host_settings(&settings, &outliving, gpus));
    let metrics = Metrics::default();
    let containers = containerizer(&settings, outliving, &host, &metrics).await?;
    let address = settings.common.network.bind();
    let listener = Listener::bind(ServerSettings::new(address)).await?;
    let local = listener.local_addr();
    let master = detector(&settings, &host).await?;
    let authorizer = authorizer(&settings, &host).await?;
    let shared = shared(&settings, level, authorizer, metrics);
    start::export(&host, &settings.common.exporters, &shared.metrics).await?;
    let started = Agent::start(
        agent_settings(&settings, local.port(), total, master)?,
        containers,
        &shared,
    );
    let started = started.await.map_err(|error| {
        let stuck = error.is_of_record();
        let error = anyhow::Error::from(error);
        match stuck {
            true => error.context(
                "what an earlier agent left cannot be read: with --strict=false the agent goes on without it",
            ),
            false => error,
        }
    });
    let Some(mut agent) = started? else {
        return Ok(());
    };
    let mut router = Router::with_delegate("slave(1)");
    let modules = start::modules(host);
    attach_endpoints(&agent, &shared, modules, &mut router)?;
    router.disable(settings.common.disabled_endpoints.clone());
    let router = Arc::new(router);
    let beside = match &settings.domain_socket {
        Some(path) => Some(domain_socket(path, local, router.clone())?),
        None => None,
    };
    let server = listener.serve(router);
    start::announce(local);

    let ended = loop {
        tokio::select! {
            ended = agent.ended() => break ended,
            _ = terminate.recv() => break Ended::Stopped,
            _ = interrupt.recv() => break Ended::Stopped,
            _ = leave.recv() => {
                tracing::info!("SIGUSR1: ending all executors and unregistering");
                agent.unregister();
            }
        }
    };
    agent.stop().await;
    server.stop().await;
    if let Some(beside) = beside {
        beside.stop().await;
    }
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Left(reason) => {
            tracing::info!(%reason, "the agent has left the cluster");
            Ok(())
        }
        Ended::Failed(reason) => Err(anyhow!(reason)),
    }
}

/// Answers executors on a socket in the file system, too.
fn domain_socket(path: &Path, local: SocketAddr, router: Arc<Router>) -> anyhow::Result<Server> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make '{}'", directory.display()))?;
    }
    let server = Server::start_unix(path, ServerSettings::new(local), router)
        .context("--http_executor_domain_sockets")?;
    tracing::info!(path = %path.display(), "executors find the agent at a socket");
    Ok(server)
}

/// Places the agent itself where it was told to be, and where it does not keep its containers from theirs. Answers where
/// what is to outlive it has to be.
fn enter_cgroups(settings: &AgentSettings) -> anyhow::Result<Vec<PathBuf>> {
    let root = &settings.cgroups_root;
    let hierarchies = Hierarchies::detect().context("the cgroup mounts cannot be read")?;
    if !settings.agent_subsystems.is_empty() {
        own_cgroup::enter(&hierarchies, root, &settings.agent_subsystems)?;
    }
    let mut limits = settings.isolation.iter();
    if limits.any(|isolator| isolator.starts_with("cgroups/"))
        && let Mounted::V2(mount) = hierarchies.find("memory")
    {
        own_cgroup::make_way(&mount, root)?;
    }
    match &settings.systemd_units {
        Some(units) => systemd::slice(units, &hierarchies),
        None => Ok(Vec::new()),
    }
}

/// What only this process can tell modules: which GPUs are the agent's, and that the rotating logger's programs outlive it
/// as supervisors do.
fn host_settings(
    settings: &AgentSettings,
    outliving: &[PathBuf],
    gpus: Option<Vec<u32>>,
) -> HostSettings {
    let mut host = settings.host();
    if let Some(gpus) = gpus {
        host.config.set(gpus::ISOLATOR, "devices", gpus.into());
    }
    let logger = settings.container_logger.as_deref();
    let rotating = logger.filter(|name| ROTATING.contains(name));
    if let (Some(configured), false) = (rotating, outliving.is_empty()) {
        let has_table = |name: &&&str| host.config.settings.contains_key(**name);
        let name = *ROTATING.iter().find(has_table).unwrap_or(&configured);
        let cgroups = outliving.iter().map(|cgroup| cgroup.to_string_lossy());
        host.config.set(name, "cgroups", cgroups.collect());
    }
    host
}

/// The containerizer with the isolators that are configured, or with our choice for this user.
async fn containerizer(
    settings: &AgentSettings,
    outliving: Vec<PathBuf>,
    host: &ModuleHost,
    metrics: &Metrics,
) -> anyhow::Result<Arc<Containerizer>> {
    let names = settings.isolation.clone();
    let shown = if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    };
    if settings.isolation_given {
        tracing::info!("isolation: {shown}");
    } else {
        tracing::info!("isolation: {shown} (the default for this user; --isolation names another)");
    }
    let loading = host.clone();
    let instances = tokio::task::spawn_blocking(move || loading.load_all("isolator", &names))
        .await
        .context("loading isolators panicked")??;
    let isolators = instances
        .into_iter()
        .map(|instance| tepui_containerizer::loaded(IsolatorClient::new(instance)))
        .collect();
    let mut own = tepui_containerizer::Settings::new(
        settings.work_dir.join("meta").join("containers"),
        settings.runtime_dir.join("containers"),
        init(settings)?,
    );
    own.switch_user = settings.switch_user;
    own.supervisors_in = outliving;
    own.sandbox_directory
        .clone_from(&settings.sandbox_directory);
    own.provisioner = provisioner(settings, host, metrics).await?;
    let (soft, hard) = start::allow_open_files().context("cannot raise the limit of open files")?;
    // Programs that use select(2) break with more than they expect.
    own.rlimits = vec![Rlimit {
        r#type: "NOFILE".to_owned(),
        soft: Some(soft),
        hard: Some(hard),
    }];
    own.strict = settings.strict && settings.recover != Recover::Cleanup;
    own.fetcher = fetcher(settings, host).await?;
    own.logger = logger(settings, host).await?;
    Ok(Arc::new(Containerizer::new(own, isolators)?))
}

/// The logger that is configured.
async fn logger(
    settings: &AgentSettings,
    host: &ModuleHost,
) -> anyhow::Result<Option<Arc<dyn Logger>>> {
    let Some(name) = settings.container_logger.clone() else {
        return Ok(None);
    };
    let host = host.clone();
    let loading = tokio::task::spawn_blocking(move || host.load("container-logger", &name));
    let instance = loading.await.context("loading the logger panicked")??;
    let client = LoggerClient::new(instance);
    Ok(Some(tepui_containerizer::logger(client)))
}

/// The fetcher that is configured; the usual one may be missing, so that an agent runs without any module.
async fn fetcher(
    settings: &AgentSettings,
    host: &ModuleHost,
) -> anyhow::Result<Option<Arc<dyn Fetcher>>> {
    let Some(name) = settings.fetcher.clone() else {
        return Ok(None);
    };
    let host = host.clone();
    let loading = tokio::task::spawn_blocking(move || host.load("fetcher", &name));
    match loading.await.context("loading the fetcher panicked")? {
        Ok(instance) => {
            let client = FetcherClient::new(instance);
            Ok(Some(tepui_containerizer::fetcher(client)))
        }
        Err(error @ LoadError::NotFound { .. }) if !settings.fetcher_given => {
            tracing::warn!(%error, "commands with URIs will not be started");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// What pulls images, where there is a store of them.
async fn provisioner(
    settings: &AgentSettings,
    host: &ModuleHost,
    metrics: &Metrics,
) -> anyhow::Result<Option<Provisioner>> {
    let images = &settings.images;
    if images.stores.is_empty() {
        return Ok(None);
    }
    let (loading, names) = (host.clone(), images.stores.clone());
    let instances = tokio::task::spawn_blocking(move || loading.load_all("image-store", &names))
        .await
        .context("loading image stores panicked")??;
    let stores = instances.into_iter();
    let stores = stores.map(|store| (store.name().to_owned(), ImageStoreClient::new(store)));
    let dir = settings.work_dir.join("provisioner");
    let metrics = metrics.clone();
    let timed = move |store: &str, took| {
        let name = format!("containerizer/mesos/provisioner/{store}_store/image_pull");
        metrics.timer(&name, PULLS).record(took);
    };
    let backend = images.backend.as_deref();
    let provisioner = Provisioner::new(stores.collect(), backend, dir, timed)?;
    if let Some(collection) = &images.collection {
        let keep = collection.keep.iter();
        let keep = keep.map(|image| json::to_message(image.to_string().as_bytes()));
        let keep: Vec<_> = keep
            .collect::<Result<_, _>>()
            .context("--image_gc_config: excluded_images")?;
        tokio::spawn(
            provisioner
                .clone()
                .collect(collection.headroom, collection.interval, keep),
        );
    }
    Ok(Some(provisioner))
}

/// `tepui-init`: what is configured, beside this program, or where it is installed.
fn init(settings: &AgentSettings) -> anyhow::Result<PathBuf> {
    if let Some(init) = &settings.init {
        return Ok(init.clone());
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    let beside = program.parent().map(PathBuf::from).unwrap_or_default();
    let mut places: Vec<PathBuf> = Vec::new();
    places.extend(
        settings
            .launcher_dir
            .as_ref()
            .map(|dir| dir.join("tepui-init")),
    );
    places.push(beside.join("tepui-init"));
    places.push(beside.join("../libexec/tepui/tepui-init"));
    if let Some(found) = places.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = places
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Err(anyhow!(
        "tepui-init was not found\n  looked in: {}\n  --init names another place",
        looked.join(", ")
    ))
}

/// The authorizer module that is configured.
async fn authorizer(
    settings: &AgentSettings,
    host: &ModuleHost,
) -> anyhow::Result<Arc<dyn Authorizer>> {
    let Some(name) = settings.common.agent_authorizer() else {
        return Ok(Arc::new(AllowAll));
    };
    let (host, name) = (host.clone(), name.to_owned());
    let loading = tokio::task::spawn_blocking(move || host.load("authorizer", &name));
    let instance = loading.await.context("loading the authorizer panicked")??;
    Ok(Arc::new(ModuleAuthorizer::new(AuthorizerClient::new(
        instance,
    ))))
}

fn shared(
    settings: &AgentSettings,
    level: LogLevel,
    authorizer: Arc<dyn Authorizer>,
    metrics: Metrics,
) -> Shared {
    let files = Files::default();
    if let Some(log) = &settings.common.log.external_file {
        let guard = Guard {
            action: Action::AccessMesosLog,
            object: Object::default(),
        };
        files.attach_guarded("/slave/log", log, Arc::new(guard));
    }
    Shared {
        version: VersionInfo::default(),
        flags: Arc::new(settings.common.flags.iter().cloned().collect()),
        files,
        metrics,
        logging: Logging::new(0, move |verbosity| level.set_verbosity(verbosity)),
        authorizer,
    }
}

/// What finds the leading master.
async fn detector(
    settings: &AgentSettings,
    host: &ModuleHost,
) -> anyhow::Result<Arc<dyn Detector>> {
    let name = match &settings.master {
        FindMaster::At(address) => return Ok(Arc::new(Configured(address.clone()))),
        FindMaster::By(name) => name.clone(),
    };
    let host = host.clone();
    let loading = tokio::task::spawn_blocking(move || host.load("leader-detector", &name));
    let instance = loading.await.context("loading the detector panicked")??;
    Ok(Arc::new(ModuleDetector::new(LeaderClient::new(instance))))
}

fn agent_settings(
    settings: &AgentSettings,
    port: u16,
    total: Resources,
    master: Arc<dyn Detector>,
) -> anyhow::Result<Settings> {
    let network = &settings.common.network;
    tracing::info!("resources: {total}");
    let attributes = Attributes::parse(settings.attributes.as_deref().unwrap_or_default())
        .context("--attributes")?;
    let domain = match &settings.common.domain {
        Some(domain) => Some(json::to_message(domain.to_string().as_bytes()).context("--domain")?),
        None => None,
    };
    let variables = settings.executor_environment_variables.iter().flatten();
    let variables = variables.map(|(name, value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), value)
    });
    let log = &settings.common.log;
    let text = |path: &PathBuf| path.display().to_string();
    let own = Settings::new(settings.work_dir.clone(), String::new());
    Ok(Settings {
        master,
        ip: network.advertised_ip(),
        port: network.advertise_port.unwrap_or(port),
        hostname: network.advertised_hostname(),
        resources: total,
        attributes,
        domain,
        executor_environment: variables.collect(),
        domain_socket: settings.domain_socket.clone(),
        executor_registration_timeout: settings.executor_registration_timeout,
        executor_reregistration_timeout: settings.executor_reregistration_timeout,
        executor_shutdown_grace_period: settings.executor_shutdown_grace_period,
        recovery_timeout: settings.recovery_timeout,
        registration_backoff_factor: settings.registration_backoff_factor,
        strict: settings.strict,
        cleanup: settings.recover == Recover::Cleanup,
        reconfiguration_policy: settings.reconfiguration_policy,
        capabilities: settings.agent_features.clone(),
        gc_delay: settings.gc_delay,
        gc_disk_headroom: settings.gc_disk_headroom,
        gc_non_executor_container_sandboxes: settings.gc_non_executor_container_sandboxes,
        http_heartbeat_interval: settings.http_heartbeat_interval,
        volume_gids: settings.volume_gids,
        image_pull_progress_interval: settings.image_pull_progress_interval,
        disk_watch_interval: settings.disk_watch_interval,
        max_completed_executors_per_framework: settings.max_completed_executors_per_framework,
        launcher_dir: settings
            .launcher_dir
            .clone()
            .unwrap_or(own.launcher_dir.clone()),
        flags: settings.common.flags.clone(),
        log_dir: log.dir.as_ref().map(text),
        external_log_file: log.external_file.as_ref().map(text),
        ..own
    })
}
