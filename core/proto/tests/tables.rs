//! The protocol files against the tables of the Mesos v1 protocol in `tests/tables`.
//!
//! Rows that only a release after 1.11 has (`since` HEAD) must be absent unless they are named here: a 1.11 client or
//! server does not know them, and the recordings show as much (a capability without a name).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tepui_proto::descriptor::{FieldDescriptor, Kind, Label, MessageDescriptor, enums, messages};

fn crate_path(inner: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(inner)
}

/// Rows of all tables whose name ends like this, as column name to cell.
fn rows(is_enum: bool) -> Vec<BTreeMap<String, String>> {
    let mut rows = Vec::new();
    let mut paths: Vec<_> = std::fs::read_dir(crate_path("tests/tables"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().ends_with(".enums.tsv") == is_enum)
        .collect();
    paths.sort();
    assert!(paths.len() >= 7, "{paths:?}");
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        let columns: Vec<&str> = lines.next().unwrap().split('\t').collect();
        for line in lines {
            let cells = line.split('\t').chain(std::iter::repeat(""));
            rows.push(
                columns
                    .iter()
                    .zip(cells)
                    .map(|(c, v)| ((*c).into(), v.into()))
                    .collect(),
            );
        }
    }
    rows
}

/// What is newer than 1.11 and known here: who sends it or asks for it knows it, and nobody else is told of it but by
/// statistics, where clients leave out what they do not know.
const NEWER: [&str; 5] = [
    "mesos.v1.ResourceStatistics.mem_kmem_usage_bytes",
    "mesos.v1.ResourceStatistics.mem_kmem_tcp_usage_bytes",
    "mesos.v1.CapabilityInfo.Capability.PERFMON",
    "mesos.v1.CapabilityInfo.Capability.BPF",
    "mesos.v1.CapabilityInfo.Capability.CHECKPOINT_RESTORE",
];

/// Whether 1.11 has what the row describes, or it is one of [`NEWER`].
fn is_current(row: &BTreeMap<String, String>) -> bool {
    let of = row.get("message").or_else(|| row.get("enum"));
    let name = row.get("field").or_else(|| row.get("value"));
    let is_newer = of.zip(name).is_some_and(|(of, name)| {
        let full = format!("{of}.{name}");
        NEWER.contains(&full.as_str())
    });
    (row["since"] != "HEAD" || is_newer) && !row["notes"].contains("REMOVED")
}

fn type_name(field: &FieldDescriptor) -> &str {
    match field.kind {
        Kind::Double => "double",
        Kind::Int64 => "int64",
        Kind::Uint64 => "uint64",
        Kind::Int32 => "int32",
        Kind::Uint32 => "uint32",
        Kind::Bool => "bool",
        Kind::String => "string",
        Kind::Bytes => "bytes",
        Kind::Enum(known) => known.name,
        Kind::Message(part) => part.name,
    }
}

fn label_name(field: &FieldDescriptor) -> &str {
    match field.label {
        Label::Required => "required",
        Label::Repeated => "repeated",
        Label::Optional | Label::Implicit => "optional",
    }
}

/// A field as a row of the tables.
fn as_row(message: &MessageDescriptor, field: &FieldDescriptor) -> String {
    let default = field.default.unwrap_or_default();
    format!(
        "{} {} {} {} {} default={default} oneof={} deprecated={}",
        message.name,
        field.name,
        field.number,
        label_name(field),
        type_name(field),
        field.oneof.unwrap_or_default(),
        field.is_deprecated,
    )
}

#[test]
fn fields_are_those_of_the_tables_in_their_order() {
    let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut absent = Vec::new();
    for row in rows(false) {
        if !is_current(&row) {
            absent.push((
                row["message"].clone(),
                row["field"].clone(),
                row["number"].clone(),
            ));
            continue;
        }
        let fields = expected.entry(row["message"].clone()).or_default();
        if row["notes"] != "empty message" {
            fields.push(format!(
                "{} {} {} {} {} default={} oneof={} deprecated={}",
                row["message"],
                row["field"],
                row["number"],
                row["label"],
                row["type"],
                row["default"],
                row["oneof"],
                row["notes"] == "deprecated",
            ));
        }
    }
    let found: BTreeMap<String, Vec<String>> = messages()
        .iter()
        .filter(|message| message.name.starts_with("mesos."))
        .map(|message| {
            let fields = message
                .fields
                .iter()
                .map(|field| as_row(message, field))
                .collect();
            (message.name.to_owned(), fields)
        })
        .collect();
    let unknown: Vec<_> = found
        .keys()
        .filter(|name| !expected.contains_key(*name))
        .collect();
    assert!(unknown.is_empty(), "no table has {unknown:?}");
    for (message, fields) in &expected {
        // Messages without fields that hold only other messages need not have a row of their own.
        assert_eq!(found.get(message), Some(fields), "{message}");
    }
    for (message, field, number) in absent {
        let found = messages().iter().find(|found| found.name == message);
        let field = found.and_then(|found| found.field_by_name(&field));
        assert!(
            field.is_none_or(|f| f.number.to_string() != number),
            "{message} {field:?}"
        );
    }
}

#[test]
fn enums_are_those_of_the_tables() {
    let mut expected: BTreeMap<String, Vec<(String, i32)>> = BTreeMap::new();
    for row in rows(true).iter().filter(|row| is_current(row)) {
        let number = row["number"].parse().unwrap();
        expected
            .entry(row["enum"].clone())
            .or_default()
            .push((row["value"].clone(), number));
    }
    let found: BTreeMap<String, Vec<(String, i32)>> = enums()
        .iter()
        .filter(|known| known.name.starts_with("mesos."))
        .map(|known| {
            let values = known
                .values
                .iter()
                .map(|(name, number)| ((*name).to_owned(), *number));
            (known.name.to_owned(), values.collect())
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn lookups_agree_with_the_lists() {
    for message in messages() {
        for (index, field) in message.fields.iter().enumerate() {
            let (found, same) = message.field(field.number).unwrap();
            assert_eq!((found, same.name), (index, field.name), "{}", message.name);
            assert_eq!(
                message.field_by_name(field.name).unwrap().number,
                field.number
            );
        }
        assert!(message.field(0).is_none() && message.field(u32::MAX).is_none());
        assert!(message.field_by_name("no such field").is_none());
    }
    for known in enums() {
        for (name, number) in known.values {
            assert_eq!(known.number_of(name), Some(*number), "{}", known.name);
            assert_eq!(known.name_of(*number), Some(*name), "{}", known.name);
        }
        assert_eq!(known.name_of(-1), None);
    }
}

#[test]
fn each_message_and_enum_has_a_comment_of_its_own() {
    let mut without = Vec::new();
    let mut seen = BTreeSet::new();
    for folder in ["proto/mesos/v1", "proto/tepui"] {
        for entry in std::fs::read_dir(crate_path(folder)).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let mut comment = "";
            for line in text.lines().map(str::trim) {
                let is_type = line.starts_with("message ") || line.starts_with("enum ");
                if is_type {
                    if comment.is_empty() {
                        without.push(format!("{}: {line}", path.display()));
                    }
                    seen.insert(line.to_owned());
                }
                comment = line.strip_prefix("//").unwrap_or_default().trim();
            }
        }
    }
    assert!(without.is_empty(), "{without:#?}");
    assert!(seen.len() > 200, "{}", seen.len());
}
