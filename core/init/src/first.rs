//! The first process of a container.
//!
//! It is in the container's namespaces and cgroups, keeps the agent's user, and talks to nobody but its supervisor,
//! over a socket pair of small frames: see [`ToFirst`] and [`FromFirst`]. When the supervisor is gone it ends the
//! container.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, fchown},
            net::UnixStream,
        },
    },
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::unshare,
    sys::{
        signalfd::{SfdFlags, SignalFd},
        stat::Mode,
    },
    unistd::{Pid, setsid},
};
use tepui_init::{CloneFlags, Input, LaunchSpec};

use crate::{command, root::Nowhere, sys, tree};

/// From the supervisor: one byte and a signal's number.
pub(crate) enum ToFirst {
    /// Start the command.
    Open,
    /// Send a signal to all of the command's processes.
    Signal(i32),
}

/// To the supervisor: one byte and a number or a length.
pub(crate) enum FromFirst {
    /// All is prepared, the gate is shut.
    Ready,
    /// Preparing failed.
    Failed(String),
    /// The command was started.
    Opened,
    /// The command has ended with this raw wait status.
    Ended(i32),
}

impl ToFirst {
    pub(crate) fn send(&self, mut socket: &UnixStream) -> io::Result<()> {
        let (kind, number) = match self {
            Self::Open => (b'O', 0),
            Self::Signal(signal) => (b'S', *signal),
        };
        socket.write_all(&packet(kind, number))
    }

