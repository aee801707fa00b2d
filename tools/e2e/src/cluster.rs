//! Real daemons under a test: started on free ports, ended by their pid.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::scratch::{Scratch, cgroups_root};
use crate::wait::wait_for;

pub use crate::scratch::wait_clean;

/// An executable of the set under test.
pub fn bin(name: &str) -> PathBuf {
    let dir = std::env::var_os("TEPUI_TEST_BIN_DIR").map_or_else(own_target, PathBuf::from);
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is not built: run `cargo xtask build`, or the tests by `cargo xtask test`",
        path.display()
    );
    path
}

/// The Python interpreter, with clients of others.
pub fn python() -> PathBuf {
    client("python").join("bin/python")
}

/// The folder of an unmodified client that `cargo xtask test` has prepared: `python`, `node` or `mesos-cli`.
pub fn client(name: &str) -> PathBuf {
    let target = bin("tepui")
        .ancestors()
        .nth(2)
        .expect("binaries lie in target/PROFILE")
        .to_owned();
    let folder = target.join(format!("{name}-client"));
    assert!(
        folder.exists(),
        "{} is missing: run `tools/e2e/{name}/setup.sh {0}`",
        folder.display(),
    );
    folder
}

/// The target folder of this test: its executable lies in `deps` below it.
pub(crate) fn own_target() -> PathBuf {
    let own = std::env::current_exe().expect("a running test has an executable");
    own.ancestors()
        .nth(2)
        .expect("tests lie in target/PROFILE/deps")
        .to_owned()
}

