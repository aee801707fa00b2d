//! `tepui maintenance`: which machines are going down when, and taking them down and up.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use tepui_proto::v1::allocator::InverseOfferStatus;
use tepui_proto::v1::maintenance::{ClusterStatus, Schedule, Window};
use tepui_proto::v1::master::Call;
use tepui_proto::v1::master::call::{self, Type};
use tepui_proto::{json, v1};

use crate::client::{self, Master, MasterArg};
use crate::show::{ListArgs, print};
use crate::table::Table;
use crate::when::{self, At, Span};

/// Schedule the maintenance of machines, and take them down and up
///
/// A machine is HOSTNAME/IP, as the lists show it; or an agent on it, by its id, the end of it (S0) or its host name.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// List the machines that are scheduled for maintenance, and when
    Show(ListArgs),
    /// List the machines that drain or are down, and what frameworks answered
    Status(ListArgs),
    Schedule(ScheduleArgs),
    /// Take machines off the schedule that are not down
    Unschedule(MachinesArgs),
    /// Take scheduled machines down: their agents are told to end
    Down(MachinesArgs),
    /// Let machines that are down come back; they are off the schedule then
    Up(MachinesArgs),
}

#[derive(clap::Args)]
struct MachinesArgs {
    #[command(flatten)]
    master: MasterArg,
    /// The machines
    #[arg(required = true, value_name = "MACHINE")]
    machines: Vec<String>,
}

/// Put machines on the schedule: frameworks are asked to leave them by then
///
/// A machine that is on the schedule already gets the new time.
#[derive(clap::Args)]
struct ScheduleArgs {
    #[command(flatten)]
    master: MasterArg,
    /// The machines
    #[arg(required_unless_present = "file", value_name = "MACHINE")]
    machines: Vec<String>,
    /// When it begins: now, +2h, 2026-11-30T22:00:00Z, '2026-11-30 22:00'
    #[arg(long, required_unless_present = "file", value_name = "TIME")]
    start: Option<At>,
    /// How long it takes, such as 90m [default: for ever]
    #[arg(long, value_name = "DURATION")]
    duration: Option<Span>,
    /// Replace the whole schedule by the one in this JSON file, as /maintenance/schedule has it; - is standard input
    #[arg(long, conflicts_with_all = ["machines", "start", "duration"])]
    file: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    crate::block_on(async {
        match args.command {
            Sub::Show(args) => show(&args).await,
            Sub::Status(args) => status(&args).await,
            Sub::Schedule(args) => schedule(args).await,
            Sub::Unschedule(args) => unschedule(&args).await,
            Sub::Down(args) => down(&args).await,
            Sub::Up(args) => up(&args).await,
        }
    })
}

async fn show(args: &ListArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    if args.json {
        return print(master.ask_json(Type::GetMaintenanceSchedule).await?);
    }
    let mut table = Table::new(["MACHINE", "START", "DURATION"]);
    for window in scheduled(&master).await?.windows {
        let duration = window.unavailability.duration.as_ref();
        let duration = duration.map_or("for ever".to_owned(), |span| {
            when::show_span(span.nanoseconds)
        });
        for machine in &window.machine_ids {
            let start = when::show(window.unavailability.start.nanoseconds);
            table.row([name(machine), start, duration.clone()]);
        }
    }
    print(table.to_string())
}

async fn status(args: &ListArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    if args.json {
        return print(master.ask_json(Type::GetMaintenanceStatus).await?);
    }
    let status = cluster_status(&master).await?;
    let mut table = Table::new(["MACHINE", "MODE", "ANSWERS"]);
    for machine in &status.draining_machines {
        let answers = machine.statuses.iter().map(answer);
        let answers = answers.collect::<Vec<_>>().join(", ");
        table.row([name(&machine.id), "draining".to_owned(), answers]);
    }
    for machine in &status.down_machines {
        table.row([name(machine), "down".to_owned(), String::new()]);
    }
    print(table.to_string())
}

/// `accepted by ID at TIME`
fn answer(status: &InverseOfferStatus) -> String {
    use tepui_proto::v1::allocator::inverse_offer_status::Status;
    let said = match status.status() {
        Status::Accept => "accepted by",
        Status::Decline => "declined by",
        Status::Unknown => "no answer of",
    };
    let at = when::show(status.timestamp.nanoseconds);
    format!("{said} {} at {at}", status.framework_id.value)
}

