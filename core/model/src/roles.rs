//! Names of roles, and where they stand in the tree (`eng/ads` is below `eng`).

use thiserror::Error;

/// The role of resources that are reserved to nobody.
pub const DEFAULT: &str = "*";

/// Why a name cannot be a role; the texts are those of Mesos (`common/roles.cpp`).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[allow(missing_docs)]
pub enum RoleError {
    #[error("Empty role name is invalid")]
    Empty,
    #[error("Role '{0}' cannot start with a slash")]
    LeadingSlash(String),
    #[error("Role '{0}' cannot end with a slash")]
    TrailingSlash(String),
    #[error("Role '{0}' cannot contain two adjacent slashes")]
    DoubleSlash(String),
    #[error("Role '{0}' cannot include '*' as a component")]
    Star(String),
    #[error("Role component '.' is invalid")]
    Dot,
    #[error("Role component '..' is invalid")]
    DotDot,
    #[error("Role component '{0}' is invalid because it starts with a dash")]
    Dash(String),
    #[error("Role component '{0}' is invalid because it contains backspace or whitespace")]
    Space(String),
}

/// Whether this may be the name of a role.
pub fn validate(role: &str) -> Result<(), RoleError> {
    // The common role first, and cheaply.
    if role == DEFAULT {
        return Ok(());
    }
    if role.is_empty() {
        return Err(RoleError::Empty);
    }
    if role.starts_with('/') {
        return Err(RoleError::LeadingSlash(role.into()));
    }
    if role.ends_with('/') {
        return Err(RoleError::TrailingSlash(role.into()));
    }
    if role.contains("//") {
        return Err(RoleError::DoubleSlash(role.into()));
    }
    for component in role.split('/') {
        match component {
            "*" => return Err(RoleError::Star(role.into())),
            "." => return Err(RoleError::Dot),
            ".." => return Err(RoleError::DotDot),
            c if c.starts_with('-') => return Err(RoleError::Dash(c.into())),
            c if c.contains(['\t', '\n', '\x0b', '\x0c', '\r', ' ', '\x08', '\x7f']) => {
                return Err(RoleError::Space(c.into()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether `role` is below `ancestor` in the tree (and not the same).
#[must_use]
pub fn is_strict_subrole(role: &str, ancestor: &str) -> bool {
    role.strip_prefix(ancestor)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Whether `role` is `ancestor` or below it.
#[must_use]
pub fn is_at_or_below(role: &str, ancestor: &str) -> bool {
    role == ancestor || is_strict_subrole(role, ancestor)
}

/// The role itself and what is above it, nearest first: `a/b/c`, `a/b`, `a`.
pub fn up(role: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(role), |r| r.rfind('/').map(|at| &r[..at]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_in_mesos() {
        for good in ["*", "a", "eng/ads", "a.b", "a-b", "a*b", "ärger", "a:b"] {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        let said = |role| validate(role).expect_err(role).to_string();
        assert_eq!(said("/a"), "Role '/a' cannot start with a slash");
        assert_eq!(
            said("a//b"),
            "Role 'a//b' cannot contain two adjacent slashes"
        );
        assert_eq!(said("a/*"), "Role 'a/*' cannot include '*' as a component");
        assert_eq!(
            said("-a"),
            "Role component '-a' is invalid because it starts with a dash"
        );
        assert_eq!(
            said("x/a b"),
            "Role component 'a b' is invalid because it contains backspace or whitespace"
        );
        for bad in ["", "a/", "..", "a/./b", "a\tb"] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_tree() {
        assert!(is_strict_subrole("a/b", "a") && is_at_or_below("a", "a"));
        assert!(!is_strict_subrole("ab", "a") && !is_strict_subrole("a", "a"));
        assert_eq!(up("a/b/c").collect::<Vec<_>>(), ["a/b/c", "a/b", "a"]);
    }
}
