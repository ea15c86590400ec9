//! The next version of a collection.
//!
//! An [`Edit`] takes changes, yields *signing requests* (canonical bytes and the key IDs that
//! should sign them), takes signatures, and hands out wire bytes for one upload. Where the client
//! holds the snapshot key, the snapshot is a second step, because it names files by the hash of
//! their wire bytes.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    cert::Certificate,
    document::{RoleKeys, Root, Snapshot, Target, Targets},
    gun::Gun,
    json,
    key::{KeyError, KeyId, PublicKey, Signature},
    pin::Pin,
    role::RoleName,
    time::{Expiry, UnixTime, lifetime},
    update::Trusted,
    verify::{self, Raw, Verified, VerifyError},
};

mod draft;
mod roles;
mod step;

use draft::Draft;
use roles::admits;
pub use roles::signable_roles;

/// Bytes to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningRequest {
    /// Whose document.
    pub role: RoleName,
    /// Canonical `signed`; of a large collection, so shared with the edit.
    pub payload: Arc<Vec<u8>>,
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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    #[error("no delegation that admits {tag:?} has a key here{}", would_do(.needed))]
    NoSignableRole {
        /// The tag.
        tag: String,
        /// Canonical IDs that would do.
        needed: Vec<KeyId>,
    },
    /// A tag that Go could not write or read back, or docker would not take.
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
    /// A first root that was saved cannot be published again.
    #[error("the saved root of {gun} cannot be used again")]
    Saved {
        /// Of which collection.
        gun: Gun,
        /// Why.
        source: VerifyError,
    },
    /// Nothing above it lists the role, or it is no role that lists tags.
    #[error("{0} is not a role of this repository that lists tags")]
    UnknownRole(RoleName),
    /// A snapshot was asked for before all that it names was signed.
    #[error("{0} is not signed yet")]
    Unsigned(RoleName),
}

fn would_do(ids: &[KeyId]) -> String {
    if ids.is_empty() {
        String::new()
    } else {
        format!("; one of {} would do", list(ids))
    }
}

