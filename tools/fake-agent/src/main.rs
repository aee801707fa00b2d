//! Many agents in one process, without containers, over the real agent link: what a master of a
//! large cluster has at its other end. Says on its standard output when all are registered, and
//! again each time that all are back after a master was gone.

mod agent;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tepui_http::Client;
use tepui_link::{AgentEnd, AgentEvent, AgentSession, AgentSettings, AgentUpdate};
use tepui_proto::convert;
use tepui_proto::link::refuse::Code;
use tokio::sync::{Notify, mpsc};

use crate::agent::FakeAgent;

/// Events of a connection that wait before it is not read any more.
const INBOX: usize = 256;

/// Files that are needed beside the connections.
const SPARE_FILES: usize = 64;

/// Wait before a connection is tried again, spread so that not all come at once.
const RETRY: Duration = Duration::from_millis(200);

/// What stands for thousands of machines should take as little as it can of this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "tepui-fake-agent",
    about = "Many agents without containers, over the real agent link",
    long_about = "Many agents without containers, over the real agent link. A task whose command is \
                  `true` ends at once with TASK_FINISHED; any other runs until it is killed."
)]
struct Cli {
    /// The master
    #[arg(long, value_name = "HOST:PORT")]
    master: String,
    /// How many agents
    #[arg(long, default_value_t = 100)]
    agents: usize,
    /// How many of them share a connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    per_connection: u32,
    /// What each of them has, as `tepui-agent --resources` takes it
    #[arg(
        long,
        default_value = "cpus:32;mem:131072;disk:1048576;ports:[31000-32000]"
    )]
    resources: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let resources = convert::parse_resources(&cli.resources, "*").context("--resources")?;
    let resources = convert::to_proto(&resources);
    let per_connection = cli.per_connection as usize;
    allow_files(cli.agents.div_ceil(per_connection) + SPARE_FILES)?;

    let mut agents = (0..cli.agents).map(|n| {
        // Address and host name tell agents apart; nothing listens there.
        let port = u16::try_from(n % 60_000 + 5_000).expect("below 65,536");
        FakeAgent::new(format!("fake-{n}"), port, resources.clone())
    });
    let registered = Arc::new(Registered::default());
    for _ in 0..cli.agents.div_ceil(per_connection) {
        let own = agents.by_ref().take(per_connection).collect();
        let client = Client::new(&cli.master)?;
        tokio::spawn(serve(client, own, registered.clone()));
    }
    tokio::select! {
        never = report(&registered, cli.agents) => never,
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
    }
}

/// Lets this process open so many files.
fn allow_files(needed: usize) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = needed as u64;
    ensure!(
        needed <= hard,
        "{needed} open files are needed and the system allows {hard}: raise the hard limit \
         (`ulimit -Hn`) or let more agents share a connection (--per-connection)"
    );
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.max(needed), hard)?)
}

/// How many agents are registered now.
#[derive(Default)]
struct Registered {
    count: AtomicUsize,
    changed: Notify,
    attempts: AtomicU64,
}

impl Registered {
    /// A number greater than those before it.
    fn attempt(&self) -> u64 {
        self.attempts.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
    }

    fn remove(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// Says when all agents are there, how long that took, and when they are lost.
async fn report(registered: &Registered, all: usize) -> Result<()> {
    let mut begun = Instant::now();
    let mut complete = false;
    loop {
        registered.changed.notified().await;
        let count = registered.count.load(Ordering::Relaxed);
        if count == all && !complete {
            let seconds = begun.elapsed().as_secs_f64();
            println!("registered {all} agents in {seconds:.3} s");
            complete = true;
        } else if count < all && complete {
            println!("disconnected");
            complete = false;
            begun = Instant::now();
        }
    }
}

/// Keeps the agents of one connection registered.
async fn serve(client: Client, mut agents: Vec<FakeAgent>, registered: Arc<Registered>) {
    loop {
        // A master that is not there is what this is for.
        let _ = connection(&client, &mut agents, &registered).await;
        tokio::time::sleep(RETRY.mul_f64(0.5 + fastrand::f64())).await;
    }
}

/// One connection, until it ends. A session that the master ends or refuses is opened anew.
async fn connection(
    client: &Client,
    agents: &mut [FakeAgent],
    registered: &Registered,
) -> Result<()> {
    let upgrade = client.upgrade(tepui_link::PATH, tepui_link::UPGRADE, &[]);
    let (inbox, mut events) = mpsc::channel(INBOX);
    let (end, run) = AgentEnd::start(upgrade.await?, AgentSettings::default(), inbox);
    tokio::spawn(run);
    let mut sessions = Sessions::default();
    let mut closed: Vec<usize> = (0..agents.len()).collect();
    let mut wait = Duration::ZERO;
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = tokio::time::sleep(wait), if !closed.is_empty() => {
                for index in closed.drain(..) {
                    let session = end.open(agents[index].hello(registered.attempt()));
                    sessions.open.insert(session.number(), (index, session));
                }
                wait = RETRY;
                continue;
            }
        };
        let Some(AgentEvent { session, event }) = event else {
            break;
        };
        let Some((index, link)) = sessions.open.get(&session) else {
            continue;
        };
        let agent = &mut agents[*index];
        match event {
            AgentUpdate::Welcome(welcome) => {
                // An error means that the session is over, which the next event says.
                let _ = link.sync(agent.welcome(&welcome));
                if let Some(pending) = agent.pending() {
                    let _ = link.send(pending);
                }
                sessions.welcomed.insert(session);
                registered.add();
            }
            AgentUpdate::Command(command) => {
                if let Some(answer) = agent.command(*command) {
                    let _ = link.send(answer);
                }
            }
            // Many that come at once are asked to come back.
            AgentUpdate::Refused(refuse) if refuse.code() == Code::Busy => {}
            AgentUpdate::Refused(refuse) => eprintln!("{}", refuse.reason),
            AgentUpdate::Closed(_) => {
                closed.push(*index);
                sessions.open.remove(&session);
                if sessions.welcomed.remove(&session) {
                    registered.remove();
                }
            }
        }
    }
    Ok(())
}

/// The sessions of a connection.
#[derive(Default)]
struct Sessions {
    /// By number: which agent's, and the way to the master.
    open: BTreeMap<u32, (usize, AgentSession)>,
    /// Those that the master took.
    welcomed: BTreeSet<u32>,
}
