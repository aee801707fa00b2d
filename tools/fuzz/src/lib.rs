//! Fuzz targets: one function for each decoder of bytes that come from a socket.
//!
//! A target takes any bytes and fails by a panic: its own, where what was read does not come out
//! again the same, or the decoder's. `cargo xtask fuzz` runs them under libFuzzer, which also bounds
//! memory and time; the tests run them over the corpus and over damaged copies of it.
//!
//! The first byte chooses the message where a decoder has many. An input that once failed belongs
//! in `corpus/TARGET/`.

use bytes::BytesMut;
use tepui_http::shared::{parse_duration, parse_number};
use tepui_http::{HeaderMap, HeaderValue, Media, Query, header, media, percent};
use tepui_link::Frames;
use tepui_model::resources::Resources;
use tepui_proto::descriptor::Described;
use tepui_proto::recordio::{self, Decoder};
use tepui_proto::v1::{agent, executor, maintenance, master, quota, scheduler};
use tepui_proto::{convert, decode, json, v1};

/// What decodes bytes; it fails by a panic.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("json", json_message),
    ("protobuf", protobuf_message),
    ("wire-to-json", wire_to_json),
    ("recordio", records),
    ("link", link_frames),
    ("query", query),
    ("headers", headers),
    ("resources", resources),
];

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    found.map(|(_, run)| *run)
}

/// Calls a generic function with the message that the first byte chooses, and the other bytes.
macro_rules! chosen {
    ($data:expr, $run:ident) => {
        if let Some((first, rest)) = $data.split_first() {
            match first % 8 {
                0 => $run::<scheduler::Call>(rest),
                1 => $run::<executor::Call>(rest),
                2 => $run::<master::Call>(rest),
                3 => $run::<agent::Call>(rest),
                4 => $run::<scheduler::Event>(rest),
                5 => $run::<quota::QuotaRequest>(rest),
                6 => $run::<maintenance::Schedule>(rest),
                _ => $run::<v1::WeightInfo>(rest),
            }
        }
    };
}

/// Bodies in JSON: what is accepted is a whole message and its JSON reads back as the same.
fn json_message(data: &[u8]) {
    fn run<M: Described>(text: &[u8]) {
        let Ok(message) = json::to_message::<M>(text) else {
            return;
        };
        decode::<M>(&message.encode_to_vec()).expect("what JSON gave has all required fields");
        let written = json::from_message(&message);
        let again: M = json::to_message(&written).expect("own JSON");
        assert_eq!(
            json::from_message(&again),
            written,
            "JSON changes on its way"
        );
    }
    chosen!(data, run);
}

/// Bodies in protobuf: what is accepted has a JSON form, and its resources can be checked.
fn protobuf_message(data: &[u8]) {
    fn run<M: Described>(bytes: &[u8]) {
        if let Ok(message) = decode::<M>(bytes) {
            json::parse(&json::from_message(&message)).expect("own JSON");
        }
    }
    chosen!(data, run);
    if let Some(Ok(call)) = data.get(1..).map(decode::<scheduler::Call>) {
        let accept = call.accept.unwrap_or_default();
        let launched = accept.operations.iter().filter_map(|o| o.launch.as_ref());
        for task in launched.flat_map(|launch| &launch.task_infos) {
            if let Ok(resources) = convert::resources(&task.resources) {
                let sent = convert::to_proto(&resources);
                assert_eq!(convert::resources(&sent).as_ref(), Ok(&resources));
            }
        }
    }
}

/// JSON straight from the bytes of a message is the JSON of the decoded message. Bytes are taken
/// that say everything once: of an enum that is there twice prost takes the last, and Mesos, as the
/// straight way does, the last that it knows.
fn wire_to_json(data: &[u8]) {
    fn run<M: Described>(bytes: &[u8]) {
        let mut straight = Vec::new();
        let written = json::from_wire(M::DESCRIPTOR, bytes, &mut straight);
        if let Ok(message) = decode::<M>(bytes) {
            written.expect("the bytes of a message");
            if message.encode_to_vec() == bytes {
                assert_eq!(straight, json::from_message(&message));
            }
        }
    }
    chosen!(data, run);
}

/// The longest record that the target accepts.
const RECORD: usize = 4096;

/// RecordIO in pieces: records come out once, as they went in, and nothing longer than the limit.
fn records(data: &[u8]) {
    let mut decoder = Decoder::new(RECORD);
    let mut taken = 0;
    for piece in data.chunks(7) {
        decoder.push(piece);
        loop {
            match decoder.next_record() {
                Ok(Some(record)) => {
                    assert!(record.len() <= RECORD);
                    taken += record.len();
                    let mut again = Decoder::new(RECORD);
                    again.push(&recordio::encode(&record));
                    assert_eq!(again.next_record(), Ok(Some(record)));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(taken <= data.len());
}

/// Frames of the agent link: what is read is written as a frame that reads the same.
fn link_frames(data: &[u8]) {
    let frames = Frames::with_limit(1 << 16);
    let mut buffer = BytesMut::from(data);
    while let Ok(Some(frame)) = frames.take(&mut buffer) {
        let mut written = BytesMut::new();
        // Varints may be longer than they need to be, so the frame only gets shorter.
        frames
            .put(&frame, &mut written)
            .expect("no longer than it came");
        let again = frames.take(&mut written).expect("own frame");
        assert_eq!(again, Some(frame));
        assert!(written.is_empty());
    }
}

/// Queries and forms, with the numbers and durations in them.
fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let query = Query::parse(&text);
    for key in [
        "path", "offset", "length", "limit", "order", "timeout", "jsonp", "slaveId",
    ] {
        if let Some(value) = query.get(key) {
            assert!(value.len() <= text.len());
            let _ = parse_number::<u64>(value);
            let _ = parse_number::<i64>(value);
            let _ = parse_duration(value);
        }
    }
    assert_eq!(
        percent::decode(&percent::encode(&text)).as_deref(),
        Ok(&*text)
    );
    let _ = percent::decode(&text);
}

/// `Accept`, `Accept-Encoding` and `Content-Type`.
fn headers(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, value.clone());
    headers.insert(header::ACCEPT_ENCODING, value.clone());
    if let Some(media) = Media::acceptable(&headers) {
        assert!(media::accepts(&headers, media.content_type()));
    }
    let _ = media::accepts_encoding(&headers, "gzip");
    if let Some(media) = value.to_str().ok().and_then(Media::of_content_type) {
        assert_eq!(media.content_type().as_bytes(), data);
    }
}

/// Resources of a flag, as JSON or text: what is read from text is printed as a text that reads the same, where
/// names are words. Names of brackets look like reservations and disks, whose texts have no form of their own for
/// every role and path; these are only read, as is JSON.
fn resources(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(resources) = convert::parse_resources(text, "*") {
        let _ = resources.to_string();
    }
    let is_word = |name: &str| {
        let mut characters = name.chars();
        characters.all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    if let Ok(resources) = Resources::parse(text, "*") {
        let printed = resources.to_string();
        if resources.iter().all(|resource| {
            is_word(resource.name().as_str())
                && !resource.is_reserved()
                && resource.disk().is_none()
        }) && let Ok(again) = Resources::parse(&printed, "*")
        {
            assert_eq!(again.to_string(), printed);
        }
    }
}
