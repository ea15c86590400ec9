//! The base of a request: what is published now, verified by the agent itself.

use std::collections::BTreeMap;

use crate::{
    document::{Root, Snapshot, Targets, Timestamp},
    gun::Gun,
    key::PublicKey,
    role::RoleName,
    time::UnixTime,
    verify::{Verified, VerifyError},
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
    roots: Vec<Verified<Root>>,
    lineage: Option<Lineage>,
    timestamp: Option<Verified<Timestamp>>,
    snapshot: Option<Verified<Snapshot>>,
    targets: BTreeMap<RoleName, Verified<Targets>>,
    unlisted: BTreeMap<RoleName, u32>,
}

/// Why a base does not verify.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BaseError {
    /// A part that the others need was not sent.
    #[error("the base lacks its {0}")]
    Incomplete(String),
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
    /// continues one of them, the base belongs to that lineage; otherwise its lineage is `None`
    /// and the first root is checked as a first use (certificate for this GUN).
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
        let _ = (gun, documents, recorded, now);
        todo!()
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

    /// The newest root.
    #[must_use]
    pub fn root(&self) -> &Verified<Root> {
        self.roots.last().expect("a verified base has a root")
    }

    /// The timestamp, if one was sent.
    #[must_use]
    pub fn timestamp(&self) -> Option<&Verified<Timestamp>> {
        self.timestamp.as_ref()
    }

    /// The snapshot, if one was sent.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Verified<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// `targets` or a delegation.
    #[must_use]
    pub fn targets(&self, role: &RoleName) -> Option<&Verified<Targets>> {
        self.targets.get(role)
    }

    /// Version and content hash of the current document of any role, if the base has it.
    #[must_use]
    pub fn mark(&self, role: &RoleName) -> Option<(u32, [u8; 32])> {
        let _ = role;
        todo!()
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
        let _ = (role, key);
        todo!()
    }

    /// This base after the document of `role` was replaced by one that we released and the server
    /// took. Timestamp and snapshot stay as they were.
    #[must_use]
    pub fn advanced(&self, role: &RoleName, wire: Vec<u8>) -> Option<Self> {
        let _ = (role, wire);
        todo!()
    }
}
