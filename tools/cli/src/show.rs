//! `tepui tasks`, `agents`, `frameworks` and `teardown`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use tepui_proto::descriptor::Described;
use tepui_proto::json;
use tepui_proto::v1::{self, master};

use crate::client::{Master, MasterArg, address_of, id_of};
use crate::table::Table;

/// What all lists take.
#[derive(clap::Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) master: MasterArg,
    /// Print the answer of the operator API instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// `tepui tasks`
#[derive(clap::Args)]
pub(crate) struct TasksArgs {
    #[command(flatten)]
    list: ListArgs,
    /// Ended tasks, too
    #[arg(long, short)]
    all: bool,
}

/// `tepui inspect`
#[derive(clap::Args)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Id of the task
    task: String,
}

/// `tepui teardown`
#[derive(clap::Args)]
pub(crate) struct TeardownArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Id of the framework, or the end of one that no other has
    framework: String,
}

/// Lists tasks.
pub(crate) fn tasks(args: TasksArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.list.master.client()?;
        if args.list.json {
            return print(master.ask_json(master::call::Type::GetTasks).await?);
        }
        let tasks = master.tasks().await?;
        let mut table = task_table();
        let ended = tasks.completed_tasks.iter().filter(|_| args.all);
        let live = tasks
            .tasks
            .iter()
            .filter(|task| args.all || !task.state().is_terminal());
        for task in live.chain(&tasks.unreachable_tasks).chain(ended) {
            task_row(&mut table, task);
        }
        print(table.to_string())
    })
}

/// The table that tasks are listed in.
pub(crate) fn task_table() -> Table<7> {
    Table::new(["TASK", "NAME", "STATE", "CPUS", "MEM", "FRAMEWORK", "AGENT"])
}

/// A row of it.
pub(crate) fn task_row(table: &mut Table<7>, task: &v1::Task) {
    table.row([
        task.task_id.value.clone(),
        task.name.clone(),
        task.state().as_str_name().to_owned(),
        scalar(&task.resources, "cpus"),
        scalar(&task.resources, "mem"),
        task.framework_id.value.clone(),
        task.agent_id.value.clone(),
    ]);
}

/// Prints all that the master knows of a task, as JSON.
pub(crate) fn inspect(args: InspectArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let task = args.master.client()?.task(&args.task).await?;
        print_message(&task)
    })
}

/// Lists agents.
pub(crate) fn agents(args: ListArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        if args.json {
            return print(master.ask_json(master::call::Type::GetAgents).await?);
        }
        let mut table = Table::new([
            "AGENT", "HOSTNAME", "ADDRESS", "STATE", "CPUS", "MEM", "DISK",
        ]);
        for agent in master.agents().await? {
            let of = |name: &str| {
                format!(
                    "{}/{}",
                    scalar(&agent.allocated_resources, name),
                    scalar(&agent.total_resources, name)
                )
            };
            table.row([
                id_of(&agent),
                agent.agent_info.hostname.clone(),
                address_of(&agent).to_owned(),
                crate::agent::state(&agent),
                of("cpus"),
                of("mem"),
                of("disk"),
            ]);
        }
        print(table.to_string())
    })
}

/// Lists frameworks.
pub(crate) fn frameworks(args: ListArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        if args.json {
            return print(master.ask_json(master::call::Type::GetFrameworks).await?);
        }
        let mut table = Table::new(["FRAMEWORK", "NAME", "USER", "ROLES", "STATE"]);
        for framework in master.frameworks().await?.frameworks {
            let state = match (framework.connected, framework.active) {
                (true, true) => "active",
                (true, false) => "inactive",
                (false, _) => "disconnected",
            };
            let info = framework.framework_info;
            let roles = if info.roles.is_empty() {
                info.role().to_owned()
            } else {
                info.roles.join(",")
            };
            table.row([
                info.id.map(|id| id.value).unwrap_or_default(),
                info.name,
                info.user,
                roles,
                state.to_owned(),
            ]);
        }
        print(table.to_string())
    })
}

/// Ends a framework and its tasks.
pub(crate) fn teardown(args: TeardownArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        let id = find_framework(&master, &args.framework).await?;
        let call = master::Call {
            r#type: Some(master::call::Type::Teardown.into()),
            teardown: Some(master::call::Teardown {
                framework_id: id.clone(),
            }),
            ..Default::default()
        };
        master.call(&call).await?;
        print(format!("framework {} is torn down", id.value))
    })
}

async fn find_framework(master: &Master, wanted: &str) -> Result<v1::FrameworkId> {
    let known = master.frameworks().await?.frameworks;
    let ids: Vec<_> = known
        .into_iter()
        .filter_map(|framework| framework.framework_info.id)
        .collect();
    if let Some(id) = ids.iter().find(|id| id.value == wanted) {
        return Ok(id.clone());
    }
    let mut matching = ids.into_iter().filter(|id| id.value.ends_with(wanted));
    match (matching.next(), matching.next()) {
        (Some(id), None) => Ok(id),
        (Some(_), Some(_)) => {
            bail!("{wanted:?} is the end of more than one framework's id: give more of it")
        }
        _ => bail!("no framework {wanted:?} at this master: `tepui frameworks` lists them"),
    }
}

/// Sum of a scalar resource, as short as it can be written.
fn scalar(resources: &[v1::Resource], name: &str) -> String {
    let sum: f64 = resources
        .iter()
        .filter(|r| r.name == name)
        .filter_map(|r| r.scalar.as_ref())
        .map(|s| s.value)
        .sum();
    // The empty sum of floats is -0.0.
    let text = format!("{:.3}", sum + 0.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A message of the API as JSON.
pub(crate) fn to_json(message: &impl Described) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&json::from_message(message))?)
}

/// Prints a message of the API as JSON, for people.
pub(crate) fn print_message(message: &impl Described) -> Result<ExitCode> {
    print(serde_json::to_string_pretty(&to_json(message)?)?)
}

/// Prints what a command answers.
pub(crate) fn print(text: String) -> Result<ExitCode> {
    say!("{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}
