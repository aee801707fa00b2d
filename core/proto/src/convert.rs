//! Between the messages of Mesos and the types of `tepui-model`.
//!
//! From a message: everything that Mesos' `Resources::validate` refuses is refused, with its text
//! (`common/resources.cpp`). To a message: a resource has three forms, see [`Format`]. All three are
//! understood.

#![expect(
    deprecated,
    reason = "`Resource.role` is the old form, which old clients send and read"
)]

mod operation;
mod put_resource;
mod validate;

use std::sync::Arc;

use tepui_model::attributes::{Attribute, AttributeValue, Attributes};
use tepui_model::resources::{
    Disk, Persistence, Range, Ranges, Reservation, Resource, Resources, Scalar, Set, Source,
    SourceKind, Value, Volume,
};
use tepui_model::{
    AgentId, ContainerId, ExecutorId, FrameworkId, Label, Labels, OfferId, OperationId, ProviderId,
    Role, TaskId, Wall, roles,
};
use thiserror::Error;

use crate::v1::resource::disk_info::source::Type as SourceType;
use crate::v1::resource::reservation_info::Type as ReservationType;
use crate::v1::value::Type as ValueType;
use crate::{json, v1};

pub use operation::operation;
pub use put_resource::put_resource;

/// A resource that Mesos would refuse; `reason` names the field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Resource '{resource}' is invalid: {reason}")]
pub struct InvalidResource {
    /// The resource as text, as far as it can be understood.
    pub resource: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An attribute whose value does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("Attribute '{0}' has no value of its type")]
pub struct InvalidAttribute(pub String);

/// How a message says to whom a resource is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `reservations` only: what frameworks with RESERVATION_REFINEMENT get, and what we keep.
    Post,
    /// `role` and `reservation`: what other frameworks get. A stack of several reservations has
    /// no such form and stays in the other.
    Pre,
    /// Both: what operators read.
    Endpoint,
}

macro_rules! ids {
    ($($model:ty => $message:ident;)*) => {$(
        impl From<&v1::$message> for $model {
            fn from(id: &v1::$message) -> Self {
                Self::from(id.value.as_str())
            }
        }

        impl From<&$model> for v1::$message {
            fn from(id: &$model) -> Self {
                Self { value: id.to_string() }
            }
        }
    )*};
}

ids! {
    FrameworkId => FrameworkId;
    AgentId => AgentId;
    TaskId => TaskId;
    ExecutorId => ExecutorId;
    OfferId => OfferId;
    OperationId => OperationId;
    ProviderId => ResourceProviderId;
}

impl From<&v1::ContainerId> for ContainerId {
    fn from(id: &v1::ContainerId) -> Self {
        Self {
            parent: id.parent.as_deref().map(|p| Arc::new(Self::from(p))),
            value: id.value.as_str().into(),
        }
    }
}

impl From<&ContainerId> for v1::ContainerId {
    fn from(id: &ContainerId) -> Self {
        Self {
            value: id.value.to_string(),
            parent: id.parent.as_deref().map(|p| Box::new(Self::from(p))),
        }
    }
}

impl From<&v1::TimeInfo> for Wall {
    fn from(time: &v1::TimeInfo) -> Self {
        Self(time.nanoseconds)
    }
}

impl From<Wall> for v1::TimeInfo {
    fn from(time: Wall) -> Self {
        Self {
            nanoseconds: time.0,
        }
    }
}

impl From<&v1::Labels> for Labels {
    fn from(labels: &v1::Labels) -> Self {
        let label = |l: &v1::Label| Label {
            key: l.key.as_str().into(),
            value: l.value.as_deref().map(Into::into),
        };
        Self(labels.labels.iter().map(label).collect())
    }
}

impl From<&Labels> for v1::Labels {
    fn from(labels: &Labels) -> Self {
        let label = |l: &Label| v1::Label {
            key: l.key.to_string(),
            value: l.value.as_ref().map(ToString::to_string),
        };
        Self {
            labels: labels.0.iter().map(label).collect(),
        }
    }
}

fn ranges_from(ranges: &v1::value::Ranges) -> Ranges {
    Ranges::new(ranges.range.iter().map(|r| Range {
        begin: r.begin,
        end: r.end,
    }))
}

