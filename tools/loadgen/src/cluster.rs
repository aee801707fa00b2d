//! `tepui local` under measurement.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A cluster of this build, ended when dropped.
pub(crate) struct Cluster {
    child: Child,
    /// The master's address.
    pub(crate) master: String,
    /// When the process was started.
    pub(crate) started: Instant,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts `tepui local`, which lies beside this executable, and waits until its agents are there.
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("tepui-loadgen-")
            .tempdir()?;
        std::fs::set_permissions(
            dir.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )?;
        let tepui = std::env::current_exe()?.with_file_name("tepui");
        let started = Instant::now();
        let mut child = Command::new(&tepui)
            .args(["local", "--port", "0", "--agent-port", "0", "--work-dir"])
            .arg(dir.path())
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", tepui.display()))?;
        let lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        let master = lines
            .map_while(Result::ok)
            .find_map(|line| {
                Some(
                    line.strip_prefix("ready: master http://")?
                        .split_whitespace()
                        .next()?
                        .to_owned(),
                )
            })
            .context("tepui local ended before it was ready")?;
        Ok(Self {
            child,
            master,
            started,
            _dir: dir,
        })
    }

    /// Processes of the cluster whose executable has this name.
    pub(crate) fn processes(&self, name: &str) -> Vec<u32> {
        let parent = self.child.id();
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let field = |key: &str| {
                status
                    .lines()
                    .find_map(|line| line.strip_prefix(key))
                    .unwrap_or("")
                    .trim()
                    .to_owned()
            };
            // The kernel keeps 15 bytes of a name.
            field("Name:") == name[..name.len().min(15)] && field("PPid:") == parent.to_string()
        })
        .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT);
        let _ = self.child.wait();
    }
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
    let field = |key: &str| -> u64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .unwrap_or("0");
        line.split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0)
    };
    Ok(Memory {
        rss: field("Rss:"),
        pss: field("Pss:"),
    })
}
