//! The supervisor of a container.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signalfd::{SfdFlags, SignalFd},
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::{Pid, setsid},
};
use tepui_init::{
    Answer, CloneFlags, Decoder, Exit, LOCK_FILE, LaunchSpec, PROTOCOL, Request, SOCKET_FILE,
};

use crate::{
    cgroup::Cgroup,
    first::{self, FromFirst, ToFirst},
    root::Nowhere,
    streams::Streams,
    sys,
};

/// The whole life of the supervisor, in the conversation with the agent that launches. The end of the process closes the
/// conversation, and nothing before it: so whoever hears of it finds no supervisor any more.
pub(crate) fn run(socket: UnixStream, nowhere: Option<Nowhere>) -> ! {
    let mut agent = Agent::launching(socket);
    let _ = setsid();
    let Some(Request::Launch(spec)) = agent.next_blocking() else {
        // Nobody hears it when the agent is gone.
        agent.tell(&Answer::Failed(format!(
            "tepui-init (protocol {PROTOCOL}) does not understand its orders: it is of another build than the agent"
        )));
        sys::exit_now(1);
    };
    match Supervisor::start(agent, *spec, nowhere) {
        Ok(supervisor) => supervisor.serve(),
        Err((mut agent, message)) => {
            agent.tell(&Answer::Failed(message));
            sys::exit_now(1)
        }
    }
}

/// Tells an agent that there is no supervisor for it.
pub(crate) fn refuse(socket: UnixStream, message: String) {
    Agent::launching(socket).tell(&Answer::Failed(message));
}

/// The connection to an agent.
struct Agent {
    socket: UnixStream,
    decoder: Decoder,
    /// Whether this is the connection that launched the container.
    launches: bool,
}

impl Agent {
    fn launching(socket: UnixStream) -> Self {
        Self {
            socket,
            decoder: Decoder::default(),
            launches: true,
        }
    }

    /// An agent that does not read loses its connection, not more.
    fn tell(&mut self, answer: &Answer) {
        let _ = self.socket.write_all(&answer.encode());
    }

    fn next_blocking(&mut self) -> Option<Request> {
        loop {
            match self.decoder.request() {
                Ok(Some(request)) => return Some(request),
                Ok(None) => self.fill().ok()?,
                Err(_) => return None,
            }
        }
    }

