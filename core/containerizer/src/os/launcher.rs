//! The launcher: the small process that forks the supervisors of an agent.
//!
//! Forking a large agent costs ten times what forking the launcher does, and executing a program for each container is
//! most of what is left: so that is done once. The launcher runs from a sealed memfd with a copy of the program, so that no
//! container can overwrite what later containers run.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use tepui_init::{ASK_PROTOCOL, PROTOCOL, ask_for_supervisor};
use tokio::{io::Interest, net::UnixStream};

use crate::Error;

/// See the module. Dropped, the process ends; its supervisors go on.
#[derive(Debug)]
pub(crate) struct Launcher {
    image: Image,
    /// The cgroups it is put into, and so its supervisors.
    cgroups: Vec<PathBuf>,
    /// None before the first supervisor.
    running: Mutex<Option<Arc<Running>>>,
}

impl Launcher {
    /// Takes the program.
    pub(crate) fn load(program: &Path, cgroups: Vec<PathBuf>) -> Result<Self, Error> {
        Ok(Self {
            image: Image::load(program)?,
            cgroups,
            running: Mutex::default(),
        })
    }

    /// Starts a supervisor that talks over this socket, which says the rest. A launcher that is gone is replaced.
    pub(crate) async fn start(&self, conversation: OwnedFd) -> io::Result<()> {
        let launcher = self.running(None)?;
        let Err(error) = launcher.ask(&conversation).await else {
            return Ok(());
        };
        tracing::warn!(%error, "the launcher of supervisors is gone: starting another");
        self.running(Some(&launcher))?.ask(&conversation).await
    }

    /// The launcher that runs: a new one in the place of one that is gone, and before the first supervisor.
    fn running(&self, gone: Option<&Arc<Running>>) -> io::Result<Arc<Running>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match &*running {
            Some(running) if gone.is_none_or(|gone| !Arc::ptr_eq(gone, running)) => {
                Ok(running.clone())
            }
            _ => {
                let started = Arc::new(Running::start(&self.image, &self.cgroups)?);
                Ok(running.insert(started).clone())
            }
        }
    }
}

#[derive(Debug)]
struct Running {
    child: Child,
    socket: UnixStream,
}

impl Running {
    /// Needs the runtime. It is started by vfork and exec: `std` does so as long as nothing has to run in between.
    fn start(image: &Image, cgroups: &[PathBuf]) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = image
            .command()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let started = Self {
            child,
            socket: UnixStream::from_std(ours)?,
        };
        for cgroup in cgroups {
            let file = cgroup.join("cgroup.procs");
            std::fs::write(&file, started.child.id().to_string()).map_err(|error| {
                let message = format!("cannot move it into '{}': {error}", file.display());
                io::Error::new(error.kind(), message)
            })?;
        }
        Ok(started)
    }

    /// Waits only where hundreds of requests have not been read yet.
    async fn ask(&self, conversation: &OwnedFd) -> io::Result<()> {
        let ask = || ask_for_supervisor(self.socket.as_fd(), conversation.as_fd());
        self.socket.async_io(Interest::WRITABLE, ask).await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It also ends by itself, when the socket is closed; this spares a zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, sealed.
#[derive(Debug)]
struct Image {
    memfd: OwnedFd,
}

impl Image {
    fn load(program: &Path) -> Result<Self, Error> {
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
}
