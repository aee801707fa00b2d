//! `tepui agent doctor`: what this machine has of what isolators need, and how to get the rest.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use self::isolators::{ISOLATORS, LIBRARY};
use self::machine::Machine;

mod isolators;
mod machine;
mod systemd;
#[cfg(test)]
mod tests;

/// Say which isolators work on this machine for this user, and what the others lack
///
/// Nothing is changed. The exit status is 0 when an agent can run tasks at all.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the agent would keep its data: whether overlayfs works depends on its file system
    #[arg(long, default_value = "/var/lib/tepui")]
    work_dir: PathBuf,
    /// The agent's unit, where systemd runs this machine: whether tasks outlive the agent depends on it
    #[arg(long, default_value = "tepui-agent.service")]
    unit: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let machine = Machine::look(&args.work_dir);
    let mut report = Report::of(&machine);
    report.systemd = systemd::look(&args.unit);
    match args.json {
        true => say!("{}", serde_json::to_string_pretty(&report)?),
        false => report.print(),
    }
    let can_run = report.init.is_none();
    Ok(if can_run {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What an agent can do here.
#[derive(Debug, Serialize)]
struct Report {
    user: &'static str,
    kernel: String,
    cgroups: String,
    /// What of systemd matters to the agent.
    systemd: String,
    /// Why no task can run at all.
    init: Option<String>,
    libraries: Vec<String>,
    isolators: Vec<Verdict>,
    /// A list for `--isolation` that works here.
    isolation: String,
}

#[derive(Debug, Serialize)]
struct Verdict {
    isolator: &'static str,
    /// What is missing and how to get it; none where it works.
    missing: Option<String>,
}

impl Report {
    fn of(machine: &Machine) -> Self {
        let isolators: Vec<Verdict> = ISOLATORS
            .iter()
            .map(|(isolator, needs)| Verdict {
                isolator,
                missing: std::iter::once(&LIBRARY)
                    .chain(*needs)
                    .find_map(|need| need.missing(machine)),
            })
            .collect();
        let works = |wanted: &str| {
            isolators
                .iter()
                .any(|one| one.isolator == wanted && one.missing.is_none())
        };
        let wanted = [
            "filesystem/linux",
            "docker/runtime",
            "cgroups/cpu",
            "cgroups/mem",
            "cgroups/pids",
            "namespaces/pid",
            "namespaces/ipc",
            "linux/capabilities",
            "linux/seccomp",
            "posix/rlimits",
            "disk/du",
        ];
        let mut isolation: Vec<&str> = wanted.into_iter().filter(|name| works(name)).collect();
        if !works("cgroups/cpu") {
            isolation.splice(0..0, ["posix/cpu", "posix/mem"]);
        }
        Self {
            user: if machine.root { "root" } else { "not root" },
            kernel: machine.kernel_text.clone(),
            cgroups: match (&machine.v2, machine.v1.is_empty()) {
                (Some(controllers), _) => format!("version 2: {}", controllers.join(", ")),
                (None, false) => format!("version 1: {}", machine.v1.join(", ")),
                (None, true) => "none are mounted".to_owned(),
            },
            systemd: String::new(),
            init: machine.init.clone(),
            libraries: machine.libraries.clone(),
            isolators,
            isolation: isolation.join(","),
        }
    }

    fn print(&self) {
        say!("user        {}", self.user);
        say!("kernel      {}", self.kernel);
        say!("cgroups     {}", self.cgroups);
        say!("systemd     {}", self.systemd);
        say!("tepui-init  {}", self.init.as_deref().unwrap_or("found"));
        say!("libraries   {}", self.libraries.join(", "));
        say!("");
        for verdict in &self.isolators {
            let missing = verdict.missing.as_deref().unwrap_or("works");
            say!("{:<22}{missing}", verdict.isolator);
        }
        say!("");
        say!("works here: --isolation={}", self.isolation);
        if self.user != "root" {
            say!(
                "Without root tasks run as this user, in the host's namespaces and without limits."
            );
        }
    }
}
