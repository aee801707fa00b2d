//! `tepui exec` and `tepui attach` against real daemons, at a terminal and without one.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::tcgetattr;
use nix::unistd::{Pid, ttyname};
use tepui_containerizer::leaks;
use tepui_e2e::cluster::{bin, tepui};
use tepui_e2e::scheduler::{framework, task};
use tepui_e2e::scratch::wait_clean;
use tepui_e2e::{Daemon, Scheduler, Scratch, wait_for};
use tepui_proto::v1::{self, TaskState};

struct Bench {
    scheduler: Scheduler,
    agent: Daemon,
    master: Daemon,
    scratch: Scratch,
}

impl Bench {
    fn new() -> Self {
        let scratch = Scratch::new();
        let master = Daemon::master(scratch.path(), &[]);
        let flags = ["--resources=cpus:4;mem:4096;disk:10240;ports:[31000-32000]"];
        let agent = Daemon::agent(scratch.path(), "agent", master.address, &flags);
        let scheduler = Scheduler::subscribe(master.address, framework("sessions", true));
        Self {
            scheduler,
            agent,
            master,
            scratch,
        }
    }

    fn run(&mut self, task: v1::TaskInfo) {
        let id = task.task_id.value.clone();
        self.scheduler.launch(vec![task]);
        self.scheduler.wait_state(&id, TaskState::TaskRunning);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(bin("tepui"));
        command
            .args(args)
            .env("TEPUI_MASTER", self.master.address.to_string());
        command
    }

    fn with_input(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("tepui");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        // Beside the reading of what comes back.
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("an own child");
        writing.join().expect("no panic").expect("it reads");
        output
    }

    fn end(mut self, task: &str) {
        self.scheduler.kill(task);
        self.scheduler.wait_state(task, TaskState::TaskKilled);
        self.agent.stop(Signal::SIGUSR1);
        wait_clean(self.scratch.path());
    }
}

/// A program at a terminal, whose other end the test has.
struct AtTerminal {
    child: Child,
    keys: File,
    ours: OwnedFd,
    seen: Arc<Mutex<String>>,
}

