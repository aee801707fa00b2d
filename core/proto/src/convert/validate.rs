//! Which resource messages are refused (`Resources::validate` in Mesos' `common/resources.cpp`).

#![expect(
    deprecated,
    reason = "`Resource.role` is the old form, which old clients send"
)]

use tepui_model::resources::Scalar;
use tepui_model::roles;

use super::{ReservationType, SourceType, ValueType};
use crate::v1;

/// What Mesos refuses, in its order and words.
pub(super) fn validate(message: &v1::Resource) -> Result<(), String> {
    if message.name.is_empty() {
        return Err("Empty resource name".into());
    }
    validate_value(message)?;
    validate_disk(message)?;
    if message.reservations.is_empty() {
        validate_pre(message)
    } else {
        validate_stack(&message.reservations)
    }
}

fn validate_value(message: &v1::Resource) -> Result<(), String> {
    let said = (
        message.scalar.as_ref(),
        message.ranges.as_ref(),
        message.set.as_ref(),
    );
    match (ValueType::try_from(message.r#type), said) {
        (Err(_), _) => Err("Invalid resource type".into()),
        (Ok(ValueType::Scalar), (Some(scalar), None, None)) => {
            // A plain zero is nothing; what only rounds to zero is a mistake (recorded).
            // Limits may be infinite, nobody has infinite resources.
            if scalar.value.is_infinite() {
                return Err("Invalid scalar resource: value is not finite".into());
            }
            if scalar.value != 0.0 && Scalar::from_f64(scalar.value).0 <= 0 {
                return Err("Invalid scalar resource: value <= 0".into());
            }
            Ok(())
        }
        (Ok(ValueType::Ranges), (None, Some(ranges), None)) => validate_ranges(&ranges.range),
        (Ok(ValueType::Set), (None, None, Some(set))) => {
            let mut items: Vec<_> = set.item.iter().collect();
            items.sort_unstable();
            if items.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err("Invalid set resource: duplicated elements".into());
            }
            Ok(())
        }
        (Ok(ValueType::Scalar), _) => Err("Invalid scalar resource".into()),
        (Ok(ValueType::Ranges), _) => Err("Invalid ranges resource".into()),
        (Ok(ValueType::Set), _) => Err("Invalid set resource".into()),
        (Ok(ValueType::Text), _) => Err("Unsupported resource type".into()),
    }
}

fn validate_ranges(ranges: &[v1::value::Range]) -> Result<(), String> {
    if ranges.iter().any(|r| r.begin > r.end) {
        return Err("Invalid ranges resource: begin > end".into());
    }
    let mut sorted: Vec<_> = ranges.iter().map(|r| (r.begin, r.end)).collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[1].0 <= pair[0].1) {
        return Err("Invalid ranges resource: overlapping ranges".into());
    }
    Ok(())
}

fn validate_disk(message: &v1::Resource) -> Result<(), String> {
    let Some(disk) = &message.disk else {
        return Ok(());
    };
    if message.name != "disk" {
        let name = &message.name;
        return Err(format!("DiskInfo should not be set for {name} resource"));
    }
    if let Some(source) = &disk.source
        && matches!(
            SourceType::try_from(source.r#type),
            Err(_) | Ok(SourceType::Unknown)
        )
    {
        return Err("Unsupported 'DiskInfo.Source.Type' in 'disk.source.type'".into());
    }
    if let Some(volume) = &disk.volume {
        if volume.image.is_some() {
            return Err("'disk.volume.image' is not supported".into());
        }
        if volume.source.is_some() {
            return Err("'disk.volume.source' is not supported".into());
        }
    }
    Ok(())
}

/// `role` and `reservation`.
fn validate_pre(message: &v1::Resource) -> Result<(), String> {
    let role = message.role.as_deref().unwrap_or(roles::DEFAULT);
    roles::validate(role).map_err(|error| error.to_string())?;
    let Some(reservation) = &message.reservation else {
        return Ok(());
    };
    if reservation.r#type.is_some() {
        return Err("'Resource.ReservationInfo.type' must not be set for \
                    the 'Resource.reservation' field"
            .into());
    }
    if reservation.role.is_some() {
        return Err("'Resource.ReservationInfo.role' must not be set for \
                    the 'Resource.reservation' field"
            .into());
    }
    if role == roles::DEFAULT {
        return Err("Invalid reservation: role \"*\" cannot be dynamically reserved".into());
    }
    Ok(())
}

/// `reservations`.
fn validate_stack(stack: &[v1::resource::ReservationInfo]) -> Result<(), String> {
    for reservation in stack {
        if !matches!(
            reservation.r#type(),
            ReservationType::Static | ReservationType::Dynamic
        ) {
            return Err("Invalid reservation: 'Resource.ReservationInfo.type' must be set".into());
        }
        let Some(role) = reservation.role.as_deref() else {
            return Err("Invalid reservation: 'Resource.ReservationInfo.role' must be set".into());
        };
        roles::validate(role).map_err(|error| error.to_string())?;
        if role == roles::DEFAULT {
            return Err("Invalid reservation: role \"*\" cannot be reserved".into());
        }
    }
    for pair in stack.windows(2) {
        let (below, top) = (pair[0].role(), pair[1].role());
        if pair[1].r#type() == ReservationType::Static {
            return Err(
                "Invalid refined reservation: A refined reservation cannot be STATIC".into(),
            );
        }
        if !roles::is_strict_subrole(top, below) {
            return Err(format!(
                "Invalid refined reservation: role '{top}' is not a refined role of '{below}'"
            ));
        }
    }
    Ok(())
}
