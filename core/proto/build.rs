//! Compiles the protocol files without an external `protoc`, and writes the static descriptor
//! tables that the transcoder walks (`src/descriptor.rs` has their types).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use heck::{ToSnakeCase, ToUpperCamelCase};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

const FILES: &[&str] = &[
    "mesos/v1/mesos.proto",
    "mesos/v1/allocator.proto",
    "mesos/v1/maintenance.proto",
    "mesos/v1/quota.proto",
    "mesos/v1/scheduler.proto",
    "mesos/v1/executor.proto",
    "mesos/v1/agent.proto",
    "mesos/v1/master.proto",
    "mesos/v1/resource_provider.proto",
    "tepui/link.proto",
    "tepui/disk.proto",
    "tepui/registry.proto",
];

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").context("OUT_DIR is set by cargo")?);
    let root = PathBuf::from("proto");
    let set = protox::compile(FILES, [&root])?;

    write_descriptors(&set, &out.join("descriptors.rs"))?;
    prost_build::Config::new()
        .bytes(["."])
        .btree_map(["."])
        // Rare and large: without this each link frame would take seven kilobytes.
        .boxed(".mesos.v1.Offer.Operation.grow_volume")
        .boxed(".mesos.v1.Offer.Operation.shrink_volume")
        .boxed(".mesos.v1.Offer.Operation.create_disk")
        .boxed(".mesos.v1.Offer.Operation.destroy_disk")
        .boxed(".tepui.link.ApplyOperation.operation")
        .include_file("_includes.rs")
        .enable_type_names()
        .compile_fds(set)?;
    Ok(())
}

/// A message of the set with what the tables say about it.
struct Message<'a> {
    descriptor: &'a DescriptorProto,
    full_name: String,
    rust_path: String,
    proto3: bool,
}

fn write_descriptors(set: &FileDescriptorSet, path: &Path) -> anyhow::Result<()> {
    let mut messages = Vec::new();
    let mut enums = Vec::new();
    for file in &set.file {
        let package = file.package();
        let module = match package {
            "google.protobuf" => "::prost_types".to_owned(),
            _ => format!("crate::generated::{}", package.replace('.', "::")),
        };
        let proto3 = file.syntax() == "proto3";
        for descriptor in &file.message_type {
            collect(
                descriptor,
                package,
                &module,
                proto3,
                &mut messages,
                &mut enums,
            );
        }
        for descriptor in &file.enum_type {
            enums.push((format!("{package}.{}", descriptor.name()), descriptor));
        }
    }
    let message_ids: BTreeMap<&str, usize> = messages
        .iter()
        .enumerate()
        .map(|(i, m)| (m.full_name.as_str(), i))
        .collect();
    let enum_ids: BTreeMap<&str, usize> = enums
        .iter()
        .enumerate()
        .map(|(i, (name, _))| (name.as_str(), i))
        .collect();
    let checked = reaches_required(&messages);

    let mut text = String::new();
    for (id, (name, descriptor)) in enums.iter().enumerate() {
        write_enum(&mut text, id, name, descriptor)?;
    }
    for (id, message) in messages.iter().enumerate() {
        let has_required = checked.contains(message.full_name.as_str());
        write_message(
            &mut text,
            id,
            message,
            has_required,
            &message_ids,
            &enum_ids,
        )?;
    }
    write_shown_agent(&mut text, &messages, &message_ids, &enum_ids)?;
    writeln!(
        text,
        "pub(crate) static MESSAGES: &[&MessageDescriptor] = &["
    )?;
    for id in message_ids.values() {
        writeln!(text, "    &M{id},")?;
    }
    writeln!(text, "];")?;
    writeln!(text, "pub(crate) static ENUMS: &[&EnumDescriptor] = &[")?;
    for id in enum_ids.values() {
        writeln!(text, "    &E{id},")?;
    }
    writeln!(text, "];")?;
    std::fs::write(path, text)?;
    Ok(())
}

fn collect<'a>(
    descriptor: &'a DescriptorProto,
    scope: &str,
    module: &str,
    proto3: bool,
    messages: &mut Vec<Message<'a>>,
    enums: &mut Vec<(String, &'a EnumDescriptorProto)>,
) {
    let full_name = format!("{scope}.{}", descriptor.name());
    let inner = format!("{module}::{}", descriptor.name().to_snake_case());
    for nested in &descriptor.nested_type {
        collect(nested, &full_name, &inner, proto3, messages, enums);
    }
    for nested in &descriptor.enum_type {
        enums.push((format!("{full_name}.{}", nested.name()), nested));
    }
    let rust_path = format!("{module}::{}", descriptor.name().to_upper_camel_case());
    messages.push(Message {
        descriptor,
        full_name,
        rust_path,
        proto3,
    });
}

