//! What both daemons do around their work: the log, the line that tells where they listen, the tie
//! to a parent that wants one.

use std::fs::File;
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use tepui_host::ModuleHost;
use tepui_host::kinds::exporter::ExporterClient;
use tepui_http::shared::{Metrics, Modules, VersionInfo};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

use crate::flags::{self, Daemon, FlagError, Values};
use crate::log::Writers;
use crate::settings::{CommonSettings, LogSettings};

/// Loads exporter modules, and has them serve metrics.
///
/// # Errors
/// If one cannot be loaded.
pub async fn export(host: &ModuleHost, names: &[String], metrics: &Metrics) -> anyhow::Result<()> {
    for name in names {
        let (host, name) = (host.clone(), name.clone());
        let loading = tokio::task::spawn_blocking(move || host.load("exporter", &name));
        let instance = loading.await.context("loading an exporter panicked")??;
        metrics.export_by(ExporterClient::new(instance));
    }
    Ok(())
}

/// Shows what a host has loaded.
pub fn modules(host: ModuleHost) -> Modules {
    Arc::new(move || serde_json::to_vec(&host.report()).expect("a report is plain data"))
}

/// Set by a parent, such as `tepui local`, whose end must be the daemon's end too.
pub const EXIT_WITH_PARENT: &str = "TEPUI_EXIT_WITH_PARENT";

/// Starts the log: on standard error unless it is to be quiet, and in `log_dir` if there is one.
/// `RUST_LOG` refines what the flags say. Lines are written until the writers are dropped.
fn log(settings: &LogSettings, program: &str) -> anyhow::Result<(LogLevel, Writers)> {
    let level = match settings.level.as_str() {
        "ERROR" => LevelFilter::ERROR,
        "WARNING" => LevelFilter::WARN,
        _ => LevelFilter::INFO,
    };
    let filter = |level: LevelFilter| {
        EnvFilter::builder()
            .with_default_directive(level.into())
            .from_env_lossy()
    };
    let (filter, handle) = {
        let (layer, handle) = reload::Layer::new(filter(level));
        let set = move |level| {
            // Fails only when the log is gone, at the very end.
            let _ = handle.reload(filter(level));
        };
        (layer, set)
    };
    let mut writers = Writers::default();
    let stderr = match settings.quiet {
        true => None,
        false => Some(
            fmt::layer()
                .with_writer(writers.add(std::io::stderr())?)
                .with_ansi(std::io::stderr().is_terminal())
                .with_target(false),
        ),
    };
    let file = match &settings.dir {
        Some(dir) => {
            let path = dir.join(format!("{program}.log"));
            let open = || -> std::io::Result<File> {
                std::fs::create_dir_all(dir)?;
                File::options().create(true).append(true).open(&path)
            };
            let file =
                open().with_context(|| format!("--log_dir: cannot write {}", path.display()))?;
            Some(
                fmt::layer()
                    .with_writer(writers.add(file)?)
                    .with_ansi(false)
                    .with_target(false),
            )
        }
        None => None,
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(stderr)
        .with(file)
        .init();
    let level = LogLevel {
        configured: level,
        set: Arc::new(handle),
    };
    Ok((level, writers))
}

/// The level of the log, which may be raised while the daemon runs.
#[derive(Clone)]
pub struct LogLevel {
    configured: LevelFilter,
    set: Arc<dyn Fn(LevelFilter) + Send + Sync>,
}

impl LogLevel {
    /// Sets glog's verbosity: 0 is the configured level, 1 and 2 show what helps to find errors,
    /// more shows everything.
    pub fn set_verbosity(&self, verbosity: u32) {
        (self.set)(match verbosity {
            0 => self.configured,
            1 | 2 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        });
    }
}

/// Plants the bug that a test asks for; what is shipped has none of this.
#[cfg(debug_assertions)]
fn plant_bug() {
    use tepui_proto::json::{Bug, plant};
    match std::env::var("TEPUI_PLANTED_BUG").as_deref() {
        Ok("encoder") => plant(Bug::Encoder),
        Ok("decoder") => plant(Bug::Decoder),
        _ => {}
    }
}

/// Runs a daemon from its command line to its end; the answer is the process's exit code.
pub fn main<S, F: Future<Output = anyhow::Result<()>>>(
    daemon: Daemon,
    validate: impl FnOnce(Values) -> Result<S, FlagError>,
    common: impl FnOnce(&S) -> &CommonSettings,
    run: impl FnOnce(S, LogLevel) -> F,
) -> ExitCode {
    keep_small();
    #[cfg(debug_assertions)]
    plant_bug();
    let program = daemon.program();
    let read = match flags::read(daemon, std::env::args().skip(1), std::env::vars()) {
        Ok(flags::Read::Help) => {
            print(&flags::help(daemon));
            return ExitCode::SUCCESS;
        }
        Ok(flags::Read::Version) => {
            print(&format!("mesos {}", VersionInfo::default().version));
            return ExitCode::SUCCESS;
        }
        Ok(flags::Read::Run(values)) => validate(*values),
        Err(error) => Err(error),
    };
    let settings = match read {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}\nSee `{program} --help`");
            return ExitCode::FAILURE;
        }
    };
    tie_to_parent();
    match serve(program, settings, common, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line or more; a reader that has gone, such as `head`, is no error.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn serve<S, F: Future<Output = anyhow::Result<()>>>(
    program: &str,
    settings: S,
    common: impl FnOnce(&S) -> &CommonSettings,
    run: impl FnOnce(S, LogLevel) -> F,
) -> anyhow::Result<()> {
    let common = common(&settings);
    let (level, _writers) = log(&common.log, program)?;
    for notice in &common.notices {
        tracing::warn!("{notice}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("cannot start the runtime")?;
    let done = runtime.block_on(run(settings, level));
    // A call of a module that does not end must not keep the process.
    runtime.shutdown_background();
    done
}

/// Prints where the daemon listens, once its socket is open. With port 0 this is how others learn it:
/// the line and the flush are a contract with `tepui local`.
pub fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    // Nobody has to read it.
    let _ = writeln!(out, "listening on http://{address}").and_then(|()| out.flush());
}

/// Keeps this process from being given huge pages for its heap: an idle daemon would take twice the
/// memory, and a large one is no faster with them (docs/PERFORMANCE.md).
///
/// The heap takes its first ones before `main` begins, 4 MiB; so the program begins anew, once.
fn keep_small() {
    // Kernels without huge pages refuse, and have none to give.
    if prctl::get_thp_disable() != Ok(false) || prctl::set_thp_disable(true).is_err() {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else {
        return;
    };
    // It returns only if it fails, and then this process is a little larger.
    let _ = Command::new(program).arg0(name).args(arguments).exec();
}

/// Lets this process open as many files as the system allows it: a connection or a container
/// takes one or two, and the usual 1,024 are few. The limits as they were, soft and hard.
pub fn allow_open_files() -> nix::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok((soft, hard))
}

/// Ends this process with its parent where the environment asks for it.
pub fn tie_to_parent() {
    if std::env::var_os(EXIT_WITH_PARENT).is_none() {
        return;
    }
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGTERM) {
        tracing::warn!(%error, "cannot watch the parent process");
    }
    if getppid().as_raw() == 1 {
        // It ended before we could ask for the signal.
        std::process::exit(0);
    }
}
