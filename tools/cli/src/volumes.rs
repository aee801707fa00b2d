//! `tepui volumes`: persistent volumes on the reserved disk of agents.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use serde_json::json;
use tepui_host::value::parse_bytes;
use tepui_model::id::Principal;
use tepui_model::resources::{Name, Persistence, Scalar, Volume};
use tepui_model::{Resource, Resources};
use tepui_proto::v1::master::call::{self, Type};
use tepui_proto::v1::master::{Call, response::get_agents};
use tepui_proto::{convert, v1};

use crate::client::{Master, MasterArg, id_of};
use crate::show::{ListArgs, print, to_json};
use crate::stack::Reserved;
use crate::table::Table;

/// List, create, resize and destroy persistent volumes
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// List the volumes of all agents
    List(ListArgs),
    Create(CreateArgs),
    /// Destroy a volume and all that is in it
    Destroy(OneArgs),
    /// Make a volume larger, by disk that its role has reserved there
    Grow(ResizeArgs),
    /// Make a volume smaller; its role keeps the disk
    Shrink(ResizeArgs),
}

/// Create a volume on disk that is reserved to its role
#[derive(clap::Args)]
struct CreateArgs {
    #[command(flatten)]
    volume: OneArgs,
    #[command(flatten)]
    reserved: Reserved,
    /// How large it is, such as 512MB or 10GB
    #[arg(long, value_parser = size)]
    size: Scalar,
    /// Where tasks find it in their sandbox [default: its id]
    #[arg(long)]
    path: Option<String>,
    /// Several tasks may use it at the same time
    #[arg(long)]
    shared: bool,
}

#[derive(clap::Args)]
struct OneArgs {
    #[command(flatten)]
    master: MasterArg,
    /// The agent: its id, the end of one (S0), its host name or its address
    agent: String,
    /// Id of the volume
    id: String,
}

#[derive(clap::Args)]
struct ResizeArgs {
    #[command(flatten)]
    volume: OneArgs,
    /// By how much, such as 512MB or 10GB
    #[arg(long, value_parser = size)]
    by: Scalar,
}

