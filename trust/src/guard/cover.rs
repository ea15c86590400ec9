//! The second step: what the consent of the first one covers.

use std::collections::BTreeMap;

use crate::{
    base::VerifiedBase,
    document::{Document, FileMeta},
    payload::Payload,
    role::RoleName,
    verify::matches,
};

/// Whether a snapshot needs no consent of its own: it differs from the base's only in version,
/// expiry and the entries of the documents (wire bytes) that the first step released.
#[must_use]
pub fn snapshot_is_covered(
    base: Option<&VerifiedBase>,
    snapshot: &Payload,
    released: &[(RoleName, &[u8])],
) -> bool {
    let Ok(Document::Snapshot(new)) = snapshot.document() else {
        return false;
    };
    let nothing = BTreeMap::new();
    let old: &BTreeMap<RoleName, FileMeta> = match base {
        Some(base) => match base.snapshot() {
            Some(snapshot) => &snapshot.doc().meta,
            None => return false,
        },
        None => &nothing,
    };
    let of_first_step = |role: &RoleName| {
        released
            .iter()
            .find(|(released, _)| released == role)
            .map(|(_, w)| *w)
    };
    let entries_hold = new
        .meta
        .iter()
        .all(|(role, meta)| match of_first_step(role) {
            Some(wire) => matches(meta, wire),
            None => old.get(role) == Some(meta),
        });
    let nothing_lost = old
        .keys()
        .chain(released.iter().map(|(role, _)| role))
        .filter(|role| **role != RoleName::Snapshot)
        .all(|role| new.meta.contains_key(role));
    entries_hold && nothing_lost
}
