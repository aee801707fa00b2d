//! `tepui module check`: all load checks, without a daemon.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use tepui_host::config::ModuleConfig;
use tepui_host::search::{Found, read_named};
use tepui_host::{HostSettings, LoadError, ModuleHost};

/// Check a module library as a daemon would before loading it
#[derive(clap::Args)]
pub(super) struct Args {
    /// The library
    file: PathBuf,
    /// Configuration file of a daemon, for the settings of the modules
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let config = match &args.config {
        Some(file) => super::read_config(file, None, &[])?.modules,
        None => ModuleConfig::default(),
    };
    let host = ModuleHost::new(HostSettings::new("check", config));
    let file = std::path::absolute(&args.file)?;
    let note = read_named(&file)?;
    say!("{}", file.display());
    say!(
        "  abi {}, sdk {}, panic {}",
        note.note.abi,
        note.note.sdk,
        note.note.panic
    );
    let mut refused = 0;
    let mut digest = None;
    for module in &note.note.modules {
        let found = Found {
            file: file.clone(),
            note: note.clone(),
            module: module.name.clone(),
            kinds: module.kinds.clone(),
        };
        let head = format!("  {} {}", module.kinds.join(","), module.name);
        match host.check_found(found, std::slice::from_ref(&module.name)) {
            Ok(checked) => {
                digest = Some(checked.sha256);
                say!("{head}: ok");
            }
            // Loaded and its layout is right; only the last step needs to know more.
            Err(LoadError::Settings { errors, .. }) if args.config.is_none() => {
                say!("{head}: loads; to create it, name its settings with --config:");
                errors.iter().for_each(|error| say!("    {error}"));
            }
            Err(error) => {
                refused += 1;
                say!("{head}: REFUSED");
                error
                    .to_string()
                    .lines()
                    .for_each(|line| say!("    {line}"));
            }
        }
    }
    if let Some(digest) = digest {
        say!("  sha256 {digest}");
    }
    Ok(if refused == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
