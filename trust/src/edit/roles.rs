//! Which roles a tag may go into, and which of their keys are at hand.

use super::{EditError, Holds};
use crate::{document::Delegation, key::KeyId, role::RoleName, update::Trusted, verify::Signers};

/// Roles that `docker trust` would sign `tag` into with these keys.
///
/// No delegations at all: `targets`. Else every direct child of `targets` whose paths admit the
/// tag and one of whose keys is held.
///
/// # Errors
///
/// [`EditError::NoSignableRole`], naming what would do.
pub fn signable_roles(
    trusted: &Trusted,
    tag: &str,
    held: &dyn Holds,
) -> Result<Vec<RoleName>, EditError> {
    let top = trusted.top().doc();
    let delegations = top.delegations.roles.as_deref().unwrap_or_default();
    if delegations.is_empty() {
        return Ok(vec![RoleName::Targets]);
    }
    let mut roles = Vec::new();
    let mut needed = Vec::new();
    for delegation in delegations {
        if delegation.name.parent() != Some(RoleName::Targets) || !admits(delegation, tag) {
            continue;
        }
        let ids: Vec<KeyId> = delegation
            .key_ids
            .iter()
            .flatten()
            .filter_map(|id| top.delegations.keys.get(id)?.canonical_id().ok())
            .collect();
        if ids.iter().any(|id| held.holds(id)) {
            roles.push(delegation.name.clone());
        }
        needed.extend(ids.into_iter().filter(|id| !held.holds(id)));
    }
    if roles.is_empty() {
        needed.sort_unstable();
        needed.dedup();
        return Err(EditError::NoSignableRole {
            tag: tag.to_owned(),
            needed,
        });
    }
    Ok(roles)
}

/// Paths are plain prefixes (notary `tuf/data/roles.go`, `CheckPaths`).
pub(super) fn admits(delegation: &Delegation, tag: &str) -> bool {
    delegation
        .paths
        .iter()
        .any(|prefix| tag.starts_with(prefix))
}

/// The listed IDs of all signers that are held.
pub(super) fn held_signers(
    role: &RoleName,
    signers: &Signers<'_>,
    held: &dyn Holds,
) -> Result<Vec<KeyId>, EditError> {
    let mut usable = Vec::new();
    let mut needed = Vec::new();
    for (listed, key) in &signers.keys {
        let Ok(canonical) = key.canonical_id() else {
            continue;
        };
        if held.holds(&canonical) {
            usable.push(*listed);
        } else {
            needed.push(canonical);
        }
    }
    let enough = usize::try_from(signers.threshold).is_ok_and(|wanted| usable.len() >= wanted);
    if enough {
        Ok(usable)
    } else {
        Err(EditError::NoKey {
            role: role.clone(),
            needed,
        })
    }
}
