//! `tepui local`: a master and its agents as child processes on this machine.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::client::Master;
use crate::stop::StopSignals;

/// How long a daemon may take to say where it listens, and to end once it is asked to.
const PATIENCE: Duration = Duration::from_secs(30);
/// First words of the line with which a daemon says where it listens.
const LISTENING: &str = "listening on http://";
/// The parts of --config, in the work folder.
const MASTER_CONFIG: &str = "master.toml";
const AGENT_CONFIG: &str = "agent.toml";

/// Start a master and agents on 127.0.0.1, until Ctrl-C
///
/// The real daemons run as child processes. Without --work-dir everything is kept in a temporary
/// folder that is removed at the end; tasks are ended with the cluster either way. An agent that
/// ends by itself is told of, and the others go on; without its master or its last agent the cluster
/// ends.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Port of the master; 0 takes any free one
    #[arg(long, default_value_t = 5050)]
    port: u16,
    /// Port of the first agent, the next ones follow it; 0 takes any free ones
    #[arg(long, default_value_t = 5051)]
    agent_port: u16,
    /// How many agents
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    agents: u16,
    /// Keep state, sandboxes and logs here
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    /// Configuration file; a key goes to the daemons that know it, and what only one of them is to
    /// have stands in a table `master` or `agent`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    crate::block_on(local(args))
}

async fn local(args: Args) -> Result<ExitCode> {
    let mut stop = StopSignals::new()?;
    let (dir, _temporary) = work_dir(args.work_dir.as_deref())?;
    if let Some(file) = &args.config {
        let (master, agent) = crate::split::split(file)?;
        fs::write(dir.join(MASTER_CONFIG), master.to_string())?;
        fs::write(dir.join(AGENT_CONFIG), agent.to_string())?;
    }
    let mut daemons = Vec::new();
    let outcome = tokio::select! {
        outcome = serve(&args, &dir, &mut daemons) => outcome,
        _ = stop.wait() => Ok(()),
    };
    say!("stopping");
    let stopped = end(&mut daemons).await;
    outcome.and(stopped)?;
    Ok(ExitCode::SUCCESS)
}

/// The given folder, or a temporary one that is removed when its guard is dropped.
fn work_dir(given: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    match given {
        Some(dir) => {
            fs::create_dir_all(dir)
                .with_context(|| format!("cannot create --work-dir {}", dir.display()))?;
            Ok((dir.canonicalize()?, None))
        }
        None => {
            let dir = tempfile::Builder::new().prefix("tepui-local-").tempdir()?;
            // Task users reach their sandboxes through it.
            fs::set_permissions(
                dir.path(),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )?;
            Ok((dir.path().to_owned(), Some(dir)))
        }
    }
}

/// Starts all daemons and watches them; returns only when too many of them have ended.
async fn serve(args: &Args, dir: &Path, daemons: &mut Vec<Daemon>) -> Result<()> {
    daemons.push(Daemon::start(
        "tepui-master",
        "master",
        args.port,
        None,
        args,
        dir,
    )?);
    let master = daemons[0].listening().await?;
    let mut agents = Vec::new();
    for index in 0..args.agents {
        let port = if args.agent_port == 0 {
            0
        } else {
            agent_port(args.agent_port, index)?
        };
        let name = format!("agent-{}", index + 1);
        daemons.push(Daemon::start(
            "tepui-agent",
            &name,
            port,
            Some(master),
            args,
            dir,
        )?);
    }
    for daemon in &mut daemons[1..] {
        agents.push(format!("http://{}", daemon.listening().await?));
    }
    tokio::select! {
        ready = registered(master, usize::from(args.agents)) => ready?,
        dead = next_end(daemons) => bail!("{}", dead?.1),
    }
    say!("ready: master http://{master} agents {}", agents.join(" "));
    say!("work dir {}, stop with Ctrl-C", dir.display());
    watch(daemons).await
}

/// Waits for the end of the master or of the last agent, and tells of agents that end before.
async fn watch(daemons: &mut Vec<Daemon>) -> Result<()> {
    loop {
        let (index, end) = next_end(daemons).await?;
        daemons.remove(index);
        if index == 0 || daemons.len() < 2 {
            bail!("{end}");
        }
        eprintln!(
            "tepui: {end}\ntepui: agents that go on: {}",
            daemons.len() - 1
        );
    }
}

fn agent_port(first: u16, index: u16) -> Result<u16> {
    first
        .checked_add(index)
        .with_context(|| format!("--agent-port {first}: no port left for agent {}", index + 1))
}