fn ranges_to(ranges: &Ranges) -> v1::value::Ranges {
    let range = |r: Range| v1::value::Range {
        begin: r.begin,
        end: r.end,
    };
    v1::value::Ranges {
        range: ranges.iter().map(range).collect(),
    }
}

fn set_to(set: &Set) -> v1::value::Set {
    v1::value::Set {
        item: set.as_slice().iter().map(ToString::to_string).collect(),
    }
}

fn scalar_to(amount: Scalar) -> v1::value::Scalar {
    v1::value::Scalar {
        value: amount.to_f64(),
    }
}

impl TryFrom<&v1::Attribute> for Attribute {
    type Error = InvalidAttribute;

    fn try_from(attribute: &v1::Attribute) -> Result<Self, InvalidAttribute> {
        let value = match attribute.r#type() {
            ValueType::Scalar => attribute
                .scalar
                .as_ref()
                .map(|s| AttributeValue::Scalar(Scalar::from_f64(s.value))),
            ValueType::Ranges => attribute
                .ranges
                .as_ref()
                .map(|r| AttributeValue::Ranges(ranges_from(r))),
            ValueType::Set => attribute
                .set
                .as_ref()
                .map(|s| AttributeValue::Set(Set::new(s.item.iter().map(String::as_str)))),
            ValueType::Text => attribute
                .text
                .as_ref()
                .map(|t| AttributeValue::Text(t.value.as_str().into())),
        };
        Ok(Self {
            name: attribute.name.as_str().into(),
            value: value.ok_or_else(|| InvalidAttribute(attribute.name.clone()))?,
        })
    }
}

impl From<&Attribute> for v1::Attribute {
    fn from(attribute: &Attribute) -> Self {
        let mut message = Self {
            name: attribute.name.to_string(),
            ..Self::default()
        };
        match &attribute.value {
            AttributeValue::Scalar(amount) => {
                message.set_type(ValueType::Scalar);
                message.scalar = Some(scalar_to(*amount));
            }
            AttributeValue::Ranges(ranges) => {
                message.set_type(ValueType::Ranges);
                message.ranges = Some(ranges_to(ranges));
            }
            AttributeValue::Set(set) => {
                message.set_type(ValueType::Set);
                message.set = Some(set_to(set));
            }
            AttributeValue::Text(text) => {
                message.set_type(ValueType::Text);
                message.text = Some(v1::value::Text {
                    value: text.to_string(),
                });
            }
        }
        message
    }
}

/// The attributes of an agent.
pub fn attributes(messages: &[v1::Attribute]) -> Result<Attributes, InvalidAttribute> {
    messages
        .iter()
        .map(TryInto::try_into)
        .collect::<Result<_, _>>()
        .map(Attributes)
}

/// All of these resources together; empty ones count for nothing.
pub fn resources(messages: &[v1::Resource]) -> Result<Resources, InvalidResource> {
    messages.iter().map(Resource::try_from).collect()
}

