//! A server of tokens, such as registries send their clients to.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::images::certificate;

/// What the server knows users by.
pub const USER: &str = "me";
/// Their password.
pub const PASSWORD: &str = "pass-phrase";
/// What they may have in the place of both.
pub const IDENTITY: &str = "identity-of-me";

/// A server on a port of its own; it ends with the test. It gives its user tokens for everything, and strangers those
/// to pull what is below `open/`.
pub struct TokenServer {
    address: SocketAddr,
    certificate: PathBuf,
    asked: Arc<Mutex<Vec<&'static str>>>,
}

/// A request, as far as it counts.
struct Request {
    authorization: Option<String>,
    /// Of the query and of a form.
    parameters: Vec<(String, String)>,
}

impl TokenServer {
    /// Starts one with a key of its own in `dir`.
    pub fn start(dir: &Path) -> Self {
        let (certificate, key) = certificate(dir, "tokens");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("a bound port"),
            certificate: certificate.clone(),
            asked: Arc::default(),
        };
        let asked = server.asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Some(request) = read(&stream) else {
                    continue;
                };
                let who = request.who();
                asked.lock().expect("no panic under it").push(who);
                let token = token(&request, who, &certificate, &key);
                let body = json!({ "token": token, "access_token": token }).to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len());
                let _ = (&stream)
                    .write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
            }
        });
        server
    }

    /// What a registry has to be told to send its clients here: YAML of its configuration.
    pub fn config(&self) -> String {
        let (address, certificate) = (self.address, self.certificate.display());
        format!(
            "auth: {{token: {{realm: \"http://{address}/token\", service: here, issuer: tests, rootcertbundle: {certificate}}}}}"
        )
    }

    /// How those who asked said who they are: `password`, `identity`, `nobody`.
    pub fn asked(&self) -> Vec<&'static str> {
        self.asked.lock().expect("no panic under it").clone()
    }
}

impl Request {
    fn parameter(&self, name: &str) -> &str {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    fn who(&self) -> &'static str {
        let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        if self.authorization.as_ref() == Some(&basic) {
            return "password";
        }
        match self.parameter("refresh_token") {
            IDENTITY if self.parameter("grant_type") == "refresh_token" => "identity",
            _ => "nobody",
        }
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim_end().is_empty() {
            break;
        }
        lines.push(line);
    }
    let header = |name: &str| {
        let mut found = lines.iter().filter_map(|line| line.split_once(':'));
        let found = found.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.trim().to_owned())
    };
    let length = header("content-length").and_then(|length| length.parse().ok());
    let mut form = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut form).ok()?;
    let target = lines.first()?.split(' ').nth(1)?;
    let query = target.split_once('?').map_or("", |(_, query)| query);
    let pairs =
        [query.as_bytes(), &form].map(|text| url::form_urlencoded::parse(text).into_owned());
    Some(Request {
        authorization: header("authorization"),
        parameters: pairs.into_iter().flatten().collect(),
    })
}

/// A signed token (JWT) for what was asked for, as far as whoever asks may have it.
fn token(request: &Request, who: &str, certificate: &Path, key: &Path) -> String {
    let scopes = request.parameters.iter().filter(|(key, _)| key == "scope");
    let access = scopes.filter_map(|(_, scope)| {
        let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
        let may = who != "nobody" || (name.starts_with("open/") && actions == "pull");
        let actions: Vec<&str> = actions.split(',').collect();
        may.then(|| json!({ "type": "repository", "name": name, "actions": actions }))
    });
    let access: Vec<Value> = access.collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs();
    let pem = fs::read_to_string(certificate).expect("a certificate");
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let head = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({
        "iss": "tests", "sub": who, "aud": "here", "jti": now.to_string(), "access": access,
        "nbf": now - 60, "iat": now - 60, "exp": now + 600,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&head), part(&claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(sign(key, &signed)))
}

fn sign(key: &Path, text: &str) -> Vec<u8> {
    let mut openssl = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(key)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    let mut input = openssl.stdin.take().expect("is piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    openssl.wait_with_output().expect("it ends").stdout
}