    /// Reads once. The end of the stream is an error.
    fn fill(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match (&self.socket).read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.decoder.push(&buffer[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

struct Supervisor {
    container: String,
    directory: PathBuf,
    die_with_agent: bool,
    /// The first process is in the pid namespace of another container: what it orphans would go to that one's.
    shares_pids: bool,
    /// What is killed at once, where no pid namespace ends with the first process.
    cgroup: Option<Cgroup>,
    /// Held for as long as anything of the container may run; let go by the end of the process.
    _lock: File,
    listener: UnixListener,
    signals: SignalFd,
    agent: Option<Agent>,
    first: Pid,
    control: UnixStream,
    streams: Streams,
    opened: bool,
    /// The command's end, as the first process saw it.
    command: Option<i32>,
    /// The first process's own end.
    ended: Option<i32>,
}

impl Supervisor {
    /// Takes the lock, starts the first process and waits until it is held at the gate.
    fn start(
        agent: Agent,
        spec: LaunchSpec,
        nowhere: Option<Nowhere>,
    ) -> Result<Self, (Agent, String)> {
        let locked = match lock(&spec.directory) {
            Ok(locked) => locked,
            Err(message) => return Err((agent, message)),
        };
        let result = (|| {
            sys::become_subreaper()?;
            let signals = sys::block_signals()?;
            let signals =
                SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
            // Relative names: the path of a socket is at most 107 bytes.
            std::env::set_current_dir(&spec.directory)?;
            let _ = std::fs::remove_file(SOCKET_FILE);
            let listener = UnixListener::bind(SOCKET_FILE)?;
            let (control, other) = UnixStream::pair()?;
            io::Result::Ok((signals, listener, control, other))
        })();
        let (signals, listener, control, other) = match result {
            Ok(parts) => parts,
            Err(error) => return Err((agent, format!("the supervisor cannot start: {error}"))),
        };
        // Of a pid namespace only children become part.
        if let Err(message) = sys::enter(&spec.joins, |kind| kind == CloneFlags::PID) {
            return Err((agent, message));
        }
        let mut new = spec.clone_flags.0;
        if spec.copies_joined_mounts() {
            // Made by the first process, of the one that it enters.
            new &= !CloneFlags::MOUNT.0;
        }
        let shares_pids = spec.shares_pids();
        let own_cgroup = spec.own_cgroup.clone();
        let own_cgroup = own_cgroup.filter(|_| !spec.clone_flags.has(CloneFlags::PID));
        let (streams, input) = match Streams::open(&spec) {
            Ok(streams) => streams,
            Err(message) => return Err((agent, message)),
        };
        let first = match fork_first(new, &spec) {
            Ok(Some(first)) => first,
            Ok(None) => {
                // The lock is shared by copies of its descriptor, so the first process must not keep one; nor may
                // it keep the agent's connection open.
                drop((locked, listener, signals, control, agent, streams));
                first::run(&other, spec, input, nowhere);
            }
            Err(error) => {
                return Err((agent, format!("failed to start the first process: {error}")));
            }
        };
        drop((other, input, nowhere));
        let mut supervisor = Self {
            streams,
            container: spec.container,
            directory: spec.directory,
            die_with_agent: spec.die_with_agent,
            shares_pids,
            cgroup: own_cgroup.map(Cgroup::new),
            _lock: locked,
            listener,
            signals,
            agent: Some(agent),
            first,
            control,
            opened: false,
            command: None,
            ended: None,
        };
        let failed = match FromFirst::receive(&supervisor.control) {
            Ok(FromFirst::Ready) => None,
            Ok(FromFirst::Failed(message)) => Some(message),
            Ok(_) | Err(_) => Some("the first process ended before the gate".to_owned()),
        };
        match (failed, supervisor.agent.take()) {
            (Some(message), Some(agent)) => {
                supervisor.kill_all();
                Err((agent, message))
            }
            (_, agent) => {
                supervisor.agent = agent;
                supervisor.greet();
                Ok(supervisor)
            }
        }
    }

    fn greet(&mut self) {
        let hello = Answer::Hello {
            protocol: PROTOCOL,
            pid: self.first.as_raw().unsigned_abs(),
            opened: self.opened,
            container: self.container.clone(),
        };
        self.tell(&hello);
    }

    fn tell(&mut self, answer: &Answer) {
        if let Some(agent) = &mut self.agent {
            agent.tell(answer);
        }
    }

    /// Serves until the container is over, and leaves its end behind.
    fn serve(mut self) -> ! {
        while self.ended.is_none() {
            self.turn();
        }
        self.kill_all();
        self.streams.copy();
        self.drain_control();
        let exit = match (self.command, self.ended) {
            (Some(status), _) => Exit::Status(status),
            (None, Some(status)) if self.opened => Exit::Status(status),
            (None, _) => Exit::NeverStarted,
        };
        let _ = exit.write(Path::new("."));
        let _ = std::fs::remove_file(self.directory.join(SOCKET_FILE));
        self.tell(&Answer::Exited);
        sys::exit_now(0)
    }

    /// Waits for the next thing to happen and does it.
    fn turn(&mut self) {
        let mut happened = [false; 6];
        {
            let control = self.command.is_none().then(|| self.control.as_fd());
            let agent = self.agent.as_ref().map(|agent| agent.socket.as_fd());
            let sources = [
                (Some(self.signals.as_fd()), PollFlags::POLLIN),
                (Some(self.listener.as_fd()), PollFlags::POLLIN),
                (control, PollFlags::POLLIN),
                (agent, PollFlags::POLLIN),
                (self.streams.output(), PollFlags::POLLIN),
                (self.streams.full(), PollFlags::POLLOUT),
            ];
            let mut places = Vec::new();
            let mut ready = Vec::new();
            for (at, (source, flags)) in sources.into_iter().enumerate() {
                if let Some(source) = source {
                    places.push(at);
                    ready.push(PollFd::new(source, flags));
                }
            }
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => return,
                Err(_) => return self.kill_first(),
            }
            for (at, source) in places.into_iter().zip(ready) {
                happened[at] = source.any().unwrap_or(false);
            }
        }
        let [signaled, connected, first, asked, said, taken] = happened;
        if said {
            self.streams.copy();
        }
        if taken {
            self.write_input();
        }
        if first {
            self.hear_first();
        }
        if signaled {
            self.reap();
        }
        if asked {
            self.hear_agent();
        }
        if connected {
            self.connect();
        }
    }

    fn write_input(&mut self) {
        if self.streams.write() {
            self.tell(&Answer::InputTaken);
        }
    }

    fn hear_first(&mut self) {
        match FromFirst::receive(&self.control) {
            Ok(FromFirst::Opened) => self.tell(&Answer::Opened),
            Ok(FromFirst::Ended(status)) => {
                self.command = Some(status);
                self.kill_cgroup();
            }
            Ok(FromFirst::Ready | FromFirst::Failed(_)) => {}
            // Its end is told by SIGCHLD. Without this the closed socket would be ready for ever.
            Err(_) => {
                self.kill_first();
                if let Some((_, status)) = sys::reap(Some(self.first), true) {
                    self.ended = Some(status);
                }
            }
        }
    }

    /// Takes what the first process said before it ended.
    fn drain_control(&mut self) {
        while self.command.is_none() {
            match FromFirst::receive(&self.control) {
                Ok(FromFirst::Ended(status)) => self.command = Some(status),
                Ok(FromFirst::Opened) => self.tell(&Answer::Opened),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        while let Some((pid, status)) = sys::reap(None, false) {
            if pid == self.first {
                self.ended = Some(status);
            }
        }
    }

    fn hear_agent(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if agent.fill().is_err() {
            self.agent = None;
            if !self.opened || self.die_with_agent {
                self.kill_container();
            }
            return;
        }
        while let Some(agent) = &mut self.agent {
            match agent.decoder.request() {
                Ok(Some(Request::Open)) if agent.launches && !self.opened => {
                    self.opened = true;
                    let _ = ToFirst::Open.send(&self.control);
                }
                Ok(Some(Request::Signal(signal))) if self.opened => {
                    let _ = ToFirst::Signal(signal).send(&self.control);
                }
                Ok(Some(Request::Kill)) => self.kill_container(),
                Ok(Some(Request::Input(bytes))) => {
                    self.streams.send(bytes);
                    self.write_input();
                }
                Ok(Some(Request::Resize { rows, columns })) => self.streams.resize(rows, columns),
                Ok(Some(Request::Launch(_) | Request::Open | Request::Signal(_))) => {}
                Ok(None) => return,
                Err(_) => self.agent = None,
            }
        }
    }

    /// A later agent takes over. Only this process's user and root may.
    fn connect(&mut self) {
        let Ok((socket, _)) = self.listener.accept() else {
            return;
        };
        let own = nix::unistd::geteuid().as_raw();
        let peer = getsockopt(&socket, PeerCredentials).map(|peer| peer.uid());
        if !peer.is_ok_and(|uid| uid == 0 || uid == own) {
            return;
        }
        if !self.opened {
            // Whoever launches is gone or about to be found gone; nobody else may open the gate.
            self.kill_first();
        }
        self.agent = Some(Agent {
            socket,
            decoder: Decoder::default(),
            launches: false,
        });
        self.greet();
    }

    /// Ends everything in the container.
    fn kill_container(&mut self) {
        self.kill_cgroup();
        let is_told = self.shares_pids
            && self.opened
            && ToFirst::Signal(libc::SIGKILL).send(&self.control).is_ok();
        if !is_told {
            self.kill_first();
        }
    }

    fn kill_first(&mut self) {
        if self.ended.is_none() {
            sys::kill(self.first.as_raw(), libc::SIGKILL);
        }
    }

    /// Kills what is in the container's own cgroup, the first process with it.
    fn kill_cgroup(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill_all();
        }
    }

    /// Nothing of the container is left when this returns: with the first process goes its pid namespace, and what
    /// it orphaned without one comes to this process.
    fn kill_all(&mut self) {
        self.kill_cgroup();
        self.kill_first();
        if self.ended.is_none() {
            self.ended = sys::reap(Some(self.first), true).map(|(_, status)| status);
        }
        sys::kill_descendants();
    }
}

/// Forks the first process into these new namespaces. None in the child.
///
/// The kernel makes no pid namespace below one that was entered but for a process that is in that one: another process
/// in between makes the first one, as its sister.
fn fork_first(new: u64, spec: &LaunchSpec) -> io::Result<Option<Pid>> {
    if !spec.clone_flags.has(CloneFlags::PID) || !spec.joins_one(CloneFlags::PID) {
        return sys::fork_into(new);
    }
    if let Some(between) = sys::fork_into(0)? {
        let failed = sys::reap(Some(between), true).map_or(0, |(_, status)| status >> 8);
        return match sys::children(Pid::this()).first() {
            Some(first) => Ok(Some(*first)),
            None => Err(io::Error::from_raw_os_error(failed)),
        };
    }
    match sys::fork_into(new | libc::CLONE_PARENT.unsigned_abs() as u64) {
        Ok(None) => Ok(None),
        Ok(Some(_)) => sys::exit_now(0),
        Err(error) => sys::exit_now(error.raw_os_error().unwrap_or(libc::EINVAL)),
    }
}

/// The lock says that this container has a supervisor. Dropping the file only closes it, which is what the copy in
/// the first process needs: an explicit unlock there would take the lock from the supervisor too.
fn lock(directory: &Path) -> Result<File, String> {
    let path = directory.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|error| format!("failed to open '{}': {error}", path.display()))?;
    file.try_lock()
        .map_err(|error| format!("failed to lock '{}': {error}", path.display()))?;
    Ok(file)
}
