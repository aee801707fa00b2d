//! Resources as text: what Mesos prints, and what `--resources` takes.
//!
//! Printed: `cpus(allocated: r)(reservations: [(DYNAMIC,r,principal)]){REV}:1; mem:128`. Read: that,
//! and the short form of the flag, `cpus(role):4;ports:[31000-32000]`.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use thiserror::Error;

use super::{
    Disk, Name, Persistence, Range, Ranges, Reservation, Resource, Resources, Scalar, Set, Source,
    SourceKind, Value, Volume,
};
use crate::id::Role;
use crate::labels::{Label, Labels};
use crate::roles::{self, RoleError};

/// Why a text is no resources.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum ParseError {
    #[error("Bad value for resources, missing or extra ':' in {0}")]
    Colon(String),
    #[error("Bad value for resources, mismatched parentheses in {0}")]
    Parentheses(String),
    #[error("Bad value for resources, cannot read '{part}' in {token}")]
    Part { part: String, token: String },
    #[error("Bad type for resource {name} value {value} type TEXT")]
    Text { name: String, value: String },
    #[error("Resource '{resource}' is invalid: {reason}")]
    Invalid { resource: String, reason: String },
    #[error("Failed to parse resource {name} value {value} error {reason}")]
    Value {
        name: String,
        value: String,
        reason: Box<ParseError>,
    },
    #[error("Expecting non-empty string")]
    Empty,
    #[error("Mismatched brackets")]
    Brackets,
    #[error("Expecting one or more \"ranges\"")]
    NoRanges,
    #[error("Expecting non-negative integers in '{0}'")]
    NotIntegers(String),
    #[error("Unexpected '{0}' found")]
    Unexpected(char),
    #[error(transparent)]
    Role(#[from] RoleError),
}

/// Reads a scalar, ranges or a set; `None` is any other text.
pub fn parse_value(text: &str) -> Result<Option<Value>, ParseError> {
    let text = text.replace(' ', "");
    if text.is_empty() {
        return Err(ParseError::Empty);
    }
    for (open, close) in [('{', '}'), ('[', ']'), ('(', ')')] {
        if !brackets_match(&text, open, close) {
            return Err(ParseError::Brackets);
        }
    }
    match (text.find('['), text.find('{')) {
        (Some(0), _) => parse_ranges(&text).map(Some),
        (Some(_), _) => Err(ParseError::Unexpected('[')),
        (None, Some(0)) => {
            let items = text.split(['{', '}', ',', '\n']).filter(|i| !i.is_empty());
            Ok(Some(Value::Set(Set::new(items))))
        }
        (None, Some(_)) => Err(ParseError::Unexpected('{')),
        (None, None) => Ok(parse_number(&text).map(|n| Value::Scalar(Scalar::from_f64(n)))),
    }
}

fn brackets_match(text: &str, open: char, close: char) -> bool {
    let mut depth = 0_usize;
    for c in text.chars() {
        if c == open {
            depth += 1;
        } else if c == close {
            let Some(less) = depth.checked_sub(1) else {
                return false;
            };
            depth = less;
        }
    }
    depth == 0
}

fn parse_ranges(text: &str) -> Result<Value, ParseError> {
    let numbers: Vec<&str> = text
        .split(['[', ']', '-', ',', '\n'])
        .filter(|t| !t.is_empty())
        .collect();
    if !numbers.len().is_multiple_of(2) {
        return Err(ParseError::NoRanges);
    }
    let number = |n: &str| {
        n.parse::<u64>()
            .map_err(|_| ParseError::NotIntegers(n.into()))
    };
    let mut ranges = Vec::with_capacity(numbers.len() / 2);
    for pair in numbers.chunks_exact(2) {
        let (begin, end) = (number(pair[0])?, number(pair[1])?);
        ranges.push(Range { begin, end });
    }
    Ok(Value::Ranges(Ranges::new(ranges)))
}

/// A finite decimal number; words such as `inf` are text.
fn parse_number(text: &str) -> Option<f64> {
    let first = text.bytes().next()?;
    if !(first.is_ascii_digit() || matches!(first, b'.' | b'-' | b'+')) {
        return None;
    }
    text.parse().ok().filter(|n: &f64| n.is_finite())
}

impl Resources {
    /// Reads the text of `--resources` (not its JSON form) or what [`fmt::Display`] wrote; what
    /// names no role is reserved to `default_role`, if that is not `*`.
    pub fn parse(text: &str, default_role: &str) -> Result<Self, ParseError> {
        roles::validate(default_role)?;
        if text.trim() == "{}" {
            return Ok(Self::new());
        }
        let tokens = split_outside(text, ';');
        let tokens = tokens.into_iter().filter(|token| !token.trim().is_empty());
        tokens
            .map(|token| parse_one(token.trim(), default_role))
            .collect()
    }
}

