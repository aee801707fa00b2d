//! Takes the looks at tasks that their executors ask for, from inside their containers.
//!
//! A command is run in a container of its own inside the task's; it ends with the task, or with the agent. What goes over
//! the network is done by a thread of its own that joins the container's network namespace, and is left with it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tepui_containerizer::{Command, Exit};
use tepui_executor::{Finding, Probe, ProbeKind};
use tepui_model::id::ContainerId;
use tepui_proto::v1::{CommandInfo, environment::variable};
use tokio::sync::oneshot;

use crate::containers::Containers;
use crate::owner::{Input, Owner};

/// Why a probe found nothing, for the log.
type Why = String;

impl Owner {
    /// Begins a probe of what runs in a container; its finding comes back as the input that `answer` makes of it.
    pub(crate) fn probe(
        &self,
        container: ContainerId,
        probe: Probe,
        answer: impl FnOnce(Finding) -> Input + Send + 'static,
    ) {
        let (containers, handle) = (self.containers.clone(), self.handle.clone());
        self.runtime.spawn(async move {
            let found = look(&containers, &container, probe.kind, probe.timeout).await;
            let finding = found.unwrap_or_else(|why| {
                tracing::info!(%container, health = probe.id.health, why, "a check found nothing");
                Finding::Nothing
            });
            handle.tell(answer(finding));
        });
    }
}

async fn look(
    containers: &Arc<dyn Containers>,
    container: &ContainerId,
    kind: ProbeKind,
    timeout: Option<Duration>,
) -> Result<Finding, Why> {
    if let ProbeKind::Command(command) = kind {
        return run(&**containers, container, command.0, timeout).await;
    }
    let status = containers.status(container).await;
    let status = status.map_err(|error| error.to_string())?;
    let pid = status.executor_pid.ok_or("the task does not run")?;
    let (answer, answered) = oneshot::channel();
    let looking = std::thread::Builder::new().name("tepui-check".to_owned());
    let looking = looking.spawn(move || {
        let found = enter(pid).and_then(|()| match kind {
            ProbeKind::Http(url) => get(&url, timeout),
            ProbeKind::Tcp { ipv6, port } => connect(ipv6, port, timeout),
            ProbeKind::Command(_) => Err("a command is run elsewhere".to_owned()),
        });
        // The agent may be leaving.
        let _ = answer.send(found);
    });
    looking.map_err(|error| format!("no thread for a check: {error}"))?;
    answered
        .await
        .map_err(|_| "the thread of a check ended".to_owned())?
}

/// Gives this thread the network that a process has.
fn enter(pid: u32) -> Result<(), Why> {
    let of = |who: String| {
        let path = format!("/proc/{who}/ns/net");
        std::fs::read_link(&path).map_err(|error| format!("cannot read '{path}': {error}"))
    };
    if of(pid.to_string())? == of("self".to_owned())? {
        return Ok(());
    }
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(|error| format!("cannot open '{path}': {error}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("cannot join '{path}': {error}"))
}

fn connect(ipv6: bool, port: u16, timeout: Option<Duration>) -> Result<Finding, Why> {
    let ip: IpAddr = match ipv6 {
        true => Ipv6Addr::LOCALHOST.into(),
        false => Ipv4Addr::LOCALHOST.into(),
    };
    let address = SocketAddr::new(ip, port);
    let connected = match timeout {
        Some(timeout) => TcpStream::connect_timeout(&address, timeout),
        None => TcpStream::connect(address),
    };
    match connected {
        Ok(_) => Ok(Finding::Connected(true)),
        Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
            Err(format!("no connection to {address} in time"))
        }
        Err(_) => Ok(Finding::Connected(false)),
    }
}

/// As `curl -L -k -g`, by which Mesos asks.
fn get(url: &str, timeout: Option<Duration>) -> Result<Finding, Why> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let mut client = reqwest::Client::builder()
        .user_agent("tepui")
        .no_proxy()
        .tls_built_in_root_certs(false)
        .danger_accept_invalid_certs(true);
    if let Some(timeout) = timeout {
        client = client.timeout(timeout);
    }
    let client = client.build().map_err(|error| crate::chain(&error))?;
    // The body is not read: only the status counts. The request itself is made inside, where its timer has a clock.
    let answer = runtime.block_on(async { client.get(url).send().await });
    let answer = answer.map_err(|error| crate::chain(&error))?;
    Ok(Finding::Status(answer.status().as_u16()))
}

/// Runs a command inside a container until it ends, or its time does.
async fn run(
    containers: &dyn Containers,
    container: &ContainerId,
    info: CommandInfo,
    timeout: Option<Duration>,
) -> Result<Finding, Why> {
    let words = |error: tepui_containerizer::Error| error.to_string();
    let name = format!("check-{}", uuid::Uuid::new_v4());
    let command = Command {
        shell: info.shell(),
        value: info.value().to_owned(),
        arguments: info.arguments,
    };
    let mut config = containers
        .inside(container, &name, command)
        .map_err(words)?;
    let own = info.environment.into_iter().flat_map(|own| own.variables);
    let own = own.filter(|own| own.r#type() == variable::Type::Value);
    config
        .environment
        .extend(own.map(|own| (own.name, own.value.unwrap_or_default())));
    let id = config.id.clone();
    let running = async {
        let launched = containers.launch(config).await;
        launched.map_err(|error| error.to_string())?;
        containers.wait(&id).await.map_err(words)
    };
    let ended = match timeout {
        None => running.await,
        Some(timeout) => match tokio::time::timeout(timeout, running).await {
            Ok(ended) => ended,
            Err(_) => {
                let destroyed = containers.destroy(&id).await;
                destroyed.map_err(words).and_then(|_| {
                    let secs = timeout.as_secs_f64();
                    Err(format!("a command was not over after {secs} s"))
                })
            }
        },
    };
    clean(containers, &id).await;
    match ended?.exit {
        Exit::Status(status) => Ok(Finding::Ended(status)),
        Exit::NeverStarted | Exit::Vanished => Err("a command was not run".to_owned()),
    }
}

/// Forgets the container of a command, and removes its sandbox: there is one for each check.
async fn clean(containers: &dyn Containers, id: &ContainerId) {
    // One that was not admitted has none.
    let sandbox = containers.sandbox(id);
    if let Err(error) = containers.forget(id) {
        tracing::debug!(container = %id, %error, "the container of a check is not forgotten");
    }
    let removed =
        tokio::task::spawn_blocking(move || sandbox.map_or(Ok(()), |sandbox| sandbox.remove()))
            .await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(container = %id, %error, "the sandbox of a check is not removed");
    }
}
