//! Compares an answer with the recorded one.

use tepui_proto::descriptor::Described;
use tepui_proto::v1::{agent, master};
use tepui_proto::{json, v1};

use super::exchange::{Answer, Exchange};
use super::{mask, raw};

/// Compares by the rules of this module's parent; `without` are tasks that are left out of lists.
///
/// # Errors
/// What differs first.
pub fn compare(exchange: &Exchange, answer: &Answer, without: &[String]) -> Result<(), String> {
    let recorded = &exchange.answer;
    let line = |answer: &Answer| format!("{} {}", answer.status, answer.reason);
    if line(recorded) != line(answer) {
        return Err(format!(
            "status is '{}', Mesos: '{}'; body: {}",
            line(answer),
            line(recorded),
            around(&String::from_utf8_lossy(&answer.body), 0)
        ));
    }
    let (ours, theirs) = (headers(answer), headers(recorded));
    if ours != theirs {
        let missing: Vec<_> = theirs
            .iter()
            .filter(|header| !ours.contains(header))
            .collect();
        let surplus: Vec<_> = ours
            .iter()
            .filter(|header| !theirs.contains(header))
            .collect();
        return Err(format!(
            "headers: missing {missing:?}, too many {surplus:?}"
        ));
    }
    texts(
        &body(exchange, answer, without)?,
        &body(exchange, recorded, without)?,
    )
}

/// Compares masked bodies.
pub(super) fn texts(ours: &str, theirs: &str) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    let place = ours
        .bytes()
        .zip(theirs.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    Err(format!(
        "body differs at {place}:\n    ours:  {}\n    Mesos: {}",
        around(ours, place),
        around(theirs, place)
    ))
}

/// Headers without what changes each time, in an order of their own.
fn headers(answer: &Answer) -> Vec<(String, String)> {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .map(|(name, value)| {
            // The connection was read by this length, so it is right; the masked body decides.
            let value = if name == "Content-Length" && !answer.body.is_empty() {
                "<length>".to_owned()
            } else {
                mask::text(value)
            };
            (name.clone(), value)
        })
        .collect();
    headers.sort();
    headers
}

/// The body as masked text: protobuf as JSON, of a stream the first record.
fn body(exchange: &Exchange, answer: &Answer, without: &[String]) -> Result<String, String> {
    let mut bytes = answer.body.clone();
    if answer.is_stream {
        bytes = raw::first_record(&bytes).ok_or("the stream has no whole record")?;
    }
    if answer.header("Content-Type") == Some("application/x-protobuf") {
        bytes = protobuf_as_json(&exchange.request.path, &bytes)?;
    }
    let path = &exchange.request.path;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => mask::json(&text, path, without),
        Err(error) => format!("{:02x?}", error.as_bytes()),
    })
}

pub(super) fn protobuf_as_json(path: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let descriptor = match path {
        path if path.contains("/scheduler") => v1::scheduler::Event::DESCRIPTOR,
        path if path.starts_with("/slave(") => agent::Response::DESCRIPTOR,
        _ => master::Response::DESCRIPTOR,
    };
    let mut out = Vec::new();
    json::from_wire(descriptor, bytes, &mut out).map_err(|error| error.to_string())?;
    Ok(out)
}

/// A part of a text with a few characters before the place.
fn around(text: &str, place: usize) -> String {
    let mut start = place.saturating_sub(60);
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    text[start..].chars().take(200).collect()
}