/// Splits at a character that stands in no brackets.
fn split_outside(text: &str, at: char) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            c if c == at && depth <= 0 => {
                parts.push(&text[from..i]);
                from = i + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

fn parse_one(token: &str, default_role: &str) -> Result<Resource, ParseError> {
    let parts = split_outside(token, ':');
    let &[head, value_text] = parts.as_slice() else {
        return Err(ParseError::Colon(token.into()));
    };
    let head_end = head.find(['(', '[', '{', '<']).unwrap_or(head.len());
    let name = head[..head_end].trim();
    let (value_text, copies) = split_copies(value_text.trim());
    let value = parse_value(value_text).map_err(|reason| ParseError::Value {
        name: name.into(),
        value: value_text.into(),
        reason: Box::new(reason),
    })?;
    let Some(value) = value else {
        return Err(ParseError::Text {
            name: name.into(),
            value: value_text.into(),
        });
    };
    let invalid = |reason: &str| ParseError::Invalid {
        resource: token.into(),
        reason: reason.into(),
    };
    if name.is_empty() {
        return Err(invalid("Empty resource name"));
    }
    if matches!(value, Value::Scalar(amount) if amount.0 < 0) {
        return Err(invalid("Invalid scalar resource: value < 0"));
    }
    let mut resource = Resource::new(name, value);
    let mut role = Some(default_role);
    let mut rest = head[head_end..].trim();
    while !rest.is_empty() {
        let (part, after) = bracketed(rest).ok_or_else(|| ParseError::Parentheses(token.into()))?;
        resource = parse_part(resource, part, &mut role).ok_or_else(|| ParseError::Part {
            part: part.into(),
            token: token.into(),
        })??;
        rest = after.trim();
    }
    resource.copies = resource.copies.max(copies);
    match role {
        Some(role) if role != roles::DEFAULT && !resource.is_reserved() => {
            Ok(resource.push_reservation(static_reservation(role)))
        }
        _ => Ok(resource),
    }
}

/// The count behind a shared resource's value: `64<2>`.
fn split_copies(value: &str) -> (&str, u32) {
    let count = value.strip_suffix('>').and_then(|v| v.rsplit_once('<'));
    match count.and_then(|(value, n)| Some((value, n.parse().ok()?))) {
        Some((value, copies)) => (value, copies),
        None => (value, 0),
    }
}

/// The first bracketed part of the text with its brackets, and what follows it.
fn bracketed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_i32;
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' | '<' => depth += 1,
            ')' | ']' | '}' | '>' => depth -= 1,
            _ if depth == 0 => return None,
            _ => {}
        }
        if depth == 0 {
            return Some(text.split_at(i + c.len_utf8()));
        }
    }
    None
}

/// Applies one bracketed part; `role` becomes `None` once the role is settled.
fn parse_part<'a>(
    resource: Resource,
    part: &'a str,
    role: &mut Option<&'a str>,
) -> Option<Result<Resource, ParseError>> {
    if part == "{REV}" {
        return Some(Ok(resource.with_revocable(true)));
    }
    if part == "<SHARED>" {
        return Some(Ok(resource.with_shared(true)));
    }
    let inner = &part[1..part.len() - 1];
    if part.starts_with('[') {
        return Some(Ok(resource.with_disk(Some(parse_disk(inner)?))));
    }
    if let Some(allocated) = inner.strip_prefix("allocated: ") {
        // A printed resource says all of its reservations.
        *role = None;
        return Some(Ok(resource.allocated(Role::from(allocated))));
    }
    if let Some(stack) = inner.strip_prefix("reservations: ") {
        *role = None;
        let stack = stack.strip_prefix('[')?.strip_suffix(']')?;
        let stack = split_outside(stack, ',').into_iter().map(parse_reservation);
        return Some(Ok(resource.with_reservations(stack.collect::<Option<_>>()?)));
    }
    if !part.starts_with('(') {
        return None;
    }
    let name = inner.trim();
    *role = Some(name);
    Some(
        roles::validate(name)
            .map(|()| resource)
            .map_err(ParseError::Role),
    )
}

fn static_reservation(role: &str) -> Reservation {
    Reservation {
        role: Role::from(role),
        dynamic: false,
        principal: None,
        labels: None,
    }
}

/// `(DYNAMIC,role,principal,{key: value})`
fn parse_reservation(text: &str) -> Option<Reservation> {
    let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
    let mut parts = split_outside(inner, ',').into_iter();
    let dynamic = match parts.next()? {
        "DYNAMIC" => true,
        "STATIC" => false,
        _ => return None,
    };
    let mut reservation = static_reservation(parts.next()?);
    reservation.dynamic = dynamic;
    for part in parts {
        match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(labels) => reservation.labels = Some(parse_labels(labels)),
            None => reservation.principal = Some(part.into()),
        }
    }
    Some(reservation)
}

fn parse_labels(text: &str) -> Labels {
    let labels = text.split(", ").filter(|l| !l.is_empty());
    let labels = labels.map(|label| match label.split_once(": ") {
        Some((key, value)) => Label {
            key: key.into(),
            value: Some(value.into()),
        },
        None => Label {
            key: label.into(),
            value: None,
        },
    });
    Labels(labels.collect())
}

