//! A library in a child process, `tepui-module-host`: the same tables as frames over a socket pair.
//!
//! One child a library. The child ends when its socket ends, so it never outlives the daemon.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tepui_module_proto::common::{Code, Failure, LibraryManifest};

use crate::backend::{Answer, Backend, Events};
use crate::frames::{Frame, Kind, VERSION};

/// The mode is only for whoever looks at the list of processes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    Check,
    Serve,
}

/// Why a child did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum ChildError {
    /// The program cannot be run.
    Spawn(io::Error),
    /// It refused the library.
    Refused(String),
    /// It refused to create the instance.
    Create(Box<Failure>),
    /// It ended, or did not answer in time.
    Ended(String),
}

/// A running child.
pub(crate) struct Child {
    pid: u32,
    socket: Mutex<UnixStream>,
    state: Mutex<State>,
    next: AtomicU64,
    next_instance: AtomicU32,
    /// Deadline of synchronous calls: the child is ended after it.
    patience: Duration,
    gone: AtomicBool,
    /// How the process ended is known.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Synchronous requests that wait, by number.
    waiting: HashMap<u64, mpsc::SyncSender<Answer>>,
    instances: HashMap<u32, Arc<dyn Events>>,
    /// Why it was ended, when we did it.
    why: Option<String>,
    /// How it ended.
    end: Option<String>,
}

/// How long the status of a process that was killed is waited for.
const STATUS: Duration = Duration::from_millis(100);
/// Numbers of synchronous requests, apart from those of started calls.
const SYNCHRONOUS: u64 = 1 << 63;

impl Child {
    /// Starts the program with a library and waits for its manifest.
    pub(crate) fn start(
        program: &Path,
        mode: Mode,
        library: PathBuf,
        limit: Duration,
    ) -> Result<(Arc<Self>, LibraryManifest), ChildError> {
        let (ours, theirs) = UnixStream::pair().map_err(ChildError::Spawn)?;
        let process = Command::new(program)
            .arg(match mode {
                Mode::Check => "--check",
                Mode::Serve => "--serve",
            })
            .arg(library)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            // Keys pressed at the daemon's terminal are for the daemon.
            .process_group(0)
            .spawn()
            .map_err(ChildError::Spawn)?;
        let input = ours.try_clone().map_err(ChildError::Spawn)?;
        let child = Arc::new(Child {
            pid: process.id(),
            socket: Mutex::new(ours),
            state: Mutex::default(),
            next: AtomicU64::new(SYNCHRONOUS),
            next_instance: AtomicU32::new(1),
            patience: limit,
            gone: AtomicBool::new(false),
            ended: Condvar::new(),
        });
        let (loaded, first) = mpsc::sync_channel(1);
        let reader = child.clone();
        std::thread::Builder::new()
            .name("module child".into())
            .spawn(move || reader.read(process, input, &loaded))
            .map_err(ChildError::Spawn)?;
        match first.recv_timeout(limit) {
            Ok(Frame {
                kind: Kind::Loaded,
                call: VERSION,
                bytes,
                ..
            }) => LibraryManifest::decode(bytes.as_slice())
                .map(|manifest| (child, manifest))
                .map_err(|error| {
                    ChildError::Refused(format!("its manifest cannot be read: {error}"))
                }),
            Ok(Frame {
                kind: Kind::Refused,
                bytes,
                ..
            }) => Err(ChildError::Refused(
                String::from_utf8_lossy(&bytes).into_owned(),
            )),
            Ok(frame) => {
                child.end("it does not speak this version");
                Err(ChildError::Ended(format!(
                    "{} is of another version: {:?}",
                    program.display(),
                    frame.kind
                )))
            }
            Err(RecvTimeoutError::Timeout) => {
                child.end("it hung while the library was loaded");
                Err(ChildError::Ended(format!(
                    "it hung for {limit:?} while the library was loaded"
                )))
            }
            Err(RecvTimeoutError::Disconnected) => Err(ChildError::Ended(format!(
                "{} while the library was loaded",
                child.how_it_ended()
            ))),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Creates an instance.
    pub(crate) fn create(
        self: &Arc<Self>,
        request: Vec<u8>,
        events: Arc<dyn Events>,
    ) -> Result<Arc<InChild>, ChildError> {
        let instance = self.next_instance.fetch_add(1, Ordering::Relaxed);
        self.state().instances.insert(instance, events.clone());
        let answer = self.ask(Kind::Create, instance, 0, request);
        match answer {
            Ok(Answer { code: 0, .. }) => Ok(Arc::new(InChild {
                child: self.clone(),
                instance,
                events,
            })),
            Ok(answer) => {
                self.state().instances.remove(&instance);
                let failure = Failure::decode(answer.bytes.as_slice()).unwrap_or_default();
                Err(ChildError::Create(Box::new(failure)))
            }
            Err(why) => {
                self.state().instances.remove(&instance);
                Err(ChildError::Ended(format!("{why} in create")))
            }
        }
    }

    /// Sends a request and waits for its answer. A child that does not answer in time is ended.
    fn ask(
        &self,
        kind: Kind,
        instance: u32,
        method: u32,
        bytes: Vec<u8>,
    ) -> Result<Answer, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::sync_channel(1);
        self.state().waiting.insert(number, sender);
        if self.is_gone() {
            self.state().waiting.remove(&number);
            return Err(self.how_it_ended());
        }
        self.send(&Frame::new(kind, instance, number, method, bytes));
        match answer.recv_timeout(self.patience) {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Disconnected) => Err(self.how_it_ended()),
            Err(RecvTimeoutError::Timeout) => {
                let why = format!("it hung for {:?}", self.patience);
                self.end(&why);
                Err(why)
            }
        }
    }

