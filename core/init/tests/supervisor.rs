//! The program as an agent sees it: over its socket, its directory and the processes it leaves (none).

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::fcntl::{Flock, FlockArg};
use tepui_init::{
    ASK_PROTOCOL, Answer, CloneFlags, Decoder, Exit, Input, LOCK_FILE, LaunchSpec, Mount, PROTOCOL,
    Request, SOCKET_FILE, ask_for_supervisor,
};

/// Ends with its socket, at the latest when it is dropped.
struct Launcher {
    process: Child,
    socket: Option<UnixStream>,
}

impl Launcher {
    fn start() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_tepui-init"))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        Self {
            process,
            socket: Some(ours),
        }
    }

    /// The conversation with a supervisor that waits for its orders.
    fn supervisor(&self) -> Connection {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let socket = self.socket.as_ref().expect("it is not closed yet");
        ask_for_supervisor(socket.as_fd(), theirs.as_fd()).unwrap();
        Connection::new(ours)
    }

    fn close(&mut self) {
        self.socket = None;
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.socket = None;
        let _ = self.process.wait();
    }
}

struct Connection {
    socket: UnixStream,
    decoder: Decoder,
}

impl Connection {
    fn new(socket: UnixStream) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            socket,
            decoder: Decoder::default(),
        }
    }

    fn send(&mut self, request: &Request) {
        self.socket.write_all(&request.encode()).unwrap();
    }

    /// None at the end of the stream.
    fn next(&mut self) -> Option<Answer> {
        loop {
            if let Some(answer) = self.decoder.answer().unwrap() {
                return Some(answer);
            }
            let mut buffer = [0; 256];
            match self.socket.read(&mut buffer).expect("an answer in time") {
                0 => return None,
                length => self.decoder.push(&buffer[..length]),
            }
        }
    }

    fn hello(&mut self) -> (u32, bool) {
        match self.next() {
            Some(Answer::Hello {
                pid,
                opened,
                container,
                ..
            }) => {
                assert_eq!(container, "c");
                (pid, opened)
            }
            other => panic!("no hello but {other:?}"),
        }
    }

    fn open(&mut self) {
        self.send(&Request::Open);
        assert_eq!(self.next(), Some(Answer::Opened));
    }
}

struct Running {
    directory: tempfile::TempDir,
    launcher: Launcher,
    agent: Connection,
}

impl Running {
    fn start(text: &str, change: impl FnOnce(&mut LaunchSpec)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let mut spec = LaunchSpec {
            container: "c".to_owned(),
            directory: at.to_owned(),
            stdout: at.join("stdout"),
            stderr: at.join("stderr"),
            working_directory: at.to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["sh".into(), "-c".into(), text.into()],
            environment: vec!["PATH=/usr/bin:/bin".into()],
            ..LaunchSpec::default()
        };
        change(&mut spec);
        let launcher = Launcher::start();
        let mut agent = launcher.supervisor();
        agent.send(&Request::Launch(Box::new(spec)));
        Self {
            directory,
            launcher,
            agent,
        }
    }

    fn reconnect(&mut self) {
        let socket = UnixStream::connect(self.directory.path().join(SOCKET_FILE)).unwrap();
        self.agent = Connection::new(socket);
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    /// The end, after which the lock is free.
    fn exit(&mut self) -> Option<Exit> {
        wait_for("the end of the supervisor", || {
            lock_is_free(self.directory.path())
        });
        Exit::read(self.directory.path()).unwrap()
    }
}

fn lock_is_free(directory: &Path) -> bool {
    let file = fs::File::open(directory.join(LOCK_FILE)).unwrap();
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_ok()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "waited in vain: {what}"
        );
        std::thread::yield_now();
    }
}

fn is_alive(pid: &str) -> bool {
    // A zombie's command line is empty.
    fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty())
}

fn is_root() -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: needs root");
        return false;
    }
    true
}

fn own_pids(spec: &mut LaunchSpec) {
    let flags = nix::sched::CloneFlags::CLONE_NEWPID | nix::sched::CloneFlags::CLONE_NEWNS;
    spec.clone_flags = CloneFlags(flags.bits().unsigned_abs().into());
    spec.mounts = vec![Mount {
        source: "proc".into(),
        target: "/proc".into(),
        fstype: "proc".into(),
        flags: 14,
        ..Mount::default()
    }];
}

#[test]
fn runs_a_command_and_leaves_its_raw_status() {
    let mut run = Running::start("echo out; echo err >&2; cat; exit 7", |_| {});
    assert!(!run.agent.hello().1);
    assert_eq!(run.read("stdout"), "");
    assert!(!lock_is_free(run.directory.path()));
    run.agent.open();
    assert_eq!(run.agent.next(), Some(Answer::Exited));
    assert_eq!(run.exit(), Some(Exit::Status(7 << 8)));
    assert_eq!(
        (run.read("stdout").as_str(), run.read("stderr").as_str()),
        ("out\n", "err\n")
    );
    assert!(!run.directory.path().join(SOCKET_FILE).exists());
}

