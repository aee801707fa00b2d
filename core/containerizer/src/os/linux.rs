//! Supervisors on Linux: the conversation with one, and what there is of one after the agent was restarted.
//!
//! Of each the agent keeps one descriptor, the conversation. Its end is the supervisor's: the kernel closes it when the
//! process ends, after the memory and just before the lock.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::{
        signal::Signal,
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    time::{ClockId, clock_gettime},
};
use tepui_init::{Answer, Decoder, Exit, LOCK_FILE, LaunchSpec, Request, SOCKET_FILE};
use tepui_model::time::Mono;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use super::launcher::Launcher;

/// The machine's clock: goes on when the agent restarts and while the machine sleeps.
pub(crate) fn boot_time() -> Mono {
    let time =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("CLOCK_BOOTTIME is there since Linux 2.6.39");
    Mono(Duration::from(time).as_nanos() as u64)
}

/// Names this boot of the machine.
pub(crate) fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

/// The namespaces of a process as files, by their numbers in the module contract.
pub(crate) fn namespaces(pid: u32) -> BTreeMap<u32, String> {
    use tepui_module_proto::isolator::Namespace;
    let known = [
        (Namespace::Mount, "mnt"),
        (Namespace::Pid, "pid"),
        (Namespace::Network, "net"),
        (Namespace::Uts, "uts"),
        (Namespace::Ipc, "ipc"),
        (Namespace::User, "user"),
        (Namespace::Cgroup, "cgroup"),
    ];
    known
        .into_iter()
        .map(|(kind, name)| (kind as u32, format!("/proc/{pid}/ns/{name}")))
        .collect()
}

/// Whether a namespace of another process, `/proc/<pid>/ns/<name>`, is this process's too.
pub(crate) fn is_own_namespace(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let theirs = fs::read_link(path);
    let ours = fs::read_link(format!("/proc/self/ns/{name}"));
    // The name of the link says which it is.
    matches!((theirs, ours), (Ok(theirs), Ok(ours)) if theirs == ours)
}

/// The conversation with a supervisor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    stream: UnixStream,
    decoder: Decoder,
    directory: PathBuf,
}

impl Supervisor {
    /// Starts a supervisor and hands it its orders. Dropped before its gate is opened, it ends.
    pub(crate) async fn start(
        launcher: &Launcher,
        spec: LaunchSpec,
        directory: &Path,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        // The supervisor waits for its orders by reading.
        let theirs = theirs.into_std()?;
        theirs.set_nonblocking(false)?;
        launcher.start(theirs.into()).await?;
        let mut supervisor = Self::new(ours, directory);
        supervisor.send(&Request::Launch(Box::new(spec))).await?;
        Ok(supervisor)
    }

    fn new(stream: UnixStream, directory: &Path) -> Self {
        Self {
            stream,
            decoder: Decoder::default(),
            directory: directory.to_owned(),
        }
    }