/// Waits until as many agents are active at the master.
async fn registered(master: SocketAddr, agents: usize) -> Result<()> {
    let master = Master::at(&master.to_string())?;
    loop {
        if let Ok(list) = master.agents().await
            && list.iter().filter(|agent| agent.active).count() >= agents
        {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for the next daemon that ends by itself: which it is, and what it last said.
async fn next_end(daemons: &mut [Daemon]) -> Result<(usize, String)> {
    let waits = daemons
        .iter_mut()
        .map(|daemon| Box::pin(async { (daemon.child.wait().await, &daemon.name, &daemon.log) }));
    let ((status, name, log), index, _) = futures::future::select_all(waits).await;
    let end = format!("{name} ended ({}):\n{}", status?, tail(log));
    Ok((index, end))
}

/// Ends agents first, so that they can kill their tasks and tell the master; then the master.
async fn end(daemons: &mut [Daemon]) -> Result<()> {
    for agent in daemons.iter().filter(|daemon| daemon.is_agent) {
        agent.signal(Signal::SIGUSR1);
    }
    let mut late = Vec::new();
    for daemon in daemons.iter_mut().rev() {
        if !daemon.is_agent {
            daemon.signal(Signal::SIGTERM);
        }
        match daemon.ended().await {
            None => late.push(daemon.name.clone()),
            Some(status) if status.success() => daemon.clean(),
            Some(_) => {}
        }
    }
    if late.is_empty() {
        Ok(())
    } else {
        bail!("killed after {} s: {}", PATIENCE.as_secs(), late.join(", "))
    }
}

/// What an agent keeps while its containers run: in memory, where each of them makes and removes some files quickest.
/// Removed when the agent has ended as it should; the next one in the same folder finds that of an agent that was killed.
struct RuntimeDir {
    /// In the work folder.
    link: PathBuf,
    target: PathBuf,
}

impl RuntimeDir {
    /// The file system in memory that everybody may use.
    const MEMORY: &str = "/dev/shm";

    /// Has a link lead to a directory in memory. None where that cannot be, and the directory is to be made at its place.
    fn in_memory(link: &Path) -> Option<Self> {
        let link = link.to_owned();
        if link.exists() {
            let target = fs::read_link(&link).ok()?;
            return Some(Self { link, target });
        }
        statfs(Self::MEMORY)
            .ok()
            .filter(|found| found.filesystem_type() == TMPFS_MAGIC)?;
        // Others write there too, so its name must not be known before.
        let target = tempfile::Builder::new()
            .prefix("tepui-local-")
            .tempdir_in(Self::MEMORY)
            .ok()?;
        // One that is there leads nowhere: the machine was started anew.
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(target.path(), &link).ok()?;
        let target = target.keep();
        Some(Self { link, target })
    }
}

/// A running daemon.
struct Daemon {
    name: String,
    is_agent: bool,
    child: Child,
    log: PathBuf,
    runtime_dir: Option<RuntimeDir>,
}

impl Daemon {
    fn start(
        program: &str,
        name: &str,
        port: u16,
        master: Option<SocketAddr>,
        args: &Args,
        dir: &Path,
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log)?;
        let path = crate::beside(program)?;
        let mut command = Command::new(&path);
        command
            .arg("--ip=127.0.0.1")
            .arg("--hostname=localhost")
            .arg(format!("--port={port}"))
            .arg(format!("--work_dir={}", dir.join(name).display()));
        let mut runtime_dir = None;
        match master {
            Some(address) => {
                let at = dir.join(format!("{name}.run"));
                runtime_dir = RuntimeDir::in_memory(&at);
                command
                    .arg(format!("--master={address}"))
                    .arg(format!("--runtime_dir={}", at.display()))
            }
            None => command.arg("--registry=replicated_log"),
        };
        if args.config.is_some() {
            let config = if master.is_some() {
                AGENT_CONFIG
            } else {
                MASTER_CONFIG
            };
            command.arg(format!("--config={}", dir.join(config).display()));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            // Ctrl-C is ours to pass on, in the right order.
            .process_group(0)
            .env("TEPUI_EXIT_WITH_PARENT", "1")
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        Ok(Self {
            name: name.to_owned(),
            is_agent: master.is_some(),
            child,
            log,
            runtime_dir,
        })
    }

    /// The address that the daemon prints when its socket is open.
    async fn listening(&mut self) -> Result<SocketAddr> {
        let output = self
            .child
            .stdout
            .take()
            .expect("the output is piped and taken once");
        let mut lines = BufReader::new(output).lines();
        let line = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = line.strip_prefix(LISTENING) {
                    return Ok(Some(address.trim().parse::<SocketAddr>()?));
                }
            }
            anyhow::Ok(None)
        };
        match timeout(PATIENCE, line).await {
            Ok(Ok(Some(address))) => Ok(address),
            Ok(Ok(None)) => {
                let status = self.child.wait().await?;
                bail!(
                    "{} did not start ({status}):\n{}",
                    self.name,
                    tail(&self.log)
                )
            }
            Ok(Err(error)) => Err(error.context(format!(
                "{} said where it listens in an unknown way",
                self.name
            ))),
            Err(_) => bail!(
                "{} does not listen after {} s:\n{}",
                self.name,
                PATIENCE.as_secs(),
                tail(&self.log)
            ),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
        }
    }

    /// Removes what nobody needs once it has ended all its tasks.
    fn clean(&self) {
        if let Some(RuntimeDir { link, target }) = &self.runtime_dir
            && let Err(error) = fs::remove_dir_all(target).and_then(|()| fs::remove_file(link))
        {
            eprintln!("tepui: cannot remove {}: {error}", target.display());
        }
    }

    async fn ended(&mut self) -> Option<ExitStatus> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                let _ = self.child.kill().await;
                None
            }
        }
    }
}

/// The last lines of a log, for an error message.
fn tail(log: &Path) -> String {
    const BYTES: u64 = 4096;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            let last = &lines[lines.len().saturating_sub(12)..];
            last.iter()
                .map(|line| format!("  {line}"))
                .collect::<Vec<_>>()
                .join("\n")
        }
        Err(error) => format!("  (no log at {}: {error})", log.display()),
    }
}
