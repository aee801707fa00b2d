//! A registry that the test plays, in whatever mood.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tepui_image_content::Digest;

/// A request: path, and headers in lower case.
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn is_for(&self, part: &str) -> bool {
        self.path.contains(part)
    }

    pub(crate) fn authorization(&self) -> &str {
        self.headers.get("authorization").map_or("", String::as_str)
    }
}

/// Bytes to send, piece by piece with this long between them.
pub(crate) type Reply = (Vec<Vec<u8>>, Duration);
/// What is answered in the place of what there is; told how often the path was asked for before, and where the server is.
pub(crate) type Mood = Box<dyn Fn(&Request, usize, &str) -> Option<Reply> + Send + Sync>;

/// A server with an image `a/b:1` of one layer.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) asked: Arc<Mutex<Vec<Request>>>,
}

pub(crate) fn reply(status: &str, headers: &str, body: &[u8]) -> Option<Reply> {
    let mut all = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n").into_bytes();
    all.extend_from_slice(body);
    Some((vec![all], Duration::ZERO))
}

pub(crate) fn whole(status: &str, headers: &str, body: &[u8]) -> Option<Reply> {
    let length = body.len();
    reply(
        status,
        &format!("{headers}Content-Length: {length}\r\n"),
        body,
    )
}

pub(crate) fn layer() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "file", &b"abc"[..])
        .unwrap();
    builder.into_inner().unwrap()
}

/// As long as the layer, with something else in it.
pub(crate) fn other_layer() -> Vec<u8> {
    let mut other = layer();
    other[512] = b'x';
    other
}

pub(crate) fn config() -> Vec<u8> {
    let diff_id = Digest::of(&layer()).to_string();
    let rootfs = json!({ "type": "layers", "diff_ids": [diff_id] });
    json!({ "os": "linux", "rootfs": rootfs })
        .to_string()
        .into_bytes()
}

pub(crate) fn manifest() -> Value {
    let part = |kind: &str, content: Vec<u8>| {
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": Digest::of(&content).to_string(), "size": content.len() })
    };
    json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": part("config.v1+json", config()), "layers": [part("layer.v1.tar", layer())] })
}

/// What a registry has that is well.
pub(crate) fn good(path: &str) -> Option<Reply> {
    let blob = |content: Vec<u8>| {
        let digest = Digest::of(&content).to_string();
        path.ends_with(&digest).then_some(content)
    };
    let manifest = || {
        path.ends_with("manifests/1")
            .then(|| manifest().to_string().into_bytes())
    };
    match blob(layer()).or_else(|| blob(config())).or_else(manifest) {
        Some(content) => whole("200 OK", "", &content),
        None => whole("404 Not Found", "", b"no such thing"),
    }
}

impl Server {
    pub(crate) fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let (noted, own, mood) = (asked.clone(), address.clone(), Arc::new(mood));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, own, mood) = (noted.clone(), own.clone(), mood.clone());
                std::thread::spawn(move || answer(stream, &noted, &own, &mood));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|request| request.is_for(part)).count()
    }
}

fn answer(mut stream: TcpStream, noted: &Mutex<Vec<Request>>, own: &str, mood: &Mood) {
    let mut lines = BufReader::new(stream.try_clone().unwrap())
        .lines()
        .map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_ascii_lowercase(), value.to_owned()))
        });
    let request = Request {
        headers: headers.collect(),
        path: first.split(' ').nth(1).unwrap_or_default().to_owned(),
    };
    let before = {
        let asked = noted.lock().unwrap();
        asked
            .iter()
            .filter(|other| other.path == request.path)
            .count()
    };
    let reply = mood(&request, before, own).or_else(|| good(&request.path));
    noted.lock().unwrap().push(request);
    let (pieces, pause) = reply.unwrap();
    for piece in pieces {
        if stream.write_all(&piece).is_err() {
            return;
        }
        std::thread::sleep(pause);
    }
}
