//! From bytes claimed to be a document to a document whose signatures were checked.
//!
//! [`Raw`] → [`Verified`] happens here and nowhere else. Thresholds count distinct key IDs
//! (notary `tuf/signed/verify.go`); unknown or invalid extra signatures are skipped.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, OnceLock},
};

use sha2::{Digest, Sha256, Sha512};

use crate::{
    cert::Certificate,
    document::{self, Body, DocumentError, FileMeta, Read, Root, Targets},
    gun::Gun,
    json,
    key::{KeyId, PublicKey, Signature},
    pin::{Pin, PinError},
    role::RoleName,
    time::{Expiry, UnixTime},
};

/// A parsed document that nobody has vouched for.
#[derive(Clone, Debug)]
pub struct Raw<T> {
    body: T,
    canonical: Canonical,
    signatures: Vec<Signature>,
    wire: Vec<u8>,
}

/// Nearly always the signed bytes stand in the file as they were signed, and large collections
/// need not be held twice.
#[derive(Clone, Debug)]
enum Canonical {
    InWire(Range<usize>),
    Apart(Vec<u8>),
}

/// A document signed by a threshold of the keys of its role. Clones share it.
#[derive(Clone, Debug)]
pub struct Verified<T> {
    raw: Arc<Raw<T>>,
    content_hash: Arc<OnceLock<[u8; 32]>>,
}

impl<T> Verified<T> {
    fn new(raw: Raw<T>) -> Self {
        Self {
            raw: Arc::new(raw),
            content_hash: Arc::default(),
        }
    }
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
        if wire.len() > limit {
            return Err(DocumentError::TooLarge {
                size: wire.len(),
                limit,
            });
        }
        let Read {
            body,
            canonical,
            signatures,
        } = document::file(&wire)?;
        let canonical = match canonical {
            Ok(place) => Canonical::InWire(place),
            Err(bytes) => Canonical::Apart(bytes),
        };
        Ok(Self {
            body,
            canonical,
            signatures,
            wire,
        })
    }

    /// The bytes that the signatures claim to sign.
    #[must_use]
    pub fn canonical(&self) -> &[u8] {
        match &self.canonical {
            Canonical::InWire(place) => &self.wire[place.clone()],
            Canonical::Apart(bytes) => bytes,
        }
    }

    /// What it claims to say.
    #[must_use]
    pub fn claimed(&self) -> &T {
        &self.body
    }

    /// The signatures that claim to hold, those of unknown methods left out.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Checks signatures against a threshold of `signers`. Not expiry.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Threshold`].
    pub fn verify(
        self,
        role: &RoleName,
        signers: &Signers<'_>,
    ) -> Result<Verified<T>, VerifyError> {
        self.check(role, signers)?;
        Ok(Verified::new(self))
    }

    fn check(&self, role: &RoleName, signers: &Signers<'_>) -> Result<(), VerifyError> {
        let found = signers.count(self.canonical(), &self.signatures);
        let threshold = signers.threshold;
        if threshold == 0 || found < threshold {
            return Err(VerifyError::Threshold {
                role: role.clone(),
                found,
                threshold,
            });
        }
        Ok(())
    }
}