#[test]
fn it_says_its_protocol_and_refuses_orders_of_another_one() {
    let program = env!("CARGO_BIN_EXE_tepui-init");
    let asked = Command::new(program).arg(ASK_PROTOCOL).output().unwrap();
    assert!(asked.status.success());
    assert_eq!(asked.stdout, format!("{PROTOCOL}\n").as_bytes());

    let launcher = Launcher::start();
    let mut agent = launcher.supervisor();
    let mut orders = Request::Launch(Box::default()).encode();
    // Where the version stands, behind the length and the kind of the frame.
    orders[5] += 1;
    agent.socket.write_all(&orders).unwrap();
    match agent.next() {
        Some(Answer::Failed(message)) => assert!(message.contains("another build"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(agent.next(), None);
}

#[test]
fn supervisors_of_one_launcher_outlive_it() {
    let mut one = Running::start("sleep 1000", |_| {});
    let (first, _) = one.agent.hello();
    one.agent.open();
    // Its end is not held open by a sister that began later.
    let mut other = one.launcher.supervisor();
    other.socket.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(other.next(), Some(Answer::Failed(_))));
    assert_eq!(other.next(), None);
    one.launcher.close();
    one.reconnect();
    assert_eq!(one.agent.hello(), (first, true));
    one.agent.send(&Request::Kill);
    assert_eq!(one.agent.next(), Some(Answer::Exited));
    assert_eq!(one.exit(), Some(Exit::Status(libc::SIGKILL)));
}

#[test]
fn a_missing_program_ends_with_status_one() {
    let mut run = Running::start("", |spec| spec.program = "no-such-program".into());
    run.agent.hello();
    run.agent.open();
    assert_eq!(run.exit(), Some(Exit::Status(1 << 8)));
    assert!(
        run.read("stderr")
            .starts_with("Failed to execute 'no-such-program': ENOENT"),
        "{}",
        run.read("stderr")
    );
}

#[test]
fn nothing_starts_when_the_agent_goes_before_the_gate_opens() {
    let mut run = Running::start("echo started", |_| {});
    run.agent.hello();
    run.agent.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(run.exit(), Some(Exit::NeverStarted));
    assert_eq!(run.read("stdout"), "");
}

#[test]
fn nobody_but_the_launching_connection_opens_the_gate() {
    let mut run = Running::start("echo started", |_| {});
    run.agent.hello();
    let mut first = std::mem::replace(
        &mut run.agent,
        Connection::new(UnixStream::pair().unwrap().0),
    );
    run.reconnect();
    run.agent.hello();
    // The supervisor may be gone already.
    let _ = run.agent.socket.write_all(&Request::Open.encode());
    let _ = first.socket.write_all(&Request::Open.encode());
    assert_eq!(run.exit(), Some(Exit::NeverStarted));
    assert_eq!(run.read("stdout"), "");
}

#[test]
fn a_preparation_that_fails_is_told() {
    let mut run = Running::start("", |spec| {
        spec.cgroups = vec!["/no/such/cgroup/tasks".into()]
    });
    match run.agent.next() {
        Some(Answer::Failed(message)) => {
            assert!(message.contains("/no/such/cgroup/tasks"), "{message}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(run.exit(), None);
}

#[test]
fn a_later_agent_adopts_and_signals_the_whole_tree() {
    let mut run = Running::start("sleep 1000 & echo $!; wait", |_| {});
    let (pid, _) = run.agent.hello();
    run.agent.open();
    run.agent.socket.shutdown(std::net::Shutdown::Both).unwrap();
    wait_for("the child's pid", || run.read("stdout").ends_with('\n'));
    run.reconnect();
    assert_eq!(run.agent.hello(), (pid, true));
    run.agent.send(&Request::Signal(libc::SIGTERM));
    assert_eq!(run.agent.next(), Some(Answer::Exited));
    assert_eq!(run.exit(), Some(Exit::Status(libc::SIGTERM)));
    assert!(!is_alive(&run.read("stdout")));
}

#[test]
fn kill_ends_even_what_left_the_session() {
    let mut run = Running::start(
        "trap '' TERM; setsid sleep 1000 & echo $!; wait; sleep 1000",
        |_| {},
    );
    run.agent.hello();
    run.agent.open();
    wait_for("the child's pid", || run.read("stdout").ends_with('\n'));
    run.agent.send(&Request::Kill);
    assert_eq!(run.exit(), Some(Exit::Status(libc::SIGKILL)));
    assert!(!is_alive(&run.read("stdout")));
}

#[test]
fn nothing_outlives_the_command() {
    let mut run = Running::start("setsid sleep 1000 & echo $!", |_| {});
    run.agent.hello();
    run.agent.open();
    assert_eq!(run.exit(), Some(Exit::Status(0)));
    assert!(!is_alive(&run.read("stdout")));
}

#[test]
fn dies_with_the_agent_when_told_so() {
    let mut run = Running::start("sleep 1000", |spec| spec.die_with_agent = true);
    run.agent.hello();
    run.agent.open();
    run.agent.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(run.exit(), Some(Exit::Status(libc::SIGKILL)));
}

#[test]
fn a_killed_supervisor_takes_its_container_along() {
    let mut run = Running::start("setsid sleep 1000 & echo $! ; wait", |_| {});
    let (pid, _) = run.agent.hello();
    run.agent.open();
    wait_for("the child's pid", || run.read("stdout").ends_with('\n'));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let supervisor = supervisor.unwrap().trim().parse().unwrap();
    let supervisor = nix::unistd::Pid::from_raw(supervisor);
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    assert_eq!(run.exit(), None);
    wait_for("the end of the command", || {
        !is_alive(&run.read("stdout")) && !is_alive(&pid.to_string())
    });
}

#[test]
fn the_command_is_not_pid_one_of_its_namespace() {
    if !is_root() {
        return;
    }
    // A command that is pid 1 would ignore the SIGTERM.
    let mut run = Running::start(
        "echo $$ $(ls -d /proc/[0-9]* | wc -l); sleep 1000; echo over",
        own_pids,
    );
    run.agent.hello();
    run.agent.open();
    wait_for("the output", || run.read("stdout").ends_with('\n'));
    let seen = run.read("stdout");
    let (pid, processes) = seen.trim().split_once(' ').unwrap();
    assert_ne!(pid, "1");
    assert!(
        processes.parse::<u32>().unwrap() <= 5,
        "sees {processes} processes"
    );
    run.agent.send(&Request::Signal(libc::SIGTERM));
    assert_eq!(run.exit(), Some(Exit::Status(libc::SIGTERM)));
}

#[test]
fn the_user_and_the_environment_are_the_commands() {
    if !is_root() {
        return;
    }
    let mut run = Running::start("id -u; id -G; echo \"$A\"; umask; pwd", |spec| {
        spec.user = Some(tepui_init::User {
            uid: 1234,
            gid: 2345,
            groups: vec![2345, 3456],
        });
        spec.environment.push("A=x  y".into());
        spec.rlimits = vec![tepui_init::Rlimit {
            resource: libc::RLIMIT_NOFILE,
            soft: 64,
            hard: 64,
        }];
    });
    run.agent.hello();
    run.agent.open();
    assert_eq!(run.exit(), Some(Exit::Status(0)));
    let at = run.directory.path().display().to_string();
    assert_eq!(
        run.read("stdout"),
        format!("1234\n2345 3456\nx  y\n0022\n{at}\n")
    );
}

#[test]
fn output_goes_into_files_only() {
    let outside = tempfile::NamedTempFile::new().unwrap();
    let target = outside.path().to_owned();
    for trap in ["link", "pipe"] {
        let mut run = Running::start("echo out", |spec| {
            let stdout = spec.directory.join("stdout");
            match trap {
                "link" => std::os::unix::fs::symlink(&target, &stdout).unwrap(),
                _ => nix::unistd::mkfifo(&stdout, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            }
        });
        match run.agent.next() {
            Some(Answer::Failed(message)) => assert!(message.contains("stdout"), "{message}"),
            other => panic!("{trap}: {other:?}"),
        }
        assert_eq!(run.exit(), None);
    }
    assert_eq!(fs::read_to_string(target).unwrap(), "");
}

/// Sends input and waits until it is taken.
fn type_in(run: &mut Running, text: &str) {
    run.agent.send(&Request::Input(text.as_bytes().to_vec()));
    assert_eq!(run.agent.next(), Some(Answer::InputTaken));
}

#[test]
fn input_is_taken_in_order_and_ends() {
    let mut run = Running::start("head -n 1; wc -c", |spec| spec.input = Input::Pipe);
    run.agent.hello();
    run.agent.open();
    type_in(&mut run, "hello\n");
    wait_for("the line", || run.read("stdout") == "hello\n");
    // More than a pipe holds.
    let much = "x".repeat(1 << 20);
    type_in(&mut run, &much);
    type_in(&mut run, "");
    assert_eq!(run.agent.next(), Some(Answer::Exited));
    assert_eq!(run.read("stdout").trim_end(), format!("hello\n{}", 1 << 20));
}

#[test]
fn a_terminal_is_one_and_its_output_is_kept() {
    let text = "tty >/dev/null && echo is one; stty size; read line; echo got $line; stty size; cat; exit 3";
    let mut run = Running::start(text, |spec| {
        spec.input = Input::Terminal {
            rows: 11,
            columns: 99,
        }
    });
    run.agent.hello();
    run.agent.open();
    wait_for("the size", || run.read("stdout").contains("11 99"));
    run.agent.send(&Request::Resize {
        rows: 12,
        columns: 88,
    });
    type_in(&mut run, "typed\n");
    wait_for("the new size", || run.read("stdout").contains("12 88"));
    // Nobody has to be there for it, and who comes later types on.
    run.reconnect();
    run.agent.hello();
    type_in(&mut run, "again\n");
    type_in(&mut run, "");
    assert_eq!(run.agent.next(), Some(Answer::Exited));
    let seen = run.read("stdout");
    assert!(seen.starts_with("is one\r\n"), "{seen}");
    for part in ["got typed\r\n", "again\r\nagain\r\n"] {
        assert!(seen.contains(part), "{seen}");
    }
    assert_eq!(run.exit(), Some(Exit::Status(3 << 8)));
}
