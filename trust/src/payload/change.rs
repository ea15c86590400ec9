//! The digest of a change, to which consent binds.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::Item;
use crate::{
    base::VerifiedBase,
    document::{Delegations, Document, RoleKeys, Tags, TargetRef},
    key::{KeyId, PublicKey},
    role::RoleName,
};

/// Digest of the *change*: tags and digests, keys, thresholds, delegations, roles; not version,
/// expiry or base. Consent binds to it: a retry that differs only in those is covered.
#[must_use]
pub fn change_digest(base: Option<&VerifiedBase>, items: &[Item]) -> [u8; 32] {
    let mut sorted: Vec<&Item> = items.iter().collect();
    sorted.sort_by_key(|item| &item.role);
    let mut change = Change(Sha256::new());
    change.text("signet change v1");
    for item in sorted {
        change.text(item.role.as_str());
        let mut signers = item.key_ids.clone();
        signers.sort_unstable();
        signers.dedup();
        change.ids(&signers);
        change.document(base, item);
    }
    change.0.finalize().into()
}

/// Every part with its length or count before it, so that no two changes give the same bytes.
struct Change(Sha256);

impl Change {
    fn count(&mut self, count: usize) {
        self.0.update((count as u64).to_be_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.update(bytes);
    }

    fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn ids(&mut self, ids: &[KeyId]) {
        self.count(ids.len());
        for id in ids {
            self.bytes(&id.0);
        }
    }

    fn document(&mut self, base: Option<&VerifiedBase>, item: &Item) {
        match item.payload.document() {
            Err(_) => {
                self.text("opaque");
                self.bytes(&item.payload.hash());
            }
            Ok(Document::Root(root)) => {
                self.text("root");
                self.count(usize::from(root.consistent_snapshot));
                self.keys(&root.keys);
                self.roles(&root.roles);
            }
            Ok(Document::Targets(targets)) => {
                self.text("targets");
                let old = base
                    .and_then(|base| base.targets(&item.role))
                    .map(|old| old.doc());
                self.tags(old.map(|old| &old.targets), &targets.targets);
                let nothing = Delegations::default();
                let before = old.map_or(&nothing, |old| &old.delegations);
                self.delegations(before, &targets.delegations);
            }
            Ok(Document::Snapshot(snapshot)) => {
                // The hashes follow from the other documents; which roles there are does not.
                self.text("snapshot");
                let old = base
                    .and_then(VerifiedBase::snapshot)
                    .map(|old| &old.doc().meta);
                let had = |role: &RoleName| old.is_some_and(|old| old.contains_key(role));
                let gained = snapshot.meta.keys().filter(|role| !had(role));
                let lost = old.into_iter().flat_map(|old| old.keys());
                let lost = lost.filter(|role| !snapshot.meta.contains_key(role));
                self.names(gained);
                self.names(lost);
            }
            Ok(Document::Timestamp(_)) => self.text("timestamp"),
        }
    }

    fn names<'a>(&mut self, roles: impl Iterator<Item = &'a RoleName>) {
        let roles: Vec<_> = roles.collect();
        self.count(roles.len());
        for role in roles {
            self.text(role.as_str());
        }
    }

    fn keys(&mut self, keys: &BTreeMap<KeyId, PublicKey>) {
        self.count(keys.len());
        for (id, key) in keys {
            self.bytes(&id.0);
            self.bytes(&key.canonical_json());
        }
    }

    fn roles(&mut self, roles: &BTreeMap<RoleName, RoleKeys>) {
        self.count(roles.len());
        for (role, keys) in roles {
            self.text(role.as_str());
            self.ids(&keys.key_ids);
            self.count(keys.threshold as usize);
        }
    }

    /// What is added or set, and what is removed; not what it was before.
    fn tags(&mut self, old: Option<&Tags>, new: &Tags) {
        let had = |tag: &str, target: TargetRef<'_>| {
            old.and_then(|old| old.get(tag))
                .is_some_and(|before| before == target)
        };
        for (tag, target) in new.iter().filter(|(tag, target)| !had(tag, *target)) {
            self.text("set");
            self.text(tag);
            self.count(usize::try_from(target.length).unwrap_or(usize::MAX));
            self.count(target.hashes.iter().count());
            for (algorithm, digest) in target.hashes.iter() {
                self.text(algorithm);
                self.bytes(digest);
            }
            self.text(target.custom.unwrap_or_default());
        }
        for tag in old
            .into_iter()
            .flat_map(|old| old.keys())
            .filter(|tag| !new.contains_key(tag))
        {
            self.text("removed");
            self.text(tag);
        }
        self.text("end of tags");
    }

    fn delegations(&mut self, old: &Delegations, new: &Delegations) {
        let (before, after) = (old.roles.as_deref(), new.roles.as_deref());
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        for entry in after.iter().filter(|entry| !before.contains(entry)) {
            self.text("delegates");
            self.text(entry.name.as_str());
            self.ids(entry.key_ids.as_deref().unwrap_or_default());
            self.count(entry.threshold as usize);
            self.count(entry.paths.len());
            for path in &entry.paths {
                self.text(path);
            }
        }
        for entry in before
            .iter()
            .filter(|old| after.iter().all(|new| new.name != old.name))
        {
            self.text("delegates no more");
            self.text(entry.name.as_str());
        }
        let new_keys = new
            .keys
            .iter()
            .filter(|(id, key)| old.keys.get(*id) != Some(*key));
        for (id, key) in new_keys {
            self.text("key");
            self.bytes(&id.0);
            self.bytes(&key.canonical_json());
        }
    }
}