/// `MOUNT(vendor,id,profile):/root,persistence:path`
fn parse_disk(text: &str) -> Option<Disk> {
    let mut disk = Disk::default();
    let mut rest = text;
    let kinds = [
        SourceKind::Path,
        SourceKind::Mount,
        SourceKind::Block,
        SourceKind::Raw,
    ];
    for kind in kinds {
        let Some(after) = text.strip_prefix(kind.as_str()) else {
            continue;
        };
        if !after.is_empty() && !after.starts_with(['(', ':', ',']) {
            continue;
        }
        let mut parts = split_outside(after, ',').into_iter();
        disk.source = Some(parse_source(kind, parts.next()?)?);
        rest = parts.next().unwrap_or("");
    }
    if !rest.is_empty() {
        let (id, volume) = rest
            .split_once(':')
            .map_or((rest, None), |(id, v)| (id, Some(v)));
        disk.persistence = Some(Persistence {
            id: id.into(),
            principal: None,
        });
        disk.volume = volume.map(parse_volume);
    }
    Some(disk)
}

fn parse_source(kind: SourceKind, text: &str) -> Option<Source> {
    let mut source = Source::new(kind);
    let mut rest = text;
    if rest.starts_with('(') {
        let (csi, after) = bracketed(rest)?;
        let mut fields = csi[1..csi.len() - 1].split(',');
        let mut next = || fields.next().filter(|f| !f.is_empty()).map(Arc::from);
        (source.vendor, source.id, source.profile) = (next(), next(), next());
        rest = after;
    }
    source.root = rest.strip_prefix(':').map(Arc::from);
    Some(source)
}

fn parse_volume(text: &str) -> Volume {
    let mut parts: Vec<&str> = text.split(':').collect();
    let mode = parts.pop_if(|last| matches!(*last, "rw" | "ro"));
    let container_path = parts.pop().unwrap_or_default().into();
    Volume {
        container_path,
        host_path: parts.pop().map(Arc::from),
        read_only: mode == Some("ro"),
    }
}

impl SourceKind {
    /// The name of the kind in messages and text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Path => "PATH",
            Self::Mount => "MOUNT",
            Self::Block => "BLOCK",
            Self::Raw => "RAW",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(amount) => amount.fmt(f),
            Self::Ranges(ranges) => ranges.fmt(f),
            Self::Set(set) => set.fmt(f),
        }
    }
}

impl fmt::Display for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.dynamic { "DYNAMIC" } else { "STATIC" };
        write!(f, "({kind},{}", self.role)?;
        if let Some(principal) = &self.principal {
            write!(f, ",{principal}")?;
        }
        if let Some(labels) = &self.labels {
            write!(f, ",{labels}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |field: &Option<Arc<str>>| field.clone().unwrap_or_else(|| "".into());
        f.write_str(self.kind.as_str())?;
        if self.id.is_some() || self.profile.is_some() {
            let (vendor, id, profile) = (text(&self.vendor), text(&self.id), text(&self.profile));
            write!(f, "({vendor},{id},{profile})")?;
        }
        match &self.root {
            Some(root) => write!(f, ":{root}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(host) = &self.host_path else {
            return f.write_str(&self.container_path);
        };
        let mode = if self.read_only { "ro" } else { "rw" };
        write!(f, "{host}:{}:{mode}", self.container_path)
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            source.fmt(f)?;
        }
        if let Some(persistence) = &self.persistence {
            if self.source.is_some() {
                f.write_char(',')?;
            }
            f.write_str(&persistence.id)?;
        }
        match &self.volume {
            Some(volume) => write!(f, ":{volume}"),
            None => Ok(()),
        }
    }
}

/// As Mesos prints one resource; the copies of a shared one are printed by [`Resources`].
impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name: &Name = self.name();
        write!(f, "{name}")?;
        if let Some(role) = self.allocation_role() {
            write!(f, "(allocated: {role})")?;
        }
        if self.is_reserved() {
            f.write_str("(reservations: [")?;
            for (i, reservation) in self.reservations().iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                write!(f, "{comma}{reservation}")?;
            }
            f.write_str("])")?;
        }
        if let Some(disk) = self.disk() {
            write!(f, "[{disk}]")?;
        }
        if self.is_revocable() {
            f.write_str("{REV}")?;
        }
        if self.is_shared() {
            f.write_str("<SHARED>")?;
        }
        write!(f, ":{}", self.value())
    }
}

/// As Mesos prints resources: `{}` for none, else `cpus:1; mem:128`.
impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("{}");
        }
        for (i, resource) in self.iter().enumerate() {
            let semicolon = if i > 0 { "; " } else { "" };
            write!(f, "{semicolon}{resource}")?;
            if resource.is_shared() {
                write!(f, "<{}>", resource.copies())?;
            }
        }
        Ok(())
    }
}