    /// The next answer; none when the supervisor has closed the connection.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Answer>> {
        loop {
            let answer = self.decoder.answer();
            if let Some(answer) =
                answer.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?
            {
                return Ok(Some(answer));
            }
            let mut buffer = [0; 512];
            match self.stream.read(&mut buffer).await {
                Ok(0) => return Ok(None),
                Ok(length) => self.decoder.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request. An error means that the supervisor is gone, which its end tells too.
    pub(crate) async fn send(&mut self, request: &Request) -> io::Result<()> {
        self.stream.write_all(&request.encode()).await
    }

    /// Kills the supervisor itself, and ends the conversation. Its first process notices and ends the container; so does
    /// a supervisor that was not ready to be found yet.
    pub(crate) async fn kill(&mut self) {
        if let Err(error) = self.kill_found() {
            tracing::debug!(directory = %self.directory.display(), %error, "no supervisor to kill");
        }
        // Nobody hears it if it is gone.
        let _ = self.stream.shutdown().await;
    }

    fn kill_found(&self) -> io::Result<()> {
        let (found, pid) = connect(&self.directory)?;
        let process = open_process(pid)?;
        // Its end of the connection would be closed, had it ended before it was opened: so it cannot be another process.
        found.set_nonblocking(true)?;
        match (&found).read(&mut [0]) {
            Ok(0) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            Ok(_) | Err(_) => kill_process(&process),
        }
    }

    /// Waits until the process is gone and reads what it left; none when it left nothing.
    pub(crate) async fn ended(&mut self) -> io::Result<Option<Exit>> {
        while self.next().await?.is_some() {}
        Exit::read(&self.directory)
    }
}

/// What there is of the supervisor of a directory.
pub(crate) enum Found {
    /// It runs, and has said so.
    Alive {
        supervisor: Box<Supervisor>,
        pid: u32,
        opened: bool,
        container: String,
    },
    /// It does not run. The lock is held as long as this lives, so none can begin to.
    Ended {
        exit: Option<Exit>,
        lock: Option<File>,
    },
}

/// Looks for the supervisor of a directory. One that holds the lock but does not answer in time is killed.
pub(crate) async fn find(directory: &Path, patience: Duration) -> io::Result<Found> {
    let until = tokio::time::Instant::now() + patience;
    loop {
        match try_lock(directory)? {
            Locked::Free(lock) => {
                return Ok(Found::Ended {
                    exit: Exit::read(directory)?,
                    lock: Some(lock),
                });
            }
            Locked::Missing => {
                return Ok(Found::Ended {
                    exit: None,
                    lock: None,
                });
            }
            Locked::Held => {}
        }
        // It holds the lock: it starts (then it listens at once), runs, or is about to end.
        if let Ok((socket, _)) = connect(directory) {
            socket.set_nonblocking(true)?;
            let mut supervisor = Supervisor::new(UnixStream::from_std(socket)?, directory);
            let hello = tokio::time::timeout_at(until, supervisor.next()).await;
            match hello {
                // Of whatever version: what an agent needs of a running container is never changed.
                Ok(Ok(Some(Answer::Hello {
                    pid,
                    opened,
                    container,
                    ..
                }))) => {
                    return Ok(Found::Alive {
                        supervisor: Box::new(supervisor),
                        pid,
                        opened,
                        container,
                    });
                }
                // It has just ended.
                Ok(Ok(None)) => {}
                Ok(_) | Err(_) => {
                    tracing::warn!(directory = %directory.display(), "killing a supervisor that does not answer");
                    supervisor.kill().await;
                }
            }
        } else if tokio::time::Instant::now() >= until {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "a supervisor holds its lock but does not listen",
            ));
        }
        // There is nothing to wait on: the holder of the lock may not listen yet, or not any more.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A connection to the supervisor of a directory, and its pid.
fn connect(directory: &Path) -> io::Result<(StdUnixStream, u32)> {
    // The path of a socket is at most 107 bytes; this one always fits.
    let opened = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", opened.as_raw_fd());
    let socket = StdUnixStream::connect(path)?;
    let peer = getsockopt(&socket, PeerCredentials)?;
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    Ok((socket, peer.pid().unsigned_abs()))
}

enum Locked {
    Free(File),
    Held,
    Missing,
}

fn try_lock(directory: &Path) -> io::Result<Locked> {
    // Made when it is missing: a supervisor that was started a moment ago must not take it after this.
    let file = match File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK_FILE))
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Locked::Missing),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => Ok(Locked::Free(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(Locked::Held),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn open_process(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = i32::try_from(fd).expect("a descriptor");
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn kill_process(process: &impl AsFd) -> io::Result<()> {
    let (fd, signal) = (process.as_fd().as_raw_fd(), Signal::SIGKILL as i32);
    // SAFETY: a null siginfo is allowed; the descriptor is open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            std::ptr::null::<u8>(),
            0,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
