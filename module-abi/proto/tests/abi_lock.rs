//! `module-abi/abi.lock` holds everything that a library and a host must agree on.
//!
//! A line that is changed or taken away breaks libraries that exist: it needs a new root type or a new field beside
//! the old one instead. A new payload line is fine. `UPDATE=1 cargo test -p tepui-module-proto --test abi_lock`
//! writes the file anew.

use std::fmt::Write;
use std::{env, fs, path::Path};

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use tepui_module_proto::{DESCRIPTORS, kind, note};

#[test]
fn nothing_that_libraries_rest_on_has_changed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../abi.lock");
    let found = text();
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &found).unwrap();
    }
    let locked = fs::read_to_string(&path).unwrap_or_default();
    let without = |text: &str, other: &str| -> Vec<String> {
        let mut left: Vec<&str> = other.lines().collect();
        let mut missing = Vec::new();
        for line in text.lines() {
            match left.iter().position(|other| *other == line) {
                Some(at) => drop(left.swap_remove(at)),
                None => missing.push(line.to_owned()),
            }
        }
        missing
    };
    let (gone, new) = (without(&locked, &found), without(&found, &locked));
    assert!(
        gone.is_empty(),
        "gone or changed, which breaks libraries that exist:\n{}",
        gone.join("\n")
    );
    assert!(
        new.is_empty(),
        "new; run again with UPDATE=1 to add to abi.lock:\n{}",
        new.join("\n")
    );
    assert_eq!(locked, found, "other order; run again with UPDATE=1");
}

const SAMPLE: &[note::NoteModule] = &[note::NoteModule {
    kinds: "KIND,KIND",
    name: "NAME",
    aliases: &["ALIAS"],
}];
const SAMPLE_LENGTH: usize = note::length("ABI", "SDK", "PANIC", SAMPLE);

fn text() -> String {
    let mut out = String::from("# tables (64 bits)\n");
    out.push_str(&tepui_module_abi::layout_text());
    out.push_str("\n# note\n");
    writeln!(out, "section {}", note::SECTION).unwrap();
    let bytes: [u8; SAMPLE_LENGTH] = note::write("ABI", "SDK", "PANIC", SAMPLE);
    out.push_str(std::str::from_utf8(&bytes).unwrap());
    out.push_str("\n# kinds\n");
    for kind in kind::ALL {
        writeln!(out, "kind {kind}").unwrap();
    }
    out.push_str("\n# payloads\n");
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut files = set.file;
    files.sort_by(|a, b| a.package().cmp(b.package()));
    for file in &files {
        for of in &file.enum_type {
            enumeration(&mut out, file.package(), of);
        }
        for of in &file.message_type {
            message(&mut out, file.package(), of);
        }
    }
    out
}

fn message(out: &mut String, parent: &str, of: &DescriptorProto) {
    let name = format!("{parent}.{}", of.name());
    writeln!(out, "message {name}").unwrap();
    for field in &of.field {
        writeln!(
            out,
            "  {name} {} {} {}",
            field.number(),
            field.name(),
            type_of(field)
        )
        .unwrap();
    }
    for nested in &of.enum_type {
        enumeration(out, &name, nested);
    }
    for nested in &of.nested_type {
        message(out, &name, nested);
    }
}

fn type_of(field: &FieldDescriptorProto) -> String {
    let scalar = format!("{:?}", field.r#type()).to_lowercase();
    let name = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').to_owned(),
        _ => scalar,
    };
    match (field.label(), field.proto3_optional(), field.oneof_index) {
        (Label::Repeated, ..) => format!("repeated {name}"),
        (_, true, _) => format!("optional {name}"),
        (_, false, Some(oneof)) => format!("oneof {oneof} {name}"),
        _ => name,
    }
}

fn enumeration(out: &mut String, parent: &str, of: &EnumDescriptorProto) {
    let name = format!("{parent}.{}", of.name());
    writeln!(out, "enum {name}").unwrap();
    for value in &of.value {
        writeln!(out, "  {name} {} {}", value.number(), value.name()).unwrap();
    }
}
