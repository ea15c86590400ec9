//! The documents of a collection, as types. Unknown members are refused.
//!
//! Every document keeps what it needs to be written again byte for byte: the order of key IDs,
//! `null` against `[]`, the text of its expiry, the text of `custom`.

use std::collections::BTreeMap;

use crate::{
    json,
    key::{KeyId, PublicKey, Signature},
    role::RoleName,
    time::{Expiry, UnixTime},
};

mod hashes;
mod read;
mod tags;
mod write;

pub use hashes::{Hashes, HashesRef};
pub(crate) use read::{Read, file};
pub use tags::{Iter as TagsIter, Tags};
pub(crate) use write::write_targets;

/// A body of one of the four types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// `_type: Root`
    Root(Root),
    /// `_type: Snapshot`
    Snapshot(Snapshot),
    /// `_type: Targets`, delegations too.
    Targets(Targets),
    /// `_type: Timestamp`
    Timestamp(Timestamp),
}

/// Which keys sign for which base role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// False in everything that Notary writes.
    pub consistent_snapshot: bool,
    /// When it ends.
    pub expires: Expiry,
    /// All keys that roles refer to, and old root certificates.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// root, snapshot, targets, timestamp: all four mandatory.
    pub roles: BTreeMap<RoleName, RoleKeys>,
    /// From 1; at most 2^31-1.
    pub version: u32,
}

/// The keys of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleKeys {
    /// In the order of the document.
    pub key_ids: Vec<KeyId>,
    /// At least 1.
    pub threshold: u32,
}

/// A targets file: tags, and who else may sign some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Always present on the wire.
    pub delegations: Delegations,
    /// When it ends.
    pub expires: Expiry,
    /// Tag to target.
    pub targets: Tags,
    /// From 1; at most 2^31-1.
    pub version: u32,
}

/// Roles below this one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delegations {
    /// Keys of these roles.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// `None` is `null`: what Go writes after the last delegation was removed.
    pub roles: Option<Vec<Delegation>>,
}

/// One delegated role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegation {
    /// `None` is `null`: all keys were removed.
    pub key_ids: Option<Vec<KeyId>>,
    /// Full name.
    pub name: RoleName,
    /// Plain prefixes; `""` is everything; none: the role can sign nothing. Omitted when empty.
    pub paths: Vec<String>,
    /// At least 1.
    pub threshold: u32,
}

/// One signed tag: digest and size of its manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Canonical text of the `custom` member, if any.
    pub custom: Option<String>,
    /// Docker writes `sha256` only.
    pub hashes: Hashes,
    /// Bytes.
    pub length: u64,
}

/// A [`Target`], borrowed from [`Tags`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetRef<'a> {
    /// Canonical text of the `custom` member, if any.
    pub custom: Option<&'a str>,
    /// Docker writes `sha256` only.
    pub hashes: HashesRef<'a>,
    /// Bytes.
    pub length: u64,
}

/// Hash and length of every document of the collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When it ends.
    pub expires: Expiry,
    /// Role name without `.json`.
    pub meta: BTreeMap<RoleName, FileMeta>,
    /// From 1.
    pub version: u32,
}

/// Hash and length of the newest snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timestamp {
    /// When it ends, fourteen days after signing.
    pub expires: Expiry,
    /// `snapshot` only.
    pub meta: BTreeMap<RoleName, FileMeta>,
    /// From 1.
    pub version: u32,
}

/// What a snapshot or timestamp says of a file: the complete wire bytes, signatures included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMeta {
    /// `sha256` always, `sha512` usually.
    pub hashes: Hashes,
    /// Bytes.
    pub length: u64,
}

