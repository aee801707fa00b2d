//! `tepui-master`: flags to settings, modules to parts, signals to endings.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use tepui_core_master::{
    InMemory, Master, ModuleAuthorizer, ModuleLeadership, Parts, Settings, Store,
};
use tepui_host::kinds::allocator::AllocatorClient;
use tepui_host::kinds::authorizer::AuthorizerClient;
use tepui_host::kinds::leader::LeaderClient;
use tepui_host::{Instance, ModuleHost};
use tepui_http::authorize::Object;
use tepui_http::shared::{Files, Guard, Logging, Metrics};
use tepui_model::authorization::Action;
use tepui_model::resources::{Quantities, Resources};
use tepui_proto::json;
use tepui_registry::Registry;
use tepui_state_master as state;
use tokio::signal::unix::{SignalKind, signal};

use crate::flags::Daemon;
use crate::settings::{MasterSettings, Registry as RegistryPlace};
use crate::start::{self, LogLevel};

/// Runs the daemon; the answer is the process's exit code.
pub fn main() -> ExitCode {
    start::main(
        Daemon::Master,
        MasterSettings::new,
        |settings| &settings.common,
        run,
    )
}

async fn run(settings: MasterSettings, level: LogLevel) -> anyhow::Result<()> {
    start::allow_open_files().context("cannot raise the limit of open files")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let store = store(&settings)?;
    let host = ModuleHost::new(settings.host());
    let parts = parts(&settings, &host, store, level).await?;
    let master = Master::start(master_settings(&settings)?, parts).await?;
    start::announce(master.local_addr());

    let ended = tokio::select! {
        reason = master.stepped_down() => Err(anyhow!(reason)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    master.stop().await;
    host.release();
    ended
}

/// The registry, open: another master with the same work directory is found out here.
fn store(settings: &MasterSettings) -> anyhow::Result<Arc<dyn Store>> {
    let RegistryPlace::Embedded(work_dir) = &settings.registry else {
        return Ok(Arc::new(InMemory::default()));
    };
    std::fs::create_dir_all(work_dir)
        .with_context(|| format!("--work_dir: cannot make {}", work_dir.display()))?;
    Ok(Arc::new(
        Registry::open(work_dir.join("registry.redb")).context("--work_dir")?,
    ))
}

/// Loads the modules, all at once: each is tried in a child process first.
async fn parts(
    settings: &MasterSettings,
    host: &ModuleHost,
    store: Arc<dyn Store>,
    level: LogLevel,
) -> anyhow::Result<Parts> {
    let load = |kind: &'static str, name: &str| {
        let (host, name) = (host.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || host.load(kind, &name))
    };
    let allocator = load("allocator", &settings.allocator);
    let authorizer = load("authorizer", &settings.common.authorizer);
    let contender = load("leader-contender", &settings.master_contender);
    let separate = settings.master_detector != settings.master_contender;
    let detector = separate.then(|| load("leader-detector", &settings.master_detector));
    // One module for both is one instance.
    let contender = LeaderClient::new(loaded(contender).await?);
    let detector = match detector {
        Some(detector) => LeaderClient::new(loaded(detector).await?),
        None => contender.clone(),
    };
    let metrics = Metrics::default();
    start::export(host, &settings.common.exporters, &metrics).await?;
    Ok(Parts {
        allocator: Box::new(AllocatorClient::new(loaded(allocator).await?)),
        authorizer: Arc::new(ModuleAuthorizer::new(AuthorizerClient::new(
            loaded(authorizer).await?,
        ))),
        leadership: Arc::new(ModuleLeadership::new(contender, detector)),
        store,
        modules: start::modules(host.clone()),
        logging: Logging::new(0, move |verbosity| level.set_verbosity(verbosity)),
        metrics,
        files: files(settings),
    })
}

async fn loaded(
    loading: tokio::task::JoinHandle<Result<Instance, tepui_host::LoadError>>,
) -> anyhow::Result<Instance> {
    Ok(loading.await.context("loading a module panicked")??)
}

/// `/master/log` is a foreign log file, else the one in `log_dir`.
fn files(settings: &MasterSettings) -> Files {
    let files = Files::default();
    let log = &settings.common.log;
    let own = log.dir.as_ref().map(|dir| dir.join("tepui-master.log"));
    if let Some(file) = log.external_file.clone().or(own) {
        let guard = Guard {
            action: Action::AccessMesosLog,
            object: Object::default(),
        };
        files.attach_guarded("/master/log", file, Arc::new(guard));
    }
    files
}

fn master_settings(settings: &MasterSettings) -> anyhow::Result<Settings> {
    let common = &settings.common;
    let network = &common.network;
    let domain = match &common.domain {
        Some(domain) => Some(json::to_message(domain.to_string().as_bytes()).context("--domain")?),
        None => None,
    };
    let text = |path: &PathBuf| path.display().to_string();
    let own = Settings::new(network.bind());
    Ok(Settings {
        advertised: Some(SocketAddr::new(
            network.advertised_ip(),
            network.advertise_port.unwrap_or(0),
        )),
        hostname: network.advertised_hostname(),
        cluster: settings.cluster.clone(),
        domain,
        flags: Arc::new(common.flags.iter().cloned().collect()),
        log_dir: common.log.dir.as_ref().map(text),
        external_log_file: common.log.external_file.as_ref().map(text),
        state: state::Settings {
            allocation_interval: settings.allocation_interval,
            agent_reregister_timeout: settings.agent_reregister_timeout,
            agent_removal_rate_limit: settings.agent_removal_rate_limit,
            recovery_agent_removal_limit: settings.recovery_agent_removal_limit,
            registry_gc_interval: settings.registry_gc_interval,
            registry_max_agent_age: settings.registry_max_agent_age,
            registry_max_agent_count: settings.registry_max_agent_count,
            require_agent_domain: settings.require_agent_domain,
            roles: settings
                .roles
                .as_ref()
                .map(|roles| roles.iter().map(|role| role.as_str().into()).collect()),
            agent_ping_timeout: settings.agent_ping_timeout,
            max_agent_ping_timeouts: settings.max_agent_ping_timeouts,
            offer_timeout: settings.offer_timeout,
            max_completed_frameworks: settings.max_completed_frameworks,
            max_completed_tasks_per_framework: settings.max_completed_tasks_per_framework,
            max_unreachable_tasks_per_framework: settings.max_unreachable_tasks_per_framework,
            min_allocatable: min_allocatable(&settings.min_allocatable_resources)?,
            filter_gpu_resources: settings.filter_gpu_resources,
            allocator_agent_recovery_factor: settings.allocator_agent_recovery_factor,
            allocator_recovery_timeout: settings.allocator_recovery_timeout,
            ..own.state
        },
        whitelist: settings.whitelist.clone(),
        registry_fetch_timeout: settings.registry_fetch_timeout,
        registry_store_timeout: settings.registry_store_timeout,
        disabled_endpoints: common.disabled_endpoints.clone(),
        per_framework_metrics: settings.publish_per_framework_metrics,
        rate_limits: settings.rate_limits.clone(),
        max_operator_streams: settings.max_operator_event_stream_subscribers,
        ..own
    })
}

/// Alternatives, one of which must be covered for an offer: `cpus:0.01|mem:32`.
fn min_allocatable(text: &str) -> anyhow::Result<Vec<Quantities>> {
    let alternatives = text.split('|').filter(|part| !part.trim().is_empty());
    let parse = |part: &str| {
        let resources = Resources::parse(part, "*");
        Ok(Quantities::of(
            &resources.context("--min_allocatable_resources")?,
        ))
    };
    alternatives.map(parse).collect()
}