/// Names of the messages that have a required field, or contain a message that does.
fn reaches_required(messages: &[Message<'_>]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for message in messages {
            let required = message.descriptor.field.iter().any(|field| {
                field.label() == Label::Required
                    || found.contains(field.type_name().trim_start_matches('.'))
            });
            if required {
                found.insert(message.full_name.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Tables beside the protocol: an agent as GET_AGENTS and GET_STATE show it. Those answers come from
/// v0 messages under v1 names, so its AgentInfo has `checkpoint`, which v1 lacks and which is always
/// true since 1.0.
fn write_shown_agent(
    text: &mut String,
    messages: &[Message<'_>],
    message_ids: &BTreeMap<&str, usize>,
    enum_ids: &BTreeMap<&str, usize>,
) -> anyhow::Result<()> {
    const INFO: &str = "mesos.v1.AgentInfo";
    let copy = |name: &str| {
        let message = &messages[message_ids[name]];
        (message.descriptor.clone(), message.full_name.clone())
    };
    let (mut info, full_name) = copy(INFO);
    let after_id = 1 + info
        .field
        .iter()
        .position(|f| f.name() == "id")
        .context("AgentInfo.id")?;
    let checkpoint = FieldDescriptorProto {
        name: Some("checkpoint".to_owned()),
        number: Some(7),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::Bool.into()),
        default_value: Some("true".to_owned()),
        ..Default::default()
    };
    info.field.insert(after_id, checkpoint);
    let (agent, agent_name) = copy("mesos.v1.master.Response.GetAgents.Agent");

    let mut ids = message_ids.clone();
    let (info_id, agent_id) = (messages.len(), messages.len() + 1);
    ids.insert(INFO, info_id);
    for (id, descriptor, full_name) in [(info_id, &info, full_name), (agent_id, &agent, agent_name)]
    {
        let rust_path = String::new();
        let message = Message {
            descriptor,
            full_name,
            rust_path,
            proto3: false,
        };
        write_message(text, id, &message, true, &ids, enum_ids)?;
    }
    writeln!(
        text,
        "pub(crate) static SHOWN_AGENT_INFO: &MessageDescriptor = &M{info_id};"
    )?;
    writeln!(
        text,
        "pub(crate) static SHOWN_AGENT: &MessageDescriptor = &M{agent_id};"
    )?;
    Ok(())
}

fn write_enum(
    text: &mut String,
    id: usize,
    name: &str,
    descriptor: &EnumDescriptorProto,
) -> anyhow::Result<()> {
    write!(
        text,
        "static E{id}: EnumDescriptor = EnumDescriptor {{ name: {name:?}, values: &["
    )?;
    for value in &descriptor.value {
        write!(text, "({:?}, {}), ", value.name(), value.number())?;
    }
    writeln!(text, "] }};")?;
    Ok(())
}

fn write_message(
    text: &mut String,
    id: usize,
    message: &Message<'_>,
    has_required: bool,
    message_ids: &BTreeMap<&str, usize>,
    enum_ids: &BTreeMap<&str, usize>,
) -> anyhow::Result<()> {
    let fields = &message.descriptor.field;
    if fields.len() >= usize::from(u8::MAX) {
        bail!("{} has too many fields for the tables", message.full_name);
    }
    let is_map_entry = message
        .descriptor
        .options
        .as_ref()
        .is_some_and(|o| o.map_entry());
    writeln!(
        text,
        "static M{id}: MessageDescriptor = MessageDescriptor {{ name: {:?}, is_map_entry: {is_map_entry}, \
         has_required: {has_required}, fields: &[",
        message.full_name
    )?;
    for field in fields {
        write_field(text, message, field, message_ids, enum_ids)?;
    }
    let highest = fields.iter().map(|f| f.number()).max().unwrap_or(-1);
    let mut by_number = vec![u8::MAX; usize::try_from(highest + 1)?];
    for (index, field) in fields.iter().enumerate() {
        by_number[usize::try_from(field.number())?] = u8::try_from(index)?;
    }
    let mut by_name: Vec<usize> = (0..fields.len()).collect();
    by_name.sort_by_key(|&index| fields[index].name());
    writeln!(
        text,
        "], by_number: &{by_number:?}, by_name: &{by_name:?} }};"
    )?;
    if !is_map_entry && !message.rust_path.is_empty() {
        writeln!(
            text,
            "impl Described for {} {{ const DESCRIPTOR: &'static MessageDescriptor = &M{id}; }}",
            message.rust_path
        )?;
    }
    Ok(())
}

fn write_field(
    text: &mut String,
    message: &Message<'_>,
    field: &FieldDescriptorProto,
    message_ids: &BTreeMap<&str, usize>,
    enum_ids: &BTreeMap<&str, usize>,
) -> anyhow::Result<()> {
    let type_name = field.type_name().trim_start_matches('.');
    let kind = match field.r#type() {
        Type::Double => "Kind::Double".to_owned(),
        Type::Int64 => "Kind::Int64".to_owned(),
        Type::Uint64 => "Kind::Uint64".to_owned(),
        Type::Int32 => "Kind::Int32".to_owned(),
        Type::Uint32 => "Kind::Uint32".to_owned(),
        Type::Bool => "Kind::Bool".to_owned(),
        Type::String => "Kind::String".to_owned(),
        Type::Bytes => "Kind::Bytes".to_owned(),
        Type::Message => format!("Kind::Message(&M{})", message_ids[type_name]),
        Type::Enum => format!("Kind::Enum(&E{})", enum_ids[type_name]),
        other => bail!(
            "{}.{}: no support for {other:?}",
            message.full_name,
            field.name()
        ),
    };
    let oneof = match field.oneof_index {
        Some(index) if !field.proto3_optional() => {
            format!(
                "Some({:?})",
                message.descriptor.oneof_decl[usize::try_from(index)?].name()
            )
        }
        _ => "None".to_owned(),
    };
    let label = match field.label() {
        Label::Required => "Label::Required",
        Label::Repeated => "Label::Repeated",
        Label::Optional if message.proto3 && field.oneof_index.is_none() => "Label::Implicit",
        Label::Optional => "Label::Optional",
    };
    writeln!(
        text,
        "    FieldDescriptor {{ name: {:?}, number: {}, label: {label}, kind: {kind}, default: {:?}, \
         oneof: {oneof}, is_deprecated: {} }},",
        field.name(),
        field.number(),
        field.default_value.as_deref(),
        field.options.as_ref().is_some_and(|o| o.deprecated()),
    )?;
    Ok(())
}
