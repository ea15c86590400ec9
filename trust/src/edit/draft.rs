//! A targets file in the making: the published one, and what changes in it.
//!
//! A collection may hold fifty thousand tags of which one changes. The draft shares the published
//! document and writes both in one pass; nothing is copied before the bytes to be signed.

use std::{
    collections::{BTreeMap, btree_map},
    iter::Peekable,
    sync::{Arc, OnceLock},
};

use crate::{
    document::{Delegations, TagsIter, Target, TargetRef, Targets, into_wire, write_targets},
    key::Signature,
    time::{Expiry, UnixTime, lifetime},
    verify::Verified,
};

/// The next version of `targets` or of a delegation.
#[derive(Debug)]
pub(super) struct Draft {
    published: Option<Verified<Targets>>,
    changes: BTreeMap<String, Option<Target>>,
    expires: Expiry,
    version: u32,
    payload: OnceLock<Arc<Vec<u8>>>,
    signatures: Vec<Signature>,
}

impl Draft {
    /// A first version.
    pub(super) fn fresh(version: u32, now: UnixTime) -> Self {
        Self {
            published: None,
            changes: BTreeMap::new(),
            expires: Expiry::at(now.saturating_add(lifetime::TARGETS)),
            version,
            payload: OnceLock::new(),
            signatures: Vec::new(),
        }
    }

    /// The version after a published one.
    pub(super) fn after(published: Verified<Targets>, now: UnixTime) -> Self {
        let version = published.doc().version.saturating_add(1);
        Self {
            published: Some(published),
            ..Self::fresh(version, now)
        }
    }

    /// Adds, replaces (`Some`) or removes (`None`) a tag.
    pub(super) fn set(&mut self, tag: &str, target: Option<Target>) {
        self.changed();
        self.changes.insert(tag.to_owned(), target);
    }

    /// Whether the next version has the tag.
    pub(super) fn has(&self, tag: &str) -> bool {
        match self.changes.get(tag) {
            Some(change) => change.is_some(),
            None => self
                .published
                .as_ref()
                .is_some_and(|old| old.doc().targets.contains_key(tag)),
        }
    }

    pub(super) fn raise(&mut self, version: u32) {
        if version > self.version {
            self.changed();
            self.version = version;
        }
    }

    /// The bytes to be signed.
    pub(super) fn payload(&self) -> &Arc<Vec<u8>> {
        self.payload.get_or_init(|| {
            let none = Delegations {
                keys: BTreeMap::new(),
                roles: Some(Vec::new()),
            };
            let published = self.published.as_ref().map(Verified::doc);
            let delegations = published.map_or(&none, |old| &old.delegations);
            let count = published.map_or(0, |old| old.targets.len()) + self.changes.len();
            Arc::new(write_targets(
                delegations,
                &self.expires,
                self.targets(),
                count,
                self.version,
            ))
        })
    }

    /// The tag that makes the payload impossible to put on the wire, if one does: Go's encoder
    /// takes no raw control characters, and they are what is signed.
    pub(super) fn unwritable(&self) -> Option<String> {
        let control = |text: &str| text.bytes().any(|byte| byte < 0x20);
        if self.payload().iter().all(|byte| *byte >= 0x20) {
            return None;
        }
        let bad = self
            .targets()
            .find(|(tag, target)| control(tag) || target.custom.is_some_and(control));
        Some(bad.map(|(tag, _)| tag.to_owned()).unwrap_or_default())
    }

    pub(super) fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    pub(super) fn signatures_mut(&mut self) -> &mut Vec<Signature> {
        &mut self.signatures
    }

    /// The file, in the memory of the payload if nobody else has that any more.
    pub(super) fn into_wire(mut self) -> Vec<u8> {
        self.payload();
        let payload = self.payload.take().unwrap_or_default();
        let payload = Arc::unwrap_or_clone(payload);
        into_wire(payload, &self.signatures)
    }

    /// A signature holds for what was signed only.
    fn changed(&mut self) {
        self.payload = OnceLock::new();
        self.signatures.clear();
    }

    fn targets(&self) -> impl Iterator<Item = (&str, TargetRef<'_>)> {
        let published = self.published.as_ref().map(|old| old.doc().targets.iter());
        Merged {
            old: published.unwrap_or_default().peekable(),
            new: self.changes.iter().peekable(),
        }
    }
}

/// Both in rising order; a change stands for the old value.
struct Merged<'a> {
    old: Peekable<TagsIter<'a>>,
    new: Peekable<btree_map::Iter<'a, String, Option<Target>>>,
}

impl<'a> Iterator for Merged<'a> {
    type Item = (&'a str, TargetRef<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let old_first = match (self.old.peek(), self.new.peek()) {
                (Some((old, _)), Some((new, _))) => *old < new.as_str(),
                (old, None) => {
                    old?;
                    true
                }
                (None, Some(_)) => false,
            };
            if old_first {
                return self.old.next();
            }
            let (tag, change) = self.new.next()?;
            self.old.next_if(|(old, _)| *old == tag);
            if let Some(target) = change {
                return Some((tag, target.as_ref()));
            }
        }
    }
}