/// Why the text of a flag is no resources.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseResourcesError {
    /// Neither form.
    #[error(transparent)]
    Text(#[from] tepui_model::resources::ParseError),
    /// JSON, but not of resources.
    #[error(transparent)]
    Json(#[from] crate::json::JsonError),
    /// A resource that makes no sense.
    #[error(transparent)]
    Invalid(#[from] InvalidResource),
}

/// Reads the value of `--resources`: a JSON array of resources, or the short text form. What names
/// no role is reserved to `default_role`, if that is not `*`.
pub fn parse_resources(text: &str, default_role: &str) -> Result<Resources, ParseResourcesError> {
    let Ok(json::Value::Array(items)) = json::parse(text.as_bytes()) else {
        return Ok(Resources::parse(text, default_role)?);
    };
    let mut all = Resources::new();
    for item in &items {
        let mut message: v1::Resource = json::value_to_message(item)?;
        if message.role.is_none() && message.reservations.is_empty() {
            message.role = Some(default_role.into());
        }
        all.push(Resource::try_from(&message)?);
    }
    Ok(all)
}

/// The resources as we keep and send them, in [`Format::Post`].
#[must_use]
pub fn to_proto(resources: &Resources) -> Vec<v1::Resource> {
    resources.iter().map(Into::into).collect()
}

/// The resources in the form that the reader expects.
#[must_use]
pub fn to_proto_as(resources: &Resources, format: Format) -> Vec<v1::Resource> {
    resources.iter().map(|r| to_proto_one(r, format)).collect()
}

impl TryFrom<&v1::Resource> for Resource {
    type Error = InvalidResource;

    fn try_from(message: &v1::Resource) -> Result<Self, InvalidResource> {
        let resource = lenient(message);
        match validate::validate(message) {
            Ok(()) => Ok(resource),
            Err(reason) => Err(InvalidResource {
                resource: resource.to_string(),
                reason,
            }),
        }
    }
}

impl From<&Resource> for v1::Resource {
    fn from(resource: &Resource) -> Self {
        to_proto_one(resource, Format::Post)
    }
}

/// Reads what can be read, so that a wrong resource can be shown to whoever sent it.
fn lenient(message: &v1::Resource) -> Resource {
    let value = match ValueType::try_from(message.r#type) {
        Ok(ValueType::Ranges) => {
            Value::Ranges(message.ranges.as_ref().map(ranges_from).unwrap_or_default())
        }
        Ok(ValueType::Set) => {
            let items = message.set.iter().flat_map(|s| &s.item);
            Value::Set(Set::new(items.map(String::as_str)))
        }
        _ => {
            let amount = message.scalar.as_ref().map_or(0.0, |s| s.value);
            Value::Scalar(Scalar::from_f64(amount))
        }
    };
    let mut resource = Resource::new(message.name.as_str(), value)
        .with_revocable(message.revocable.is_some())
        .with_shared(message.shared.is_some());
    let reservations = reservations_from(message);
    if !reservations.is_empty() {
        resource = resource.with_reservations(reservations);
    }
    if let Some(disk) = &message.disk {
        resource = resource.with_disk(Some(disk_from(disk)));
    }
    if let Some(provider) = &message.provider_id {
        resource = resource.with_provider(Some(provider.into()));
    }
    match message
        .allocation_info
        .as_ref()
        .and_then(|a| a.role.as_deref())
    {
        Some(role) => resource.allocated(role.into()),
        None => resource,
    }
}

/// The stack of reservations, whichever form says it.
fn reservations_from(message: &v1::Resource) -> Vec<Reservation> {
    if !message.reservations.is_empty() {
        return message.reservations.iter().map(reservation_from).collect();
    }
    let role = message.role.as_deref().unwrap_or(roles::DEFAULT);
    if role == roles::DEFAULT {
        return Vec::new();
    }
    let made = message.reservation.as_ref();
    vec![Reservation {
        role: role.into(),
        dynamic: made.is_some(),
        principal: made.and_then(|r| r.principal.as_deref()).map(Into::into),
        labels: made.and_then(|r| r.labels.as_ref()).map(Into::into),
    }]
}

fn reservation_from(info: &v1::resource::ReservationInfo) -> Reservation {
    Reservation {
        role: Role::from(info.role()),
        dynamic: info.r#type() == ReservationType::Dynamic,
        principal: info.principal.as_deref().map(Into::into),
        labels: info.labels.as_ref().map(Into::into),
    }
}

fn disk_from(info: &v1::resource::DiskInfo) -> Disk {
    let text = |field: &Option<String>| field.as_deref().map(Arc::from);
    let source = info.source.as_ref().map(|source| {
        let (kind, root) = match source.r#type() {
            SourceType::Mount => (
                SourceKind::Mount,
                source.mount.as_ref().and_then(|m| text(&m.root)),
            ),
            SourceType::Block => (SourceKind::Block, None),
            SourceType::Raw => (SourceKind::Raw, None),
            SourceType::Path | SourceType::Unknown => (
                SourceKind::Path,
                source.path.as_ref().and_then(|p| text(&p.root)),
            ),
        };
        Source {
            kind,
            root,
            vendor: text(&source.vendor),
            id: text(&source.id),
            metadata: source.metadata.as_ref().map(Into::into),
            profile: text(&source.profile),
        }
    });
    Disk {
        source,
        persistence: info.persistence.as_ref().map(|p| Persistence {
            id: p.id.as_str().into(),
            principal: p.principal.as_deref().map(Into::into),
        }),
        volume: info.volume.as_ref().map(|v| Volume {
            container_path: v.container_path.as_str().into(),
            host_path: v.host_path.as_deref().map(Into::into),
            read_only: v.mode() == v1::volume::Mode::Ro,
        }),
    }
}

/// One resource in the form that the reader expects.
#[must_use]
pub fn to_proto_one(resource: &Resource, format: Format) -> v1::Resource {
    let mut message = v1::Resource {
        name: resource.name().to_string(),
        provider_id: resource.provider().map(Into::into),
        allocation_info: resource
            .allocation_role()
            .map(|role| v1::resource::AllocationInfo {
                role: Some(role.to_string()),
            }),
        disk: resource.disk().map(disk_to),
        revocable: resource
            .is_revocable()
            .then(v1::resource::RevocableInfo::default),
        shared: resource.is_shared().then(v1::resource::SharedInfo::default),
        ..v1::Resource::default()
    };
    match resource.value() {
        Value::Scalar(amount) => {
            message.set_type(ValueType::Scalar);
            message.scalar = Some(scalar_to(*amount));
        }
        Value::Ranges(ranges) => {
            message.set_type(ValueType::Ranges);
            message.ranges = Some(ranges_to(ranges));
        }
        Value::Set(set) => {
            message.set_type(ValueType::Set);
            message.set = Some(set_to(set));
        }
    }
    let stack = resource.reservations();
    if format != Format::Post {
        set_role(&mut message, stack);
    }
    if format != Format::Pre || stack.len() > 1 {
        message.reservations = stack.iter().map(reservation_to).collect();
    }
    message
}

/// Says the only reservation in the old way.
fn set_role(message: &mut v1::Resource, stack: &[Reservation]) {
    match stack {
        [] => message.role = Some(roles::DEFAULT.into()),
        [only] => {
            message.role = Some(only.role.to_string());
            message.reservation = only.dynamic.then(|| v1::resource::ReservationInfo {
                principal: only.principal.as_ref().map(ToString::to_string),
                labels: only.labels.as_ref().map(Into::into),
                ..Default::default()
            });
        }
        _ => {}
    }
}

fn reservation_to(reservation: &Reservation) -> v1::resource::ReservationInfo {
    let kind = match reservation.dynamic {
        true => ReservationType::Dynamic,
        false => ReservationType::Static,
    };
    v1::resource::ReservationInfo {
        r#type: Some(kind.into()),
        role: Some(reservation.role.to_string()),
        principal: reservation.principal.as_ref().map(ToString::to_string),
        labels: reservation.labels.as_ref().map(Into::into),
    }
}

fn disk_to(disk: &Disk) -> v1::resource::DiskInfo {
    v1::resource::DiskInfo {
        persistence: disk
            .persistence
            .as_ref()
            .map(|p| v1::resource::disk_info::Persistence {
                id: p.id.to_string(),
                principal: p.principal.as_ref().map(ToString::to_string),
            }),
        volume: disk.volume.as_ref().map(|v| {
            let mode = match v.read_only {
                true => v1::volume::Mode::Ro,
                false => v1::volume::Mode::Rw,
            };
            v1::Volume {
                mode: mode.into(),
                container_path: v.container_path.to_string(),
                host_path: v.host_path.as_ref().map(ToString::to_string),
                ..Default::default()
            }
        }),
        source: disk.source.as_ref().map(source_to),
    }
}

fn source_to(source: &Source) -> v1::resource::disk_info::Source {
    use v1::resource::disk_info::source::{Mount, Path};
    let text = |field: &Option<Arc<str>>| field.as_ref().map(ToString::to_string);
    let kind = match source.kind {
        SourceKind::Path => SourceType::Path,
        SourceKind::Mount => SourceType::Mount,
        SourceKind::Block => SourceType::Block,
        SourceKind::Raw => SourceType::Raw,
    };
    let root = text(&source.root);
    let mut message = v1::resource::disk_info::Source {
        r#type: kind.into(),
        vendor: text(&source.vendor),
        id: text(&source.id),
        metadata: source.metadata.as_ref().map(Into::into),
        profile: text(&source.profile),
        ..Default::default()
    };
    if root.is_some() {
        match source.kind {
            SourceKind::Mount => message.mount = Some(Mount { root }),
            _ => message.path = Some(Path { root }),
        }
    }
    message
}
