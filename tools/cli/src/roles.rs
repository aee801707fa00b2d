//! `tepui roles`, `quota` and `weights`: who may have how much, and how the rest is shared.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use tepui_proto::v1::master::Call;
use tepui_proto::v1::master::call::{self, Type};
use tepui_proto::v1::quota::QuotaConfig;
use tepui_proto::v1::value::Scalar;
use tepui_proto::{convert, v1};

use crate::client::{Master, MasterArg};
use crate::resources::resources;
use crate::several::Several;
use crate::show::{ListArgs, print};
use crate::table::Table;

/// Amounts by name of resource.
type Amounts = BTreeMap<String, Scalar>;

/// Show, set and remove the quota of roles
#[derive(clap::Args)]
pub(crate) struct QuotaArgs {
    #[command(subcommand)]
    command: Quota,
}

#[derive(Subcommand)]
enum Quota {
    /// List the quota of all roles that have one
    Show(ListArgs),
    Set(SetQuota),
    /// Remove the quota of roles
    Remove(RemoveQuota),
}

/// Set what a role is guaranteed and what it may have at most
///
/// This is all of the role's quota from then on: what is not named here is neither guaranteed nor limited.
#[derive(clap::Args)]
struct SetQuota {
    #[command(flatten)]
    master: MasterArg,
    /// The role
    role: String,
    /// What the role may have at most, such as 'cpus:8;mem:4096'
    #[arg(long, value_name = "RESOURCES", value_parser = amounts)]
    limit: Option<Amounts>,
    /// What is kept for the role, such as 'cpus:4'
    #[arg(long, value_name = "RESOURCES", value_parser = amounts)]
    guarantee: Option<Amounts>,
    /// Even if the cluster cannot give the guarantee, or the role has more than the limit
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
struct RemoveQuota {
    #[command(flatten)]
    master: MasterArg,
    /// The roles
    #[arg(required = true, value_name = "ROLE")]
    roles: Vec<String>,
}

/// Show and set the weights of roles
///
/// A role with weight 2 gets twice as much as one with 1, which all have that are not set.
#[derive(clap::Args)]
pub(crate) struct WeightsArgs {
    #[command(subcommand)]
    command: Weights,
}

#[derive(Subcommand)]
enum Weights {
    /// List the weights that were set
    Show(ListArgs),
    /// Set weights
    Set(SetWeights),
}

#[derive(clap::Args)]
struct SetWeights {
    #[command(flatten)]
    master: MasterArg,
    /// Weights above 0
    #[arg(required = true, value_name = "ROLE=WEIGHT", value_parser = weight)]
    weights: Vec<(String, f64)>,
}

fn amounts(text: &str) -> Result<Amounts, String> {
    let resources = resources(text)?;
    let of = |resource: &tepui_model::Resource| match resource.amount() {
        Some(amount) if resource.is_plain() => Ok((
            resource.name().to_string(),
            Scalar {
                value: amount.to_f64(),
            },
        )),
        _ => Err(format!(
            "{resource} is not an amount: expected such as 'cpus:4;mem:1024'"
        )),
    };
    resources.iter().map(of).collect()
}

fn weight(text: &str) -> Result<(String, f64), String> {
    let (role, weight) = text.split_once('=').ok_or("expected ROLE=WEIGHT")?;
    let weight = weight
        .parse()
        .map_err(|_| format!("{weight:?} is not a number"))?;
    Ok((role.to_owned(), weight))
}

/// Lists roles.
pub(crate) fn roles(args: ListArgs) -> Result<ExitCode> {
    crate::block_on(async {
        let master = args.master.client()?;
        if args.json {
            return print(master.ask_json(Type::GetRoles).await?);
        }
        let roles = master
            .ask(Type::GetRoles)
            .await?
            .get_roles
            .unwrap_or_default()
            .roles;
        let quota = configs(&master).await?;
        let mut table = Table::new([
            "ROLE",
            "WEIGHT",
            "FRAMEWORKS",
            "ALLOCATED",
            "GUARANTEED",
            "LIMIT",
        ]);
        for role in roles {
            let config = quota.iter().find(|config| config.role == role.name);
            let of = |part: fn(&QuotaConfig) -> &Amounts| {
                config.map_or_else(String::new, |config| show(part(config)))
            };
            let allocated = convert::resources(&role.resources);
            let allocated =
                allocated.with_context(|| format!("resources of role {}", role.name))?;
            let allocated = if allocated.is_empty() {
                String::new()
            } else {
                allocated.quantities().to_string()
            };
            table.row([
                role.name,
                role.weight.to_string(),
                role.frameworks.len().to_string(),
                allocated,
                of(|config| &config.guarantees),
                of(|config| &config.limits),
            ]);
        }
        print(table.to_string())
    })
}

/// Amounts as `--limit` takes them.
fn show(amounts: &Amounts) -> String {
    let shown = amounts
        .iter()
        .map(|(name, amount)| format!("{name}:{}", amount.value));
    shown.collect::<Vec<_>>().join("; ")
}

/// All quota. Masters go on listing roles whose quota was removed, with nothing in it.
async fn configs(master: &Master) -> Result<Vec<QuotaConfig>> {
    let answer = master.ask(Type::GetQuota).await?;
    let mut configs = answer.get_quota.unwrap_or_default().status.configs;
    configs.retain(|config| !config.guarantees.is_empty() || !config.limits.is_empty());
    Ok(configs)
}

/// `tepui quota`
pub(crate) fn quota(args: QuotaArgs) -> Result<ExitCode> {
    crate::block_on(async {
        match args.command {
            Quota::Show(args) => show_quota(&args).await,
            Quota::Set(args) => set_quota(args).await,
            Quota::Remove(args) => remove_quota(&args).await,
        }
    })
}

async fn show_quota(args: &ListArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    if args.json {
        return print(master.ask_json(Type::GetQuota).await?);
    }
    let mut table = Table::new(["ROLE", "GUARANTEED", "LIMIT"]);
    for config in configs(&master).await? {
        table.row([config.role, show(&config.guarantees), show(&config.limits)]);
    }
    print(table.to_string())
}

async fn set_quota(args: SetQuota) -> Result<ExitCode> {
    if args.limit.is_none() && args.guarantee.is_none() {
        bail!(
            "give --limit or --guarantee; `tepui quota remove {}` removes the quota",
            args.role
        );
    }
    let master = args.master.client()?;
    let config = QuotaConfig {
        role: args.role.clone(),
        guarantees: args.guarantee.unwrap_or_default(),
        limits: args.limit.unwrap_or_default(),
    };
    update_quota(&master, config, args.force).await?;
    print(format!("the quota of {} is set", args.role))
}

async fn remove_quota(args: &RemoveQuota) -> Result<ExitCode> {
    let master = args.master.client()?;
    let known = configs(&master).await?;
    let mut outcome = Several::default();
    for role in &args.roles {
        let of_one = async {
            if !known.iter().any(|config| config.role == *role) {
                bail!("it has no quota: `tepui quota show` lists those that have");
            }
            let config = QuotaConfig {
                role: role.clone(),
                ..Default::default()
            };
            update_quota(&master, config, false).await?;
            Ok(format!("{role} has no quota"))
        };
        outcome.tell(role, of_one.await);
    }
    Ok(outcome.end())
}

async fn update_quota(master: &Master, config: QuotaConfig, force: bool) -> Result<()> {
    let update = call::UpdateQuota {
        force: force.then_some(true),
        quota_configs: vec![config],
    };
    let call = Call {
        r#type: Some(Type::UpdateQuota.into()),
        update_quota: Some(update),
        ..Call::default()
    };
    master.call(&call).await.map(drop)
}

/// `tepui weights`
pub(crate) fn weights(args: WeightsArgs) -> Result<ExitCode> {
    crate::block_on(async {
        match args.command {
            Weights::Show(args) => show_weights(&args).await,
            Weights::Set(args) => set_weights(args).await,
        }
    })
}

async fn show_weights(args: &ListArgs) -> Result<ExitCode> {
    let master = args.master.client()?;
    if args.json {
        return print(master.ask_json(Type::GetWeights).await?);
    }
    let answer = master.ask(Type::GetWeights).await?;
    let mut table = Table::new(["ROLE", "WEIGHT"]);
    for info in answer.get_weights.unwrap_or_default().weight_infos {
        table.row([info.role().to_owned(), info.weight.to_string()]);
    }
    print(table.to_string())
}

async fn set_weights(args: SetWeights) -> Result<ExitCode> {
    let master = args.master.client()?;
    let info = |(role, weight): &(String, f64)| v1::WeightInfo {
        role: Some(role.clone()),
        weight: *weight,
    };
    let weight_infos = args.weights.iter().map(info).collect();
    let call = Call {
        r#type: Some(Type::UpdateWeights.into()),
        update_weights: Some(call::UpdateWeights { weight_infos }),
        ..Call::default()
    };
    master.call(&call).await?;
    for (role, weight) in &args.weights {
        say!("{role} has weight {weight}");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_they_are_shown() {
        let read = amounts("cpus:2.5;mem:1024").expect("amounts");
        assert_eq!(show(&read), "cpus:2.5; mem:1024");
        assert_eq!(amounts(&show(&read)), Ok(read));
        assert!(
            amounts("ports:[1-2]")
                .expect_err("ranges")
                .contains("not an amount")
        );
        assert!(
            amounts("cpus(role):1")
                .expect_err("reserved")
                .contains("not an amount")
        );
    }
}
