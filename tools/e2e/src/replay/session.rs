//! Recorded sessions of frameworks: calls and events by time.
//!
//! `NAME.json` has the rows, `NAME.recordio` the exact bytes of the events. Two recordings have a
//! form of their own: only a subscription, with its records in base64 or its events re-printed.

use std::path::Path;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tepui_proto::recordio::Decoder;

use super::compare::protobuf_as_json;
use super::exchange::{body_of, headers};
use super::{Answer, Exchange, Request};

const PATH: &str = "/api/v1/scheduler";

/// A recorded session.
#[derive(Clone, Debug)]
pub struct Session {
    /// `group/name.json`.
    pub name: String,
    /// What was done and seen, in order. The first row is the subscription.
    pub rows: Vec<Row>,
}

/// A row of a session.
#[derive(Clone, Debug)]
pub struct Row {
    /// Seconds since the first call.
    pub at: f64,
    /// What it is.
    pub step: Step,
}

/// What a row says.
#[derive(Clone, Debug)]
pub enum Step {
    /// The framework made a call.
    Call(Box<Exchange>),
    /// An event came: its JSON, byte for byte.
    Event(String),
}

impl Session {
    /// Whether the server ended the stream: it does after an ERROR, and of a framework that is torn down.
    pub fn is_ended_by_server(&self) -> bool {
        let is_teardown =
            |exchange: &Exchange| call_type(&exchange.request).as_deref() == Some("TEARDOWN");
        self.rows.iter().any(|row| match &row.step {
            Step::Call(exchange) => is_teardown(exchange),
            Step::Event(event) => event.starts_with(r#"{"type":"ERROR""#),
        })
    }
}

/// The type of a call in JSON.
pub(super) fn call_type(request: &Request) -> Option<String> {
    let call: Value = serde_json::from_slice(request.body.as_deref()?).ok()?;
    Some(call["type"].as_str()?.to_owned())
}

/// Reads all sessions of a group, sorted by name.
///
/// # Errors
/// A folder or file that cannot be read, or is no recording.
pub fn load(folder: &Path, group: &str) -> anyhow::Result<Vec<Session>> {
    let mut sessions = Vec::new();
    for file in std::fs::read_dir(folder.join(group)).with_context(|| group.to_owned())? {
        let path = file?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let name = path.strip_prefix(folder)?.to_string_lossy().into_owned();
            sessions.push(read(&path, name.clone()).with_context(|| name)?);
        }
    }
    sessions.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sessions)
}

fn read(path: &Path, name: String) -> anyhow::Result<Session> {
    let recorded: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let Some(rows) = recorded["session"].as_array() else {
        return subscription_only(path, name, &recorded);
    };
    let stream = std::fs::read(path.with_extension("recordio"))?;
    let mut events = records(&stream)?.into_iter();
    let mut session = Session {
        name,
        rows: Vec::new(),
    };
    for row in rows {
        let step = if row.get("call").is_some() {
            Step::Call(Box::new(call(row, &session.name)?))
        } else if row.get("event").is_some() {
            Step::Event(events.next().context("an event without a record")?)
        } else {
            continue;
        };
        let at = row["t"].as_f64().context("no time")?;
        session.rows.push(Row { at, step });
    }
    ensure!(events.next().is_none(), "more records than events");
    ensure!(
        matches!(session.rows.first(), Some(row) if matches!(row.step, Step::Call(_))),
        "no subscription"
    );
    Ok(session)
}

pub(super) fn records(stream: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut decoder = Decoder::new(stream.len());
    decoder.push(stream);
    let mut records = Vec::new();
    while let Some(record) = decoder.next_record()? {
        records.push(String::from_utf8(record.to_vec())?);
    }
    Ok(records)
}

fn call(row: &Value, name: &str) -> anyhow::Result<Exchange> {
    let answer = &row["answer"];
    Ok(Exchange {
        name: name.to_owned(),
        request: Request {
            method: "POST".to_owned(),
            path: PATH.to_owned(),
            headers: headers(row)?,
            body: Some(serde_json::to_vec(&row["call"])?),
        },
        answer: self::answer(answer)?,
    })
}

fn answer(recorded: &Value) -> anyhow::Result<Answer> {
    let line = recorded["status"].as_str().context("no status")?;
    let rest = line.strip_prefix("HTTP/1.1 ").context("another protocol")?;
    let (status, reason) = rest.split_once(' ').context("no reason")?;
    Ok(Answer {
        status: status.parse()?,
        reason: reason.to_owned(),
        headers: headers(recorded)?,
        body: body_of(recorded)?.unwrap_or_default(),
        is_stream: false,
    })
}

/// A subscription whose stream was left at once. Where the request was not kept it is that of
/// `protobuf.json`, which was sent before with another `Accept`.
fn subscription_only(path: &Path, name: String, recorded: &Value) -> anyhow::Result<Session> {
    let mut answer = answer(&recorded["response"])?;
    answer.body.clear();
    let accept = answer.header("Content-Type").context("no type")?.to_owned();
    let kept: Value;
    let request = match recorded.get("request") {
        Some(request) => request,
        None => {
            kept = serde_json::from_slice(&std::fs::read(path.with_file_name("protobuf.json"))?)?;
            &kept["request"]
        }
    };
    let exchange = Exchange {
        name: name.clone(),
        request: Request {
            method: "POST".to_owned(),
            path: PATH.to_owned(),
            headers: vec![
                (
                    "Content-Type".to_owned(),
                    "application/x-protobuf".to_owned(),
                ),
                ("Accept".to_owned(), accept),
            ],
            body: body_of(request)?,
        },
        answer,
    };
    let events: Vec<String> = match recorded["records_base64"].as_array() {
        Some(records) => records
            .iter()
            .map(protobuf_record)
            .collect::<Result<_, _>>()?,
        None => {
            let events = recorded["events"].as_array().context("no events")?;
            events.iter().map(Value::to_string).collect()
        }
    };
    let call = Step::Call(Box::new(exchange));
    let steps = std::iter::once(call).chain(events.into_iter().map(Step::Event));
    Ok(Session {
        name,
        rows: steps.map(|step| Row { at: 0.0, step }).collect(),
    })
}

fn protobuf_record(record: &Value) -> anyhow::Result<String> {
    let bytes = STANDARD.decode(record.as_str().context("no text")?)?;
    let json = protobuf_as_json(PATH, &bytes).map_err(anyhow::Error::msg)?;
    Ok(String::from_utf8(json)?)
}
