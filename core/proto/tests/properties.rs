//! Messages made at random, and bytes that are no messages.

use proptest::prelude::*;
use tepui_proto::descriptor::{Described, Kind, Label, MessageDescriptor, messages};
use tepui_proto::json::{self, Value, Writer};
use tepui_proto::recordio::{self, RecordError};
use tepui_proto::v1::{self, agent, executor, master, scheduler};
use tepui_proto::{DecodeError, Message, check_required, decode, is_decodable};

/// A JSON object with random fields of the message; required ones are always there.
fn object(descriptor: &'static MessageDescriptor, depth: u32) -> BoxedStrategy<String> {
    let fields: Vec<_> = descriptor
        .fields
        .iter()
        .filter_map(|field| {
            let is_required = field.label == Label::Required;
            let is_deep = matches!(field.kind, Kind::Message(_)) && depth == 0;
            // Two members of one oneof would leave only the later.
            if (is_deep && !is_required) || field.oneof.is_some() {
                return None;
            }
            let value = value(field.kind, depth.saturating_sub(1));
            let text = match (field.label, field.kind) {
                (Label::Repeated, Kind::Message(entry)) if entry.is_map_entry => {
                    let value = self::value(entry.fields[1].kind, depth.saturating_sub(1));
                    value
                        .prop_map(|value| format!("{{\"key\":{value}}}"))
                        .boxed()
                }
                (Label::Repeated, _) => prop::collection::vec(value, 1..3)
                    .prop_map(|values| format!("[{}]", values.join(",")))
                    .boxed(),
                _ => value,
            };
            let member = text.prop_map(move |text| format!("\"{}\":{text}", field.name));
            Some(if is_required {
                member.prop_map(Some).boxed()
            } else {
                prop::option::weighted(0.3, member).boxed()
            })
        })
        .collect();
    fields
        .prop_map(|members| {
            format!(
                "{{{}}}",
                members.into_iter().flatten().collect::<Vec<_>>().join(",")
            )
        })
        .boxed()
}

fn value(kind: Kind, depth: u32) -> BoxedStrategy<String> {
    fn number<T: ToString + Arbitrary + 'static>() -> BoxedStrategy<String> {
        any::<T>().prop_map(|value| value.to_string()).boxed()
    }
    match kind {
        Kind::Double => (-1e12..1e12_f64).prop_map(|v| format!("{v:e}")).boxed(),
        Kind::Int64 => number::<i64>(),
        Kind::Uint64 => (0..=i64::MAX as u64).prop_map(|v| v.to_string()).boxed(),
        Kind::Int32 => number::<i32>(),
        Kind::Uint32 => number::<u32>(),
        Kind::Bool => number::<bool>(),
        Kind::String => any::<String>().prop_map(quoted).boxed(),
        Kind::Bytes => any::<Vec<u8>>()
            .prop_map(|bytes| {
                let mut out = Vec::new();
                Writer::new(&mut out).base64(&bytes);
                String::from_utf8(out).unwrap()
            })
            .boxed(),
        Kind::Enum(known) => prop::sample::select(known.values)
            .prop_map(|(name, _)| format!("\"{name}\""))
            .boxed(),
        Kind::Message(part) => object(part, depth),
    }
}

fn quoted(text: String) -> String {
    serde_json::to_string(&text).unwrap()
}

fn round_trip<M: Described + PartialEq>(text: &str) -> Result<(), TestCaseError> {
    let message: M = json::to_message(text.as_bytes())
        .map_err(|error| TestCaseError::fail(format!("{error}: {text}")))?;
    let wire = message.encode_to_vec();
    prop_assert!(decode::<M>(&wire).unwrap() == message);

    let written = json::from_message(&message);
    let again: M = json::to_message(&written).unwrap();
    // Defaults that were not set are set now; after that nothing changes.
    prop_assert_eq!(json::from_message(&again), &written[..]);
    let other: serde_json::Value = serde_json::from_slice(&written).unwrap();
    prop_assert!(other.is_object());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_survive_json_and_protobuf(
        framework in object(v1::FrameworkInfo::DESCRIPTOR, 3),
        task in object(v1::TaskInfo::DESCRIPTOR, 3),
        offer in object(v1::Offer::DESCRIPTOR, 3),
        call in object(scheduler::Call::DESCRIPTOR, 3),
        update in object(executor::Call::DESCRIPTOR, 2),
    ) {
        round_trip::<v1::FrameworkInfo>(&framework)?;
        round_trip::<v1::TaskInfo>(&task)?;
        round_trip::<v1::Offer>(&offer)?;
        round_trip::<scheduler::Call>(&call)?;
        round_trip::<executor::Call>(&update)?;
    }

    /// What is kept as bytes must not fail when it is decoded later.
    #[test]
    fn what_is_found_decodable_is_decoded(
        task in object(v1::Task::DESCRIPTOR, 3),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let task: v1::Task = json::to_message(task.as_bytes()).unwrap();
        let mut wire = task.encode_to_vec();
        prop_assert!(is_decodable(v1::Task::DESCRIPTOR, &wire));
        for (at, byte) in changes {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        if is_decodable(v1::Task::DESCRIPTOR, &wire) {
            let decoded = v1::Task::decode(&wire[..]);
            prop_assert!(decoded.is_ok(), "{:?}", decoded);
        }
    }

    #[test]
    fn strings_survive(text in any::<String>()) {
        let mut out = Vec::new();
        Writer::new(&mut out).str(&text);
        prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), &text[..]);
        prop_assert_eq!(json::parse(&out).unwrap(), Value::String((&text).into()));
    }

    #[test]
    fn json_is_what_another_parser_says(text in json_like()) {
        // picojson takes more than JSON allows (numbers such as 01), never less.
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        if theirs.is_ok() && !text.contains(['e', 'E']) {
            prop_assert!(json::parse(text.as_bytes()).is_ok(), "{}", text);
        }
    }

    #[test]
    fn records_come_out_as_they_went_in(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        cuts in prop::collection::vec(1_usize..50, 1..20),
    ) {
        let stream: Vec<u8> = records.iter().flat_map(|record| recordio::encode(record)).collect();
        let mut decoder = recordio::Decoder::new(1000);
        let mut found = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at(rest.len().min(*cut));
            decoder.push(piece);
            while let Some(record) = decoder.next_record().unwrap() {
                found.push(record.to_vec());
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(found, records);
        prop_assert!(decoder.is_between_records());
    }
}

