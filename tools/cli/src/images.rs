//! `tepui agent images prune`: makes room on an agent's disk.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;
use tepui_http::Client;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Remove images that no container uses
    ///
    /// Layers that other images need stay, and so does what is being pulled. The agent does the same by itself with
    /// --image_gc_config.
    Prune {
        /// Address of the agent
        #[arg(
            long,
            env = "TEPUI_AGENT",
            default_value = "127.0.0.1:5051",
            value_name = "HOST:PORT"
        )]
        agent: String,
        /// An image that stays, by the name it was pulled by; may be given several times
        #[arg(long, value_name = "IMAGE")]
        keep: Vec<String>,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

/// What `/images/unused` answers.
#[derive(Deserialize)]
struct Unused {
    images: Vec<String>,
    layers: u64,
    bytes: u64,
}

pub(crate) fn run(command: Command) -> Result<ExitCode> {
    let Command::Prune {
        agent,
        keep,
        dry_run,
    } = command;
    crate::block_on(async {
        let client = Client::new(&agent).with_context(|| format!("--agent {agent}"))?;
        let unused = unused(&client, &keep)
            .await
            .with_context(|| format!("looking for unused images of the agent {agent}"))?;
        let verb = if dry_run { "would remove" } else { "removing" };
        for image in &unused.images {
            say!("{verb} {image}");
        }
        say!(
            "{verb} {} images: {} layers, {:.1} MiB",
            unused.images.len(),
            unused.layers,
            unused.bytes as f64 / f64::from(1 << 20)
        );
        if !dry_run {
            prune(&client, &keep)
                .await
                .with_context(|| format!("PRUNE_IMAGES at the agent {agent}"))?;
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn unused(client: &Client, keep: &[String]) -> Result<Unused> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("keep", &keep.join(","));
    let path = format!("/images/unused?{}", query.finish());
    let text = client.get(&path).await?.success()?.text();
    Ok(serde_json::from_str(&text)?)
}

async fn prune(client: &Client, keep: &[String]) -> Result<()> {
    let keep = keep.iter();
    let keep: Vec<_> = keep
        .map(|name| json!({ "type": "DOCKER", "docker": { "name": name } }))
        .collect();
    let call = json!({ "type": "PRUNE_IMAGES", "prune_images": { "excluded_images": keep } });
    client
        .post_json("/api/v1", call.to_string())
        .await?
        .success()?;
    Ok(())
}
