//! A recorded exchange: `GROUP/NAME.json`, with the exact bytes of a long body in `NAME.body`.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use serde_json::Value;

/// A request as it was sent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query, as on the request line.
    pub path: String,
    /// Headers without Host and Content-Length.
    pub headers: Vec<(String, String)>,
    /// Body; `None` when none was sent.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// A call in JSON.
    pub fn post_json(path: &str, body: String) -> Self {
        let json = "application/json".to_owned();
        Self {
            method: "POST".to_owned(),
            path: path.to_owned(),
            headers: vec![
                ("Content-Type".to_owned(), json.clone()),
                ("Accept".to_owned(), json),
            ],
            body: Some(body.into_bytes()),
        }
    }

    /// Replaces a text in the path, the headers and the body.
    pub fn substitute(&mut self, recorded: &str, current: &str) {
        self.path = self.path.replace(recorded, current);
        for (_, value) in &mut self.headers {
            *value = value.replace(recorded, current);
        }
        if let Some(text) = self
            .body
            .as_ref()
            .and_then(|body| std::str::from_utf8(body).ok())
        {
            self.body = Some(text.replace(recorded, current).into_bytes());
        }
    }
}

/// An answer, recorded or received.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Reason phrase.
    pub reason: String,
    /// Headers in the order they came in.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined and unpacked; of a stream the part that came.
    pub body: Vec<u8>,
    /// Whether it is a stream that went on.
    pub is_stream: bool,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the body comes in chunks.
    pub(super) fn is_chunked(&self) -> bool {
        self.header("Transfer-Encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    /// Unpacks a compressed body; the header that says so stays.
    ///
    /// # Errors
    /// A body that is not what its header says.
    pub(super) fn unpack(&mut self) -> std::io::Result<()> {
        if self.header("Content-Encoding") == Some("gzip") {
            let mut unpacked = Vec::new();
            GzDecoder::new(&self.body[..]).read_to_end(&mut unpacked)?;
            self.body = unpacked;
        }
        Ok(())
    }
}

/// A recorded exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// `group/name.json`.
    pub name: String,
    /// What was asked.
    pub request: Request,
    /// What Mesos answered.
    pub answer: Answer,
}

/// Reads all single exchanges below a folder, sorted by name; sessions are read by
/// [`session::load`](super::session::load).
///
/// # Errors
/// A folder or file that cannot be read, or is no recording.
pub fn load(folder: &Path) -> anyhow::Result<Vec<Exchange>> {
    let mut exchanges = Vec::new();
    for group in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let group = group?;
        if !group.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(group.path())? {
            let path = file?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
                if name.starts_with("scheduler") || name.starts_with("events") {
                    continue;
                }
                exchanges.push(read(&path, name.clone()).with_context(|| name)?);
            }
        }
    }
    exchanges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(exchanges)
}

fn read(path: &Path, name: String) -> anyhow::Result<Exchange> {
    let recorded: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let (request, answer) = (&recorded["request"], &recorded["response"]);
    let exact = path.with_extension("body");
    let body = if exact.exists() {
        Some(std::fs::read(exact)?)
    } else {
        body_of(answer)?
    };
    let body = body.unwrap_or_default();
    let is_stream = answer["still_open_after_2s"].as_bool() == Some(true);
    if !is_stream && answer["body_length"].as_u64() != Some(body.len() as u64) {
        bail!("the body has {} bytes, not the recorded number", body.len());
    }
    let mut exchange = Exchange {
        name,
        request: Request {
            method: text(request, "method")?,
            path: text(request, "path")?,
            headers: headers(request)?,
            body: body_of(request)?,
        },
        answer: Answer {
            status: u16::try_from(answer["status"].as_u64().context("no status")?)?,
            reason: text(answer, "reason")?,
            headers: headers(answer)?,
            body,
            is_stream,
        },
    };
    exchange.answer.unpack()?;
    Ok(exchange)
}

pub(super) fn text(of: &Value, key: &str) -> anyhow::Result<String> {
    Ok(of[key]
        .as_str()
        .with_context(|| format!("no {key}"))?
        .to_owned())
}

pub(super) fn headers(of: &Value) -> anyhow::Result<Vec<(String, String)>> {
    serde_json::from_value(of["headers"].clone()).context("headers")
}

pub(super) fn body_of(message: &Value) -> anyhow::Result<Option<Vec<u8>>> {
    if let Some(text) = message["body_text"].as_str() {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    if let Some(text) = message["body_base64"].as_str() {
        return Ok(Some(STANDARD.decode(text)?));
    }
    match message.get("body") {
        Some(body) => Ok(Some(serde_json::to_vec(body)?)),
        None => Ok(None),
    }
}