impl<T: Body> Verified<T> {
    /// A document whose signatures the caller has just made, and verified, each with the key that
    /// `signers` lists under its ID: neither is read nor verified again. What is left to check is
    /// the threshold.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Threshold`].
    pub(crate) fn signed_here(
        body: T,
        canonical: Vec<u8>,
        signatures: Vec<Signature>,
        role: &RoleName,
        signers: &Signers<'_>,
    ) -> Result<Self, VerifyError> {
        let signed = |id: &KeyId| signatures.iter().any(|signature| signature.key_id == *id);
        let ids = signers.keys.iter().filter(|(id, _)| signed(id)).count();
        let found = u32::try_from(ids).unwrap_or(u32::MAX);
        let threshold = signers.threshold;
        if threshold == 0 || found < threshold {
            return Err(VerifyError::Threshold {
                role: role.clone(),
                found,
                threshold,
            });
        }
        // On the wire `<`, `>` and `&` are escaped, which the signed bytes are not.
        let (canonical, wire) = if json::is_escaped(&canonical) {
            let wire = document::to_wire(&canonical, &signatures);
            (Canonical::Apart(canonical), wire)
        } else {
            let start = document::SIGNED.len();
            let place = start..start + canonical.len();
            let wire = document::into_wire(canonical, &signatures);
            (Canonical::InWire(place), wire)
        };
        let raw = Raw {
            body,
            canonical,
            signatures,
            wire,
        };
        Ok(Self::new(raw))
    }

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
        self.raw.canonical()
    }

    /// SHA-256 of the bytes that were signed: what the guard compares.
    #[must_use]
    pub fn content_hash(&self) -> [u8; 32] {
        let hash = || Sha256::digest(self.raw.canonical()).into();
        *self.content_hash.get_or_init(hash)
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
        let expires = self.raw.body.expires();
        if expires.is_past(now) {
            return Err(VerifyError::Expired {
                role: role.clone(),
                expires: expires.clone(),
            });
        }
        Ok(())
    }

    /// The wire bytes, when nothing else of the document is needed any more.
    #[must_use]
    pub fn into_wire(self) -> Vec<u8> {
        Arc::try_unwrap(self.raw).map_or_else(|shared| shared.wire.clone(), |raw| raw.wire)
    }
}

/// The wire bytes.
impl<T: Body> AsRef<[u8]> for Verified<T> {
    fn as_ref(&self) -> &[u8] {
        self.wire()
    }
}

impl<T: Body> Verified<T> {
    /// Asks again, of other signers than those that it was verified with.
    ///
    /// # Errors
    ///
    /// [`VerifyError::Threshold`].
    pub fn verify_again(&self, role: &RoleName, signers: &Signers<'_>) -> Result<(), VerifyError> {
        self.raw.check(role, signers)
    }
}

impl Verified<Root> {
    /// Whether this root, trusted for another reason, also follows `previous`: see [`next_root`].
    ///
    /// # Errors
    ///
    /// As [`next_root`].
    pub fn check_follows(
        &self,
        previous: &Self,
        gun: &Gun,
        now: UnixTime,
    ) -> Result<(), VerifyError> {
        check_next_root(&self.raw, previous, gun, now)
    }
}

impl Signers<'_> {
    /// How many of these keys made a valid signature over `message`; no more than the threshold are
    /// looked for.
    #[must_use]
    pub fn count(&self, message: &[u8], signatures: &[Signature]) -> u32 {
        let mut found = 0;
        for (id, key) in &self.keys {
            if found == self.threshold {
                break;
            }
            let signed = signatures
                .iter()
                .filter(|signature| signature.key_id == *id)
                .any(|signature| {
                    key.verify(signature.method, message, &signature.bytes)
                        .is_ok()
                });
            found += u32::from(signed);
        }
        found
    }

    /// Leaves out keys listed twice, and keys whose ID is not that of their content.
    fn new<'a>(
        listed: impl Iterator<Item = (&'a KeyId, Option<&'a PublicKey>)>,
        threshold: u32,
    ) -> Signers<'a> {
        let keys: BTreeMap<KeyId, &PublicKey> = listed
            .filter_map(|(id, key)| Some((*id, key?)))
            .filter(|(id, key)| key.id() == *id)
            .collect();
        Signers {
            keys: keys.into_iter().collect(),
            threshold,
        }
    }
}

/// The signers of a base role by a root document.
///
/// For root itself only certificates count, and of them those that are acceptable for `gun` at `now`.
#[must_use]
pub fn base_signers<'a>(root: &'a Root, role: &RoleName, gun: &Gun, now: UnixTime) -> Signers<'a> {
    let mut signers = listed_signers(root, role);
    if *role == RoleName::Root {
        signers.keys.retain(|(_, key)| {
            key.key_type().is_x509()
                && Certificate::from_pem(key.public())
                    .is_ok_and(|certificate| certificate.check(gun, now).is_ok())
        });
    }
    signers
}