    fn receive(mut socket: &UnixStream) -> io::Result<Self> {
        let mut bytes = [0; 5];
        socket.read_exact(&mut bytes)?;
        match unpack(bytes) {
            (b'O', _) => Ok(Self::Open),
            (b'S', signal) => Ok(Self::Signal(signal)),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl FromFirst {
    fn send(&self, mut socket: &UnixStream) -> io::Result<()> {
        match self {
            Self::Ready => socket.write_all(&packet(b'R', 0)),
            Self::Opened => socket.write_all(&packet(b'O', 0)),
            Self::Ended(status) => socket.write_all(&packet(b'E', *status)),
            Self::Failed(message) => {
                let length = i32::try_from(message.len()).unwrap_or(0);
                socket.write_all(&packet(b'F', length))?;
                socket.write_all(message.as_bytes())
            }
        }
    }

    pub(crate) fn receive(mut socket: &UnixStream) -> io::Result<Self> {
        let mut bytes = [0; 5];
        socket.read_exact(&mut bytes)?;
        match unpack(bytes) {
            (b'R', _) => Ok(Self::Ready),
            (b'O', _) => Ok(Self::Opened),
            (b'E', status) => Ok(Self::Ended(status)),
            (b'F', length) => {
                let mut message = vec![0; usize::try_from(length).unwrap_or(0)];
                socket.read_exact(&mut message)?;
                Ok(Self::Failed(String::from_utf8_lossy(&message).into_owned()))
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn packet(kind: u8, number: i32) -> [u8; 5] {
    let [a, b, c, d] = number.to_le_bytes();
    [kind, a, b, c, d]
}

fn unpack([kind, a, b, c, d]: [u8; 5]) -> (u8, i32) {
    (kind, i32::from_le_bytes([a, b, c, d]))
}

/// The whole life of the first process.
pub(crate) fn run(
    supervisor: &UnixStream,
    spec: LaunchSpec,
    input: Option<OwnedFd>,
    nowhere: Option<Nowhere>,
) -> ! {
    match prepare(&spec, input, nowhere) {
        Ok(prepared) => {
            let sent = FromFirst::Ready.send(supervisor);
            if sent.is_ok() && matches!(ToFirst::receive(supervisor), Ok(ToFirst::Open)) {
                serve(supervisor, spec, prepared);
            }
        }
        Err(message) => {
            let _ = FromFirst::Failed(message).send(supervisor);
        }
    }
    sys::exit_now(0)
}

struct Prepared {
    signals: SignalFd,
    stdin: File,
    stdout: File,
    stderr: File,
    own_pids: bool,
}

fn prepare(
    spec: &LaunchSpec,
    input: Option<OwnedFd>,
    nowhere: Option<Nowhere>,
) -> Result<Prepared, String> {
    let _ = setsid();
    let own_pids = spec.clone_flags.0 & libc::CLONE_NEWPID.unsigned_abs() as u64 != 0;
    if !own_pids {
        sys::become_subreaper()
            .map_err(|error| format!("failed to become a subreaper: {error}"))?;
    }
    let signals =
        sys::block_signals().map_err(|error| format!("failed to block signals: {error}"))?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| format!("failed to take signals: {error}"))?;
    // Files of the host come first: another mount namespace may not have them.
    let stdout = open_log(&spec.stdout, spec)?;
    let stderr = open_log(&spec.stderr, spec)?;
    for path in &spec.cgroups {
        sys::write_word(path, "0")
            .map_err(|error| format!("failed to join '{}': {error}", path.display()))?;
    }
    if let Some(score) = spec.oom_score_adj {
        sys::write_word(Path::new("/proc/self/oom_score_adj"), &score.to_string())
            .map_err(|error| format!("failed to set the OOM score: {error}"))?;
    }
    // Also for a container whose own /dev has none.
    let stdin = match input {
        Some(input) => input.into(),
        None => {
            File::open("/dev/null").map_err(|error| format!("failed to open /dev/null: {error}"))?
        }
    };
    sys::enter(&spec.joins, |kind| kind != CloneFlags::PID)?;
    if spec.copies_joined_mounts() {
        unshare(nix::sched::CloneFlags::CLONE_NEWNS)
            .map_err(|error| format!("failed to copy the mount namespace: {error}"))?;
    }
    if spec.clone_flags.has(CloneFlags::MOUNT) {
        tree::build(spec, nowhere.as_ref())?;
    } else if let Some(entry) = spec.mounts.first() {
        // It would be seen by others.
        return Err(format!(
            "mounting '{}' needs a mount namespace of the container's own",
            entry.target.display()
        ));
    }
    std::env::set_current_dir(&spec.working_directory).map_err(|error| {
        format!(
            "failed to enter '{}': {error}",
            spec.working_directory.display()
        )
    })?;
    Ok(Prepared {
        signals,
        stdin,
        stdout,
        stderr,
        own_pids,
    })
}

/// The sandbox is the user's, who may have put anything at this name or on the way to it: no link is followed, and
/// nothing but a file is taken.
pub(crate) fn open_log(path: &Path, spec: &LaunchSpec) -> Result<File, String> {
    let bad = |error: io::Error| format!("failed to open '{}': {error}", path.display());
    let below = path.strip_prefix(&spec.sandboxes).ok();
    let below = below.filter(|_| !spec.sandboxes.as_os_str().is_empty());
    let (at, name, resolve) = match below {
        Some(inside) => (
            spec.sandboxes.as_path(),
            inside,
            ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
        ),
        // What a logger has made, elsewhere.
        None => (Path::new("/"), path, ResolveFlag::empty()),
    };
    // A pipe without a reader would block here.
    let flags = OFlag::O_WRONLY
        | OFlag::O_APPEND
        | OFlag::O_CREAT
        | OFlag::O_NOFOLLOW
        | OFlag::O_NONBLOCK
        | OFlag::O_CLOEXEC;
    let how = OpenHow::new()
        .flags(flags)
        .mode(Mode::from_bits_truncate(0o644))
        .resolve(resolve);
    let opened = File::open(at).and_then(|at| Ok(openat2(at, name, how)?));
    let file = File::from(opened.map_err(bad)?);
    let found = file.metadata().map_err(bad)?;
    // A task's user could put anything into a sandbox; what a logger has made belongs to this program's own user.
    let is_own = found.uid() == nix::unistd::geteuid().as_raw();
    let is_pipe = found.file_type().is_fifo() || found.file_type().is_char_device();
    if !(found.is_file() || is_own && is_pipe) {
        return Err(format!("'{}' is not a file", path.display()));
    }
    // The command must find its output as any other program does.
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(|errno| bad(errno.into()))?;
    if let Some(user) = spec.user.as_ref().filter(|_| found.is_file()) {
        fchown(&file, Some(user.uid), Some(user.gid))
            .map_err(|error| format!("failed to give '{}' to its user: {error}", path.display()))?;
    }
    Ok(file)
}

/// Starts the command and stays until it has ended, or the supervisor has.
fn serve(supervisor: &UnixStream, spec: LaunchSpec, prepared: Prepared) {
    let Prepared {
        signals,
        stdin,
        stdout,
        stderr,
        own_pids,
    } = prepared;
    if spec.program.is_empty() {
        drop((spec, stdin, stdout, stderr));
        let _ = FromFirst::Opened.send(supervisor);
        if let Some(status) = hold(supervisor, &signals) {
            let _ = FromFirst::Ended(status).send(supervisor);
        }
        return;
    }
    let command = match sys::fork_into(0) {
        Ok(Some(pid)) => pid,
        Ok(None) if matches!(spec.input, Input::Terminal { .. }) => {
            command::run(&spec, [&stdin; 3]);
        }
        Ok(None) => command::run(&spec, [&stdin, &stdout, &stderr]),
        Err(error) => {
            let _ = writeln!(&mut &stderr, "Failed to start a process: {error}");
            let _ = FromFirst::Opened.send(supervisor);
            let _ = FromFirst::Ended(1 << 8).send(supervisor);
            return;
        }
    };
    drop((spec, stdin, stdout, stderr));
    let _ = FromFirst::Opened.send(supervisor);
    let status = watch(supervisor, &signals, command, own_pids);
    if let Some(status) = status {
        let _ = FromFirst::Ended(status).send(supervisor);
    }
    if !own_pids {
        sys::kill_descendants();
    }
}

/// Keeps the namespaces for what is nested in them until it is asked to end, which is a good end; none when the
/// supervisor is gone first.
fn hold(supervisor: &UnixStream, signals: &SignalFd) -> Option<i32> {
    loop {
        let mut ready = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(supervisor.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut ready, PollTimeout::NONE).is_err() {
            continue;
        }
        let asked = ready[1].any().unwrap_or(false);
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo == libc::SIGTERM.unsigned_abs() {
                return Some(0);
            }
        }
        while sys::reap(None, false).is_some() {}
        if asked {
            match ToFirst::receive(supervisor) {
                Ok(ToFirst::Signal(libc::SIGTERM)) => return Some(0),
                Ok(ToFirst::Signal(libc::SIGKILL)) => return Some(libc::SIGKILL),
                Ok(ToFirst::Signal(_) | ToFirst::Open) => {}
                Err(_) => return None,
            }
        }
    }
}

/// The command's raw wait status; none when the supervisor is gone first.
fn watch(supervisor: &UnixStream, signals: &SignalFd, command: Pid, own_pids: bool) -> Option<i32> {
    loop {
        let mut ready = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(supervisor.as_fd(), PollFlags::POLLIN),
        ];
        if poll(&mut ready, PollTimeout::NONE).is_err() {
            continue;
        }
        let asked = ready[1].any().unwrap_or(false);
        while let Ok(Some(signal)) = signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if number != libc::SIGCHLD {
                sys::kill(command.as_raw(), number);
            }
        }
        while let Some((pid, status)) = sys::reap(None, false) {
            if pid == command {
                return Some(status);
            }
        }
        if asked {
            match ToFirst::receive(supervisor) {
                Ok(ToFirst::Signal(signal)) if own_pids => sys::kill(-1, signal),
                Ok(ToFirst::Signal(signal)) => {
                    for pid in sys::descendants(Pid::this()) {
                        sys::kill(pid.as_raw(), signal);
                    }
                }
                Ok(ToFirst::Open) => {}
                Err(_) => return None,
            }
        }
    }
}
