//! The child's side: opens one library and serves its instances over the socket that is its stdin.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use tepui_module_abi::Library;

use crate::backend::{self, Answer, Backend, Events};
use crate::frames::{Frame, Kind, VERSION};
use crate::threads::Threads;

/// The way to the daemon; frames are written whole.
type Out = Arc<Mutex<UnixStream>>;

/// Serves until the daemon closes the socket. What the library itself does to this process (exit,
/// abort, a signal) is what the process is for.
pub fn serve(library: &Path) -> std::io::Result<()> {
    let socket = UnixStream::from(stdin()?);
    let mut input = socket.try_clone()?;
    let out: Out = Arc::new(Mutex::new(socket));
    let opened = match tepui_module_abi::open(library) {
        Ok(opened) => opened,
        Err(error) => {
            send(
                &out,
                &Frame::new(Kind::Refused, 0, 0, 0, error.to_string().into_bytes()),
            );
            return Ok(());
        }
    };
    send(
        &out,
        &Frame::new(Kind::Loaded, 0, VERSION, 0, backend::manifest(opened)),
    );
    let mut instances: HashMap<u32, Arc<dyn Backend>> = HashMap::new();
    let threads = Threads::new("calls", 64, 64);
    while let Some(frame) = Frame::read(&mut input)? {
        let (number, call) = (frame.instance, frame.call);
        if frame.kind == Kind::Create {
            let answer = match create(opened, &out, &frame) {
                Ok(instance) => {
                    instances.insert(number, instance);
                    Answer {
                        code: 0,
                        bytes: Vec::new(),
                    }
                }
                Err(answer) => answer,
            };
            send(
                &out,
                &Frame::new(Kind::Created, number, call, answer.code, answer.bytes),
            );
            continue;
        }
        let Some(instance) = instances.get(&number).cloned() else {
            continue;
        };
        match frame.kind {
            Kind::Call => {
                let answer = instance.call(frame.number, &frame.bytes);
                send(
                    &out,
                    &Frame::new(Kind::Reply, number, call, answer.code, answer.bytes),
                );
            }
            // Not on this thread: a module that blocks there must not hold up the others.
            Kind::Start => {
                threads
                    .run(move || instance.start(call, frame.number, frame.timeout_ms, frame.bytes));
            }
            Kind::Cancel => instance.cancel(call),
            Kind::Release => {
                instances.remove(&number);
                threads.run(move || instance.release());
            }
            _ => return Err(std::io::Error::other("unexpected frame")),
        }
    }
    Ok(())
}

fn stdin() -> std::io::Result<OwnedFd> {
    use std::os::fd::AsFd;
    let own = std::io::stdin().as_fd().try_clone_to_owned()?;
    // What the module starts must not inherit the socket: it would keep the daemon waiting.
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(null)?;
    Ok(own)
}

fn create(library: Library, out: &Out, frame: &Frame) -> Result<Arc<dyn Backend>, Answer> {
    let events = Relay {
        out: out.clone(),
        instance: frame.instance,
    };
    backend::create(library, &frame.bytes, Arc::new(events))
}

fn send(out: &Out, frame: &Frame) {
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    if frame.write(&mut *out).and_then(|()| out.flush()).is_err() {
        // The daemon is gone, and so is the reason to be.
        std::process::exit(0);
    }
}

/// Sends what an instance says.
struct Relay {
    out: Out,
    instance: u32,
}

impl Events for Relay {
    fn host_call(&self, method: u32, request: &[u8]) {
        send(
            &self.out,
            &Frame::new(Kind::Host, self.instance, 0, method, request.into()),
        );
    }

    fn complete(&self, call: u64, answer: Answer) {
        send(
            &self.out,
            &Frame::new(Kind::Reply, self.instance, call, answer.code, answer.bytes),
        );
    }

    fn lost(&self, _why: &str) {}
}