/// Why bytes are not a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// A member is missing, unknown, or of the wrong form; the path says which.
    #[error("{path}: {why}")]
    Form {
        /// `signed.roles.root.threshold`
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not JSON as we take it.
    #[error(transparent)]
    Json(#[from] json::JsonError),
    /// A document, but its bytes are not the ones that Notary would sign for it.
    #[error("the bytes are not in canonical form")]
    NotCanonical,
    /// Larger than the limit for its role.
    #[error("{size} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Bytes found.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// `_type` says something else.
    #[error("expected type {expected}, not {found:?}")]
    WrongType {
        /// Wanted.
        expected: &'static str,
        /// Found.
        found: String,
    },
}

/// A body of a known type.
pub trait Body: Clone + Sized {
    /// `Root`, `Targets`, `Snapshot`, `Timestamp`.
    const TYPE: &'static str;

    /// Reads the `signed` member.
    ///
    /// # Errors
    ///
    /// When a member is missing, unknown or malformed.
    fn from_value(signed: &json::Value<'_>) -> Result<Self, DocumentError> {
        Self::from_streamed(signed, None)
    }

    /// As [`Body::from_value`], where the tags were read before and are left out of `signed`.
    ///
    /// # Errors
    ///
    /// As [`Body::from_value`].
    fn from_streamed(signed: &json::Value<'_>, tags: Option<Tags>) -> Result<Self, DocumentError>;

    /// The bytes that are signed.
    fn canonical(&self) -> Vec<u8>;

    /// Whether these are the bytes that are signed.
    fn is_canonical(&self, bytes: &[u8]) -> bool {
        self.canonical() == bytes
    }

    /// The counter of this document.
    fn version(&self) -> u32;

    /// When it ends.
    fn expires(&self) -> &Expiry;
}

macro_rules! body {
    ($name:ident, $tags:ident => $read:expr, $same:expr) => {
        impl Body for $name {
            const TYPE: &'static str = stringify!($name);

            fn from_streamed(
                signed: &json::Value<'_>,
                $tags: Option<Tags>,
            ) -> Result<Self, DocumentError> {
                $read(signed)
            }

            fn canonical(&self) -> Vec<u8> {
                self.write()
            }

            fn is_canonical(&self, bytes: &[u8]) -> bool {
                $same(self, bytes)
            }

            fn version(&self) -> u32 {
                self.version
            }

            fn expires(&self) -> &Expiry {
                &self.expires
            }
        }
    };
    ($name:ident) => {
        body!($name, _tags => Self::read, |body: &Self, bytes| body.write() == bytes);
    };
}
body!(Root);
body!(Targets, tags => |signed| Self::read(signed, tags), Self::writes);
body!(Snapshot);
body!(Timestamp);

impl Document {
    /// Reads canonical `signed` bytes of whatever type they say they are. Bytes that are not
    /// exactly what [`Body::canonical`] would give are refused.
    ///
    /// # Errors
    ///
    /// When it is no document, or not in canonical form.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, DocumentError> {
        let document = match read::canonical(bytes) {
            Some(document) => document,
            None => read::any(&json::parse(bytes)?, None)?,
        };
        let is_canonical = match &document {
            Self::Root(d) => d.is_canonical(bytes),
            Self::Snapshot(d) => d.is_canonical(bytes),
            Self::Targets(d) => d.is_canonical(bytes),
            Self::Timestamp(d) => d.is_canonical(bytes),
        };
        if !is_canonical {
            return Err(DocumentError::NotCanonical);
        }
        Ok(document)
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        match self {
            Self::Root(d) => d.canonical(),
            Self::Snapshot(d) => d.canonical(),
            Self::Targets(d) => d.canonical(),
            Self::Timestamp(d) => d.canonical(),
        }
    }

    /// The counter.
    #[must_use]
    pub fn version(&self) -> u32 {
        match self {
            Self::Root(d) => d.version,
            Self::Snapshot(d) => d.version,
            Self::Targets(d) => d.version,
            Self::Timestamp(d) => d.version,
        }
    }

    /// When it ends.
    #[must_use]
    pub fn expires(&self) -> &Expiry {
        match self {
            Self::Root(d) => &d.expires,
            Self::Snapshot(d) => &d.expires,
            Self::Targets(d) => &d.expires,
            Self::Timestamp(d) => &d.expires,
        }
    }
}

impl Target {
    /// A manifest as docker signs it: its digest and size.
    #[must_use]
    pub fn of_manifest(sha256: [u8; 32], length: u64) -> Self {
        Self {
            custom: None,
            hashes: Hashes::of_sha256(sha256),
            length,
        }
    }

    /// Borrowed.
    #[must_use]
    pub fn as_ref(&self) -> TargetRef<'_> {
        TargetRef {
            custom: self.custom.as_deref(),
            hashes: self.hashes.as_ref(),
            length: self.length,
        }
    }
}

impl TargetRef<'_> {
    /// Owned.
    #[must_use]
    pub fn to_target(self) -> Target {
        Target {
            custom: self.custom.map(str::to_owned),
            hashes: self.hashes.to_hashes(),
            length: self.length,
        }
    }
}

impl PartialEq<Target> for TargetRef<'_> {
    fn eq(&self, other: &Target) -> bool {
        *self == other.as_ref()
    }
}

impl FileMeta {
    /// What a snapshot says of these wire bytes: SHA-256 and SHA-512, as Notary writes them.
    #[must_use]
    pub fn of(wire: &[u8]) -> Self {
        use sha2::{Digest, Sha256, Sha512};

        let (short, long) = (Sha256::digest(wire), Sha512::digest(wire));
        let hashes = [("sha256", short.as_slice()), ("sha512", long.as_slice())];
        Self {
            hashes: Hashes::pack(hashes.into_iter()),
            length: wire.len() as u64,
        }
    }
}

impl Targets {
    /// A fresh file: no tags, `{"keys":{},"roles":[]}`.
    #[must_use]
    pub fn empty(version: u32, now: UnixTime) -> Self {
        Self {
            delegations: Delegations {
                keys: BTreeMap::new(),
                roles: Some(Vec::new()),
            },
            expires: Expiry::at(now + crate::time::lifetime::TARGETS),
            targets: Tags::default(),
            version,
        }
    }
}

/// The wire bytes of a signed document: `{"signed":…,"signatures":[…]}`, no trailing newline.
///
/// `canonical` is what was signed. Signatures are written in the order given.
#[must_use]
pub fn to_wire(canonical: &[u8], signatures: &[Signature]) -> Vec<u8> {
    let mut out = Vec::with_capacity(canonical.len() + 64 + 256 * signatures.len());
    out.extend_from_slice(SIGNED);
    json::write_wire(&mut out, canonical);
    write_signatures(&mut out, signatures);
    out
}

/// As [`to_wire`], in the memory of the signed bytes where they go on the wire as they are.
pub(crate) fn into_wire(canonical: Vec<u8>, signatures: &[Signature]) -> Vec<u8> {
    if json::is_escaped(&canonical) {
        return to_wire(&canonical, signatures);
    }
    let mut out = canonical;
    out.splice(..0, SIGNED.iter().copied());
    write_signatures(&mut out, signatures);
    out.shrink_to_fit();
    out
}

/// How a file begins: its signed bytes follow.
pub(crate) const SIGNED: &[u8] = b"{\"signed\":";

fn write_signatures(out: &mut Vec<u8>, signatures: &[Signature]) {
    out.extend_from_slice(b",\"signatures\":[");
    for (index, signature) in signatures.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"keyid\":");
        json::write_string(out, &signature.key_id.to_string());
        out.extend_from_slice(b",\"method\":");
        json::write_string(out, signature.method.as_str());
        out.extend_from_slice(b",\"sig\":");
        json::write_base64(out, &signature.bytes);
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
}

#[cfg(test)]
mod tests;
