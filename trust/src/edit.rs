//! The next version of a collection.
//!
//! An [`Edit`] takes changes, yields *signing requests* (canonical bytes and the key IDs that
//! should sign them), takes signatures, and hands out wire bytes for one upload. Where the client
//! holds the snapshot key, the snapshot is a second step, because it names files by the hash of
//! their wire bytes.

use std::collections::BTreeMap;

use crate::{
    document::Target,
    gun::Gun,
    key::{KeyError, KeyId, PublicKey, Signature},
    role::RoleName,
    time::UnixTime,
    update::Trusted,
};

/// Bytes to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// Whose document.
    pub role: RoleName,
    /// Canonical `signed`.
    pub payload: Vec<u8>,
    /// Keys, as the documents list them (root: certificates), that should sign: all that the
    /// caller said it holds. At least the threshold.
    pub key_ids: Vec<KeyId>,
}

/// The keys of a new collection.
#[derive(Clone, Debug)]
pub struct NewCollection {
    /// Certificate form.
    pub root: PublicKey,
    /// Bare.
    pub targets: PublicKey,
    /// The server's, or ours.
    pub snapshot: PublicKey,
    /// Always the server's.
    pub timestamp: PublicKey,
    /// Whether we sign the snapshot.
    pub snapshot_is_ours: bool,
}

/// Why an edit cannot be made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// A public key or signature is not acceptable.
    #[error("the signature for {role} is not acceptable")]
    Key {
        /// Whose.
        role: RoleName,
        /// Why.
        source: KeyError,
    },
    /// Not enough keys at hand for this role.
    #[error("no usable key for {role}: it needs one of {}", list(.needed))]
    NoKey {
        /// Whose.
        role: RoleName,
        /// Canonical IDs that would do.
        needed: Vec<KeyId>,
    },
    /// No role admits this tag with the keys at hand (docker: `no valid signing keys for delegation roles`).
    #[error("no delegation that admits {tag:?} has a key here; one of {} would do", list(.needed))]
    NoSignableRole {
        /// The tag.
        tag: String,
        /// Canonical IDs that would do.
        needed: Vec<KeyId>,
    },
    /// A tag that Go could not write or read back (§7.12), or docker would not take.
    #[error("{tag:?} cannot be signed: {why}")]
    BadTag {
        /// The tag.
        tag: String,
        /// Why not.
        why: &'static str,
    },
    /// The tag is not there to be removed.
    #[error("{0:?} is not signed")]
    NotSigned(String),
}

fn list(ids: &[KeyId]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether the caller can sign with a key, by canonical ID.
pub trait Holds {
    /// True when it can.
    fn holds(&self, canonical: &KeyId) -> bool;
}

impl<F: Fn(&KeyId) -> bool> Holds for F {
    fn holds(&self, canonical: &KeyId) -> bool {
        self(canonical)
    }
}

/// Roles that `docker trust` would sign `tag` into with these keys (§1.10).
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
    let _ = (trusted, tag, held);
    todo!()
}

/// A set of changes to one collection.
#[derive(Debug)]
pub struct Edit {
    _private: (),
}

impl Edit {
    /// A new collection: root v1 and targets v1 (`version` where the guard asks for another).
    ///
    /// # Errors
    ///
    /// When a key is malformed.
    pub fn init(
        gun: Gun,
        keys: NewCollection,
        versions: InitVersions,
        now: UnixTime,
    ) -> Result<Self, EditError> {
        let _ = (gun, keys, versions, now);
        todo!()
    }

    /// A first publish that was signed before and never arrived: the same root again, unchanged.
    ///
    /// # Errors
    ///
    /// When the root cannot be read.
    pub fn resume_init(
        gun: Gun,
        root_wire: Vec<u8>,
        targets_version: u32,
        now: UnixTime,
    ) -> Result<Self, EditError> {
        let _ = (gun, root_wire, targets_version, now);
        todo!()
    }

    /// The next version of a published collection.
    #[must_use]
    pub fn of(trusted: &Trusted, now: UnixTime) -> Self {
        let _ = (trusted, now);
        todo!()
    }

    /// Adds or replaces a tag in `role`.
    ///
    /// # Errors
    ///
    /// [`EditError::BadTag`].
    pub fn add(&mut self, role: &RoleName, tag: &str, target: Target) -> Result<(), EditError> {
        let _ = (role, tag, target);
        todo!()
    }

    /// Removes a tag from `role`.
    ///
    /// # Errors
    ///
    /// [`EditError::NotSigned`].
    pub fn remove(&mut self, role: &RoleName, tag: &str) -> Result<(), EditError> {
        let _ = (role, tag);
        todo!()
    }

    /// Raises the version of `role`'s next document to what the guard said (`next`).
    pub fn set_version(&mut self, role: &RoleName, version: u32) {
        let _ = (role, version);
        todo!()
    }

    /// First step: root (if new, or within six months of its end and its key held), then every
    /// changed targets role.
    ///
    /// # Errors
    ///
    /// [`EditError::NoKey`].
    pub fn requests(&self, held: &dyn Holds) -> Result<Vec<SigningRequest>, EditError> {
        let _ = held;
        todo!()
    }

    /// Takes the signatures of a step; each is verified.
    ///
    /// # Errors
    ///
    /// [`EditError::Key`] when one does not hold.
    pub fn sign(&mut self, role: &RoleName, signatures: Vec<Signature>) -> Result<(), EditError> {
        let _ = (role, signatures);
        todo!()
    }

    /// Second step: the snapshot, when its key is held by the client; `None` when the server's.
    ///
    /// # Errors
    ///
    /// [`EditError::NoKey`] when the collection's snapshot key is neither ours nor, as far as the
    /// caller knows, the server's: `server_keys` holds the key the server answered with.
    pub fn snapshot_request(
        &mut self,
        held: &dyn Holds,
        server_key: Option<&PublicKey>,
    ) -> Result<Option<SigningRequest>, EditError> {
        let _ = (held, server_key);
        todo!()
    }

    /// The wire bytes of everything signed, for one upload.
    #[must_use]
    pub fn finish(self) -> BTreeMap<RoleName, Vec<u8>> {
        todo!()
    }
}

/// Versions of a first publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitVersions {
    /// 1 or 2.
    pub root: u32,
    /// 1 or 2, or what the guard named.
    pub targets: u32,
    /// As targets.
    pub snapshot: u32,
}

impl Default for InitVersions {
    fn default() -> Self {
        Self { root: 1, targets: 1, snapshot: 1 }
    }
}