/// Text of JSON's characters in any order, and JSON proper.
fn json_like() -> BoxedStrategy<String> {
    prop_oneof![
        r#"[\[\]{}:,"0-9.\-eE+truefalsn\\ u]{0,40}"#,
        object(scheduler::Call::DESCRIPTOR, 2)
    ]
    .boxed()
}

/// A generator of its own, so that a failure is found again by its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A few changes of `bytes`: flips, cuts, repetitions, insertions.
    fn spoil(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(6) {
            let place = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[place] = self.next() as u8,
                1 if !bytes.is_empty() => bytes[place] ^= 1 << self.below(8),
                2 => bytes.truncate(place),
                3 => {
                    let part = bytes[place..bytes.len().min(place + 12)].to_vec();
                    bytes.extend_from_slice(&part);
                }
                _ => bytes.insert(place, self.next() as u8),
            }
        }
        bytes
    }
}

/// Real bodies to start from.
fn seeds() -> Vec<Vec<u8>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/master");
    let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .filter(|body| body.len() < 10_000)
        .collect();
    seeds.sort();
    seeds
}

fn has_unknown_enum(descriptor: &MessageDescriptor, mut bytes: &[u8]) -> bool {
    use prost::encoding::{WireType, decode_key, decode_varint};
    while let Ok((number, wire_type)) = decode_key(&mut bytes) {
        let kind = descriptor.field(number).map(|(_, field)| field.kind);
        match wire_type {
            WireType::Varint => {
                let value = decode_varint(&mut bytes).unwrap_or_default();
                if let Some(Kind::Enum(known)) = kind
                    && known.name_of(value as i32).is_none()
                {
                    return true;
                }
            }
            WireType::LengthDelimited => {
                let length = decode_varint(&mut bytes).unwrap_or_default() as usize;
                let Some((part, rest)) = bytes.split_at_checked(length) else {
                    return false;
                };
                if let Some(Kind::Message(descriptor)) = kind
                    && has_unknown_enum(descriptor, part)
                {
                    return true;
                }
                bytes = rest;
            }
            WireType::SixtyFourBit => bytes = bytes.get(8..).unwrap_or_default(),
            WireType::ThirtyTwoBit => bytes = bytes.get(4..).unwrap_or_default(),
            WireType::StartGroup | WireType::EndGroup => {}
        }
    }
    false
}

