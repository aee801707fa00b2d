//! Supervisors on Linux.
//!
//! A supervisor runs from a sealed memfd with a copy of the program, so that no container can overwrite what later
//! containers execute. It is started by vfork and exec (`std` does so as long as nothing has to run in between):
//! forking a large agent costs ten times as much.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::Signal,
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    time::{ClockId, clock_gettime},
};
use tepui_init::{
    ASK_PROTOCOL, Answer, Decoder, Exit, LOCK_FILE, LaunchSpec, PROTOCOL, Request, SOCKET_FILE,
};
use tepui_model::time::Mono;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, unix::AsyncFd},
    net::UnixStream,
};

use crate::Error;

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

/// The program, sealed.
#[derive(Debug)]
pub(crate) struct Image {
    memfd: OwnedFd,
}

impl Image {
    pub(crate) fn load(program: &Path) -> Result<Self, Error> {
        let error = |source| Error::Io {
            what: "load the program",
            path: program.to_owned(),
            source,
        };
        let mut source = File::open(program).map_err(error)?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memfd = memfd_create(c"tepui-init", flags).map_err(|errno| error(errno.into()))?;
        let mut copy = File::from(memfd);
        io::copy(&mut source, &mut copy).map_err(error)?;
        let seals = SealFlag::F_SEAL_SEAL
            | SealFlag::F_SEAL_SHRINK
            | SealFlag::F_SEAL_GROW
            | SealFlag::F_SEAL_WRITE;
        fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| error(errno.into()))?;
        // A descriptor that is open for writing cannot be executed.
        let sealed = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).map_err(error)?;
        let image = Self {
            memfd: sealed.into(),
        };
        image.check(program)?;
        Ok(image)
    }

    /// A program of another release would not understand what it is told to start.
    fn check(&self, program: &Path) -> Result<(), Error> {
        let of = |message| Error::Settings(format!("'{}' {message}", program.display()));
        let mut said = String::new();
        let mut child = self
            .command()
            .arg(ASK_PROTOCOL)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| of(format!("cannot be run: {error}")))?;
        let read = child.stdout.take().expect("piped").take(16);
        let _ = io::BufReader::new(read).read_line(&mut said);
        let _ = child.kill();
        let _ = child.wait();
        match said.trim().parse::<u32>() {
            Ok(PROTOCOL) => Ok(()),
            Ok(other) => Err(of(format!(
                "speaks version {other} of the protocol of supervisors, and this agent version {PROTOCOL}: use the \
                 tepui-init of the agent's release"
            ))),
            Err(_) => Err(of(
                "does not say which protocol of supervisors it speaks: it is not the tepui-init of the agent's release"
                    .to_owned(),
            )),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.memfd.as_raw_fd()));
        command.arg0("tepui-init").env_clear().stderr(Stdio::null());
        command
    }

    /// Starts a supervisor and hands it its orders. Blocks for about a millisecond.
    pub(crate) fn start(&self, spec: LaunchSpec) -> io::Result<Started> {
        let (ours, theirs) = StdUnixStream::pair()?;
        let child = self
            .command()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let started = Started {
            child: Some(child),
            socket: ours,
        };
        (&started.socket).write_all(&Request::Launch(Box::new(spec)).encode())?;
        Ok(started)
    }
}

/// A supervisor that has its orders. Dropped, it ends: its gate is shut.
#[derive(Debug)]
pub(crate) struct Started {
    child: Option<Child>,
    socket: StdUnixStream,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Told by the closed socket; this only spares a zombie when something failed halfway.
            let _ = self.socket.shutdown(std::net::Shutdown::Both);
            let _ = child.wait();
        }
    }
}

/// The conversation with a supervisor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    stream: UnixStream,
    decoder: Decoder,
    /// Readable once the process has ended. No decision rests on a bare pid.
    process: AsyncFd<OwnedFd>,
    /// Set when it is this process's child, which has to be waited for.
    child: Option<Child>,
    directory: PathBuf,
}

impl Supervisor {
    /// Takes over a supervisor that was just started. Needs the runtime.
    pub(crate) fn from_started(mut started: Started, directory: &Path) -> io::Result<Self> {
        let child = started.child.as_ref().expect("taken only here");
        let process = open_process(child.id())?;
        let socket = started.socket.try_clone()?;
        let supervisor = Self::new(socket, process, directory)?;
        Ok(Self {
            child: started.child.take(),
            ..supervisor
        })
    }

    fn new(socket: StdUnixStream, process: OwnedFd, directory: &Path) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // SAFETY: an `OwnedFd` is open for as long as it lives and is always the same descriptor.
        let process =
            unsafe { AsyncFd::register_with_interest(process, tokio::io::Interest::READABLE) };
        Ok(Self {
            stream: UnixStream::from_std(socket)?,
            decoder: Decoder::default(),
            process: process?,
            child: None,
            directory: directory.to_owned(),
        })
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

    /// Kills the supervisor itself. Its first process notices and ends the container.
    pub(crate) fn kill(&self) {
        let _ = kill_process(self.process.get_ref());
    }

    /// Waits until the process is gone and reads what it left; none when it left nothing.
    pub(crate) async fn ended(&mut self) -> io::Result<Option<Exit>> {
        let _ = self.process.readable().await?;
        if let Some(mut child) = self.child.take() {
            // Has ended: does not block.
            child.wait()?;
        }
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
        if let Ok(mut supervisor) = connect(directory) {
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
                    supervisor.kill();
                    supervisor.ended().await?;
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

fn connect(directory: &Path) -> io::Result<Supervisor> {
    // The path of a socket is at most 107 bytes; this one always fits.
    let opened = File::open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET_FILE}", opened.as_raw_fd());
    let socket = StdUnixStream::connect(path)?;
    let peer = getsockopt(&socket, PeerCredentials)?;
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    // The supervisor cannot be another process by now: its end of this connection would be closed, and the
    // greeting that follows would not come.
    Supervisor::new(socket, open_process(peer.pid().unsigned_abs())?, directory)
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
