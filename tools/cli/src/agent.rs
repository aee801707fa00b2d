//! `tepui agent`: agents one by one, and out of service and back.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Subcommand;
use tepui_proto::v1::master::call::{self, Type};
use tepui_proto::v1::master::{Call, response::get_agents};
use tepui_proto::{convert, v1};

use crate::client::{Master, MasterArg, id_of};
use crate::doctor;
use crate::images;
use crate::several::Several;
use crate::show::{self, ListArgs, print, print_message};
use crate::when::{self, Span};

/// How often a draining agent is looked at.
const POLL: Duration = Duration::from_millis(300);

/// List, inspect, drain and remove agents, and look at this machine as one would
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// List agents, as `tepui agents` does
    List(ListArgs),
    Show(ShowArgs),
    Drain(DrainArgs),
    /// Offer nothing of agents any more; what runs there runs on
    Deactivate(SeveralArgs),
    /// Put agents back into service that were drained or deactivated
    Reactivate(SeveralArgs),
    Gone(GoneArgs),
    Doctor(doctor::Args),
    /// Images that an agent keeps
    #[command(subcommand)]
    Images(images::Command),
}

/// Print what the master knows of an agent, and what runs there
#[derive(clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Its id, the end of one (S0), its host name or its address
    agent: String,
    /// Print the agent as the operator API shows it
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct SeveralArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Ids, ends of ids (S0), host names or addresses
    #[arg(required = true, value_name = "AGENT")]
    agents: Vec<String>,
}

/// Take agents out of service: their tasks are killed, and nothing is offered of them
///
/// A drained agent stays out of service until `tepui agent reactivate`.
#[derive(clap::Args)]
struct DrainArgs {
    #[command(flatten)]
    several: SeveralArgs,
    /// How long tasks have to end at most, such as 5m; without it each task has its own time
    #[arg(long, value_name = "DURATION")]
    grace: Option<Span>,
    /// Mark the agents as gone when they are drained: they will never come back
    #[arg(long)]
    mark_gone: bool,
    /// Wait until all of them are drained; how far they are goes to stderr
    #[arg(long, short)]
    wait: bool,
    /// How long to wait at most; after that the exit status is 1, and the agents drain on
    #[arg(long, requires = "wait", value_name = "DURATION")]
    timeout: Option<Span>,
}

/// Mark agents as gone for ever: their tasks are reported gone, and they may not come back
///
/// For agents whose machines are lost. An agent that still runs ends, with all that runs on it.
#[derive(clap::Args)]
struct GoneArgs {
    #[command(flatten)]
    several: SeveralArgs,
    /// Yes, for ever: nothing is done without it
    #[arg(long)]
    yes: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Sub::List(args) => show::agents(args),
        Sub::Show(args) => show_one(args),
        Sub::Drain(args) => drain(args),
        Sub::Deactivate(args) => each(&args, "deactivated", |agent_id| Call {
            r#type: Some(Type::DeactivateAgent.into()),
            deactivate_agent: Some(call::DeactivateAgent { agent_id }),
            ..Call::default()
        }),
        Sub::Reactivate(args) => each(&args, "reactivated", |agent_id| Call {
            r#type: Some(Type::ReactivateAgent.into()),
            reactivate_agent: Some(call::ReactivateAgent { agent_id }),
            ..Call::default()
        }),
        Sub::Gone(args) => gone(&args),
        Sub::Doctor(args) => doctor::run(args),
        Sub::Images(command) => images::run(command),
    }
}

/// The same call for each of the agents.
fn each(args: &SeveralArgs, done: &str, call: impl Fn(v1::AgentId) -> Call) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        let mut outcome = Several::default();
        for wanted in &args.agents {
            let of_one = async {
                let id = master.agent_id(wanted).await?;
                master.call(&call(id.clone())).await?;
                Ok(format!("{} is {done}", id.value))
            };
            outcome.tell(wanted, of_one.await);
        }
        Ok(outcome.end())
    })
}

fn gone(args: &GoneArgs) -> Result<ExitCode> {
    if !args.yes {
        bail!("an agent that is marked gone never comes back: say --yes if that is meant");
    }
    each(&args.several, "gone", |agent_id| Call {
        r#type: Some(Type::MarkAgentGone.into()),
        mark_agent_gone: Some(call::MarkAgentGone { agent_id }),
        ..Call::default()
    })
}

fn show_one(args: ShowArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        let agent = master.find_agent(&args.agent).await?;
        if args.json {
            return print_message(&agent);
        }
        let tasks = master.tasks().await?.tasks;
        let here = tasks
            .iter()
            .filter(|task| Some(&task.agent_id) == agent.agent_info.id.as_ref());
        let mut table = show::task_table();
        let mut count = 0;
        for task in here.filter(|task| !task.state().is_terminal()) {
            show::task_row(&mut table, task);
            count += 1;
        }
        let tasks = if count == 0 {
            String::new()
        } else {
            format!("\n{table}")
        };
        print(format!("{}{tasks}", description(&agent)))
    })
}

fn description(agent: &get_agents::Agent) -> String {
    let resources = |of: &[v1::Resource]| {
        convert::resources(of).map_or_else(|error| error.to_string(), |all| all.to_string())
    };
    let time = |time: &Option<v1::TimeInfo>| {
        time.as_ref()
            .map_or_else(String::new, |time| when::show(time.nanoseconds))
    };
    let info = &agent.agent_info;
    let attributes = convert::attributes(&info.attributes);
    let lines = [
        ("id", id_of(agent)),
        ("hostname", info.hostname.clone()),
        ("address", crate::client::address_of(agent).to_owned()),
        ("version", agent.version.clone()),
        ("state", state(agent)),
        ("registered", time(&agent.registered_time)),
        ("came back", time(&agent.reregistered_time)),
        ("drained since", time(&agent.estimated_drain_start_time)),
        (
            "attributes",
            attributes.map_or_else(|error| error.to_string(), |all| all.to_string()),
        ),
        ("resources", resources(&agent.total_resources)),
        ("allocated", resources(&agent.allocated_resources)),
        ("offered", resources(&agent.offered_resources)),
    ];
    let shown = lines
        .iter()
        .filter(|(_, value)| !value.is_empty() && value != "{}");
    shown
        .map(|(name, value)| format!("{name:<14}{value}\n"))
        .collect()
}

