//! What the cache is good for: versions that must not fall, and files that need no fetching.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    document::{Body, Root, Snapshot, Targets, Timestamp},
    gun::Gun,
    role::RoleName,
    time::UnixTime,
    verify::{self, Raw, Signers, Verified, VerifyError, limit},
};

/// Cached documents that verify from the cached root on. Their expiry is not asked here: an expired
/// version must not fall either.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) timestamp: Option<Verified<Timestamp>>,
    pub(super) snapshot: Option<Verified<Snapshot>>,
    pub(super) targets: BTreeMap<RoleName, Verified<Targets>>,
    versions: BTreeMap<RoleName, u32>,
}

impl Known {
    /// Reads what can be read; the rest counts as absent.
    pub(super) fn read(
        gun: &Gun,
        root: &Root,
        timestamp: Option<Vec<u8>>,
        snapshot: Option<Vec<u8>>,
        mut targets: BTreeMap<RoleName, Vec<u8>>,
        now: UnixTime,
    ) -> Self {
        let signers = |role: &RoleName| verify::base_signers(root, role, gun, now);
        let mut known = Self {
            timestamp: read(
                timestamp,
                &RoleName::Timestamp,
                &signers(&RoleName::Timestamp),
            ),
            snapshot: read(snapshot, &RoleName::Snapshot, &signers(&RoleName::Snapshot)),
            ..Self::default()
        };
        if let Some(document) = &known.timestamp {
            known
                .versions
                .insert(RoleName::Timestamp, document.doc().version);
        }
        if let Some(document) = &known.snapshot {
            known
                .versions
                .insert(RoleName::Snapshot, document.doc().version);
        }
        let mut queue = VecDeque::from([RoleName::Targets]);
        while let Some(role) = queue.pop_front() {
            let signers = match role.parent() {
                None => Some(signers(&role)),
                Some(parent) => known
                    .targets
                    .get(&parent)
                    .and_then(|parent| verify::delegation_signers(parent.doc(), &role)),
            };
            let wire = targets.remove(&role);
            let document = signers.and_then(|signers| read::<Targets>(wire, &role, &signers));
            let Some(document) = document else { continue };
            queue.extend(super::walk::children(&role, document.doc()));
            known.versions.insert(role.clone(), document.doc().version);
            known.targets.insert(role, document);
        }
        known
    }

    /// Fails when a version is lower than the cached one.
    pub(super) fn check_rollback(&self, role: &RoleName, found: u32) -> Result<(), VerifyError> {
        match self.versions.get(role) {
            Some(&seen) if found < seen => Err(VerifyError::Rollback {
                role: role.clone(),
                found,
                seen,
            }),
            _ => Ok(()),
        }
    }
}

fn read<T: Body>(
    wire: Option<Vec<u8>>,
    role: &RoleName,
    signers: &Signers<'_>,
) -> Option<Verified<T>> {
    Raw::parse(wire?, limit::ROLE)
        .ok()?
        .verify(role, signers)
        .ok()
}
