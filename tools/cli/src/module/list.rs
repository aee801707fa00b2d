//! `tepui module list`: modules of directories, or those a daemon has loaded.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use tepui_host::note::NoNote;
use tepui_host::report::{ModuleReport, Report};
use tepui_host::search::{Search, list};
use tepui_http::Client;

use crate::table::Table;

/// List the modules of a directory, of the search path, or of a running daemon
#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory or library to look at instead of the search path
    dir: Option<PathBuf>,
    /// Address of a master or agent: list what it has loaded
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "dir")]
    address: Option<String>,
    /// Print all that is known as JSON (with --address)
    #[arg(long, requires = "address")]
    json: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    match args.address {
        Some(address) => crate::block_on(loaded(address, args.json)),
        None => {
            let dirs = match args.dir {
                Some(dir) => vec![dir],
                None => Search::new(&[]).dirs().to_vec(),
            };
            found(&dirs)
        }
    }
}

fn found(dirs: &[PathBuf]) -> Result<ExitCode> {
    let mut table = Table::new(["KIND", "NAME", "ABI", "SDK", "FILE"]);
    let mut damaged = Vec::new();
    for dir in dirs {
        let files = if dir.is_file() {
            vec![(dir.clone(), tepui_host::note::read_file(dir))]
        } else {
            list(dir)
                .or_else(|error| absent_is_empty(error, dirs))
                .with_context(|| dir.display().to_string())?
        };
        for (file, note) in files {
            match note {
                Ok(note) => note.note.modules.iter().for_each(|module| {
                    let names = std::iter::once(&module.name).chain(&module.aliases);
                    table.row([
                        module.kinds.join(","),
                        names.map(String::as_str).collect::<Vec<_>>().join(" "),
                        note.note.abi.clone(),
                        note.note.sdk.clone(),
                        file.display().to_string(),
                    ]);
                }),
                Err(NoNote::Damaged(why)) => damaged.push(format!("{}: {why}", file.display())),
                Err(NoNote::Other) => {}
            }
        }
    }
    say!("{}", table.to_string().trim_end());
    damaged.iter().for_each(|line| eprintln!("{line}"));
    Ok(if damaged.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A directory of the search path need not be there; one that was named must.
fn absent_is_empty<T>(error: std::io::Error, dirs: &[PathBuf]) -> std::io::Result<Vec<T>> {
    match error.kind() {
        std::io::ErrorKind::NotFound if dirs.len() > 1 => Ok(Vec::new()),
        _ => Err(error),
    }
}

async fn loaded(address: String, json: bool) -> Result<ExitCode> {
    let client = Client::new(&address).with_context(|| format!("--address {address}"))?;
    let body = client.get("/tepui/v1/modules").await?.success()?.text();
    if json {
        say!("{body}");
        return Ok(ExitCode::SUCCESS);
    }
    let report: Report =
        serde_json::from_str(&body).context("the answer is not a list of modules")?;
    let mut table = Table::new([
        "KIND", "NAME", "STATE", "RUNS IN", "CALLS", "FAILED", "PENDING", "SHA256", "FILE",
    ]);
    for module in &report.modules {
        table.row(row(module));
    }
    say!("{}", table.to_string().trim_end());
    for module in report.modules {
        let text = [module.trouble, module.health]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("; ");
        if !text.is_empty() {
            say!("{}: {text}", module.name);
        }
        for call in module.pending.iter().filter(|call| call.stuck) {
            let container = call
                .container
                .as_deref()
                .map(|id| format!(" of {id}"))
                .unwrap_or_default();
            say!(
                "{}: {}{container} is stuck since {:.1} s",
                module.name,
                call.method,
                call.age_ms / 1e3
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(module: &ModuleReport) -> [String; 9] {
    let sum = |count: fn(&tepui_host::report::MethodReport) -> u64| {
        module.methods.iter().map(count).sum::<u64>()
    };
    let file = module
        .file
        .as_deref()
        .map(Path::new)
        .and_then(Path::file_name);
    [
        module.kinds.join(","),
        module.selected.join(" "),
        format!("{:?}", module.state).to_lowercase(),
        format!("{:?}", module.run_in).to_lowercase(),
        sum(|method| method.calls).to_string(),
        sum(|method| method.failed).to_string(),
        module
            .pending
            .iter()
            .filter(|call| !call.long_poll)
            .count()
            .to_string(),
        module.sha256.chars().take(12).collect(),
        file.unwrap_or_default().to_string_lossy().into_owned(),
    ]
}
