//! Who may sign what: the four base roles and the delegations below `targets`.

use std::{fmt, str::FromStr};

/// A role of a trust collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// Signs the list of keys.
    Root,
    /// Signs tags, and delegates to others.
    Targets,
    /// Signs the state of the whole collection.
    Snapshot,
    /// Signs the newest snapshot; always the server's.
    Timestamp,
    /// A role below targets; the full name, `targets/releases`.
    Delegation(DelegationName),
}

/// The full name of a delegation, `targets/…`.
///
/// Each character is one of `[-a-z0-9_/]`, below 256 bytes, no empty component (notary
/// `tuf/data/roles.go`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DelegationName(String);

/// A string that names no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a role")]
pub struct BadRole(pub String);

impl RoleName {
    /// The name as the documents write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
            Self::Delegation(name) => &name.0,
        }
    }

    /// True for `targets` and every delegation: the roles whose document is a targets file.
    #[must_use]
    pub fn is_targets_like(&self) -> bool {
        matches!(self, Self::Targets | Self::Delegation(_))
    }

    /// The role whose document delegates to this one: `targets` for `targets/a`, `targets/a` for
    /// `targets/a/b`; `None` for base roles.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let Self::Delegation(DelegationName(name)) = self else {
            return None;
        };
        let (parent, _) = name.rsplit_once('/')?;
        parent.parse().ok()
    }

    /// `targets/<name>`, the delegation of a signer.
    ///
    /// # Errors
    ///
    /// When `name` has characters that a role cannot have.
    pub fn signer(name: &str) -> Result<Self, BadRole> {
        format!("targets/{name}").parse()
    }
}

impl FromStr for RoleName {
    type Err = BadRole;

    fn from_str(name: &str) -> Result<Self, BadRole> {
        Ok(match name {
            "root" => Self::Root,
            "targets" => Self::Targets,
            "snapshot" => Self::Snapshot,
            "timestamp" => Self::Timestamp,
            _ => {
                let fits = name.len() < 256
                    && name.starts_with("targets/")
                    && name.split('/').all(|part| !part.is_empty())
                    && name
                        .bytes()
                        .all(|b| matches!(b, b'-' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'/'));
                if !fits {
                    return Err(BadRole(name.chars().take(256).collect()));
                }
                Self::Delegation(DelegationName(name.to_owned()))
            }
        })
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delegation_knows_its_parent() {
        let role: RoleName = "targets/a/b".parse().unwrap();
        let parent = role.parent().unwrap();
        assert_eq!(parent.as_str(), "targets/a");
        assert_eq!(parent.parent(), Some(RoleName::Targets));
        assert_eq!(RoleName::Targets.parent(), None);
    }

    #[test]
    fn what_notary_would_not_take_is_no_role() {
        for name in [
            "",
            "Root",
            "targets/",
            "targets//a",
            "targets/A",
            "targets/.",
            "other",
            "targets/a b",
        ] {
            assert!(name.parse::<RoleName>().is_err(), "{name:?}");
        }
    }
}