    /// A child that cannot be written to has ended, or hangs with a full socket; both end it.
    fn send(&self, frame: &Frame) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = frame.write(&mut *socket) {
            drop(socket);
            self.end(&format!("cannot write to it: {error}"));
        }
    }

    /// Kills the process; its reader does the rest.
    pub(crate) fn end(&self, why: &str) {
        if self.is_gone() {
            return;
        }
        self.state().why.get_or_insert_with(|| why.into());
        let pid = nix::unistd::Pid::from_raw(self.pid as i32);
        // The reader waits for the process only after `gone` is set, so the number is still its own.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn how_it_ended(&self) -> String {
        // Its reader is about to learn the status of a process that is gone.
        // One that the kernel holds on to tells nothing, and whoever asks may be in a hurry.
        let (state, _) = self
            .ended
            .wait_timeout_while(self.state(), STATUS, |state| {
                state.end.is_none() && self.is_gone()
            })
            .unwrap_or_else(PoisonError::into_inner);
        let parts = [state.why.clone(), state.end.clone()];
        let text = parts.into_iter().flatten().collect::<Vec<_>>().join(": ");
        if text.is_empty() {
            "it ended".into()
        } else {
            text
        }
    }

    /// Reads until the end of the stream, then tells everyone who waits.
    fn read(
        self: Arc<Self>,
        mut process: std::process::Child,
        mut input: UnixStream,
        loaded: &mpsc::SyncSender<Frame>,
    ) {
        while let Ok(Some(frame)) = Frame::read(&mut input) {
            match frame.kind {
                Kind::Loaded | Kind::Refused => {
                    let _ = loaded.try_send(frame);
                }
                Kind::Created | Kind::Reply if frame.call >= SYNCHRONOUS => {
                    if let Some(waiting) = self.state().waiting.remove(&frame.call) {
                        let _ = waiting.try_send(Answer {
                            code: frame.number,
                            bytes: frame.bytes,
                        });
                    }
                }
                Kind::Reply | Kind::Host => {
                    let events = self.state().instances.get(&frame.instance).cloned();
                    match (events, frame.kind) {
                        (Some(events), Kind::Host) => events.host_call(frame.number, &frame.bytes),
                        (Some(events), _) => {
                            let answer = Answer {
                                code: frame.number,
                                bytes: frame.bytes,
                            };
                            events.complete(frame.call, answer);
                        }
                        (None, _) => {}
                    }
                }
                _ => break,
            }
        }
        // Whatever it is that remains, it does not speak to us any more.
        let _ = process.kill();
        self.gone.store(true, Ordering::SeqCst);
        let end = match process.wait() {
            Ok(status) => format!("the process ended ({status})"),
            Err(error) => format!("the process ended ({error})"),
        };
        let mut state = self.state();
        state.end = Some(end);
        state.waiting.clear();
        let instances: Vec<_> = state.instances.drain().collect();
        drop(state);
        self.ended.notify_all();
        let why = self.how_it_ended();
        instances
            .into_iter()
            .for_each(|(_, events)| events.lost(&why));
    }
}

