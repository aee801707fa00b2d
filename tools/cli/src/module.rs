//! `tepui module`: write, check and list modules.

mod check;
mod list;
mod new;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use tepui_daemon::flags::{Daemon, Read, Values, read};
use tepui_host::{HostSettings, ModuleHost};

/// Arguments of `tepui module`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    New(new::Args),
    Check(check::Args),
    List(list::Args),
    Schema(SchemaArgs),
}

/// Print the settings of a module as a JSON schema
#[derive(clap::Args)]
struct SchemaArgs {
    /// Name of the module
    name: String,
    /// Directories to search before the usual ones
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::New(args) => new::run(&args),
        Command::Check(args) => check::run(&args),
        Command::List(args) => list::run(args),
        Command::Schema(args) => schema(args),
    }
}

fn schema(args: SchemaArgs) -> Result<ExitCode> {
    let config = tepui_host::config::ModuleConfig {
        dirs: args.dirs,
        ..Default::default()
    };
    let host = ModuleHost::new(HostSettings::new("check", config));
    let found = host.search().find("", &args.name, None)?;
    let library = host.describe(&found.file)?;
    let module = library
        .modules
        .iter()
        .find(|module| module.name == found.module);
    let text = module.map(|module| module.schema.as_str()).unwrap_or("{}");
    let schema: serde_json::Value = serde_json::from_str(text)?;
    say!("{}", serde_json::to_string_pretty(&schema)?);
    Ok(ExitCode::SUCCESS)
}

/// What a configuration file says, for the daemon whose keys it has.
pub(crate) fn read_config(
    file: &std::path::Path,
    daemon: Option<Daemon>,
    flags: &[String],
) -> Result<Values> {
    let one = |daemon: Daemon| {
        let config = format!("--config={}", file.display());
        let args = std::iter::once(config).chain(flags.iter().cloned());
        read(daemon, args, std::env::vars())
    };
    let result = match daemon {
        Some(daemon) => one(daemon),
        // A file has keys of one daemon: which one, the keys say.
        None => one(Daemon::Master).or_else(|first| one(Daemon::Agent).map_err(|_| first)),
    };
    match result? {
        Read::Run(values) => Ok(*values),
        Read::Help | Read::Version => {
            anyhow::bail!("--help and --version are flags of the daemons")
        }
    }
}