/// The signers of a role that a targets file delegates to; `None` when it lists no such role.
#[must_use]
pub fn delegation_signers<'a>(parent: &'a Targets, role: &RoleName) -> Option<Signers<'a>> {
    let listed = parent
        .delegations
        .roles
        .iter()
        .flatten()
        .find(|found| found.name == *role)?;
    let keys = listed.key_ids.iter().flatten();
    let keys = keys.map(|id| (id, parent.delegations.keys.get(id)));
    Some(Signers::new(keys, listed.threshold))
}

/// Keys of a base role as the root lists them, acceptable as certificates or not.
fn listed_signers<'a>(root: &'a Root, role: &RoleName) -> Signers<'a> {
    match root.roles.get(role) {
        Some(listed) => {
            let keys = listed.key_ids.iter().map(|id| (id, root.keys.get(id)));
            Signers::new(keys, listed.threshold)
        }
        None => Signers {
            keys: Vec::new(),
            threshold: u32::MAX,
        },
    }
}

/// The root keys of a root that was trusted before: whether their certificates have ended since is
/// not asked (notary `trustpinning/certs.go`, `ValidateRoot`).
fn former_signers<'a>(root: &'a Root, gun: &Gun) -> Signers<'a> {
    let mut signers = listed_signers(root, &RoleName::Root);
    signers.keys.retain(|(_, key)| {
        key.key_type().is_x509()
            && Certificate::from_pem(key.public())
                .is_ok_and(|certificate| certificate.check_form(gun).is_ok())
    });
    signers
}

/// A first root: acceptable to `pin`, and signed by itself.
///
/// Where certificates are pinned, only they count as signers.
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
    pin.check(&raw.body, gun, now)
        .map_err(|source| VerifyError::Pin {
            gun: gun.clone(),
            source,
        })?;
    let mut signers = base_signers(&raw.body, &RoleName::Root, gun, now);
    if let Pin::Certificates(pinned) = pin {
        signers.keys.retain(|(id, _)| pinned.contains(id));
    }
    let signed = signers.count(raw.canonical(), &raw.signatures);
    if signed < signers.threshold {
        return Err(VerifyError::RootChain {
            version: raw.body.version,
            by: "itself",
        });
    }
    Ok(Verified::new(raw))
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
    check_next_root(&raw, previous, gun, now)?;
    Ok(Verified::new(raw))
}

fn check_next_root(
    raw: &Raw<Root>,
    previous: &Verified<Root>,
    gun: &Gun,
    now: UnixTime,
) -> Result<(), VerifyError> {
    let (version, seen) = (raw.body.version, previous.doc().version);
    if version <= seen {
        return Err(VerifyError::Rollback {
            role: RoleName::Root,
            found: version,
            seen,
        });
    }
    for (signers, by) in [
        (former_signers(previous.doc(), gun), "its predecessor"),
        (base_signers(&raw.body, &RoleName::Root, gun, now), "itself"),
    ] {
        if signers.count(raw.canonical(), &raw.signatures) < signers.threshold {
            return Err(VerifyError::RootChain { version, by });
        }
    }
    Ok(())
}

/// Whether `wire` is the file that `meta` describes (length, sha256, and sha512 where listed).
#[must_use]
pub fn matches(meta: &FileMeta, wire: &[u8]) -> bool {
    meta.length == wire.len() as u64
        && meta
            .hashes
            .get("sha256")
            .is_some_and(|digest| digest == &Sha256::digest(wire)[..])
        && meta
            .hashes
            .get("sha512")
            .is_none_or(|digest| digest == &Sha512::digest(wire)[..])
}

/// Size limits of files whose length nothing states yet (notary `client`).
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