/// An amount of disk: resources count in MB.
fn size(text: &str) -> Result<Scalar, String> {
    let bytes = parse_bytes(text).map_err(|error| error.to_string())?;
    match bytes {
        0 => Err("expected more than nothing".to_owned()),
        bytes => Ok(Scalar::from_f64(bytes as f64 / f64::from(1 << 20))),
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    crate::block_on(async {
        match args.command {
            Sub::List(args) => list(&args).await,
            Sub::Create(args) => create(&args).await,
            Sub::Destroy(args) => destroy(&args).await,
            Sub::Grow(args) => grow(&args).await,
            Sub::Shrink(args) => shrink(&args).await,
        }
    })
}

async fn list(args: &ListArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    let mut table = Table::new(["AGENT", "VOLUME", "ROLE", "MB", "PATH", "SHARED", "USED"]);
    let mut all = Vec::new();
    for agent in master.agents().await? {
        let used = total(&agent.allocated_resources)?.persistent_volumes();
        for volume in total(&agent.total_resources)?.persistent_volumes().iter() {
            let yes_or_no = |yes| if yes { "yes" } else { "no" }.to_owned();
            let is_used = used.iter().any(|one| id_in(one) == id_in(volume));
            let path = volume.disk().and_then(|disk| disk.volume.as_ref());
            table.row([
                id_of(&agent),
                id_in(volume).unwrap_or_default().to_owned(),
                volume
                    .reservation_role()
                    .map_or_else(String::new, ToString::to_string),
                volume.amount().unwrap_or_default().to_string(),
                path.map_or_else(String::new, |path| path.container_path.to_string()),
                yes_or_no(volume.is_shared()),
                yes_or_no(is_used),
            ]);
            let shown = to_json(&v1::Resource::from(volume))?;
            all.push(
                json!({"agent_id": {"value": id_of(&agent)}, "volume": shown, "used": is_used}),
            );
        }
    }
    print(if args.json {
        serde_json::to_string_pretty(&all)?
    } else {
        table.to_string()
    })
}

fn total(resources: &[v1::Resource]) -> Result<Resources> {
    Ok(convert::resources(resources)
        .context("resources of the agent")?
        .unallocate())
}

/// The id of a persistent volume.
fn id_in(volume: &Resource) -> Option<&str> {
    let disk = volume.disk()?;
    Some(&disk.persistence.as_ref()?.id)
}

async fn create(args: &CreateArgs) -> Result<ExitCode> {
    let master = args.volume.master.client()?;
    let agent = master.find_agent(&args.volume.agent).await?;
    let wanted = Resource::scalar(Name::DISK, args.size);
    let disk = args
        .reserved
        .part(&total(&agent.total_resources)?, &wanted)?;
    let volume = made_of(disk, args);
    let call = call::CreateVolumes {
        agent_id: agent.agent_info.id.clone().unwrap_or_default(),
        volumes: vec![(&volume).into()],
    };
    let call = Call {
        r#type: Some(Type::CreateVolumes.into()),
        create_volumes: Some(call),
        ..Call::default()
    };
    master.call(&call).await?;
    print(format!("created on {}: {volume}", id_of(&agent)))
}

/// The volume on this disk. Its principal is the one who reserved the disk.
fn made_of(reserved: Resource, args: &CreateArgs) -> Resource {
    let principal: Option<Principal> = reserved
        .reservations()
        .last()
        .and_then(|top| top.principal.clone());
    let mut disk = reserved.disk().cloned().unwrap_or_default();
    disk.persistence = Some(Persistence {
        id: args.volume.id.as_str().into(),
        principal,
    });
    disk.volume = Some(Volume {
        container_path: args.path.as_deref().unwrap_or(&args.volume.id).into(),
        host_path: None,
        read_only: false,
    });
    reserved.with_disk(Some(disk)).with_shared(args.shared)
}

/// The agent and the volume that are meant.
async fn find(master: &Master, args: &OneArgs) -> Result<(get_agents::Agent, Resource)> {
    let agent = master.find_agent(&args.agent).await?;
    let volumes = total(&agent.total_resources)?.persistent_volumes();
    let found: Vec<&Resource> = volumes
        .iter()
        .filter(|volume| id_in(volume) == Some(&args.id))
        .collect();
    match found[..] {
        [volume] => Ok((agent, volume.clone())),
        [] => bail!(
            "no volume {:?} on {}: `tepui volumes list` has them all",
            args.id,
            id_of(&agent)
        ),
        // Ids are unique within a role only.
        _ => bail!(
            "volumes of several roles on {} have the id {:?}",
            id_of(&agent),
            args.id
        ),
    }
}

async fn destroy(args: &OneArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    let (agent, volume) = find(&master, args).await?;
    let call = call::DestroyVolumes {
        agent_id: agent.agent_info.id.clone().unwrap_or_default(),
        volumes: vec![(&volume).into()],
    };
    let call = Call {
        r#type: Some(Type::DestroyVolumes.into()),
        destroy_volumes: Some(call),
        ..Call::default()
    };
    master.call(&call).await?;
    print(format!("destroyed on {}: {volume}", id_of(&agent)))
}

async fn grow(args: &ResizeArgs) -> Result<ExitCode> {
    let master = args.volume.master.client()?;
    let (agent, volume) = find(&master, &args.volume).await?;
    let call = call::GrowVolume {
        agent_id: agent.agent_info.id.clone(),
        volume: (&volume).into(),
        addition: (&without_volume(volume.clone()).with_amount(args.by)).into(),
    };
    let call = Call {
        r#type: Some(Type::GrowVolume.into()),
        grow_volume: Some(call),
        ..Call::default()
    };
    master.call(&call).await?;
    let now = volume.amount().unwrap_or_default() + args.by;
    print(format!(
        "volume {} on {} has {now} MB now",
        args.volume.id,
        id_of(&agent)
    ))
}

/// The disk that a volume is made of.
fn without_volume(volume: Resource) -> Resource {
    let disk = volume.disk().cloned().unwrap_or_default();
    let plain = disk.source.is_some().then(|| tepui_model::resources::Disk {
        source: disk.source.clone(),
        ..Default::default()
    });
    volume.with_disk(plain).with_shared(false)
}

async fn shrink(args: &ResizeArgs) -> Result<ExitCode> {
    let master = args.volume.master.client()?;
    let (agent, volume) = find(&master, &args.volume).await?;
    let call = call::ShrinkVolume {
        agent_id: agent.agent_info.id.clone(),
        volume: (&volume).into(),
        subtract: v1::value::Scalar {
            value: args.by.to_f64(),
        },
    };
    let call = Call {
        r#type: Some(Type::ShrinkVolume.into()),
        shrink_volume: Some(call),
        ..Call::default()
    };
    master.call(&call).await?;
    let now = volume.amount().unwrap_or_default() - args.by;
    print(format!(
        "volume {} on {} has {now} MB now",
        args.volume.id,
        id_of(&agent)
    ))
}
