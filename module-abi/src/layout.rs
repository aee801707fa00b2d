//! The tables as text, for `abi.lock`.
//!
//! A walk over `StableAbi::LAYOUT` from the root. Two traps of abi_stable shape it: the printed form of a layout
//! holds versions, line numbers and module paths, which change for nothing; and a function's type leaves out the
//! types of its arguments, so parameters and results are followed one by one.

use std::collections::VecDeque;
use std::fmt::Write;

use abi_stable::StableAbi;
use abi_stable::type_layout::{TLData, TLField, TLFields, TLFunction, TypeLayout};

use crate::tables::{HostV1, InstanceV1, RootV1Ref};

/// Every type that the tables reach, each once: name, size, alignment, representation, kind, and its fields with
/// their types.
pub fn layout_text() -> String {
    let mut walk = Walk {
        queue: VecDeque::new(),
        seen: Vec::new(),
        text: String::new(),
    };
    for root in [RootV1Ref::LAYOUT, InstanceV1::LAYOUT, HostV1::LAYOUT] {
        walk.reach(root);
    }
    while let Some(layout) = walk.queue.pop_front() {
        walk.describe(layout);
    }
    walk.text
}

struct Walk {
    queue: VecDeque<&'static TypeLayout>,
    seen: Vec<&'static TypeLayout>,
    text: String,
}

impl Walk {
    /// Remembers a type and gives its name, numbered where abi_stable leaves out what tells two apart.
    fn reach(&mut self, layout: &'static TypeLayout) -> String {
        let id = layout.get_utypeid();
        let known = self.seen.iter().position(|seen| seen.get_utypeid() == id);
        let at = known.unwrap_or_else(|| {
            self.seen.push(layout);
            self.queue.push_back(layout);
            self.seen.len() - 1
        });
        let name = full_name(layout);
        let same = self.seen[..at]
            .iter()
            .filter(|seen| full_name(seen) == name);
        match same.count() {
            0 => name,
            before => format!("{name}#{}", before + 1),
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.text
            .write_fmt(line)
            .expect("a string takes everything");
        self.text.push('\n');
    }

    fn describe(&mut self, layout: &'static TypeLayout) {
        let name = self.reach(layout);
        let (size, align) = (layout.size(), layout.alignment());
        let (repr, kind) = (layout.repr_attr(), layout.data_discriminant());
        let nonzero = if layout.is_nonzero() { " nonzero" } else { "" };
        self.line(format_args!(
            "type {name} size={size} align={align} repr={repr:?} {kind:?}{nonzero}"
        ));
        match layout.data() {
            TLData::Primitive(primitive) => self.line(format_args!("  primitive {primitive:?}")),
            TLData::Opaque => {}
            TLData::Struct { fields } | TLData::Union { fields } => self.fields("field", fields),
            TLData::Enum(data) => {
                let variants = data
                    .variant_names
                    .as_str()
                    .split(';')
                    .filter(|name| !name.is_empty());
                for (variant, fields) in variants.zip(data.field_count.iter()) {
                    self.line(format_args!("  variant {variant} fields={fields}"));
                }
                self.line(format_args!("  discriminants {:?}", data.discriminants));
                self.fields("field", data.fields);
            }
            TLData::PrefixType(prefix) => {
                let first = prefix.first_suffix_field;
                self.line(format_args!("  prefix of {first} fields"));
                self.fields("field", prefix.fields);
            }
        }
        self.fields("phantom", layout.phantom_fields());
        for parameter in layout.generics().type_params() {
            self.reach(parameter());
        }
    }

    fn fields(&mut self, what: &str, fields: TLFields) {
        for field in fields.iter() {
            self.field(what, &field);
        }
    }

    fn field(&mut self, what: &str, field: &TLField) {
        let name = field.name();
        if !field.is_function() {
            let reached = self.reach(field.layout());
            return self.line(format_args!("  {what} {name}: {reached}"));
        }
        for function in field.function_range().iter() {
            let signature = self.signature(&function);
            self.line(format_args!("  {what} {name}: {signature}"));
        }
    }

    fn signature(&mut self, function: &TLFunction) -> String {
        let names = function.param_names.as_str().split([',', ';']);
        let types = function.param_type_layouts.iter();
        let parameters: Vec<_> = names
            .zip(types)
            .map(|(name, layout)| format!("{name}: {}", self.reach(layout())))
            .collect();
        let result = function
            .return_type_layout()
            .map_or_else(|| "()".to_owned(), |layout| self.reach(layout()));
        let qualifier = if function.fn_qualifs.is_unsafe() {
            "unsafe "
        } else {
            ""
        };
        format!(
            "{qualifier}extern \"C\" fn({}) -> {result}",
            parameters.join(", ")
        )
    }
}

fn full_name(layout: &TypeLayout) -> String {
    layout
        .full_type()
        .to_string()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
