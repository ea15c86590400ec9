//! What a request adds, where adding is all that it does.

use super::Item;
use crate::{
    base::VerifiedBase,
    document::{Document, Tags, Targets},
};

/// SHA-256 digests to which a request points tags, each once, if it does nothing else but what
/// follows from that: no tag removed, no key, threshold, delegation or root changed, nothing
/// opaque. Whoever approved these digests has approved all of it.
#[must_use]
pub fn added_digests(base: Option<&VerifiedBase>, items: &[Item]) -> Option<Vec<[u8; 32]>> {
    let mut digests = Vec::new();
    for item in items {
        match item.payload.document().ok()? {
            Document::Targets(targets) => {
                let old = base.and_then(|base| base.targets(&item.role));
                added(old.map(|old| old.doc()), targets, &mut digests)?;
            }
            // Its content follows from the other documents, which the guard checks.
            Document::Snapshot(_) | Document::Timestamp(_) => {}
            Document::Root(_) => return None,
        }
    }
    digests.sort_unstable();
    digests.dedup();
    Some(digests)
}

fn added(old: Option<&Targets>, new: &Targets, digests: &mut Vec<[u8; 32]>) -> Option<()> {
    let same = old.map_or_else(
        || new.delegations == Default::default(),
        |old| old.delegations == new.delegations,
    );
    if !same {
        return None;
    }
    let nothing = Tags::default();
    let old_tags = old.map_or(&nothing, |old| &old.targets);
    for (_, before, after) in old_tags.beside(&new.targets) {
        // None: the tag is removed.
        let target = after?;
        if before == Some(target) {
            continue;
        }
        let mut hashes = target.hashes.iter();
        let (_, digest) = hashes.find(|(algorithm, _)| *algorithm == "sha256")?;
        digests.push(digest.try_into().ok()?);
    }
    Some(())
}
