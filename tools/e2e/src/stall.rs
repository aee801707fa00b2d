//! A way to a server that comes to a halt in the middle of what is long.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// Passes connections on; answers stop after some bytes of each connection until they may go on.
pub struct StallingProxy {
    /// Where it listens.
    pub address: SocketAddr,
    open: Arc<(Mutex<bool>, Condvar)>,
}

impl StallingProxy {
    /// In front of a server, for as long as the test runs.
    pub fn start(server: &str, after: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let (open, server) = (Arc::<(Mutex<bool>, Condvar)>::default(), server.to_owned());
        let gate = open.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(&server).expect("the server");
                let (mut up, mut down) = (
                    server.try_clone().expect("a descriptor"),
                    client.try_clone().expect("a descriptor"),
                );
                let (mut from, gate) = (client, gate.clone());
                std::thread::spawn(move || std::io::copy(&mut from, &mut up));
                std::thread::spawn(move || answers(server, &mut down, after, &gate));
            }
        });
        Self { address, open }
    }

    /// From now on nothing stops.
    pub fn go_on(&self) {
        *self.open.0.lock().expect("no panic under it") = true;
        self.open.1.notify_all();
    }
}

fn answers(mut from: TcpStream, to: &mut TcpStream, after: usize, gate: &(Mutex<bool>, Condvar)) {
    let (mut passed, mut piece) = (0, vec![0; 16 << 10]);
    while let Ok(length @ 1..) = from.read(&mut piece) {
        if passed >= after {
            let open = gate.0.lock().expect("no panic under it");
            drop(gate.1.wait_while(open, |open| !*open));
        }
        passed += length;
        if to.write_all(&piece[..length]).is_err() {
            return;
        }
    }
}
