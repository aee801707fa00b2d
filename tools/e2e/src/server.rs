//! An HTTP server of a test's own, which notes what it was asked for.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a path is answered with.
#[derive(Debug, Clone)]
pub enum Page {
    /// A status line such as `200 OK`, and a body.
    Whole(&'static str, Vec<u8>),
    /// The beginning of a body that never ends.
    Stuck(Vec<u8>),
}

/// A server on a port of its own; it ends with the test.
pub struct PageServer {
    /// Where it listens.
    pub address: SocketAddr,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl PageServer {
    /// Starts a server with these pages; anything else is 404.
    pub fn start<const N: usize>(pages: [(&str, Page); N]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let pages = pages.map(|(path, page)| (path.to_owned(), page));
        let server = Self {
            address,
            pages: Arc::new(Mutex::new(pages.into())),
            asked: Arc::default(),
        };
        let (pages, asked) = (server.pages.clone(), server.asked.clone());
        std::thread::spawn(move || {
            let mut stuck = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let Some(path) = request(&stream) else {
                    continue;
                };
                let page = pages.lock().expect("no panic under it").get(&path).cloned();
                asked.lock().expect("no panic under it").push(path);
                let page = page.unwrap_or_else(|| Page::Whole("404 Not Found", b"no page".into()));
                // Whoever asked may be gone.
                let _ = (&stream).write_all(&bytes(&page));
                if let Page::Stuck(_) = page {
                    stuck.push(stream);
                }
            }
        });
        server
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often a path was asked for.
    pub fn asked(&self, path: &str) -> usize {
        let asked = self.asked.lock().expect("no panic under it");
        asked.iter().filter(|one| *one == path).count()
    }

    /// Answers otherwise from now on.
    pub fn set(&self, path: &str, page: Page) {
        let mut pages = self.pages.lock().expect("no panic under it");
        pages.insert(path.to_owned(), page);
    }
}

/// The path of a request.
fn request(stream: &TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    lines.find(String::is_empty)?;
    Some(path)
}

fn bytes(page: &Page) -> Vec<u8> {
    let (status, length, body) = match page {
        Page::Whole(status, body) => (*status, body.len(), body),
        Page::Stuck(body) => ("200 OK", body.len() + 1000, body),
    };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}
