//! A fetcher under test, servers that answer as they are told, and archives of any kind.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses a part of it"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tepui_fetcher_uri::UriFetcher;
use tepui_host::config::ModuleConfig;
use tepui_host::kinds::fetcher::FetcherClient;
use tepui_host::{HostSettings, ModuleHost};
use tepui_module_proto::fetcher::{FetchRequest, Uri, User};

/// A fetcher, its directories, and a server.
pub struct Bench {
    pub at: tempfile::TempDir,
    host: ModuleHost,
    pub client: FetcherClient,
}

impl Bench {
    pub fn new(settings: Value) -> Self {
        let at = tempfile::tempdir().unwrap();
        let mut config = ModuleConfig::default();
        let Value::Object(settings) = settings else {
            panic!("settings are a table");
        };
        config.settings.insert("uri".to_owned(), settings);
        let mut own = HostSettings::new("agent", config);
        own.work_dir = Some(at.path().join("work"));
        own.runtime_dir = Some(at.path().join("run"));
        let host = ModuleHost::new(own);
        host.link(tepui_module_sdk::linked!(fetcher: UriFetcher));
        let client = FetcherClient::new(host.load("fetcher", "uri").unwrap());
        Self { at, host, client }
    }

    pub fn sandbox(&self, name: &str) -> PathBuf {
        let path = self.at.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub async fn fetch(&self, name: &str, uris: Vec<Uri>) -> Result<PathBuf, String> {
        self.fetch_as(name, uris, None).await
    }

    pub async fn fetch_as(
        &self,
        name: &str,
        uris: Vec<Uri>,
        user: Option<User>,
    ) -> Result<PathBuf, String> {
        let sandbox = self.sandbox(name);
        let request = FetchRequest {
            container: name.to_owned(),
            sandbox: sandbox.display().to_string(),
            uris,
            user,
        };
        let fetched = self.client.fetch(&request).await;
        fetched.map(|()| sandbox).map_err(|error| error.to_string())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.host.release();
    }
}

pub fn uri(value: impl Into<String>) -> Uri {
    Uri {
        value: value.into(),
        extract: true,
        ..Uri::default()
    }
}

pub fn cached(value: impl Into<String>) -> Uri {
    Uri {
        cache: true,
        ..uri(value)
    }
}

pub fn read(sandbox: &Path, name: &str) -> String {
    fs::read_to_string(sandbox.join(name)).unwrap()
}

pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// How a path is answered: the bytes of the whole answer, and whether the connection then stays open.
pub type Answers = BTreeMap<&'static str, (Vec<u8>, bool)>;

/// A server that notes which paths were asked for.
pub struct Server {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let path = request(&stream);
                let (answer, stays) = answers
                    .get(&*path)
                    .cloned()
                    .unwrap_or_else(|| (ok(b"?"), false));
                noted.lock().unwrap().push(path);
                let _ = (&stream).write_all(&answer);
                if stays {
                    open.push(stream);
                }
            }
        });
        Self { address, asked }
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn count(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| *one == path).count()
    }
}

pub fn request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap().unwrap();
    for line in lines {
        if line.unwrap().is_empty() {
            break;
        }
    }
    first.split(' ').nth(1).unwrap().to_owned()
}

pub fn answer(status: &str, more: &str, body: &[u8]) -> Vec<u8> {
    let mut all = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n").into_bytes();
    all.extend_from_slice(body);
    all
}

pub fn ok(body: &[u8]) -> Vec<u8> {
    answer(
        "200 OK",
        &format!("Content-Length: {}\r\n", body.len()),
        body,
    )
}

pub fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

/// A tar archive of these entries; file contents are the paths.
pub fn tar(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, kind, link) in entries {
        let mut header = tar::Header::new_gnu();
        // Set by hand: the crate refuses to write what has to be refused here.
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o6755);
        let body = match kind {
            tar::EntryType::Regular => path.as_bytes(),
            _ => b"",
        };
        header.set_size(body.len() as u64);
        header.set_cksum();
        archive.append(&header, body).unwrap();
    }
    archive.into_inner().unwrap()
}

/// As [`tar`]; files and links only.
pub fn zip(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, kind, target) in entries {
        if *kind == tar::EntryType::Symlink {
            zip.add_symlink(*name, *target, options).unwrap();
        } else {
            zip.start_file(*name, options).unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
    }
    zip.finish().unwrap().into_inner()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
