//! Which tags count, and who signed them: docker's rules (§1.10, §4.8).

use std::{cmp::Ordering, collections::BTreeMap};

use signet_trust::{RoleName, document::TargetRef, update::Trusted};

use crate::image::Digest;

/// What docker calls a tag's signer where no delegation holds it.
pub(crate) const REPO_ADMIN: &str = "Repo Admin";

/// A tag that `docker pull` would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignedTag {
    pub(crate) tag: String,
    pub(crate) digest: Digest,
    /// Bytes of the manifest.
    pub(crate) size: u64,
    /// `targets/releases` or `targets`.
    pub(crate) role: RoleName,
    /// Delegations that hold the same tag and digest, without `targets/`.
    pub(crate) signers: Vec<String>,
}

/// The delegation whose tags count beside those of `targets`.
fn releases() -> RoleName {
    RoleName::signer("releases").expect("it is a well-formed role")
}

/// Whether `docker pull` takes tags of this role.
pub(crate) fn counts(role: &RoleName) -> bool {
    *role == RoleName::Targets || *role == releases()
}

/// What `docker pull` would take for `tag`: `targets/releases` first, then `targets`.
pub(crate) fn lookup(trusted: &Trusted, tag: &str) -> Option<SignedTag> {
    [releases(), RoleName::Targets]
        .into_iter()
        .find_map(|role| {
            let target = target(trusted, &role, tag)?;
            let digest = sha256(target)?;
            let size = target.length;
            Some(SignedTag {
                tag: tag.to_owned(),
                digest,
                size,
                signers: signers(trusted, tag, digest),
                role,
            })
        })
}

/// Every (tag, digest) of `targets` and `targets/releases`, in natural order.
pub(crate) fn all(trusted: &Trusted) -> Vec<SignedTag> {
    let mut found: BTreeMap<(&str, [u8; 32]), (u64, RoleName)> = BTreeMap::new();
    for role in [releases(), RoleName::Targets] {
        let Some(document) = trusted.targets.get(&role) else {
            continue;
        };
        for (tag, target) in &document.doc().targets {
            let Some(digest) = sha256(target) else {
                continue;
            };
            if admits(trusted, &role, tag) {
                found
                    .entry((tag, digest.0))
                    .or_insert((target.length, role.clone()));
            }
        }
    }
    let others = signing_roles(trusted);
    let mut tags: Vec<SignedTag> = found
        .into_iter()
        .map(|((tag, digest), (size, role))| {
            let digest = Digest(digest);
            let signers = if others.is_empty() {
                Vec::new()
            } else {
                signers(trusted, tag, digest)
            };
            SignedTag {
                tag: tag.to_owned(),
                digest,
                size,
                role,
                signers,
            }
        })
        .collect();
    tags.sort_by(|a, b| natural(&a.tag, &b.tag));
    tags
}

/// Roles other than `targets` and `targets/releases` that are published, from the top down.
fn signing_roles(trusted: &Trusted) -> Vec<RoleName> {
    let mut queue = vec![RoleName::Targets];
    let mut roles = Vec::new();
    let mut at = 0;
    while at < queue.len() {
        let role = queue[at].clone();
        at += 1;
        let Some(document) = trusted.targets.get(&role) else {
            continue;
        };
        for delegation in document.doc().delegations.roles.iter().flatten() {
            if !queue.contains(&delegation.name) {
                queue.push(delegation.name.clone());
            }
        }
        if role != RoleName::Targets && role != releases() {
            roles.push(role);
        }
    }
    roles
}

fn signers(trusted: &Trusted, tag: &str, digest: Digest) -> Vec<String> {
    signing_roles(trusted)
        .into_iter()
        .filter(|role| target(trusted, role, tag).and_then(sha256) == Some(digest))
        .map(|role| signer_name(&role).to_owned())
        .collect()
}

/// `alice` of `targets/alice`.
pub(crate) fn signer_name(role: &RoleName) -> &str {
    role.as_str().strip_prefix("targets/").unwrap_or(REPO_ADMIN)
}

fn target<'a>(trusted: &'a Trusted, role: &RoleName, tag: &str) -> Option<TargetRef<'a>> {
    let target = trusted.targets.get(role)?.doc().targets.get(tag)?;
    admits(trusted, role, tag).then_some(target)
}

/// Whether every delegation on the way to `role` has a path that begins `tag`.
fn admits(trusted: &Trusted, role: &RoleName, tag: &str) -> bool {
    let Some(parent) = role.parent() else {
        return true;
    };
    let Some(document) = trusted.targets.get(&parent) else {
        return false;
    };
    let delegation = document
        .doc()
        .delegations
        .roles
        .iter()
        .flatten()
        .find(|d| d.name == *role);
    delegation.is_some_and(|d| d.paths.iter().any(|path| tag.starts_with(path.as_str())))
        && admits(trusted, &parent, tag)
}

fn sha256(target: TargetRef<'_>) -> Option<Digest> {
    target.hashes.sha256().map(Digest)
}

/// Numbers within names by value: `v9` before `v10` (docker sorts tags so).
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (number_a, rest_a) = leading_number(a);
                let (number_b, rest_b) = leading_number(b);
                let order = number_a
                    .len()
                    .cmp(&number_b.len())
                    .then_with(|| number_a.cmp(number_b));
                // Equal values: fewer leading zeros first.
                let order =
                    order.then_with(|| (a.len() - rest_a.len()).cmp(&(b.len() - rest_b.len())));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (rest_a, rest_b);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (x, y) => return x.cmp(&y),
        }
    }
}

/// The digits at the start without leading zeros, and what follows them.
fn leading_number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    let zeros = text[..end].iter().take_while(|b| **b == b'0').count();
    (&text[zeros..end], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_sort_as_docker_sorts_them() {
        let mut tags = vec![
            "v10", "v9", "latest", "1.10", "1.9", "v9-rc1", "", "v09", "a",
        ];
        tags.sort_by(|a, b| natural(a, b));
        assert_eq!(
            tags,
            [
                "", "1.9", "1.10", "a", "latest", "v9", "v9-rc1", "v09", "v10"
            ]
        );
    }
}
