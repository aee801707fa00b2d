//! Operations on resources, from messages.

use tepui_model::resources::{Operation, Resource, Scalar};

use super::InvalidResource;
use crate::v1;
use crate::v1::offer::operation::Type;

/// An operation that changes what resources are; `None` for one that does not (launches), or that only a resource
/// provider performs. A missing body is an operation on nothing.
pub fn operation(message: &v1::offer::Operation) -> Result<Option<Operation>, InvalidResource> {
    Ok(Some(match message.r#type() {
        Type::Reserve => {
            let reserve = message.reserve.as_ref();
            Operation::Reserve {
                source: all(reserve.map_or(&[], |reserve| &reserve.source))?,
                resources: all(reserve.map_or(&[], |reserve| &reserve.resources))?,
            }
        }
        Type::Unreserve => {
            let unreserve = message.unreserve.as_ref();
            Operation::Unreserve(all(unreserve.map_or(&[], |of| &of.resources))?)
        }
        Type::Create => {
            let create = message.create.as_ref();
            Operation::Create(all(create.map_or(&[], |of| &of.volumes))?)
        }
        Type::Destroy => {
            let destroy = message.destroy.as_ref();
            Operation::Destroy(all(destroy.map_or(&[], |of| &of.volumes))?)
        }
        Type::GrowVolume => {
            let grow = message.grow_volume.clone().unwrap_or_default();
            Operation::Grow {
                volume: Resource::try_from(&grow.volume)?,
                addition: Resource::try_from(&grow.addition)?,
            }
        }
        Type::ShrinkVolume => {
            let shrink = message.shrink_volume.clone().unwrap_or_default();
            Operation::Shrink {
                volume: Resource::try_from(&shrink.volume)?,
                subtract: Scalar::from_f64(shrink.subtract.value),
            }
        }
        Type::Unknown | Type::Launch | Type::LaunchGroup | Type::CreateDisk | Type::DestroyDisk => {
            return Ok(None);
        }
    }))
}

/// The resources in the order of the message; those of which there is nothing are left out.
fn all(messages: &[v1::Resource]) -> Result<Vec<Resource>, InvalidResource> {
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        let resource = Resource::try_from(message)?;
        if !resource.is_empty() {
            all.push(resource);
        }
    }
    Ok(all)
}