impl AtTerminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: 21,
            ws_col: 77,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None).expect("a terminal");
        let other = || Stdio::from(pair.slave.try_clone().expect("a descriptor"));
        command.stdin(other()).stdout(other()).stderr(other());
        let child = command.spawn().expect("tepui");
        let seen = Arc::new(Mutex::new(String::new()));
        let (screen, shown) = (pair.master.try_clone().expect("a descriptor"), seen.clone());
        std::thread::spawn(move || {
            let mut screen = File::from(screen);
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                shown.lock().expect("no panic under it").push_str(&text);
            }
        });
        Self {
            child,
            keys: pair.master.into(),
            ours: pair.slave,
            seen,
        }
    }

    #[track_caller]
    fn wait_for(&self, text: &str) {
        wait_for(text, || {
            let seen = self.seen.lock().expect("no panic under it").clone();
            if seen.contains(text) {
                Ok(())
            } else {
                Err(seen)
            }
        });
    }

    fn type_in(&mut self, text: &str) {
        self.keys.write_all(text.as_bytes()).expect("a terminal");
    }

    /// Whether keys are handed on as they are typed.
    fn is_raw(&self) -> bool {
        use nix::sys::termios::LocalFlags;
        let settings = tcgetattr(&self.ours).expect("a terminal");
        !settings
            .local_flags
            .intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    fn resize(&self, rows: u16, columns: u16) {
        let name = ttyname(&self.ours).expect("a terminal has a name");
        let mut stty = Command::new("stty");
        stty.arg("-F").arg(name);
        stty.args(["rows", &rows.to_string(), "cols", &columns.to_string()]);
        assert!(stty.status().expect("stty").success());
        self.signal(Signal::SIGWINCH);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("an own child");
    }

    fn exit(&mut self) -> Option<i32> {
        wait_for("the end of tepui", || {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            ended.ok_or_else(|| "runs".to_owned())
        })
        .code()
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        // Over already where the test waited for it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn commands_in_a_task_have_its_place_their_input_and_their_end() {
    let mut bench = Bench::new();
    bench.run(task("t", "echo mark > mark; sleep 1000", 0.1, 32.0));
    let plain = |args: &[&str]| tepui(bench.master.address, &[&["exec", "t"], args].concat());
    let shown = plain(&[
        "sh",
        "-c",
        "cat mark; echo $MESOS_EXECUTOR_ID; echo bad >&2; exit 5",
    ]);
    assert_eq!(String::from_utf8_lossy(&shown.stdout), "mark\nt\n");
    assert_eq!(String::from_utf8_lossy(&shown.stderr), "bad\n");
    assert_eq!(shown.status.code(), Some(5));
    assert_eq!(plain(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    // It sees the processes of the task, and no others.
    let processes = plain(&["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]);
    let processes = String::from_utf8_lossy(&processes.stdout).into_owned();
    assert!(processes.contains("sleep 1000"), "{processes}");
    assert!(!processes.contains("tepui-agent"), "{processes}");
    // More than anything in between holds.
    let much = "0123456789abcde\n".repeat(1 << 17);
    let counted = bench.with_input(&["exec", "-i", "t", "wc", "-c"], much.as_bytes());
    assert_eq!(
        String::from_utf8_lossy(&counted.stdout).trim(),
        much.len().to_string()
    );
    let echoed = bench.with_input(&["exec", "-i", "t", "cat"], much.as_bytes());
    assert_eq!(echoed.stdout.len(), much.len());
    assert_eq!(echoed.stdout, much.as_bytes());
    let unknown = tepui(bench.master.address, &["exec", "none", "true"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no task \"none\""));
    bench.end("t");
}

#[test]
fn a_session_at_a_terminal_has_one_and_leaves_it_as_it_was() {
    let mut bench = Bench::new();
    bench.run(task("t", "sleep 1000", 0.1, 32.0));
    let shell = bench.command(&["exec", "-it", "t", "sh"]);
    let mut session = AtTerminal::start(shell);
    wait_for("a raw terminal", || {
        if session.is_raw() {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    session.type_in("tty > /dev/null && stty size; trap 'echo caught' INT\r");
    session.wait_for("21 77");
    session.resize(33, 55);
    wait_for("the new size", || {
        session.keys.write_all(b"stty size\r").expect("a terminal");
        std::thread::yield_now();
        let seen = session.seen.lock().expect("no panic under it").clone();
        if seen.contains("33 55") {
            Ok(())
        } else {
            Err(seen)
        }
    });
    // Keys of this terminal are the other's.
    session.type_in("\u{3}");
    session.wait_for("caught");
    session.type_in("exit 7\r");
    assert_eq!(session.exit(), Some(7));
    assert!(!session.is_raw());

    // Ended from outside, it restores the terminal, and its command is gone.
    let mut session = AtTerminal::start(bench.command(&["exec", "-it", "t", "sleep", "1003"]));
    let sleeps = || {
        let all = leaks::find(bench.scratch.path(), None, &[]);
        all.into_iter()
            .filter(|line| line.contains("sleep 1003"))
            .count()
    };
    wait_for("the command", || {
        if sleeps() > 0 { Ok(()) } else { Err("not yet") }
    });
    wait_for("a raw terminal", || {
        if session.is_raw() {
            Ok(())
        } else {
            Err("not yet")
        }
    });
    session.signal(Signal::SIGTERM);
    assert_eq!(session.exit(), Some(1));
    assert!(!session.is_raw());
    wait_for("the end of the command", || {
        if sleeps() == 0 { Ok(()) } else { Err("runs") }
    });
    // So is that of a client which says nothing any more.
    let mut session = AtTerminal::start(bench.command(&["exec", "-it", "t", "sleep", "1003"]));
    wait_for("the command", || {
        if sleeps() > 0 { Ok(()) } else { Err("not yet") }
    });
    session.signal(Signal::SIGKILL);
    session.exit();
    wait_for("the end of the command", || {
        if sleeps() == 0 { Ok(()) } else { Err("runs") }
    });
    bench.end("t");
}

#[test]
fn who_attaches_sees_and_types_and_may_go_again() {
    let mut bench = Bench::new();
    let talk = "echo up; while read line; do echo got $line; done";
    let mut talking = task("talk", talk, 0.1, 32.0);
    talking.container = Some(v1::ContainerInfo {
        r#type: v1::container_info::Type::Mesos.into(),
        tty_info: Some(v1::TtyInfo::default()),
        ..v1::ContainerInfo::default()
    });
    bench.run(talking);
    for word in ["one", "two"] {
        let mut attached = AtTerminal::start(bench.command(&["attach", "talk"]));
        wait_for("a raw terminal", || {
            if attached.is_raw() {
                Ok(())
            } else {
                Err("not yet")
            }
        });
        attached.type_in(&format!("{word}\r"));
        attached.wait_for(&format!("got {word}"));
        attached.signal(Signal::SIGTERM);
        attached.exit();
        assert!(!attached.is_raw());
    }
    let state = bench.agent.get("/state");
    let directory = &state["frameworks"][0]["executors"][0]["directory"];
    let log = Path::new(directory.as_str().expect("a directory")).join("stdout");
    let log = fs::read_to_string(log).expect("a log");
    for part in ["up\r\n", "got one\r\n", "got two\r\n"] {
        assert!(log.contains(part), "{log}");
    }
    bench.end("talk");
}