/// An instance in a child.
pub(crate) struct InChild {
    child: Arc<Child>,
    instance: u32,
    events: Arc<dyn Events>,
}

impl Backend for InChild {
    fn call(&self, method: u32, request: &[u8]) -> Answer {
        self.child
            .ask(Kind::Call, self.instance, method, request.into())
            .unwrap_or_else(|why| Answer::failure(Code::Unavailable, &why))
    }

    fn start(&self, call: u64, method: u32, timeout_ms: u64, request: Vec<u8>) {
        let frame = Frame {
            timeout_ms,
            ..Frame::new(Kind::Start, self.instance, call, method, request)
        };
        self.child.send(&frame);
        // What was begun after the end was seen is in nobody's list.
        if self.child.is_gone() {
            self.events.complete(
                call,
                Answer::failure(Code::Unavailable, &self.child.how_it_ended()),
            );
        }
    }

    fn cancel(&self, call: u64) {
        self.child.send(&Frame::new(
            Kind::Cancel,
            self.instance,
            call,
            0,
            Vec::new(),
        ));
    }

    fn release(&self) {
        if !self.child.is_gone() {
            self.child
                .send(&Frame::new(Kind::Release, self.instance, 0, 0, Vec::new()));
        }
    }

    fn kill(&self, why: &str) -> bool {
        self.child.end(why);
        true
    }

    fn is_gone(&self) -> bool {
        self.child.is_gone()
    }
}

/// A library that runs in a child: starts the child when there is none.
pub(crate) struct ProcessLibrary {
    pub(crate) program: PathBuf,
    pub(crate) library: PathBuf,
    pub(crate) limit: Duration,
    running: Mutex<Option<Arc<Child>>>,
}

impl ProcessLibrary {
    pub(crate) fn new(program: PathBuf, library: PathBuf, limit: Duration) -> Self {
        ProcessLibrary {
            program,
            library,
            limit,
            running: Mutex::default(),
        }
    }

    /// Creates an instance in the child that runs, or in a new one.
    pub(crate) fn create(
        &self,
        request: Vec<u8>,
        events: Arc<dyn Events>,
    ) -> Result<Arc<InChild>, ChildError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let child = match running.as_ref().filter(|child| !child.is_gone()) {
            Some(child) => child.clone(),
            None => {
                let (child, _) =
                    Child::start(&self.program, Mode::Serve, self.library.clone(), self.limit)?;
                running.insert(child).clone()
            }
        };
        drop(running);
        child.create(request, events)
    }

    /// The child's process, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .as_ref()
            .filter(|child| !child.is_gone())
            .map(|child| child.pid())
    }
}

impl std::fmt::Display for ChildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ChildError::Spawn(error) => write!(f, "the child cannot be started: {error}"),
            ChildError::Refused(why) | ChildError::Ended(why) => f.write_str(why),
            ChildError::Create(failure) if failure.setting.is_empty() => {
                f.write_str(&failure.chain())
            }
            ChildError::Create(failure) => {
                write!(f, "setting '{}': {}", failure.setting, failure.chain())
            }
        }
    }
}