async fn schedule(args: ScheduleArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    if let Some(file) = &args.file {
        let new = read(file).with_context(|| format!("--file {}", file.display()))?;
        let count: usize = new
            .windows
            .iter()
            .map(|window| window.machine_ids.len())
            .sum();
        set(&master, new).await?;
        return print(format!("the schedule has {count} machines now"));
    }
    let start = args.start.expect("clap wants a start or a file");
    let known = Known::ask(&master).await?;
    let machines = known.find_all(&args.machines)?;
    let mut new = known.schedule;
    remove(&mut new, &machines);
    let unavailability = v1::Unavailability {
        start: start.to_proto(),
        duration: args.duration.map(Span::to_proto),
    };
    let text = format!(
        "scheduled for {}",
        when::show(unavailability.start.nanoseconds)
    );
    new.windows.push(Window {
        machine_ids: machines.clone(),
        unavailability,
    });
    set(&master, new).await?;
    tell(&machines, &text)
}

async fn unschedule(args: &MachinesArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    let known = Known::ask(&master).await?;
    let machines = known.find_all(&args.machines)?;
    let mut new = known.schedule;
    for machine in &machines {
        if !new
            .windows
            .iter()
            .any(|window| window.machine_ids.contains(machine))
        {
            bail!(
                "{} is not on the schedule: `tepui maintenance show` has it",
                name(machine)
            );
        }
    }
    remove(&mut new, &machines);
    set(&master, new).await?;
    tell(&machines, "off the schedule")
}

async fn down(args: &MachinesArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    let machines = Known::ask(&master).await?.find_all(&args.machines)?;
    let start = call::StartMaintenance {
        machines: machines.clone(),
    };
    let call = Call {
        r#type: Some(Type::StartMaintenance.into()),
        start_maintenance: Some(start),
        ..Call::default()
    };
    master.call(&call).await?;
    tell(&machines, "down")
}

async fn up(args: &MachinesArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    let machines = Known::ask(&master).await?.find_all(&args.machines)?;
    let stop = call::StopMaintenance {
        machines: machines.clone(),
    };
    let call = Call {
        r#type: Some(Type::StopMaintenance.into()),
        stop_maintenance: Some(stop),
        ..Call::default()
    };
    master.call(&call).await?;
    tell(&machines, "up")
}

fn tell(machines: &[v1::MachineId], what: &str) -> Result<ExitCode> {
    for machine in machines {
        say!("{} is {what}", name(machine));
    }
    Ok(ExitCode::SUCCESS)
}

async fn scheduled(master: &Master) -> Result<Schedule> {
    let answer = master.ask(Type::GetMaintenanceSchedule).await?;
    Ok(answer.get_maintenance_schedule.unwrap_or_default().schedule)
}

async fn cluster_status(master: &Master) -> Result<ClusterStatus> {
    let answer = master.ask(Type::GetMaintenanceStatus).await?;
    Ok(answer.get_maintenance_status.unwrap_or_default().status)
}

async fn set(master: &Master, schedule: Schedule) -> Result<()> {
    let call = Call {
        r#type: Some(Type::UpdateMaintenanceSchedule.into()),
        update_maintenance_schedule: Some(call::UpdateMaintenanceSchedule { schedule }),
        ..Call::default()
    };
    master.call(&call).await.map(drop)
}

fn read(file: &Path) -> Result<Schedule> {
    let text = match file.to_str() {
        Some("-") => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text)?;
            text
        }
        _ => std::fs::read(file)?,
    };
    Ok(json::to_message(&text)?)
}

/// Takes machines out of all windows; windows without machines go.
fn remove(schedule: &mut Schedule, machines: &[v1::MachineId]) {
    for window in &mut schedule.windows {
        window
            .machine_ids
            .retain(|machine| !machines.contains(machine));
    }
    schedule
        .windows
        .retain(|window| !window.machine_ids.is_empty());
}

/// `HOSTNAME/IP`, with what there is of both.
fn name(machine: &v1::MachineId) -> String {
    format!("{}/{}", machine.hostname(), machine.ip())
}

/// What machines can be named by.
struct Known {
    schedule: Schedule,
    down: Vec<v1::MachineId>,
    /// Machines with the ids of the agents on them.
    agents: Vec<(v1::MachineId, String)>,
}

