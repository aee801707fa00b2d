//! Exchanges recorded from Mesos 1.11.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tepui_http::Client;

/// Id of the master that was recorded.
const MASTER: &str = "2bb699ce-5753-4d4d-ad59-74064e38038a";

pub struct Recording {
    name: String,
    exchange: Value,
    body: Option<String>,
}

impl Recording {
    /// `group/name`
    pub fn of(name: &str) -> Recording {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tools/e2e/recordings");
        let path = folder.join(format!("{name}.json"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        Recording {
            name: name.to_owned(),
            exchange: serde_json::from_slice(&bytes).expect("JSON"),
            body: std::fs::read_to_string(folder.join(format!("{name}.body"))).ok(),
        }
    }

    /// Sends the recorded request to a master, whose id takes the recorded one's place, and compares status,
    /// type and body.
    pub async fn replay(&self, client: &Client, master: &str) {
        let (request, response) = (&self.exchange["request"], &self.exchange["response"]);
        let ours = |text: &str| {
            let text = text.replace(MASTER, master);
            // The recorded agents shared an address; ours say where they would be.
            text.replace("slave(2)@127.0.0.1:15050", "slave(1)@127.0.0.1:5051")
        };
        let headers: Vec<(&str, &str)> = request["headers"]
            .as_array()
            .expect("headers")
            .iter()
            .filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
            .collect();
        let body = sent(request).map(|body| ours(&body)).unwrap_or_default();
        let method = request["method"].as_str().expect("a method");
        let path = request["path"].as_str().expect("a path");
        let reply = client
            .request(
                method.parse().expect("a method"),
                path,
                &headers,
                body.into(),
            )
            .await
            .expect("an answer");
        let recorded = response["headers"].as_array().expect("headers");
        let kind = recorded
            .iter()
            .find(|pair| pair[0] == "Content-Type")
            .and_then(|pair| pair[1].as_str());
        let expected = (
            response["status"].as_u64().expect("a status"),
            kind,
            ours(&self.answer()),
        );
        let got = (
            u64::from(reply.status.as_u16()),
            reply.header("Content-Type"),
            reply.text(),
        );
        if got != expected && !same_maps(&got.2, &expected.2) {
            panic!("{}:\nours:  {got:?}\nMesos: {expected:?}", self.name);
        }
    }

    /// The recorded body.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.answer()).expect("JSON")
    }

    fn answer(&self) -> String {
        let response = &self.exchange["response"];
        match (&self.body, response["body_text"].as_str()) {
            (Some(body), _) => body.clone(),
            (None, Some(text)) => text.to_owned(),
            (None, None) => String::new(),
        }
    }
}

fn sent(part: &Value) -> Option<String> {
    if let Some(text) = part["body_text"].as_str() {
        return Some(text.to_owned());
    }
    if let Some(coded) = part["body_base64"].as_str() {
        return String::from_utf8(STANDARD.decode(coded).ok()?).ok();
    }
    part.get("body").map(Value::to_string)
}

/// Whether two bodies differ only in the order of a protobuf map, which means nothing.
fn same_maps(ours: &str, theirs: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    theirs.contains(r#""guarantees":{"#)
        && ours.len() == theirs.len()
        && value(ours) == value(theirs)
}
