//! Measures a real cluster over its real protocols. Each command prints what it did and the figures;
//! docs/PERFORMANCE.md keeps them.

mod calls;
mod cluster;
mod framework;
mod http;
mod large;
mod rate;
mod reading;
mod single;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// The measuring side must not be what is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(
    name = "tepui-loadgen",
    about = "Measures a Tepui cluster",
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Measurement,
}

#[derive(Subcommand)]
enum Measurement {
    /// P6: memory of an idle master, an idle agent, and of each running command task
    Memory {
        /// How many tasks to run at once
        #[arg(long, default_value_t = 100)]
        tasks: usize,
    },
    /// P7: from DECLINE with a filter of 0 until the next offers
    Turnaround {
        /// How many declines
        #[arg(long, default_value_t = 2000)]
        cycles: usize,
        /// Fake agents instead of the one real agent
        #[arg(long)]
        agents: Option<usize>,
    },
    /// P5b: `/bin/true` as often as this on one real agent, and a bare loop of the same beside it
    Rate {
        /// How many tasks
        #[arg(long, default_value_t = 2000)]
        tasks: usize,
        /// Has a shell start it, as most frameworks do, which is a program more
        #[arg(long)]
        shell: bool,
        /// Processors that each sets aside: the agent runs as many at once as it has room for
        #[arg(long, default_value_t = 0.01)]
        cpus: f64,
    },
    /// P8: from the start of `tepui local` until the first offer and the first running task
    Start {
        /// How many starts
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// P3, P5, P9: tasks on many fake agents, then `/master/state` and GET_STATE, alone and polled
    State {
        #[command(flatten)]
        size: Size,
        /// Who ask for `/master/state` again and again while the latency of calls is measured
        #[arg(long, default_value_t = 10)]
        pollers: usize,
    },
    /// P1: from the start of a new leader until all fake agents are back with their tasks
    Failover {
        #[command(flatten)]
        size: Size,
    },
    /// P10: processor time of the master for agents that are only there
    Idle {
        /// How many fake agents
        #[arg(long, default_value_t = 10_000)]
        agents: usize,
        /// How many of them share a connection
        #[arg(long, default_value_t = 4)]
        per_connection: usize,
    },
}

/// Size of a cluster of fake agents.
#[derive(Args, Clone, Copy)]
struct Size {
    /// How many fake agents
    #[arg(long, default_value_t = 1000)]
    agents: usize,
    /// How many of them share a connection
    #[arg(long, default_value_t = 4)]
    per_connection: usize,
    /// Running tasks on each
    #[arg(long, default_value_t = 10)]
    running: usize,
    /// Tasks on each that have finished
    #[arg(long, default_value_t = 10)]
    finished: usize,
    /// Labels of each task
    #[arg(long, default_value_t = 10)]
    labels: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Measurement::Memory { tasks } => single::memory(tasks).await,
        Measurement::Turnaround { cycles, agents } => single::turnaround(cycles, agents).await,
        Measurement::Rate { tasks, shell, cpus } => rate::rate(tasks, shell, cpus).await,
        Measurement::Start { runs } => single::start(runs).await,
        Measurement::State { size, pollers } => large::state(size, pollers).await,
        Measurement::Failover { size } => large::failover(size).await,
        Measurement::Idle {
            agents,
            per_connection,
        } => large::idle(agents, per_connection).await,
    }
}