impl Known {
    async fn ask(master: &Master) -> Result<Self> {
        let agents = master.agents().await?;
        let machine = |agent| {
            let ip = client::address_of(agent)
                .rsplit_once(':')
                .map(|(ip, _)| ip.to_owned());
            let id = v1::MachineId {
                hostname: Some(agent.agent_info.hostname.clone()),
                ip,
            };
            (id, client::id_of(agent))
        };
        Ok(Self {
            schedule: scheduled(master).await?,
            down: cluster_status(master).await?.down_machines,
            agents: agents.iter().map(machine).collect(),
        })
    }

    fn find_all(&self, wanted: &[String]) -> Result<Vec<v1::MachineId>> {
        wanted.iter().map(|wanted| self.find(wanted)).collect()
    }

    /// The machine of this name. `HOSTNAME/IP` need not be known: its agent may come later.
    fn find(&self, wanted: &str) -> Result<v1::MachineId> {
        if let Some((hostname, ip)) = wanted.split_once('/') {
            let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            return Ok(v1::MachineId {
                hostname: part(hostname),
                ip: part(ip),
            });
        }
        let windows = self.schedule.windows.iter();
        let named = windows
            .flat_map(|window| &window.machine_ids)
            .chain(&self.down);
        let named = named.filter(|id| id.hostname() == wanted || id.ip() == wanted);
        let with_agent = self.agents.iter().filter(|(id, agent)| {
            id.hostname() == wanted || id.ip() == wanted || client::is_named(agent, wanted)
        });
        let mut found: Vec<&v1::MachineId> = with_agent.map(|(id, _)| id).chain(named).collect();
        found.sort_by_key(|id| name(id));
        found.dedup();
        match found[..] {
            [one] => Ok(one.clone()),
            [] => {
                bail!("no machine or agent {wanted:?}: name machines without agents as HOSTNAME/IP")
            }
            _ => {
                let names: Vec<String> = found.into_iter().map(name).collect();
                bail!("{wanted:?} is one of several: {}", names.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(hostname: &str, ip: &str) -> v1::MachineId {
        v1::MachineId {
            hostname: Some(hostname.to_owned()),
            ip: Some(ip.to_owned()),
        }
    }

    fn window(machine_ids: Vec<v1::MachineId>) -> Window {
        Window {
            machine_ids,
            ..Default::default()
        }
    }

    #[test]
    fn machines_are_found_by_what_is_known_of_them() {
        let known = Known {
            schedule: Schedule {
                windows: vec![window(vec![id("a", "10.0.0.1")])],
            },
            down: vec![id("d", "10.0.0.4")],
            agents: vec![
                (id("a", "10.0.0.1"), "M-S0".to_owned()),
                (id("b", "10.0.0.2"), "M-S1".to_owned()),
                (id("b", "10.0.0.3"), "M-S2".to_owned()),
            ],
        };
        let find = |text: &str| known.find(text).map_err(|error| error.to_string());
        assert_eq!(find("a"), Ok(id("a", "10.0.0.1")));
        assert_eq!(find("S0"), Ok(id("a", "10.0.0.1")));
        assert_eq!(find("10.0.0.2"), Ok(id("b", "10.0.0.2")));
        assert_eq!(find("d"), Ok(id("d", "10.0.0.4")));
        assert_eq!(find("new/10.1.1.1"), Ok(id("new", "10.1.1.1")));
        let ip_only = v1::MachineId {
            hostname: None,
            ip: Some("10.1.1.1".to_owned()),
        };
        assert_eq!(find("/10.1.1.1"), Ok(ip_only));
        let several = find("b").expect_err("two machines");
        assert!(several.contains("b/10.0.0.2, b/10.0.0.3"), "{several}");
        let unknown = find("c").expect_err("no machine");
        assert!(unknown.contains("HOSTNAME/IP"), "{unknown}");
    }

    #[test]
    fn machines_leave_their_windows_and_empty_windows_go() {
        let (a, b, c) = (id("a", "1"), id("b", "2"), id("c", "3"));
        let mut schedule = Schedule {
            windows: vec![window(vec![a.clone(), b.clone()]), window(vec![c.clone()])],
        };
        remove(&mut schedule, &[b, c]);
        assert_eq!(schedule.windows, [window(vec![a])]);
    }
}
