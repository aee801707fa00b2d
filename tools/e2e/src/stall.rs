//! A way to a server that comes to a halt in the middle of what is long.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Passes connections on; what becomes of answers that are longer than some bytes is said meanwhile.
pub struct StallingProxy {
    /// Where it listens.
    pub address: SocketAddr,
    gate: Arc<Gate>,
    server: Arc<Mutex<String>>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

/// What becomes of a long answer.
#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Halts,
    /// The next one ends; those after it pass.
    BreaksOff,
    Passes,
}

impl StallingProxy {
    /// In front of a server, for as long as the test runs. Answers come to a halt after so many bytes.
    pub fn start(server: &str, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (gate, server) = (
            Arc::<Gate>::default(),
            Arc::new(Mutex::new(server.to_owned())),
        );
        let (of_answers, to) = (gate.clone(), server.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = to.lock().expect("no panic under it").clone();
                // A server that is gone is, for the client, one that says nothing.
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                let (mut up, mut down) = (
                    server.try_clone().expect("a descriptor"),
                    client.try_clone().expect("a descriptor"),
                );
                let (mut from, gate) = (client, of_answers.clone());
                std::thread::spawn(move || std::io::copy(&mut from, &mut up));
                std::thread::spawn(move || {
                    answers(server, &mut down, after, &gate);
                    let _ = down.shutdown(Shutdown::Both);
                });
            }
        });
        Self {
            address,
            gate,
            server,
        }
    }

    /// From now on nothing stops.
    pub fn go_on(&self) {
        self.set(State::Passes);
    }

    /// One long answer ends where it halts; from then on nothing stops.
    pub fn break_off(&self) {
        self.set(State::BreaksOff);
    }

    /// New connections lead to another server.
    pub fn lead_to(&self, server: &str) {
        server.clone_into(&mut self.server.lock().expect("no panic under it"));
    }

    fn set(&self, state: State) {
        *self.gate.state.lock().expect("no panic under it") = state;
        self.gate.changed.notify_all();
    }
}

impl Gate {
    /// Whether an answer may go on; waits for it.
    fn pass(&self) -> bool {
        let state = self.state.lock().expect("no panic under it");
        let halted = |state: &mut State| *state == State::Halts;
        let mut state = self
            .changed
            .wait_while(state, halted)
            .expect("no panic under it");
        let breaks_off = *state == State::BreaksOff;
        *state = State::Passes;
        !breaks_off
    }
}

fn answers(mut from: TcpStream, to: &mut TcpStream, after: usize, gate: &Gate) {
    let (mut passed, mut piece) = (0, vec![0; 16 << 10]);
    while let Ok(length @ 1..) = from.read(&mut piece) {
        if passed >= after && !gate.pass() {
            return;
        }
        passed += length;
        if to.write_all(&piece[..length]).is_err() {
            return;
        }
    }
}
