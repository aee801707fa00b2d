//! Wrong requests to the scheduler and operator APIs, compared with what Mesos 1.11 answered.

mod support;

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use tepui_http::{Media, Method};

use support::{Scheduler, framework, site};

/// Ids of the recorded run: the framework and stream that the calls name.
const FRAMEWORK: &str = "2bb699ce-5753-4d4d-ad59-74064e38038a-0017";
const STREAM: &str = "b44912fe-c6d6-4048-99c4-4bfb69b13355";

/// Recordings whose answer is a stream: only their head is compared.
const STREAMS: [&str; 2] = ["scheduler-long-path", "scheduler-unknown-field"];

fn recordings() -> Vec<(String, Value)> {
    let folder =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tools/e2e/recordings/errors");
    let mut found: Vec<(String, Value)> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (
                name,
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
            )
        })
        .filter(|(name, _)| {
            ["call-", "operator-", "scheduler-"]
                .iter()
                .any(|group| name.starts_with(group))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// A body as it was sent.
fn body(part: &Value) -> Option<Bytes> {
    if let Some(text) = part["body_text"].as_str() {
        return Some(text.to_owned().into());
    }
    if let Some(coded) = part["body_base64"].as_str() {
        return Some(STANDARD.decode(coded).unwrap().into());
    }
    part.get("body").map(|body| body.to_string().into())
}

/// Headers without what differs from run to run, sorted.
fn headers<'a>(all: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = all
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| name != "date" && name != "content-length")
        .map(|(name, value)| match name.as_str() {
            "mesos-stream-id" => (name, "some id".to_owned()),
            _ => (name, value),
        })
        .collect();
    kept.sort();
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_answered_as_recorded() {
    let site = site().await;
    let subscribed = Scheduler::subscribe(&site.client, framework("err"), Media::Json).await;
    let ours = |text: &str| {
        text.replace(FRAMEWORK, &subscribed.id.value)
            .replace(STREAM, &subscribed.stream_id)
    };
    let recordings = recordings();
    assert!(recordings.len() > 90, "{} recordings", recordings.len());
    let mut differences = Vec::new();
    for (name, recording) in &recordings {
        let (request, response) = (&recording["request"], &recording["response"]);
        let pairs = |part: &Value| -> Vec<(String, String)> {
            let pair = |pair: &Value| {
                (
                    pair[0].as_str().unwrap().to_owned(),
                    ours(pair[1].as_str().unwrap()),
                )
            };
            part["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(pair)
                .collect()
        };
        let method: Method = request["method"].as_str().unwrap().parse().unwrap();
        let path = request["path"].as_str().unwrap();
        let sent_headers = pairs(request);
        let sent_headers: Vec<(&str, &str)> = sent_headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let sent = body(request).unwrap_or_default();
        let sent = match std::str::from_utf8(&sent) {
            Ok(text) => ours(text).into(),
            Err(_) => sent,
        };
        let recorded_headers = pairs(response);
        let expected_headers = headers(
            recorded_headers
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str())),
        );
        let expected_status = response["status"].as_u64().unwrap();
        let (status, got_headers, text) = if STREAMS.contains(&name.as_str()) {
            let records = site
                .client
                .stream(path, Media::Json, &[], sent)
                .await
                .unwrap();
            let got = headers(
                records
                    .headers
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.to_str().unwrap())),
            );
            (200, got, None)
        } else {
            let reply = site
                .client
                .request(method, path, &sent_headers, sent)
                .await
                .unwrap();
            let got = headers(
                reply
                    .headers
                    .iter()
                    .map(|(n, v)| (n.as_str(), v.to_str().unwrap())),
            );
            (u64::from(reply.status.as_u16()), got, Some(reply.body))
        };
        let expected_text = body(response).map(|body| match std::str::from_utf8(&body) {
            Ok(text) => ours(text).into(),
            Err(_) => body,
        });
        if status != expected_status || got_headers != expected_headers {
            differences.push(format!("{name}: {status} {got_headers:?}, not {expected_status} {expected_headers:?}: {text:?}"));
        } else if let Some(text) = text
            && text != expected_text.clone().unwrap_or_default()
        {
            differences.push(format!("{name}: {text:?}\n    not {expected_text:?}"));
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    site.master.stop().await;
}
