//! Messages in protobuf's text form, which some of Mesos' refusals contain.

use std::fmt::Write as _;

use tepui_proto::descriptor::{Kind, MessageDescriptor};
use tepui_proto::json::{self, Value};

/// A message as C++'s `DebugString` prints it: fields by number, two spaces for each level.
pub(super) fn debug_string(descriptor: &MessageDescriptor, bytes: &[u8]) -> String {
    let mut json = Vec::new();
    let mut out = String::new();
    // Its JSON knows the values; only defaults that JSON fills in are too much.
    if json::from_wire(descriptor, bytes, &mut json).is_ok()
        && let Ok(value) = json::parse(&json)
    {
        message(descriptor, &value, 0, &mut out);
    }
    out
}

fn message(descriptor: &MessageDescriptor, value: &Value<'_>, depth: usize, out: &mut String) {
    let mut fields: Vec<_> = descriptor.fields.iter().collect();
    fields.sort_by_key(|field| field.number);
    for field in fields {
        let is_default = |value: &Value<'_>| match (field.default, value) {
            (Some(default), Value::String(text)) => default == text && field.name == "type",
            _ => false,
        };
        match value.get(field.name) {
            None => {}
            Some(Value::Array(items)) => {
                items
                    .iter()
                    .for_each(|item| one(field.name, field.kind, item, depth, out));
            }
            Some(item) if is_default(item) => {}
            Some(item) => one(field.name, field.kind, item, depth, out),
        }
    }
}

fn one(name: &str, kind: Kind, value: &Value<'_>, depth: usize, out: &mut String) {
    let _ = write!(out, "{:1$}{name}", "", depth * 2);
    match (kind, value) {
        (Kind::Message(descriptor), _) => {
            out.push_str(" {\n");
            message(descriptor, value, depth + 1, out);
            let _ = write!(out, "{:1$}}}", "", depth * 2);
        }
        (Kind::Enum(_), Value::String(text)) => {
            let _ = write!(out, ": {text}");
        }
        (_, Value::String(text)) => {
            out.push_str(": ");
            quoted(text, out);
        }
        (_, Value::Bool(value)) => {
            let _ = write!(out, ": {value}");
        }
        (_, Value::Number(number)) => {
            let _ = write!(out, ": {}", number.as_f64());
        }
        _ => {}
    }
    out.push('\n');
}

/// A string with C's escapes.
fn quoted(text: &str, out: &mut String) {
    out.push('"');
    for byte in text.bytes() {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'"' => out.push_str("\\\""),
            b'\'' => out.push_str("\\'"),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(byte.into()),
            other => {
                let _ = write!(out, "\\{other:03o}");
            }
        }
    }
    out.push('"');
}
