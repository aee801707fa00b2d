//! Offer constraints (`master/allocator/mesos/offer_constraints_filter.cpp`).

use tepui_proto::v1::scheduler::{AttributeConstraint, OfferConstraints};

use super::Checked;
use tepui_proto::v1::scheduler::attribute_constraint::predicate::Predicate;
use tepui_proto::v1::scheduler::attribute_constraint::selector::{PseudoattributeType, Selector};

/// Offer constraints of a framework.
pub fn offer_constraints(constraints: &OfferConstraints) -> Checked {
    for (role, of_role) in &constraints.role_constraints {
        if of_role.groups.is_empty() {
            return Err(format!(
                "A role {role} has an empty set of constraint groups"
            ));
        }
        for group in &of_role.groups {
            if group.attribute_constraints.is_empty() {
                return Err(format!("A role {role} has an empty constraint group"));
            }
            for constraint in &group.attribute_constraints {
                attribute_constraint(constraint).map_err(|error| {
                    format!("A role {role} has an invalid 'AttributeConstraint': {error}")
                })?;
            }
        }
    }
    Ok(())
}

fn attribute_constraint(constraint: &AttributeConstraint) -> Checked {
    match &constraint.selector.selector {
        None => return Err("'AttributeConstraint.Selector' must be set".into()),
        Some(Selector::PseudoattributeType(number))
            if matches!(
                PseudoattributeType::try_from(*number),
                Err(_) | Ok(PseudoattributeType::Unknown)
            ) =>
        {
            return Err("Unknown pseudoattribute type".into());
        }
        Some(_) => {}
    }
    match &constraint.predicate.predicate {
        None => Err("Unknown predicate type".into()),
        Some(Predicate::TextMatches(matches)) => regex(&matches.regex),
        Some(Predicate::TextNotMatches(matches)) => regex(&matches.regex),
        Some(_) => Ok(()),
    }
}

/// Mistakes that RE2 has words for are told in those; of others the compiler tells.
fn regex(pattern: &str) -> Checked {
    let wrong = |what: &str| {
        Err(format!(
            "Failed to construct regex from pattern '{pattern}': {what}"
        ))
    };
    let (mut open, mut class) = (0_u32, None);
    let mut chars = pattern.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if chars.next().is_none() => return wrong("trailing \\"),
            '\\' => {}
            // A bracket that comes first in a class stands for itself.
            ']' if class.is_some_and(|from| at > from + 1) => class = None,
            _ if class.is_some() => {}
            '[' => class = Some(at),
            '(' => open += 1,
            ')' if open == 0 => return wrong(&format!("unexpected ): {pattern}")),
            ')' => open -= 1,
            _ => {}
        }
    }
    if let Some(at) = class {
        return wrong(&format!("missing ]: {}", &pattern[at..]));
    }
    if open > 0 {
        return wrong(&format!("missing ): {pattern}"));
    }
    crate::constraints::pattern(pattern)
        .map(drop)
        .or_else(|error| wrong(&error))
}