/// A running daemon, or `tepui local`.
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts a program and waits until it says where it listens, on a line that begins with `prefix`.
    fn start(name: &str, mut command: Command, log: PathBuf, prefix: &str) -> Self {
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log in the scratch folder");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut lines = BufReader::new(child.stdout.take().expect("the output is piped"))
            .lines()
            .map_while(Result::ok);
        let address = lines.by_ref().find_map(|line| {
            let rest = line.strip_prefix(prefix)?;
            rest.split_whitespace().next()?.parse().ok()
        });
        // What it says afterwards is read too, so that it never waits for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let Some(address) = address else {
            let status = child.wait();
            panic!(
                "{name} did not start ({status:?}): {}",
                fs::read_to_string(&log).unwrap_or_default()
            );
        };
        Self {
            name: name.to_owned(),
            child,
            log,
            address,
        }
    }

    /// A master in `dir`.
    pub fn master(dir: &Path, flags: &[&str]) -> Self {
        Self::master_at(0, dir, flags)
    }

    /// A master on a port: one that comes back has to keep its own.
    pub fn master_at(port: u16, dir: &Path, flags: &[&str]) -> Self {
        Self::run("master", Self::command_at(port, dir, flags), dir)
    }

    /// What starts a master in `dir`.
    pub fn master_command(dir: &Path, flags: &[&str]) -> Command {
        Self::command_at(0, dir, flags)
    }

    fn command_at(port: u16, dir: &Path, flags: &[&str]) -> Command {
        let mut command = Command::new(bin("tepui-master"));
        command.args(["--ip=127.0.0.1", "--hostname=localhost"]);
        command
            .arg(format!("--port={port}"))
            .arg(format!("--work_dir={}", dir.join("master").display()))
            .args(flags);
        command
    }

    /// Runs a master or agent whose log is in `dir`.
    pub fn run(name: &str, command: Command, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        Self::start(name, command, log, "listening on http://")
    }

    /// An agent of that master; `name` tells agents in one folder apart.
    pub fn agent(dir: &Path, name: &str, master: SocketAddr, flags: &[&str]) -> Self {
        Self::agent_at(0, dir, name, master, flags)
    }

    /// An agent on a port: one that comes back has to keep its own.
    pub fn agent_at(port: u16, dir: &Path, name: &str, master: SocketAddr, flags: &[&str]) -> Self {
        let command = Self::agent_command(port, dir, name, master, flags);
        Self::run(name, command, dir)
    }

    /// What starts an agent; port 0 is a free one.
    pub fn agent_command(
        port: u16,
        dir: &Path,
        name: &str,
        master: SocketAddr,
        flags: &[&str],
    ) -> Command {
        let mut command = Command::new(bin("tepui-agent"));
        command
            .args(["--ip=127.0.0.1", "--hostname=localhost"])
            .arg(format!("--port={port}"))
            .arg(format!("--master={master}"))
            .arg(format!("--cgroups_root={}", cgroups_root(dir)))
            .arg(format!("--work_dir={}", dir.join(name).display()))
            .arg(format!(
                "--runtime_dir={}",
                dir.join(format!("{name}.run")).display()
            ))
            .args(flags);
        command
    }

    /// `tepui local` with these arguments, ready to take tasks.
    pub fn local(dir: &Path, args: &[&str]) -> Self {
        Self::local_by(dir, |command| {
            command.args(args);
        })
    }

    /// `tepui local`, changed as the test needs it.
    pub fn local_by(dir: &Path, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(bin("tepui"));
        command
            .args(["local", "--port", "0", "--agent-port", "0", "--work-dir"])
            .arg(dir);
        change(&mut command);
        Self::start(
            "local",
            command,
            dir.join("local.log"),
            "ready: master http://",
        )
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.name));
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("an own child");
    }

    /// Ends it by a signal and waits; its exit code.
    pub fn stop(self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        self.ended()
    }

    /// Waits until it has ended by itself; its exit code.
    pub fn ended(mut self) -> Option<i32> {
        let status = wait_for(&format!("the end of {}", self.name), || {
            self.child
                .try_wait()
                .map_err(|error| error.to_string())?
                .ok_or_else(|| "runs".to_owned())
        });
        status.code()
    }

    /// GETs JSON.
    pub fn get(&self, path: &str) -> Value {
        let text = self.get_text(path);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("GET {path} of {}: {error}: {text}", self.name))
    }

    /// GETs a body, whatever the status.
    pub fn get_text(&self, path: &str) -> String {
        block_on(async {
            let client = tepui_http::Client::new(&self.address.to_string()).expect("an address");
            client
                .get(path)
                .await
                .unwrap_or_else(|error| panic!("GET {path} of {}: {error}", self.name))
                .text()
        })
    }

    /// POSTs a call to the operator API; its status, whatever it is.
    pub fn status_of(&self, call: &Value) -> u16 {
        block_on(async {
            let client = tepui_http::Client::new(&self.address.to_string()).expect("an address");
            let reply = client.post_json("/api/v1", call.to_string()).await;
            let reply = reply.unwrap_or_else(|error| panic!("{call} at {}: {error}", self.name));
            reply.status.as_u16()
        })
    }

    /// POSTs a call to the operator API; its body as text, whatever the status.
    pub fn reply_to(&self, call: &Value) -> String {
        block_on(async {
            let client = tepui_http::Client::new(&self.address.to_string()).expect("an address");
            let reply = client.post_json("/api/v1", call.to_string()).await;
            let reply = reply.unwrap_or_else(|error| panic!("{call} at {}: {error}", self.name));
            reply.text()
        })
    }

    /// POSTs a call to the operator API; the answer as JSON, null for an empty one.
    pub fn call(&self, call: &Value) -> Value {
        block_on(async {
            let client = tepui_http::Client::new(&self.address.to_string()).expect("an address");
            let reply = client
                .post_json("/api/v1", call.to_string())
                .await
                .and_then(tepui_http::Reply::success);
            let text = reply
                .unwrap_or_else(|error| panic!("{call} at {}: {error}", self.name))
                .text();
            if text.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&text).expect("JSON was accepted only")
            }
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already where `kill` or `stop` was called.
        if let Ok(None) = self.child.try_wait() {
            let signal = if self.name == "local" {
                Signal::SIGINT
            } else {
                Signal::SIGKILL
            };
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!(
                "--- log of {} ({})\n{}",
                self.name,
                self.log.display(),
                self.log()
            );
        }
    }
}

/// A master with agents, as `tepui local` starts them.
pub struct Cluster {
    /// The `tepui local` process; its address is the master's.
    pub local: Daemon,
    scratch: Scratch,
}

impl Cluster {
    /// `tepui local` with these arguments.
    pub fn start(args: &[&str]) -> Self {
        let scratch = Scratch::new();
        let local = Daemon::local(scratch.path(), args);
        Self { local, scratch }
    }

    /// Its work folder.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// Where its master listens.
    pub fn address(&self) -> SocketAddr {
        self.local.address
    }

    /// Runs `tepui` against its master.
    pub fn tepui(&self, args: &[&str]) -> Output {
        tepui(self.local.address, args)
    }
}

/// Runs the command line against a master.
pub fn tepui(master: SocketAddr, args: &[&str]) -> Output {
    let mut command = Command::new(bin("tepui"));
    command
        .args(args)
        .env("TEPUI_MASTER", master.to_string())
        .stdin(Stdio::null());
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}
