//! The daemons under measurement: those of this build, beside this executable.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// A process and what it says.
struct Process {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(name: &str, args: &[&str]) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name(name);
        let mut child = Command::new(&program)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let output = child.stdout.take().expect("the output is piped");
        let lines = BufReader::new(output).lines();
        Ok(Self { child, lines })
    }

    /// Waits for a line that begins so; its next word.
    fn says(&mut self, prefix: &str) -> Result<String> {
        let mut lines = self.lines.by_ref().map_while(Result::ok);
        let rest = lines.find_map(|line| Some(line.strip_prefix(prefix)?.to_owned()));
        let rest = rest.with_context(|| format!("ended before it said `{prefix}`"))?;
        Ok(rest.split_whitespace().next().unwrap_or("").to_owned())
    }

    fn end(&mut self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Signal::SIGINT);
    }
}

/// A cluster of this build, ended when dropped.
pub(crate) struct Cluster {
    /// `tepui local`, or the master.
    main: Process,
    agents: Option<Process>,
    /// The master's address.
    pub(crate) master: String,
    /// When the process was started.
    pub(crate) started: Instant,
    flags: Vec<String>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts `tepui local` and waits until its agents are there.
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let dir = folder()?;
        let path = dir.path().to_str().context("a folder in UTF-8")?;
        let started = Instant::now();
        let fixed = [
            "local",
            "--port",
            "0",
            "--agent-port",
            "0",
            "--work-dir",
            path,
        ];
        let mut main = Process::start("tepui", &[&fixed, args].concat())?;
        let master = main.says("ready: master http://")?;
        Ok(Self {
            main,
            agents: None,
            master,
            started,
            flags: Vec::new(),
            dir,
        })
    }

    /// Starts a master and as many fake agents, and waits until they are registered.
    pub(crate) fn large(agents: usize, per_connection: usize, flags: &[&str]) -> Result<Self> {
        let dir = folder()?;
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let started = Instant::now();
        let (main, master) = start_master("0", dir.path(), &flags)?;
        let agents_flag = format!("--agents={agents}");
        let shared = format!("--per-connection={per_connection}");
        let args = ["--master", &master, &agents_flag, &shared];
        let mut fake = Process::start("tepui-fake-agent", &args)?;
        fake.says("registered ")?;
        Ok(Self {
            main,
            agents: Some(fake),
            master,
            started,
            flags,
            dir,
        })
    }

    /// Kills the master of a large cluster and starts the next one in its place; the time of the
    /// start. [`Cluster::wait_agents`] says when the agents are back.
    pub(crate) fn replace_master(&mut self) -> Result<Instant> {
        self.main.end(Signal::SIGKILL);
        if let Some(agents) = &mut self.agents {
            agents.says("disconnected")?;
        }
        let port = self.master.rsplit(':').next().unwrap_or("0").to_owned();
        let started = Instant::now();
        let (main, master) = start_master(&port, self.dir.path(), &self.flags)?;
        (self.main, self.master) = (main, master);
        Ok(started)
    }

    /// Waits until all fake agents are registered again.
    pub(crate) fn wait_agents(&mut self) -> Result<()> {
        let agents = self.agents.as_mut().context("no fake agents")?;
        agents.says("registered ").map(drop)
    }

    /// The master of a large cluster.
    pub(crate) fn master_pid(&self) -> u32 {
        self.main.child.id()
    }

    /// Child processes of `tepui local` whose executable has this name.
    pub(crate) fn processes(&self, name: &str) -> Vec<u32> {
        let parent = self.main.child.id();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            // The kernel keeps 15 bytes of a name.
            *field(&status, "Name:") == name[..name.len().min(15)]
                && field(&status, "PPid:") == parent.to_string()
        })
        .collect()
    }
}

fn folder() -> Result<tempfile::TempDir> {
    let dir = tempfile::Builder::new()
        .prefix("tepui-loadgen-")
        .tempdir()?;
    // Tasks run as others than root.
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), all)?;
    Ok(dir)
}

fn start_master(port: &str, dir: &Path, flags: &[String]) -> Result<(Process, String)> {
    let fixed = [
        "--ip=127.0.0.1".to_owned(),
        "--hostname=localhost".to_owned(),
        format!("--port={port}"),
        format!("--work_dir={}", dir.join("master").display()),
    ];
    let args: Vec<&str> = fixed.iter().chain(flags).map(String::as_str).collect();
    let mut master = Process::start("tepui-master", &args)?;
    let address = master.says("listening on http://")?;
    Ok((master, address))
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident, shared pages counted whole.
    pub(crate) rss: u64,
    /// Proportional: shared pages divided among those who share them.
    pub(crate) pss: u64,
}

/// Reads the kernel's summary of a process' mappings.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let path: PathBuf = Path::new("/proc")
        .join(pid.to_string())
        .join("smaps_rollup");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let kib = |key: &str| {
        let number = field(&text, key).split_whitespace().next();
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok(Memory {
        rss: kib("Rss:"),
        pss: kib("Pss:"),
    })
}

/// Processor time that a process has used.
pub(crate) fn processor_time(pid: u32) -> Result<Duration> {
    times(pid, 2)
}

/// The same with that of all that it has started and that have ended, and of all that these have: supervisors are not
/// children of an agent but of its launcher, which lives as long as the agent.
pub(crate) fn processor_time_of_all(pid: u32) -> Result<Duration> {
    let own = times(pid, 4)?;
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))?;
    let lists =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    let children: String = lists.collect();
    // Those that end meanwhile are in the next answer.
    let of = |pid: &str| times(pid.parse().ok()?, 4).ok();
    let below: Duration = children.split_whitespace().filter_map(of).sum();
    Ok(own + below)
}

/// User and system time, then those of children.
fn times(pid: u32, count: usize) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name, which may hold anything, ends with the last parenthesis; the times begin with the 14th field.
    let rest = text.rsplit(')').next().unwrap_or("");
    let fields = rest.split_whitespace().skip(11).take(count);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    let per_second = sysconf(SysconfVar::CLK_TCK)?.context("the system has ticks")?;
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// The rest of the line of `text` that begins so.
fn field<'a>(text: &'a str, key: &str) -> &'a str {
    let rest = text.lines().find_map(|line| line.strip_prefix(key));
    rest.unwrap_or("").trim()
}
