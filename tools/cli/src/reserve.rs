//! `tepui reserve` and `unreserve`.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tepui_model::id::{Principal, Role};
use tepui_model::labels::{Label, Labels};
use tepui_model::resources::Reservation;
use tepui_model::{Resource, Resources};
use tepui_proto::convert;
use tepui_proto::v1::master::Call;
use tepui_proto::v1::master::call::{self, Type};

use crate::client::{MasterArg, id_of};
use crate::resources::resources;
use crate::show::print;
use crate::stack::Reserved;

/// Reserve resources of an agent to a role
///
/// It is done when the agent has written it down. Offers that hold the resources are taken back.
#[derive(clap::Args)]
pub(crate) struct ReserveArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Its id, the end of one (S0), its host name or its address
    agent: String,
    /// What is reserved, such as 'cpus:2;mem:512'; 'cpus(reservations: [(DYNAMIC,a)]):2' refines to a/b what a has
    #[arg(value_parser = resources)]
    resources: Resources,
    #[command(flatten)]
    reserved: Reserved,
    /// A label of the reservation; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<Label>,
}

/// Give back what was reserved to a role on an agent
///
/// Volumes on reserved disk are to be destroyed first. What tasks use is refused.
#[derive(clap::Args)]
pub(crate) struct UnreserveArgs {
    #[command(flatten)]
    master: MasterArg,
    /// Its id, the end of one (S0), its host name or its address
    agent: String,
    /// What is given back, such as 'cpus:2' [default: all that was reserved to the role by this call]
    #[arg(value_parser = resources)]
    resources: Option<Resources>,
    #[command(flatten)]
    reserved: Reserved,
}

fn label(text: &str) -> Result<Label, String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok(Label {
        key: key.into(),
        value: Some(value.into()),
    })
}

/// `tepui reserve`
pub(crate) fn reserve(args: ReserveArgs) -> Result<ExitCode> {
    let reservation = Reservation {
        role: Role::from(args.reserved.role.as_str()),
        dynamic: true,
        principal: args.reserved.principal.as_deref().map(Principal::from),
        labels: (!args.labels.is_empty()).then(|| Labels(args.labels.clone())),
    };
    let reserved: Resources = args
        .resources
        .iter()
        .map(|resource| resource.clone().push_reservation(reservation.clone()))
        .collect();
    crate::block_on(async {
        let master = args.master.client()?;
        let agent_id = master.agent_id(&args.agent).await?;
        let of = agent_id.value.clone();
        let call = Call {
            r#type: Some(Type::ReserveResources.into()),
            reserve_resources: Some(call::ReserveResources {
                agent_id,
                source: Vec::new(),
                resources: convert::to_proto(&reserved),
            }),
            ..Call::default()
        };
        master.call(&call).await?;
        print(format!("reserved of {of}: {reserved}"))
    })
}

/// `tepui unreserve`
pub(crate) fn unreserve(args: UnreserveArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        let agent = master.find_agent(&args.agent).await?;
        let total = convert::resources(&agent.total_resources).context("resources of the agent")?;
        let back = match &args.resources {
            Some(wanted) => {
                let parts = wanted.iter().map(|one| args.reserved.part(&total, one));
                parts.collect::<Result<Resources>>()?
            }
            None => args.reserved.of(&total),
        };
        if back.is_empty() {
            bail!(
                "nothing is reserved to role {:?} there that is no volume",
                args.reserved.role
            );
        }
        let call = Call {
            r#type: Some(Type::UnreserveResources.into()),
            unreserve_resources: Some(call::UnreserveResources {
                agent_id: agent.agent_info.id.clone().unwrap_or_default(),
                resources: back.iter().map(|one: &Resource| one.into()).collect(),
            }),
            ..Call::default()
        };
        master.call(&call).await?;
        print(format!("no more reserved of {}: {back}", id_of(&agent)))
    })
}
