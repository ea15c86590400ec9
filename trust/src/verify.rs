//! From bytes claimed to be a document to a document whose signatures were checked.
//!
//! [`Raw`] → [`Verified`] happens here and nowhere else. Thresholds count distinct key IDs
//! (notary `tuf/signed/verify.go`); unknown or invalid extra signatures are skipped.

use sha2::{Digest, Sha256};

use crate::{
    document::{Body, DocumentError, FileMeta, Root},
    gun::Gun,
    key::{KeyId, PublicKey, Signature},
    pin::{Pin, PinError},
    role::RoleName,
    time::{Expiry, UnixTime},
};

/// A parsed document that nobody has vouched for.
#[derive(Clone, Debug)]
pub struct Raw<T> {
    body: T,
    canonical: Vec<u8>,
    signatures: Vec<Signature>,
    wire: Vec<u8>,
}

/// A document signed by a threshold of the keys of its role.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    raw: Raw<T>,
}

/// Why a document is not trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Past its expiry.
    #[error("{role} expired at {expires}")]
    Expired {
        /// Whose.
        role: RoleName,
        /// When.
        expires: Expiry,
    },
    /// Hash or length differ from what the snapshot or timestamp says (mix-and-match).
    #[error("{role} is not the file that the {listed_in} lists")]
    Mismatch {
        /// Whose.
        role: RoleName,
        /// snapshot or timestamp.
        listed_in: RoleName,
    },
    /// The first root is not acceptable.
    #[error("the first root of {gun} is not acceptable")]
    Pin {
        /// Of which collection.
        gun: Gun,
        /// Why.
        source: PinError,
    },
    /// Lower than a version seen before.
    #[error("version {found} of {role} is lower than {seen}, seen before")]
    Rollback {
        /// Whose.
        role: RoleName,
        /// Offered.
        found: u32,
        /// Known.
        seen: u32,
    },
    /// A root that its predecessor, or itself, did not sign.
    #[error("root {version} is not signed by {by}")]
    RootChain {
        /// Of the new root.
        version: u32,
        /// `its predecessor`, `itself`.
        by: &'static str,
    },
    /// Not enough valid signatures.
    #[error("{role} has {found} valid signatures of the {threshold} it needs")]
    Threshold {
        /// Whose.
        role: RoleName,
        /// Distinct valid ones.
        found: u32,
        /// Needed.
        threshold: u32,
    },
    /// Not a document at all.
    #[error("{role} cannot be read: {source}")]
    Unreadable {
        /// Whose.
        role: RoleName,
        /// Why.
        source: DocumentError,
    },
    /// Nothing above it lists the role.
    #[error("{0} is not a role of this collection")]
    UnknownRole(RoleName),
}

/// The keys and threshold that a role must satisfy.
#[derive(Clone, Debug)]
pub struct Signers<'a> {
    /// Keys by the ID under which documents list them. Keys whose ID does not match are left out.
    pub keys: Vec<(KeyId, &'a PublicKey)>,
    /// Distinct key IDs needed.
    pub threshold: u32,
}

impl<T: Body> Raw<T> {
    /// Parses wire bytes.
    ///
    /// # Errors
    ///
    /// When they are larger than `limit`, not JSON, or not a document of this type.
    pub fn parse(wire: Vec<u8>, limit: usize) -> Result<Self, DocumentError> {
        let _ = (wire, limit);
        todo!()
    }

    /// What it claims to say.
    #[must_use]
    pub fn claimed(&self) -> &T {
        &self.body
    }

    /// Checks signatures against a threshold of `signers`. Not expiry.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Threshold`].
    pub fn verify(self, role: &RoleName, signers: &Signers<'_>) -> Result<Verified<T>, VerifyError> {
        let _ = (role, signers);
        todo!()
    }
}

impl<T: Body> Verified<T> {
    /// The document.
    #[must_use]
    pub fn doc(&self) -> &T {
        &self.raw.body
    }

    /// The wire bytes, as received.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.raw.wire
    }

    /// The bytes that were signed.
    #[must_use]
    pub fn canonical(&self) -> &[u8] {
        &self.raw.canonical
    }

    /// SHA-256 of the bytes that were signed: what the guard compares.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.raw.canonical).into()
    }

    /// All signatures of the file, valid or not.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.raw.signatures
    }

    /// Fails when it has expired.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Expired`].
    pub fn check_expiry(&self, role: &RoleName, now: UnixTime) -> Result<(), VerifyError> {
        let _ = (role, now);
        todo!()
    }
}

/// The signers of a base role by a root document.
///
/// For root itself: only certificates acceptable for `gun` at `now` count (§2.2 rules).
#[must_use]
pub fn base_signers<'a>(root: &'a Root, role: &RoleName, gun: &Gun, now: UnixTime) -> Signers<'a> {
    let _ = (root, role, gun, now);
    todo!()
}

/// A first root: acceptable to `pin`, and signed by itself.
///
/// # Errors
///
/// [`VerifyError::Pin`], [`VerifyError::RootChain`]. Expiry is not checked.
pub fn first_root(
    raw: Raw<Root>,
    gun: &Gun,
    pin: &Pin,
    now: UnixTime,
) -> Result<Verified<Root>, VerifyError> {
    let _ = (raw, gun, pin, now);
    todo!()
}

/// The next root: signed by the threshold of its predecessor's root keys and of its own.
/// (Certificates of an old root may have ended: validity is asked of the new root's only.)
///
/// # Errors
///
/// [`VerifyError::RootChain`]; [`VerifyError::Rollback`] when the version does not rise.
pub fn next_root(
    raw: Raw<Root>,
    previous: &Verified<Root>,
    gun: &Gun,
    now: UnixTime,
) -> Result<Verified<Root>, VerifyError> {
    let _ = (raw, previous, gun, now);
    todo!()
}

/// Whether `wire` is the file that `meta` describes (length, sha256, and sha512 where listed).
#[must_use]
pub fn matches(meta: &FileMeta, wire: &[u8]) -> bool {
    let _ = (meta, wire);
    todo!()
}

/// Size limits of files whose length nothing states yet (notary `client`, §3.9).
pub mod limit {
    /// 1 MiB.
    pub const TIMESTAMP: usize = 1 << 20;
    /// 100 MiB: a root before a snapshot is known, a role without stated length.
    pub const ROLE: usize = 100 << 20;
    /// 256 KiB: a key the server holds.
    pub const KEY: usize = 256 << 10;
    /// 1 KiB: an error body.
    pub const ERROR: usize = 1 << 10;
}
