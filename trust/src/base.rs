//! The base of a request: what is published now, verified by the agent itself.
//!
//! A client sends raw documents; nothing that it says about them is believed. The root chain is
//! anchored at a root recorded here (or at first use), and everything else hangs from its newest
//! link: timestamp, snapshot, `targets`, delegations, each by signature, hash and length. A base is
//! cheap to clone, because the agent keeps the last one of each collection.

mod chain;

use std::{collections::BTreeMap, sync::Arc};

pub(crate) use self::chain::root_signers;
use self::chain::{Chain, MAX_ROOTS, root_chain};
use crate::{
    document::{Body, Document, FileMeta, Root, Snapshot, Targets, Timestamp, to_wire},
    gun::Gun,
    key::{PublicKey, Signature},
    payload::Item,
    role::RoleName,
    time::UnixTime,
    verify::{
        Raw, Signers, Verified, VerifyError, base_signers, delegation_signers, limit, matches,
        next_root,
    },
};

/// Digest of the first root (its `signed` bytes) that was made or verified here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lineage(pub [u8; 32]);

/// Raw documents as a client sends them.
#[derive(Clone, Debug, Default)]
pub struct BaseDocuments {
    /// Root chain in rising versions.
    pub roots: Vec<Vec<u8>>,
    /// Absent only when nothing but the root is asked about.
    pub timestamp: Option<Vec<u8>>,
    /// Named by the timestamp.
    pub snapshot: Option<Vec<u8>>,
    /// `targets` and delegations: each role an item names, and those above it.
    pub targets: BTreeMap<RoleName, Vec<u8>>,
    /// What the server serves under the plain name of a delegation that the snapshot does not list.
    pub unlisted: BTreeMap<RoleName, Vec<u8>>,
}

/// A root recorded for a collection: where a chain may start.
#[derive(Clone, Debug)]
pub struct RecordedRoot {
    /// Which collection.
    pub lineage: Lineage,
    /// Wire bytes of a root of it (any version that was verified or released here).
    pub wire: Vec<u8>,
}

/// A verified base.
#[derive(Clone, Debug)]
pub struct VerifiedBase {
    gun: Gun,
    at: UnixTime,
    roots: Arc<Vec<Verified<Root>>>,
    lineage: Option<Lineage>,
    /// Version and content of the recorded root that the chain hangs from.
    anchor: Option<(u32, [u8; 32])>,
    timestamp: Option<Arc<Verified<Timestamp>>>,
    snapshot: Option<Arc<Verified<Snapshot>>>,
    targets: BTreeMap<RoleName, Arc<Verified<Targets>>>,
    unlisted: BTreeMap<RoleName, u32>,
    marks: BTreeMap<RoleName, (u32, [u8; 32])>,
}

/// Why a base does not verify.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// A part that the others need was not sent.
    #[error("the base lacks its {0}")]
    Incomplete(String),
    /// More roots than any collection has.
    #[error("the base has {0} roots, more than the limit of {max}", max = MAX_ROOTS)]
    TooManyRoots(usize),
    /// A document is not trusted.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

impl VerifiedBase {
    /// Verifies the documents: the root chain link by link, then timestamp → snapshot → targets →
    /// delegations by signature, hash and length. Expiry of nothing but the timestamp is the
    /// guard's business and is not checked here.
    ///
    /// `recorded` are the roots known for this GUN. When the chain contains (by content) or
    /// continues one of them, or begins with the root that founded a lineage, the base belongs to
    /// that lineage; otherwise its lineage is `None`
    /// and the first root is checked as a first use (certificate for this GUN). Roots before the
    /// one that anchors the chain are left out.
    ///
    /// # Errors
    ///
    /// [`BaseError`].
    pub fn verify(
        gun: &Gun,
        documents: BaseDocuments,
        recorded: &[RecordedRoot],
        now: UnixTime,
    ) -> Result<Self, BaseError> {
        let Chain {
            roots,
            lineage,
            anchor,
        } = root_chain(gun, documents.roots, recorded, now)?;
        let mut base = Self {
            gun: gun.clone(),
            at: now,
            roots: Arc::new(roots),
            lineage,
            anchor,
            timestamp: None,
            snapshot: None,
            targets: BTreeMap::new(),
            unlisted: BTreeMap::new(),
            marks: BTreeMap::new(),
        };
        base.remember(RoleName::Root, mark_of(base.root()));
        if let Some(wire) = documents.timestamp {
            base.take_timestamp(wire)?;
        }
        if let Some(wire) = documents.snapshot {
            base.take_snapshot(wire)?;
        }
        // A role's name begins with its parent's, so parents come first.
        for (role, wire) in documents.targets {
            base.take_targets(&role, wire)?;
        }
        for (role, wire) in documents.unlisted {
            base.take_unlisted(role, wire);
        }
        Ok(base)
    }