/// Rounds of each random test. `TEPUI_FUZZ_ROUNDS` makes a long run of it.
fn rounds() -> u64 {
    std::env::var("TEPUI_FUZZ_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10_000)
}

#[test]
fn random_json_never_panics() {
    let seeds = seeds();
    for round in 1..=rounds() {
        let mut random = Random(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let text = random.spoil(&seeds[random.0 as usize % seeds.len()]);
        if let Ok(message) = json::to_message::<master::Response>(&text) {
            let written = json::from_message(&message);
            json::to_message::<master::Response>(&written).unwrap();
        }
        let _ = json::to_message::<agent::Call>(&text);
    }
}

#[test]
fn random_protobuf_never_panics() {
    let seeds: Vec<Vec<u8>> = seeds()
        .iter()
        .map(|body| {
            json::to_message::<master::Response>(body)
                .unwrap()
                .encode_to_vec()
        })
        .collect();
    for round in 1..=rounds() {
        let mut random = Random(round.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        let bytes = random.spoil(&seeds[random.0 as usize % seeds.len()]);
        let mut out = b"kept".to_vec();
        let written = json::from_wire(master::Response::DESCRIPTOR, &bytes, &mut out);
        match decode::<master::Response>(&bytes) {
            Ok(message) => {
                // What prost takes, the transcoder takes, and both mean the same.
                assert_eq!(written, Ok(()), "round {round}");
                // Of a known and a later unknown enum number Mesos keeps the known one, prost the later.
                if !has_unknown_enum(master::Response::DESCRIPTOR, &bytes) {
                    assert_eq!(out[4..], json::from_message(&message), "round {round}");
                }
            }
            Err(DecodeError::Missing(fields)) => assert!(!fields.is_empty()),
            Err(DecodeError::Malformed) => {}
        }
        if written.is_err() {
            assert_eq!(out, b"kept", "round {round}");
        }
        // Any bytes against any message.
        let descriptor = messages()[random.below(messages().len())];
        let _ = check_required(descriptor, &bytes);
        let _ = json::from_wire(descriptor, &bytes, &mut out);
    }
}

#[test]
fn random_streams_never_panic_and_stay_small() {
    for round in 1..=rounds() {
        let mut random = Random(round.wrapping_mul(0xd134_2543_de82_ef95) | 1);
        let mut stream: Vec<u8> = Vec::new();
        for _ in 0..random.below(8) {
            let record: Vec<u8> = (0..random.below(200))
                .map(|_| random.next() as u8)
                .collect();
            stream.extend_from_slice(&recordio::encode(&record));
        }
        let stream = random.spoil(&stream);
        let mut decoder = recordio::Decoder::new(256);
        for piece in stream.chunks(1 + random.below(64)) {
            decoder.push(piece);
            loop {
                match decoder.next_record() {
                    Ok(Some(record)) => assert!(record.len() <= 256),
                    Ok(None) => break,
                    Err(_) => {
                        assert_eq!(decoder.next_record(), Err(RecordError::Failed));
                        break;
                    }
                }
            }
        }
    }
}

#[test]
fn record_lengths_are_checked() {
    for (stream, words) in [
        (
            "x\n",
            "Failed to decode length 'x': Failed to convert 'x' to number",
        ),
        (
            "\n",
            "Failed to decode length '': Failed to convert '' to number",
        ),
        (
            "-1\n",
            "Failed to decode length '-1': Failed to convert '-1' to number",
        ),
        (
            "1025\n",
            "record of 1025 bytes exceeds the limit of 1024 bytes",
        ),
        (
            "18446744073709551615\n",
            "record of 18446744073709551615 bytes exceeds the limit of 1024 bytes",
        ),
        (
            "000000000000000000000",
            "Failed to decode length: no newline within 20 characters",
        ),
    ] {
        let mut decoder = recordio::Decoder::new(1024);
        decoder.push(stream.as_bytes());
        assert_eq!(decoder.next_record().unwrap_err().to_string(), words);
    }
    let mut decoder = recordio::Decoder::new(1024);
    decoder.push(b"0\n5\nhel");
    assert_eq!(decoder.next_record().unwrap().unwrap(), "");
    assert_eq!(decoder.next_record(), Ok(None));
    decoder.push(b"lo1");
    assert_eq!(decoder.next_record().unwrap().unwrap(), "hello");
    assert!(!decoder.is_between_records());
}

#[test]
fn deep_and_wide_messages_are_bounded() {
    // A container within a container, 10,000 levels deep.
    let mut bytes = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0x0a, 0x01, b'c', 0x12];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.extend_from_slice(&bytes);
        bytes = outer;
    }
    assert_eq!(
        check_required(v1::ContainerId::DESCRIPTOR, &bytes),
        Err(DecodeError::Malformed)
    );
    let text = format!(
        "{}{}",
        r#"{"value":"c","parent":"#.repeat(10_000),
        "}".repeat(10_000)
    );
    assert!(json::to_message::<v1::ContainerId>(text.as_bytes()).is_err());
    let text = format!(
        "{}{{}}{}",
        r#"{"value":"c","parent":"#.repeat(90),
        "}".repeat(90)
    );
    let error = json::to_message::<v1::ContainerId>(text.as_bytes())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("Missing required fields: {}value", "parent.".repeat(90))
    );

    // A hundred thousand operations without their type: the error names some of them only.
    let text = format!(
        r#"{{"accept":{{"operations":[{}{{}}]}}}}"#,
        "{},".repeat(100_000)
    );
    let error = json::to_message::<scheduler::Call>(text.as_bytes());
    assert!(error.is_ok(), "type is optional: {error:?}");
    let text = format!(
        r#"{{"kill_policy":{{}},"resources":[{}{{}}]}}"#,
        "{},".repeat(100_000)
    );
    let error = json::to_message::<v1::TaskInfo>(text.as_bytes())
        .unwrap_err()
        .to_string();
    assert!(error.len() < 10_000, "{}", error.len());
}
