//! The transcoder against recordings of Mesos 1.11 (`tests/golden`).
//!
//! A recorded body, read and written again, has to be the same bytes: order of fields, forms of
//! numbers, escapes, defaults. Mesos writes the lists of some answers by hand and shows them when
//! they are empty; the writer of those answers does that, the transcoder leaves empty lists out.

use std::path::{Path, PathBuf};

use base64::Engine;
use tepui_proto::descriptor::Described;
use tepui_proto::json::{self, JsonError};
use tepui_proto::v1::{agent, executor, master, scheduler};
use tepui_proto::{Message, decode, recordio};

fn golden(inner: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(inner)
}

fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(golden(folder))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

/// Takes out of JSON text what Mesos writes by hand: `"key":[]` members, and the `checkpoint` of an
/// AgentInfo.
fn as_messages_say(text: &str) -> String {
    let mut text = text.replace(r#""},"checkpoint":true}"#, r#""}}"#);
    while let Some(end) = text.find("\":[]") {
        let start = text[..end].rfind('"').unwrap();
        let (mut start, mut end) = (start, end + 4);
        if text.as_bytes()[end] == b',' {
            end += 1;
        } else if text.as_bytes()[start - 1] == b',' {
            start -= 1;
        }
        text.replace_range(start..end, "");
    }
    text
}

/// Bodies with a map of several keys: Mesos writes them in an order that changes from run to run.
fn has_map(name: &str) -> bool {
    name == "master-get-quota-set.body"
}

fn sorted(mut value: serde_json::Value) -> serde_json::Value {
    value.sort_all_objects();
    value
}

fn assert_same_again<M: Described>(name: &str, body: &[u8]) {
    let expected = as_messages_say(std::str::from_utf8(body).unwrap());
    let message: M = json::to_message(body).unwrap_or_else(|error| panic!("{name}: {error}"));
    let written = String::from_utf8(json::from_message(&message)).unwrap();
    if has_map(name) {
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert!(
            sorted(read(&written)) == sorted(read(&expected)),
            "{name}: {written}"
        );
    } else if written != expected {
        let place = written
            .bytes()
            .zip(expected.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        let around = |text: &str| {
            String::from_utf8_lossy(
                &text.as_bytes()[place.saturating_sub(80)..text.len().min(place + 80)],
            )
            .into_owned()
        };
        panic!(
            "{name}\n  ours:  {}\n  Mesos: {}",
            around(&written),
            around(&expected)
        );
    }
    // The bytes of the message give the same, and pass the check for required fields.
    let again: M = decode(&message.encode_to_vec()).unwrap();
    assert_eq!(json::from_message(&again), written.as_bytes());
}

fn records(stream: &[u8]) -> Vec<bytes::Bytes> {
    let mut decoder = recordio::Decoder::new(1 << 20);
    decoder.push(stream);
    let mut records = Vec::new();
    while let Some(record) = decoder.next_record().unwrap() {
        records.push(record);
    }
    records
}

#[test]
fn operator_answers_are_written_as_recorded() {
    let (of_master, of_agent) = (files("master"), files("agent"));
    assert!(of_master.len() > 40 && of_agent.len() > 20);
    for (name, body) in &of_master {
        assert_same_again::<master::Response>(name, body);
    }
    for (name, body) in &of_agent {
        assert_same_again::<agent::Response>(name, body);
    }
}

#[test]
fn events_are_written_as_recorded() {
    let mut count = 0;
    for (name, stream) in files("events") {
        for record in records(&stream) {
            assert_same_again::<master::Event>(&name, &record);
            count += 1;
        }
    }
    for (name, stream) in files("scheduler") {
        for record in records(&stream) {
            count += 1;
            if name.starts_with("protobuf") {
                let event: scheduler::Event = decode(&record).unwrap();
                assert_eq!(event.encode_to_vec(), record);
            } else {
                assert_same_again::<scheduler::Event>(&name, &record);
            }
        }
    }
    assert!(count > 300, "{count}");
}

#[test]
fn agents_are_shown_with_their_checkpoint() {
    let body = std::fs::read(golden("master/master-busy-get-agents.body")).unwrap();
    let value = json::parse(&body).unwrap();
    let agents = value
        .get("get_agents")
        .unwrap()
        .get("agents")
        .unwrap()
        .as_array()
        .unwrap();
    let mut written = br#"{"type":"GET_AGENTS","get_agents":"#.to_vec();
    json::Writer::new(&mut written).object(|w| {
        w.key("agents").array(|w| {
            for agent in agents {
                let table = tepui_proto::descriptor::shown_agent();
                let hidden = master::response::get_agents::Agent::DESCRIPTOR;
                w.wire(table, &json::to_wire(hidden, agent).unwrap());
            }
        });
        w.key("recovered_agents").array(|_| {});
    });
    written.push(b'}');
    assert_eq!(
        String::from_utf8(written).unwrap(),
        String::from_utf8(body).unwrap()
    );
}

#[test]
fn a_capability_without_a_name_is_an_empty_object() {
    let session = std::fs::read(golden("scheduler/protobuf.recordio")).unwrap();
    let event: scheduler::Event = decode(&records(&session)[0]).unwrap();
    let text = String::from_utf8(json::from_message(&event)).unwrap();
    let end = r#""capabilities":[{"type":"AGENT_UPDATE"},{"type":"AGENT_DRAINING"},{}]}}}"#;
    assert!(text.ends_with(end), "{text}");
}

/// What an endpoint answers to a body it cannot read, and `None` where it reads it.
fn refusal(api: &str, is_json: bool, body: &[u8]) -> Option<String> {
    fn read<M: Described>(is_agent: bool, is_json: bool, body: &[u8]) -> Option<String> {
        if !is_json {
            let what = if is_agent {
                "a protobuf object"
            } else {
                "Call protobuf"
            };
            return decode::<M>(body)
                .err()
                .map(|_| format!("Failed to parse body into {what}"));
        }
        let error = json::to_message::<M>(body).err()?;
        Some(match error {
            JsonError::Syntax(text) => format!("Failed to parse body into JSON: {text}"),
            JsonError::Convert(text) if is_agent => text,
            JsonError::Convert(text) => {
                format!("Failed to convert JSON into Call protobuf: {text}")
            }
        })
    }
    match api {
        "master" => read::<master::Call>(false, is_json, body),
        "agent" => read::<agent::Call>(true, is_json, body),
        "scheduler" => read::<scheduler::Call>(false, is_json, body),
        "executor" => read::<executor::Call>(false, is_json, body),
        other => panic!("{other}"),
    }
}

#[test]
fn refusals_have_the_recorded_words() {
    let mut refused = 0;
    let mut read = 0;
    for line in std::fs::read_to_string(golden("refusals.jsonl"))
        .unwrap()
        .lines()
    {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let (name, api) = (row["name"].as_str().unwrap(), row["api"].as_str().unwrap());
        let is_json = row["content_type"] == "application/json";
        let body = match row["request"].as_str() {
            Some(text) => text.chars().map(|c| c as u8).collect(),
            None => base64::engine::general_purpose::STANDARD
                .decode(row["request_base64"].as_str().unwrap())
                .unwrap(),
        };
        let answer = row["answer"].as_str().unwrap();
        let found = refusal(api, is_json, &body);
        let is_about_reading = answer.starts_with("Failed to parse body")
            || answer.starts_with("Failed to convert")
            || answer.starts_with("Not expecting")
            || answer.starts_with("Expecting a JSON");
        if is_about_reading {
            assert_eq!(found.as_deref(), Some(answer), "{name}");
            refused += 1;
        } else {
            assert_eq!(found, None, "{name}: Mesos read it and said {answer:?}");
            read += 1;
        }
    }
    assert!(refused > 20 && read > 50, "{refused} refused, {read} read");
}

#[test]
fn leniencies_give_the_message_that_was_meant() {
    use scheduler::Call;
    let read = |text: &str| json::to_message::<Call>(text.as_bytes());
    let call = read(
        r#"{"type": "DECLINE", "zzz": [{}], "framework_id": null,
            "decline": {"offer_ids": {"value": "o"}, "filters": {"refuse_seconds": "5"}}}"#,
    )
    .unwrap();
    assert_eq!(call.framework_id, None);
    let decline = call.decline.unwrap();
    assert_eq!(decline.offer_ids[0].value, "o");
    assert_eq!(decline.filters.unwrap().refuse_seconds, Some(5.0));

    let call = read(r#"{"type": "revive", "revive": {"roles": ["a", null, ["b"]]}}"#).unwrap();
    assert_eq!(
        (call.r#type, call.revive.unwrap().roles),
        (None, vec!["a".into(), "b".into()])
    );

    // The last of equal keys counts, and mismatches are found in the order of names.
    assert!(read(r#"{"type": 1, "type": "REVIVE"}"#).is_ok());
    let error = read(r#"{"type": 1, "kill": 2}"#).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Not expecting a JSON number for field 'kill'"
    );

    for (text, words) in [
        (
            r#"{"kill": {}, "accept": {"operations": [{}, {"launch": {"task_infos": [{}]}}]}}"#,
            "Missing required fields: accept.operations[1].launch.task_infos[0].name, \
             accept.operations[1].launch.task_infos[0].task_id, \
             accept.operations[1].launch.task_infos[0].agent_id, kill.task_id",
        ),
        (
            r#"{"subscribe": {"framework_info": {"user": "u", "name": "n", "checkpoint": "yes"}}}"#,
            "Failed to parse 'yes' as a JSON boolean for field 'checkpoint': \
             syntax error at line 1 near: yes",
        ),
        (
            r#"{"decline": {"filters": {"refuse_seconds": "x"}}}"#,
            "Failed to parse 'x' as a JSON number for field 'refuse_seconds': \
             syntax error at line 1 near: x",
        ),
        (
            r#"{"decline": {"filters": {"refuse_seconds": true}}}"#,
            "Not expecting a JSON boolean for field 'refuse_seconds'",
        ),
    ] {
        assert_eq!(
            read(text).unwrap_err(),
            JsonError::Convert(words.to_owned())
        );
    }
}

#[test]
fn maps_are_objects() {
    let text = r#"{"user":"u","name":"n","failover_timeout":0.0,"checkpoint":false,"offer_filters":{"a":{"min_allocatable_resources":{"quantities":[{"quantities":{"cpus":{"value":0.5},"mem":{"value":64.0}}}]}}}}"#;
    assert_same_again::<tepui_proto::v1::FrameworkInfo>("offer_filters", text.as_bytes());
    let constraints = r#"{"role_constraints":{"r":{"groups":[{"attribute_constraints":[{"selector":{"attribute_name":"rack"},"predicate":{"text_equals":{"value":"a/b"}}}]}]}}}"#;
    assert_same_again::<scheduler::OfferConstraints>("constraints", constraints.as_bytes());
}
