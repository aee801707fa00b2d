//! `tepui config`: check a configuration file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use tepui_daemon::flags::{Daemon, Source, Values};
use tepui_daemon::settings::{AgentSettings, MasterSettings};
use tepui_host::{HostSettings, ModuleHost};

/// Arguments of `tepui config`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(CheckArgs),
}

/// Show what a daemon would make of a configuration file, and what it would load from where
#[derive(clap::Args)]
struct CheckArgs {
    /// The file
    file: PathBuf,
    /// Whose file it is [default: that of the daemon whose keys it has]
    #[arg(long)]
    daemon: Option<DaemonArg>,
    /// Flags that the daemon gets beside the file
    #[arg(last = true, value_name = "FLAGS")]
    flags: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum DaemonArg {
    Master,
    Agent,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Command::Check(args) = args.command;
    let daemon = args.daemon.map(|daemon| match daemon {
        DaemonArg::Master => Daemon::Master,
        DaemonArg::Agent => Daemon::Agent,
    });
    let values = crate::module::read_config(&args.file, daemon, &args.flags)?;
    say!("{}, for {}", args.file.display(), values.daemon.program());
    print_values(&values);
    let values = complete(values, &args)?;
    let (settings, modules, notices) = match values.daemon {
        Daemon::Master => {
            let settings = MasterSettings::new(values)?;
            (settings.host(), settings.modules(), settings.common.notices)
        }
        Daemon::Agent => {
            let settings = AgentSettings::new(values)?;
            (settings.host(), settings.modules(), settings.common.notices)
        }
    };
    say!("\nModules");
    let sound = print_modules(settings, &modules);
    if !notices.is_empty() {
        say!("\nNotices");
        notices.iter().for_each(|notice| say!("  {notice}"));
    }
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Takes something for what a daemon needs and the file does not have: it may well come from the command line.
fn complete(values: Values, args: &CheckArgs) -> Result<Values> {
    let detected = values.given("master_detector");
    let needed = match values.daemon {
        Daemon::Agent if !detected => &["work_dir", "master"][..],
        Daemon::Master if values.text("registry") == Some("in_memory") => &[],
        Daemon::Agent | Daemon::Master => &["work_dir"],
    };
    let absent: Vec<&str> = needed
        .iter()
        .copied()
        .filter(|name| !values.given(name))
        .collect();
    if absent.is_empty() {
        return Ok(values);
    }
    say!("  to be given otherwise: {}", absent.join(", "));
    let stand_in = |name: &str| match name {
        "master" => "--master=localhost:5050".to_owned(),
        _ => format!("--{name}=/nonexistent"),
    };
    let flags = args.flags.iter().cloned();
    let flags: Vec<String> = flags.chain(absent.into_iter().map(stand_in)).collect();
    crate::module::read_config(&args.file, Some(values.daemon), &flags)
}

/// What was given, and by what.
fn print_values(values: &Values) {
    say!("\nSettings that were given");
    for flag in values.daemon.flags() {
        if let Some(value) = values
            .get(flag.name)
            .filter(|value| value.source != Source::Default)
        {
            say!("  {} = {}    ({})", flag.name, value.shown, value.source);
        }
    }
}

/// What would be loaded. False if the daemon would not start.
fn print_modules(settings: HostSettings, modules: &[(&'static str, String)]) -> bool {
    // Nothing is written while it is only looked at: no runtime directory means copies in memory.
    let host = ModuleHost::new(HostSettings {
        runtime_dir: None,
        ..settings
    });
    let mut sound = true;
    for (kind, name) in modules {
        let load = host.settings().config.load(name);
        match host.check(kind, name) {
            Ok(checked) => {
                say!("  {kind} {name}: ok");
                say!("    file      {}", checked.found.file.display());
                say!("    sha256    {}", checked.sha256);
                say!(
                    "    runs in   {}",
                    format!("{:?}", checked.run_in).to_lowercase()
                );
                let settings = serde_json::Value::Object(checked.settings);
                say!("    settings  {settings}");
            }
            Err(error) => {
                sound &= !load.required;
                let refused = if load.required {
                    "REFUSED"
                } else {
                    "refused, not required"
                };
                say!("  {kind} {name}: {refused}");
                error
                    .to_string()
                    .lines()
                    .for_each(|line| say!("    {line}"));
            }
        }
    }
    for name in host.settings().config.settings.keys() {
        if !modules.iter().any(|(_, selected)| selected == name) {
            say!("  [modules.\"{name}\"] is for no module that is selected by this name");
        }
    }
    sound
}