    /// Its name.
    #[must_use]
    pub fn gun(&self) -> &Gun {
        &self.gun
    }

    /// The recorded lineage that the chain reaches.
    #[must_use]
    pub fn lineage(&self) -> Option<Lineage> {
        self.lineage
    }

    /// The same base, once its collection was recorded under this lineage.
    #[must_use]
    pub fn in_lineage(mut self, lineage: Lineage) -> Self {
        self.lineage = Some(lineage);
        self
    }

    /// Lineage that this base would found: the digest of its chain's first root.
    #[must_use]
    pub fn own_lineage(&self) -> Lineage {
        Lineage(self.roots[0].content_hash())
    }

    /// The root chain, newest last.
    #[must_use]
    pub fn roots(&self) -> &[Verified<Root>] {
        &self.roots
    }

    /// The roots that lead to the newest one: the recorded one that the chain hangs from, and the
    /// chain.
    pub(crate) fn path(&self) -> impl Iterator<Item = (u32, [u8; 32])> + '_ {
        let sent = self.roots.iter().map(mark_of);
        self.anchor.into_iter().chain(sent)
    }

    /// The newest root.
    #[must_use]
    pub fn root(&self) -> &Verified<Root> {
        self.roots.last().expect("a verified base has a root")
    }

    /// The timestamp, if one was sent.
    #[must_use]
    pub fn timestamp(&self) -> Option<&Verified<Timestamp>> {
        self.timestamp.as_deref()
    }

    /// The snapshot, if one was sent.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Verified<Snapshot>> {
        self.snapshot.as_deref()
    }

    /// `targets` or a delegation.
    #[must_use]
    pub fn targets(&self, role: &RoleName) -> Option<&Verified<Targets>> {
        self.targets.get(role).map(AsRef::as_ref)
    }

    /// Version and content hash of the current document of any role, if the base has it.
    #[must_use]
    pub fn mark(&self, role: &RoleName) -> Option<(u32, [u8; 32])> {
        self.marks.get(role).copied()
    }

    /// As [`VerifiedBase::mark`], for every document that the base has.
    pub fn marks(&self) -> impl Iterator<Item = (&RoleName, (u32, [u8; 32]))> {
        self.marks.iter().map(|(role, mark)| (role, *mark))
    }

    /// Claimed version of an unlisted delegation document that the server still serves.
    #[must_use]
    pub fn unlisted(&self, role: &RoleName) -> Option<u32> {
        self.unlisted.get(role).copied()
    }

    /// Whether the base lists `key` (canonical or certificate ID) for `role`, by the root or the
    /// verified delegation chain.
    #[must_use]
    pub fn lists(&self, role: &RoleName, key: &PublicKey) -> bool {
        let Some(signers) = self.signers(role) else {
            return false;
        };
        let canonical = key.canonical_id().ok();
        signers.keys.iter().any(|(id, listed)| {
            *id == key.id() || (canonical.is_some() && listed.canonical_id().ok() == canonical)
        })
    }

    /// The keys that may sign `role`: by the newest root, or by the document that delegates to it.
    /// `None` when nothing in this base lists the role.
    #[must_use]
    pub fn signers(&self, role: &RoleName) -> Option<Signers<'_>> {
        match role.parent() {
            None => Some(base_signers(self.root().doc(), role, &self.gun, self.at)),
            Some(parent) => delegation_signers(self.targets(&parent)?.doc(), role),
        }
    }

    /// The signed bytes of a role's newest document, and the signatures that came with it; not each
    /// of them need hold. `None` when this base has no such document.
    #[must_use]
    pub fn signed(&self, role: &RoleName) -> Option<(&[u8], &[Signature])> {
        fn of<T: Body>(document: &Verified<T>) -> (&[u8], &[Signature]) {
            (document.canonical(), document.signatures())
        }
        match role {
            RoleName::Root => Some(of(self.root())),
            RoleName::Timestamp => self.timestamp().map(of),
            RoleName::Snapshot => self.snapshot().map(of),
            RoleName::Targets | RoleName::Delegation(_) => self.targets(role).map(of),
        }
    }

    /// Whether the snapshot lists the role; `None` when the base has no snapshot.
    #[must_use]
    pub fn is_published(&self, role: &RoleName) -> Option<bool> {
        Some(self.snapshot()?.doc().meta.contains_key(role))
    }

    /// This base after the document of `role` was replaced by one that we released and the server
    /// took. Timestamp and snapshot stay as they were.
    #[must_use]
    pub fn advanced(&self, role: &RoleName, wire: Vec<u8>) -> Option<Self> {
        let mut next = self.clone();
        match role {
            RoleName::Root => {
                let raw = Raw::parse(wire, limit::ROLE).ok()?;
                let root = next_root(raw, self.root(), &self.gun, self.at).ok()?;
                let mark = mark_of(&root);
                Arc::make_mut(&mut next.roots).push(root);
                next.remember(RoleName::Root, mark);
            }
            RoleName::Timestamp => return None,
            RoleName::Snapshot => {
                let snapshot: Verified<Snapshot> = next.checked(role, wire, limit::ROLE).ok()?;
                next.remember(RoleName::Snapshot, mark_of(&snapshot));
                next.snapshot = Some(Arc::new(snapshot));
            }
            RoleName::Targets | RoleName::Delegation(_) => {
                let targets: Verified<Targets> = next.checked(role, wire, limit::ROLE).ok()?;
                next.remember(role.clone(), mark_of(&targets));
                next.unlisted.remove(role);
                next.targets.insert(role.clone(), Arc::new(targets));
            }
        }
        Some(next)
    }

    /// As [`VerifiedBase::advanced`], for signatures that the caller has just made and verified,
    /// each with the key that this base lists: a large document is neither read nor verified again.
    #[must_use]
    pub fn advanced_here(&self, item: Item, signatures: Vec<Signature>) -> Option<Self> {
        let role = item.role;
        if role == RoleName::Root {
            // It brings its own keys.
            return self.advanced(&role, to_wire(item.payload.bytes(), &signatures));
        }
        let signers = self.signers(&role)?;
        let (canonical, hash, document) = item.payload.into_parts();
        let mut next = self.clone();
        let version = match document? {
            Document::Targets(targets) if role.is_targets_like() => {
                let version = targets.version;
                let targets =
                    Verified::signed_here(targets, canonical, signatures, &role, &signers).ok()?;
                next.unlisted.remove(&role);
                next.targets.insert(role.clone(), Arc::new(targets));
                version
            }
            Document::Snapshot(snapshot) if role == RoleName::Snapshot => {
                let version = snapshot.version;
                let snapshot =
                    Verified::signed_here(snapshot, canonical, signatures, &role, &signers).ok()?;
                next.snapshot = Some(Arc::new(snapshot));
                version
            }
            _ => return None,
        };
        next.remember(role, (version, hash));
        Some(next)
    }

    fn remember(&mut self, role: RoleName, mark: (u32, [u8; 32])) {
        self.marks.insert(role, mark);
    }

    /// A document that its signers signed.
    fn checked<T: Body>(
        &self,
        role: &RoleName,
        wire: Vec<u8>,
        limit: usize,
    ) -> Result<Verified<T>, VerifyError> {
        let signers = self
            .signers(role)
            .ok_or_else(|| VerifyError::UnknownRole(role.clone()))?;
        parse(role, wire, limit)?.verify(role, &signers)
    }

    fn take_timestamp(&mut self, wire: Vec<u8>) -> Result<(), BaseError> {
        let timestamp = self.checked(&RoleName::Timestamp, wire, limit::TIMESTAMP)?;
        self.remember(RoleName::Timestamp, mark_of(&timestamp));
        self.timestamp = Some(Arc::new(timestamp));
        Ok(())
    }

    fn take_snapshot(&mut self, wire: Vec<u8>) -> Result<(), BaseError> {
        let timestamp = self.timestamp().ok_or_else(|| lacks("timestamp"))?;
        let listed = timestamp.doc().meta.get(&RoleName::Snapshot);
        expect_listed(listed, &wire, &RoleName::Snapshot, &RoleName::Timestamp)?;
        let snapshot: Verified<Snapshot> = self.checked(&RoleName::Snapshot, wire, limit::ROLE)?;
        // Otherwise an old root could be shown together with what is signed by the keys of a new one.
        let listed = snapshot.doc().meta.get(&RoleName::Root);
        expect_listed(
            listed,
            self.root().wire(),
            &RoleName::Root,
            &RoleName::Snapshot,
        )?;
        self.remember(RoleName::Snapshot, mark_of(&snapshot));
        self.snapshot = Some(Arc::new(snapshot));
        Ok(())
    }

    fn take_targets(&mut self, role: &RoleName, wire: Vec<u8>) -> Result<(), BaseError> {
        if !role.is_targets_like() {
            return Err(VerifyError::UnknownRole(role.clone()).into());
        }
        let snapshot = self.snapshot().ok_or_else(|| lacks("snapshot"))?;
        expect_listed(
            snapshot.doc().meta.get(role),
            &wire,
            role,
            &RoleName::Snapshot,
        )?;
        if let Some(parent) = role.parent()
            && self.targets(&parent).is_none()
        {
            return Err(BaseError::Incomplete(parent.to_string()));
        }
        let targets = self.checked(role, wire, limit::ROLE)?;
        self.remember(role.clone(), mark_of(&targets));
        self.targets.insert(role.clone(), Arc::new(targets));
        Ok(())
    }

    /// Only raises the number of the next version, so its signatures do not matter; what cannot be
    /// read says nothing.
    fn take_unlisted(&mut self, role: RoleName, wire: Vec<u8>) {
        let is_listed = self.is_published(&role) == Some(true);
        if is_listed || !role.is_targets_like() {
            return;
        }
        if let Ok(raw) = Raw::<Targets>::parse(wire, limit::ROLE) {
            self.unlisted.insert(role, raw.claimed().version);
        }
    }
}

fn lacks(what: &str) -> BaseError {
    BaseError::Incomplete(what.to_owned())
}

fn mark_of<T: Body>(document: &Verified<T>) -> (u32, [u8; 32]) {
    (document.doc().version(), document.content_hash())
}

fn parse<T: Body>(role: &RoleName, wire: Vec<u8>, limit: usize) -> Result<Raw<T>, VerifyError> {
    Raw::parse(wire, limit).map_err(|source| VerifyError::Unreadable {
        role: role.clone(),
        source,
    })
}

fn expect_listed(
    listed: Option<&FileMeta>,
    wire: &[u8],
    role: &RoleName,
    listed_in: &RoleName,
) -> Result<(), VerifyError> {
    if listed.is_some_and(|meta| matches(meta, wire)) {
        return Ok(());
    }
    Err(VerifyError::Mismatch {
        role: role.clone(),
        listed_in: listed_in.clone(),
    })
}