/// In a word or two: `active`, `draining`, `drained`, `deactivated`, `disconnected`.
pub(crate) fn state(agent: &get_agents::Agent) -> String {
    let drain = agent.drain_info.as_ref().map(|info| info.state());
    match (drain, agent.deactivated(), agent.active) {
        (Some(v1::DrainState::Drained), ..) => "drained",
        (Some(_), ..) => "draining",
        (None, true, _) => "deactivated",
        (None, false, true) => "active",
        (None, false, false) => "disconnected",
    }
    .to_owned()
}

fn drain(args: DrainArgs) -> Result<ExitCode> {
    let grace = args
        .grace
        .map(|Span(grace)| prost_types::Duration::try_from(grace))
        .transpose()?;
    crate::block_on(async {
        let master = args.several.master.client()?;
        let (mut outcome, mut draining) = (Several::default(), Vec::new());
        for wanted in &args.several.agents {
            let of_one = async {
                let id = master.agent_id(wanted).await?;
                let drain_agent = call::DrainAgent {
                    agent_id: id.clone(),
                    max_grace_period: grace,
                    mark_gone: args.mark_gone.then_some(true),
                };
                let call = Call {
                    r#type: Some(Type::DrainAgent.into()),
                    drain_agent: Some(drain_agent),
                    ..Call::default()
                };
                master.call(&call).await?;
                Ok(id)
            };
            match of_one.await {
                Ok(id) if args.wait => draining.push(Draining { id, left: None }),
                Ok(id) => outcome.tell(wanted, Ok(format!("{} drains", id.value))),
                Err(error) => outcome.tell(wanted, Err(error)),
            }
        }
        let deadline = args
            .timeout
            .and_then(|Span(time)| Instant::now().checked_add(time));
        wait(&master, draining, args.mark_gone, deadline, &mut outcome).await?;
        Ok(outcome.end())
    })
}

/// An agent that is waited for, with how many tasks it had when that was last told.
struct Draining {
    id: v1::AgentId,
    left: Option<usize>,
}

/// Waits for all of them, and tells how many tasks each still has whenever that changes.
async fn wait(
    master: &Master,
    mut draining: Vec<Draining>,
    mark_gone: bool,
    deadline: Option<Instant>,
    outcome: &mut Several,
) -> Result<()> {
    while !draining.is_empty() {
        let agents = master.agents().await?;
        let tasks = master.tasks().await?.tasks;
        draining.retain_mut(|one| {
            let agent = agents
                .iter()
                .find(|agent| agent.agent_info.id.as_ref() == Some(&one.id));
            if let Some(end) = drained(&one.id.value, agent, mark_gone) {
                outcome.tell(&one.id.value, end);
                return false;
            }
            let here = tasks.iter().filter(|task| task.agent_id == one.id);
            let left = here.filter(|task| !task.state().is_terminal()).count();
            if one.left.replace(left) != Some(left) {
                let s = if left == 1 { "" } else { "s" };
                eprintln!("{} drains: {left} task{s} left", one.id.value);
            }
            true
        });
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            for one in draining.drain(..) {
                let late = anyhow::anyhow!("not drained in time; it drains on");
                outcome.tell(&one.id.value, Err(late));
            }
        }
        if !draining.is_empty() {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// How draining has ended; `None` if it goes on.
fn drained(id: &str, agent: Option<&get_agents::Agent>, mark_gone: bool) -> Option<Result<String>> {
    let Some(agent) = agent else {
        // One that is unreachable has nothing that could be waited for, either.
        return Some(match mark_gone {
            true => Ok(format!("{id} is drained and gone")),
            false => Err(anyhow::anyhow!(
                "it is not registered any more; it drains when it is back"
            )),
        });
    };
    match agent.drain_info.as_ref().map(|info| info.state()) {
        Some(v1::DrainState::Drained) if !mark_gone => Some(Ok(format!("{id} is drained"))),
        Some(_) => None,
        None => Some(Err(anyhow::anyhow!(
            "somebody has reactivated it meanwhile"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(drain: Option<v1::DrainState>) -> get_agents::Agent {
        get_agents::Agent {
            active: true,
            drain_info: drain.map(|state| v1::DrainInfo {
                state: state.into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn draining_ends_in_four_ways() {
        use v1::DrainState::{Drained, Draining};
        let end = |agent: Option<&get_agents::Agent>, gone| {
            drained("S0", agent, gone).map(|end| end.unwrap_or_else(|error| format!("! {error}")))
        };
        assert_eq!(end(Some(&agent(Some(Draining))), false), None);
        assert_eq!(end(Some(&agent(Some(Drained))), true), None);
        assert_eq!(
            end(Some(&agent(Some(Drained))), false).as_deref(),
            Some("S0 is drained")
        );
        assert_eq!(end(None, true).as_deref(), Some("S0 is drained and gone"));
        assert!(end(None, false).is_some_and(|text| text.starts_with("! it is not registered")));
        assert!(end(Some(&agent(None)), false).is_some_and(|text| text.contains("reactivated")));
        assert_eq!(state(&agent(Some(Draining))), "draining");
        assert_eq!(state(&agent(None)), "active");
    }
}