fn list(ids: &[KeyId]) -> String {
    ids.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
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

/// A set of changes to one collection.
#[derive(Debug)]
pub struct Edit {
    gun: Gun,
    now: UnixTime,
    root: RootState,
    published: BTreeMap<RoleName, Verified<Targets>>,
    drafts: BTreeMap<RoleName, Draft>,
    snapshot: SnapshotState,
}

/// The root in force, and the one to be uploaded.
#[derive(Debug)]
struct RootState {
    /// Verified and published, or saved by a first publish that never arrived.
    current: Option<Verified<Root>>,
    /// The saved one goes up again as it is.
    upload_current: bool,
    /// A new one: of a new collection, or because the current one ends soon.
    draft: Option<Root>,
    /// A new collection cannot do without it.
    draft_is_needed: bool,
    signatures: Vec<Signature>,
}

#[derive(Debug)]
struct SnapshotState {
    published: Option<Verified<Snapshot>>,
    /// Whether its key must be held: said on creation.
    must_be_ours: bool,
    version: u32,
    draft: Option<Snapshot>,
    signatures: Vec<Signature>,
}

impl Edit {
    /// A new collection: root v1 and targets v1 (`version` where the guard asks for another).
    ///
    /// # Errors
    ///
    /// When a key is malformed, or the root key's certificate is not one for this GUN.
    pub fn init(
        gun: Gun,
        keys: NewCollection,
        versions: InitVersions,
        now: UnixTime,
    ) -> Result<Self, EditError> {
        let fault = |role: &RoleName, source| EditError::Key {
            role: role.clone(),
            source,
        };
        if !keys.root.key_type().is_x509() {
            let source = KeyError::Malformed("a root key is listed as a certificate");
            return Err(fault(&RoleName::Root, source));
        }
        Certificate::from_pem(keys.root.public())
            .and_then(|certificate| {
                certificate.check(&gun, now).map_err(|_| {
                    KeyError::Malformed("its certificate does not stand for this repository")
                })
            })
            .map_err(|source| fault(&RoleName::Root, source))?;
        let mut listed = BTreeMap::new();
        let mut roles = BTreeMap::new();
        for (role, key) in [
            (RoleName::Root, keys.root),
            (RoleName::Targets, keys.targets),
            (RoleName::Snapshot, keys.snapshot),
            (RoleName::Timestamp, keys.timestamp),
        ] {
            key.algorithm().map_err(|source| fault(&role, source))?;
            let id = key.id();
            listed.insert(id, key);
            roles.insert(
                role,
                RoleKeys {
                    key_ids: vec![id],
                    threshold: 1,
                },
            );
        }
        let root = Root {
            consistent_snapshot: false,
            expires: Expiry::at(now.saturating_add(lifetime::ROOT)),
            keys: listed,
            roles,
            version: versions.root,
        };
        Ok(Self {
            gun,
            now,
            root: RootState {
                current: None,
                upload_current: false,
                draft: Some(root),
                draft_is_needed: true,
                signatures: Vec::new(),
            },
            published: BTreeMap::new(),
            drafts: BTreeMap::from([(RoleName::Targets, Draft::fresh(versions.targets, now))]),
            snapshot: SnapshotState::new(None, keys.snapshot_is_ours, versions.snapshot),
        })
    }

    /// A first publish that was signed before and never arrived: the same root again, unchanged.
    /// The snapshot, if it is ours, gets the version of targets.
    ///
    /// # Errors
    ///
    /// When the root cannot be read, does not verify, or has expired.
    pub fn resume_init(
        gun: Gun,
        root_wire: Vec<u8>,
        targets_version: u32,
        now: UnixTime,
    ) -> Result<Self, EditError> {
        let root = Raw::parse(root_wire, verify::limit::ROLE)
            .map_err(|source| VerifyError::Unreadable {
                role: RoleName::Root,
                source,
            })
            .and_then(|raw| verify::first_root(raw, &gun, &Pin::FirstUse, now))
            .and_then(|root| root.check_expiry(&RoleName::Root, now).map(|()| root))
            .map_err(|source| EditError::Saved {
                gun: gun.clone(),
                source,
            })?;
        Ok(Self {
            gun,
            now,
            root: RootState {
                current: Some(root),
                upload_current: true,
                draft: None,
                draft_is_needed: false,
                signatures: Vec::new(),
            },
            published: BTreeMap::new(),
            drafts: BTreeMap::from([(RoleName::Targets, Draft::fresh(targets_version, now))]),
            snapshot: SnapshotState::new(None, false, targets_version),
        })
    }

    /// The next version of a published collection.
    #[must_use]
    pub fn of(trusted: &Trusted, now: UnixTime) -> Self {
        let root = trusted.root();
        let draft = root.doc().expires.is_near(now).then(|| Root {
            expires: Expiry::at(now.saturating_add(lifetime::ROOT)),
            version: root.doc().version.saturating_add(1),
            ..root.doc().clone()
        });
        let snapshot = trusted.snapshot.clone();
        let version = snapshot.doc().version.saturating_add(1);
        Self {
            gun: trusted.gun.clone(),
            now,
            root: RootState {
                current: Some(root.clone()),
                upload_current: false,
                draft,
                draft_is_needed: false,
                signatures: Vec::new(),
            },
            published: trusted.targets.clone(),
            drafts: BTreeMap::new(),
            snapshot: SnapshotState::new(Some(snapshot), false, version),
        }
    }

    /// Whether the root ends within six months. It is then part of the first step where its key is
    /// held; where it is not, nothing fails, and somebody should be told.
    #[must_use]
    pub fn root_needs_resign(&self) -> bool {
        self.root.draft.is_some() && !self.root.draft_is_needed
    }

    /// Whether there is nothing to publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.drafts.is_empty() && !self.root.upload_current && !self.root.draft_is_needed
    }

    /// Adds or replaces a tag in `role`.
    ///
    /// # Errors
    ///
    /// [`EditError::BadTag`]; [`EditError::UnknownRole`].
    pub fn add(&mut self, role: &RoleName, tag: &str, target: Target) -> Result<(), EditError> {
        let bad = |why| {
            Err(EditError::BadTag {
                tag: tag.chars().take(128).collect(),
                why,
            })
        };
        if tag.is_empty() {
            return bad("it is empty");
        }
        if tag.len() > MAX_TAG {
            return bad("it is longer than 1,024 bytes");
        }
        if tag.chars().any(char::is_control) {
            return bad("it contains a control character");
        }
        if target.hashes.is_empty() {
            return bad("it has no digest");
        }
        if target.length > MAX_LENGTH {
            return bad("its size is not one that every client reads");
        }
        if target
            .custom
            .as_deref()
            .is_some_and(|custom| !is_plain_custom(custom))
        {
            return bad("its custom data is not such that Go clients verify what they sign");
        }
        if let Some(parent) = role.parent() {
            let parent = self
                .published
                .get(&parent)
                .map(|parent| &parent.doc().delegations);
            let listed = parent.and_then(|parent| {
                parent
                    .roles
                    .iter()
                    .flatten()
                    .find(|listed| listed.name == *role)
            });
            match listed {
                None => return Err(EditError::UnknownRole(role.clone())),
                Some(listed) if !admits(listed, tag) => {
                    return bad("the paths of the delegation do not admit it");
                }
                Some(_) => {}
            }
        }
        self.draft(role)?.set(tag, Some(target));
        self.snapshot.changed();
        Ok(())
    }

    /// Removes a tag from `role`.
    ///
    /// # Errors
    ///
    /// [`EditError::NotSigned`]; [`EditError::UnknownRole`].
    pub fn remove(&mut self, role: &RoleName, tag: &str) -> Result<(), EditError> {
        let is_signed = match self.drafts.get(role) {
            Some(draft) => draft.has(tag),
            None => self
                .published
                .get(role)
                .is_some_and(|document| document.doc().targets.contains_key(tag)),
        };
        if !is_signed {
            return Err(EditError::NotSigned(tag.to_owned()));
        }
        self.draft(role)?.set(tag, None);
        self.snapshot.changed();
        Ok(())
    }

    /// Raises the version of `role`'s next document to what the guard said (`next`).
    pub fn set_version(&mut self, role: &RoleName, version: u32) {
        match role {
            RoleName::Root => {
                if let Some(root) = self
                    .root
                    .draft
                    .as_mut()
                    .filter(|root| root.version < version)
                {
                    root.version = version;
                    self.root.signatures.clear();
                }
            }
            RoleName::Snapshot => {
                self.snapshot.version = self.snapshot.version.max(version);
            }
            RoleName::Timestamp => return,
            RoleName::Targets | RoleName::Delegation(_) => {
                if let Some(draft) = self.drafts.get_mut(role) {
                    draft.raise(version);
                }
            }
        }
        self.snapshot.changed();
    }

    /// The next version of a role that lists tags.
    fn draft(&mut self, role: &RoleName) -> Result<&mut Draft, EditError> {
        if !role.is_targets_like() {
            return Err(EditError::UnknownRole(role.clone()));
        }
        if !self.drafts.contains_key(role) {
            self.signers(role)?;
        }
        let (published, now) = (&self.published, self.now);
        Ok(self
            .drafts
            .entry(role.clone())
            .or_insert_with(|| match published.get(role) {
                Some(document) => Draft::after(document.clone(), now),
                None => Draft::fresh(1, now),
            }))
    }
}

impl SnapshotState {
    fn new(published: Option<Verified<Snapshot>>, must_be_ours: bool, version: u32) -> Self {
        Self {
            published,
            must_be_ours,
            version,
            draft: None,
            signatures: Vec::new(),
        }
    }

    /// It names files by their bytes: with any of them it has to be made anew.
    fn changed(&mut self) {
        self.draft = None;
        self.signatures.clear();
    }
}

/// Whether a Go client signs the same bytes for this custom data as it verifies: it signs the text
/// that it was given, and verifies what it re-encoded.
fn is_plain_custom(custom: &str) -> bool {
    custom
        .bytes()
        .all(|byte| (0x20..0x7f).contains(&byte) && !matches!(byte, b'<' | b'>' | b'&' | b'\\'))
        && json::parse(custom.as_bytes()).is_ok_and(|value| value.canonical() == custom.as_bytes())
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
        Self {
            root: 1,
            targets: 1,
            snapshot: 1,
        }
    }
}

/// Longer than any tag that docker takes (128).
const MAX_TAG: usize = 1024;
/// 2^53: beyond it numbers lose digits in the Go client.
const MAX_LENGTH: u64 = 1 << 53;
