//! The recorded cluster, and one like it.

use std::net::SocketAddr;
use std::path::Path;

use super::Target;
use crate::{Daemon, wait_for};

/// What the recorded agents were started with.
const AGENT: &[&str] = &[
    "--resources=cpus:4;mem:4096;disk:10240;ports:[31000-32000]",
    "--launcher=posix",
    "--launcher_dir=/var/lib/mesos1/libexec",
    "--switch_user=false",
    "--systemd_enable_support=false",
];

/// The ids of the recorded agents, `/slave(1)` first.
pub const AGENTS: [&str; 2] = [
    "2bb699ce-5753-4d4d-ad59-74064e38038a-S1",
    "2bb699ce-5753-4d4d-ad59-74064e38038a-S0",
];

/// The work folder of the recorded agent 1.
const WORK: &str = "/var/lib/mesos1/work/agents/0/work";

/// What the recorded framework started its executor with, and the program that does the same.
const EXECUTOR: &str = "exec python3 /var/lib/mesos1/libexec/peer_executor.py";

/// A master with the two agents of the recording.
pub struct Recorded {
    /// The master.
    pub master: Daemon,
    /// The agents, `/slave(1)` first.
    pub agents: Vec<Daemon>,
    /// Whom requests go to.
    pub target: Target,
}

impl Recorded {
    /// Starts the cluster with those of its agents in a folder and waits until they are registered.
    pub fn start(dir: &Path, recorded: &[&str]) -> Self {
        Self::start_with(dir, recorded, None)
    }

    /// As [`Self::start`], with a bug planted in all daemons: `encoder` or `decoder`.
    pub fn start_with(dir: &Path, recorded: &[&str], bug: Option<&str>) -> Self {
        let planted = bug.map(|bug| ("TEPUI_PLANTED_BUG", bug));
        let mut command = Daemon::master_command(dir, &["--registry=in_memory"]);
        command.envs(planted);
        let master = Daemon::run("master", command, dir);
        let mut target = Target::new(master.address, Vec::new());
        target.start = start(master.address, dir);
        let mut agents = Vec::new();
        // One after the other, so that each has the place in lists that it had in the recording.
        for (number, id) in recorded.iter().enumerate() {
            let name = format!("a{}", number + 1);
            let mut command = Daemon::agent_command(0, dir, &name, master.address, AGENT);
            command.envs(planted);
            let agent = Daemon::run(&name, command, dir);
            let current = wait_for("the agent", || registered(&master, agent.address));
            target.ids.note(id, &current);
            target.agents.push(agent.address);
            agents.push(agent);
        }
        let work = dir.join("a1").display().to_string();
        target.texts.push((WORK.to_owned(), work));
        Self {
            master,
            agents,
            target,
        }
    }

    /// Lets the recorded framework's executors run as this program.
    pub fn executor(&mut self, program: &Path) {
        let command = format!("exec {}", program.display());
        self.target.texts.push((EXECUTOR.to_owned(), command));
    }
}

/// The id of the agent at an address.
fn registered(master: &Daemon, address: SocketAddr) -> Result<String, String> {
    let agents = master.get("/slaves");
    let mut agents = agents["slaves"].as_array().into_iter().flatten();
    let place = format!("@{address}");
    agents
        .find(|agent| {
            agent["pid"]
                .as_str()
                .is_some_and(|pid| pid.ends_with(&place))
        })
        .and_then(|agent| Some(agent["id"].as_str()?.to_owned()))
        .ok_or_else(|| "none".to_owned())
}

/// Flags that the tests have to set and the recorded cluster had at its own values, in both forms
/// that flags are shown in.
fn start(master: SocketAddr, folder: &Path) -> Vec<(String, String)> {
    let root = folder
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a scratch folder");
    let isolation = "cgroups/cpu,cgroups/mem,namespaces/pid";
    let flags = [
        // What stands before the flag, its name, its value here and in the recording.
        (
            "cgroups_limit_swap",
            "false",
            "cgroups_root",
            root,
            Some("mesos"),
        ),
        ("initialize_driver_logging", "true", "ip", "127.0.0.1", None),
        (
            "initialize_driver_logging",
            "true",
            "isolation",
            isolation,
            Some("posix/cpu,posix/mem"),
        ),
        ("logging_level", "INFO", "master", &master.to_string(), None),
        (
            "offer_constraints_re2_max_program_size",
            "100",
            "port",
            "0",
            Some("5050"),
        ),
        ("perf_interval", "1mins", "port", "0", Some("5051")),
    ];
    let forms: [fn(&str, &str) -> String; 2] = [
        |name, value| format!(r#""{name}":"{value}""#),
        |name, value| format!(r#"{{"name":"{name}","value":"{value}"}}"#),
    ];
    let mut replaced = Vec::new();
    for (name_before, value_before, name, value, recorded) in flags {
        for form in forms {
            let before = form(name_before, value_before);
            let after = recorded.map(|recorded| format!(",{}", form(name, recorded)));
            let current = format!("{before},{}", form(name, value));
            replaced.push((current, before + &after.unwrap_or_default()));
        }
    }
    replaced
}
