//! Runs one module library for a daemon that does not want it in its own process, or tries it first.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let mode = args.next().and_then(|mode| mode.into_string().ok());
    match (mode.as_deref(), args.next()) {
        (Some("--check" | "--serve"), Some(library)) => {
            match tepui_host::serve(&PathBuf::from(library)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("tepui-module-host: {error}");
                    ExitCode::FAILURE
                }
            }
        }
        (Some("--version"), _) => {
            println!("tepui-module-host {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: tepui-module-host --check|--serve LIBRARY\n\
                 It is started by tepui-master, tepui-agent and tepui, with a socket as its stdin."
            );
            ExitCode::FAILURE
        }
    }
}
